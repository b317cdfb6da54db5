"""``python -m jowa.conformance FOLDER``: run a folder of recorded cases and report how far off we are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

import torch

from jowa.conformance import TOLERANCES, load_cases, run_groups
from jowa.conformance.compare import table
from jowa.devices import choose_device
from jowa.errors import UsageError, command

DESCRIPTION = """\
Run a folder of cases that the published implementation recorded (tokenizer.pt, JOWA.pt, inputs.npz,
expected.npz, cases.json), of any sizes and games, and compare.  Prints one row a group; exits 1 on any
disagreement.  In float32 tokens and actions must be equal and floats within 1e-4 relative or 1e-5 absolute.
In bfloat16 and float16 the tolerances are looser and printed; there the planner is compared by score."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; {self.prog} --help lists the options")


@command
def main() -> None:
    """Parse the options, run every group, print the table."""
    parser = _Parser(
        prog="python -m jowa.conformance", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder of cases")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--dtype", default="float32", choices=TOLERANCES, help="precision (default: float32)")
    options = parser.parse_args()
    if not options.folder.is_dir():
        raise UsageError(f"{options.folder} is not a folder: name a folder of cases, such as tests/golden")
    device = choose_device(options.device)
    precision = None if options.dtype == "float32" else getattr(torch, options.dtype)
    cases = load_cases(options.folder, device)
    results = list(run_groups(cases, TOLERANCES[options.dtype], precision))
    print(f"{options.folder} on {device} in {options.dtype}")
    print(table(results))
    if not all(result.passed for result in results):
        raise SystemExit(1)
    print("all agree")


if __name__ == "__main__":
    main()
