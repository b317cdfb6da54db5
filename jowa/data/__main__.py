"""``python -m jowa.data``: list, check and join data sets, and convert them to and from Minari."""

from __future__ import annotations

from typing import Annotated, Any

from tyro.conf import subcommand

from jowa.data import commands
from jowa.errors import command
from jowa.options import parse_options

VERBS: Any = (
    Annotated[commands.Info, subcommand("info")]
    | Annotated[commands.Verify, subcommand("verify")]
    | Annotated[commands.Merge, subcommand("merge")]
    | Annotated[commands.Export, subcommand("export")]
    | Annotated[commands.Import, subcommand("import")]
)


@command
def main() -> None:
    """Parse the options and run what they name."""
    parse_options(VERBS, "python -m jowa.data", description=__doc__).run()


if __name__ == "__main__":
    main()
