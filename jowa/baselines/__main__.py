"""``python -m jowa.baselines mtbc|mgdt|scaled-ql``: train a rival, play, print the table."""

from __future__ import annotations

import sys
from pathlib import Path

from jowa.baselines.session import run
from jowa.baselines.start import default_config
from jowa.errors import UsageError, command, unknown_name
from jowa.options import parse_options
from jowa.rivals import KINDS, Kind
from jowa.train.distributed import process_group
from jowa.train.stop import Stopped

USAGE = f"""usage: python -m jowa.baselines {{{",".join(KINDS)}}} [options]

Train a rival of the agent offline, on the same data and with the same code around it, and play it.

  mtbc       multi-task behaviour cloning
  mgdt       multi-game decision transformer
  scaled-ql  scaled Q-learning: convolutional C51 with CQL

python -m jowa.baselines RIVAL --help lists its options."""


def option_in(arguments: list[str], name: str) -> str | None:
    """The value of the option ``--name`` among ``arguments``: it decides other defaults, so it is read first."""
    spellings = (f"--{name}", f"--{name.replace('-', '_')}")
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in spellings:
            return value if equals else arguments[index + 1] if index + 1 < len(arguments) else None
    return None


def kind_in(arguments: list[str]) -> Kind:
    """The rival that the first of ``arguments`` names."""
    for kind in KINDS:
        if arguments[:1] == [kind]:
            return kind
    if not arguments:
        raise UsageError(f"name a rival first: {', '.join(KINDS)}")
    raise unknown_name("rival", arguments[0], KINDS)


@command
def main() -> None:
    """Entry point."""
    arguments = sys.argv[1:]
    if arguments[:1] in (["-h"], ["--help"]):
        print(USAGE)
        return
    kind, options = kind_in(arguments), arguments[1:]
    start_from = option_in(options, "start-from")
    default = default_config(kind, option_in(options, "size"), None if start_from is None else Path(start_from))
    config = parse_options(
        type(default), f"python -m jowa.baselines {kind}", default=default, arguments=options,
        description=type(default).__doc__,
    )  # fmt: skip
    try:
        with process_group(config.device) as place:
            run(config, place)
    except Stopped as stopped:
        print(stopped, flush=True)


if __name__ == "__main__":
    main()
