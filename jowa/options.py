"""Options of a command from a typed dataclass, with mistakes reported like every other error: in one line."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, TypeVar

from jowa.errors import UsageError

Config = TypeVar("Config")


def parse_options(
    config: type[Config], prog: str, first: str | None = None, arguments: Sequence[str] | None = None, **how: Any
) -> Config:
    """``config`` filled from ``arguments`` (default: the command line); ``how`` goes to ``tyro.cli``.

    ``first``: the name of the first positional, which is then understood as an option of that name, too.

    Raises :class:`UsageError` for an unknown option, a value of the wrong type, or a missing one.
    """
    import tyro

    said = io.StringIO()
    arguments = sys.argv[1:] if arguments is None else arguments
    if first is not None:
        arguments = in_front(arguments, f"--{first}")
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(config, prog=prog, args=arguments, **how)
    except SystemExit as ended:
        if ended.code:
            raise UsageError(f"{summary(said.getvalue())}; {prog} --help lists the options") from None
        sys.stderr.write(said.getvalue())
        raise


def in_front(arguments: Sequence[str], option: str) -> list[str]:
    """``arguments`` with the value of ``option`` at their head, as a positional, and ``option`` gone.

    ``option`` without a value is left for the parser to complain about.
    """
    values, others = [], list(arguments)
    for index, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            values, others = [argument.removeprefix(f"{option}=")], [*arguments[:index], *arguments[index + 1 :]]
        elif argument == option and index + 1 < len(arguments):
            values, others = [arguments[index + 1]], [*arguments[:index], *arguments[index + 2 :]]
        else:
            continue
        break
    return values + others


def summary(box: str) -> str:
    """The first part of tyro's framed message, with the options that it suggests, in one line."""
    rows = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    parts: list[list[str]] = [[]]
    for row in rows:
        if set(row) == {"─"}:
            parts.append([])
        elif row:
            parts[-1].append(row)
    # An option that may be left out has None among its choices, which nobody would type.
    what = " ".join(parts[0]).rstrip(".").replace(", 'None'", "").replace("'None', ", "")
    rows = [row for part in parts if part[:1] == ["Perhaps you meant:"] for row in part]
    # A row begins with all names of one option: --on, --off.
    meant = [name.rstrip(",") for row in rows for name in takewhile(lambda word: word[:2] == "--", row.split())]
    return f"{what}; did you mean {' or '.join(meant)}?" if meant else what
