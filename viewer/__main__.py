"""``python -m jowa.viewer``: watch an agent play, and the plans it weighs."""

from __future__ import annotations

from jowa.errors import command
from jowa.options import parse_options
from jowa.viewer.start import Options, leave, run


@command
def main() -> None:
    """Entry point."""
    leave(run(parse_options(Options, "python -m jowa.viewer")))


if __name__ == "__main__":
    main()
