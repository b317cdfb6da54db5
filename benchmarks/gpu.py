"""``python -m benchmarks.gpu``: everything that waits for a GPU, in one command and under ten minutes.

Builds the package if it is not built, runs the kernels' tests and 1,000 random shapes a kernel on the device, then the
benchmarks, and writes ``results/<device>-<date>.json`` and the same as a table in Markdown.  Needs torch, triton, NumPy
and pytest; what trains on recorded games (a test of compiled runs, the loss curves) is left out where the package's own
requirements are not installed.  A step that fails does not stop the others; the exit code says whether all passed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LIMIT = 570.0
"""Seconds for everything, less what it takes to begin and to end within ten minutes."""
KERNEL_BENCHMARKS = (
    "test_attention.py", "test_vq_lookup.py", "test_c51_loss.py", "test_linear_cross_entropy.py",
    "test_tree_attention.py",
)  # fmt: skip
PLANNING_BENCHMARKS = ("test_planning.py",)
TRAINING_BENCHMARKS = ("test_training.py",)
TRAINING_NEEDS = ("ale_py", "cv2", "google_crc32c", "gymnasium", "numcodecs", "rich", "scipy", "zarr")
"""What training on data sets imports beside torch, triton, NumPy and pytest, which are enough for everything else."""
LEFT_OUT = "left out"


@dataclass(frozen=True)
class Step:
    """One command of the run."""

    name: str
    command: list[str]
    share: float
    """Of the time that is left when it starts, at most."""
    needs: tuple[str, ...] = ()
    """Modules without which it is left out."""


def steps(count: int, device: str) -> list[Step]:
    """What is run, in order: what can be wrong first, what takes long last."""
    python = sys.executable
    pytest = [python, "-m", "pytest", "-q", "-rs", "--override-ini", "addopts=--import-mode=importlib --strict-markers"]
    decisions = ["tests/planner/test_device_beam.py", "tests/planner/test_device_mcts.py"]
    folders = ["tests/kernels", *decisions, "tests/csrc/test_device_trees.py"]
    # A rehearsal leaves out the slow ones, which wait for compilers; make test runs them.
    chosen_tests = ["-m", "gpu" if device == "cuda" else "not slow"]
    shapes = [python, "-m", "benchmarks.random_shapes", "--device", device, "--count"]
    planned = []
    if importlib.util.find_spec("jowa._native") is None:
        build = [python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "-e", "."]
        planned.append(Step("build", build, 0.3))
    planned += [
        Step("kernels' and planners' tests", [*pytest, *folders, *chosen_tests], 0.4),
        Step("training's tests", [*pytest, "tests/train/test_compile.py", *chosen_tests], 0.3, TRAINING_NEEDS),
        Step("random shapes", [*shapes, str(count)], 0.5),
    ]
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer and device == "cuda":
        planned.append(Step("compute-sanitizer", [sanitizer, "--error-exitcode", "9", *shapes, "3"], 0.3))
    benchmarks = {"kernels": (0.4, KERNEL_BENCHMARKS), "training": (0.6, TRAINING_BENCHMARKS)}
    for name, (share, chosen) in (benchmarks | {"planning": (1.0, PLANNING_BENCHMARKS)}).items():
        files = [f"benchmarks/{file}" for file in chosen]
        planned.append(Step(f"benchmarks of {name}", [*pytest, "-s", *files], share))
    return planned


def run_all(planned: list[Step], say: Callable[[str], None]) -> dict[str, str]:
    """Run the steps; what became of each: passed, failed (code), out of time, or left out."""
    ends, outcomes = time.monotonic() + LIMIT, {}
    for number, step in enumerate(planned, 1):
        missing = [module for module in step.needs if importlib.util.find_spec(module) is None]
        if missing:
            outcomes[step.name] = f"{LEFT_OUT}, needs {', '.join(missing)}: pip install -e . brings them"
            say(f"== {number}/{len(planned)} {step.name}: {outcomes[step.name]}")
            continue
        left = ends - time.monotonic()
        say(f"== {number}/{len(planned)} {step.name}, {left:.0f} s left: {' '.join(step.command)}")
        began = time.monotonic()
        code = run_step(step, max(left * step.share, 1))
        outcome = "out of time" if code is None else "passed" if code == 0 else f"failed ({code})"
        outcomes[step.name] = f"{outcome}, {time.monotonic() - began:.0f} s"
        say(f"== {step.name}: {outcomes[step.name]}")
    return outcomes


def run_step(step: Step, seconds: float) -> int | None:
    """Its exit code; None: it was ended after so many ``seconds``, with every process that it had started."""
    with subprocess.Popen(step.command, cwd=ROOT, start_new_session=True) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def table(document: dict[str, Any]) -> str:
    """A results file as Markdown; only what was measured is in it."""
    lines = [f"# {document['device']}, {document['date']}", ""]
    lines += [", ".join(f"{name} {version}" for name, version in document["versions"].items()), ""]
    lines += ["| claim | shapes | ours | rival | ratio | more |", "| --- | --- | ---: | ---: | ---: | --- |"]
    for row in document["rows"]:
        # A row without a rival may have its own figure in seconds.
        compared = isinstance(row.get("seconds"), dict)
        seconds = row["seconds"] if compared else {}
        ours, rival = (f"{seconds[name] * 1e3:.3g} ms" if name in seconds else "" for name in ("ours", "rival"))
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        known = {"claim", "shapes", "ratio"} | ({"runs", "seconds"} if compared else set())
        more = ", ".join(f"{key} {_short(value)}" for key, value in row.items() if key not in known)
        lines.append(f"| {row['claim']} | {row['shapes']} | {ours} | {rival} | {ratio} | {more} |")
    return "\n".join(lines) + "\n"


def is_measured(document: dict[str, Any]) -> bool:
    """Whether a results file holds rows as ``pytest benchmarks`` writes them; others have tables of their own."""
    rows = document.get("rows")
    return "versions" in document and isinstance(rows, list) and all("claim" in row for row in rows)


def _short(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def write_tables() -> list[Path]:
    """A table beside each results file that has rows of benchmarks and none that is newer."""
    written = []
    for path in sorted(RESULTS.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        beside = path.with_suffix(".md")
        newer = beside.exists() and beside.stat().st_mtime >= path.stat().st_mtime
        if is_measured(document) and not newer:
            beside.write_text(table(document), encoding="utf-8")
            written.append(beside)
    return written


def main() -> None:
    """Run everything and say what passed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--count", type=int, help="random shapes a kernel; 1000 on a GPU, 30 in a rehearsal")
    parser.add_argument("--rehearse", action="store_true", help="run on a CPU what a CPU can run, to try the command")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.rehearse:
        raise SystemExit("error: torch sees no CUDA device: nothing to run here; --rehearse tries the command on a CPU")
    device = "cpu" if options.rehearse else "cuda"
    name = "a CPU" if options.rehearse else torch.cuda.get_device_name()
    print(f"== {name}, torch {torch.__version__}, Python {sys.version.split()[0]}", flush=True)
    count = options.count or (30 if options.rehearse else 1000)
    outcomes = run_all(steps(count, device), lambda text: print(text, flush=True))
    tables = [str(path.relative_to(ROOT)) for path in write_tables()]
    print("\n".join(f"{name}: {outcome}" for name, outcome in outcomes.items()))
    print(f"tables: {', '.join(tables) or 'none, nothing was measured'}")
    raise SystemExit(0 if all(outcome.startswith(("passed", LEFT_OUT)) for outcome in outcomes.values()) else 1)


if __name__ == "__main__":
    main()
