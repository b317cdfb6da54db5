"""Options of a command from a typed dataclass, with mistakes reported like every other error: in one line."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any, TypeVar

from jowa.errors import UsageError

Config = TypeVar("Config")


def parse_options(config: type[Config], prog: str, **how: Any) -> Config:
    """``config`` filled from the command line; ``how`` goes to ``tyro.cli``.

    Raises :class:`UsageError` for an unknown option, a value of the wrong type, or a missing one.
    """
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(config, prog=prog, **how)
    except SystemExit as ended:
        if ended.code:
            raise UsageError(f"{summary(said.getvalue())}; {prog} --help lists the options") from None
        sys.stderr.write(said.getvalue())
        raise


def summary(box: str) -> str:
    """The first part of tyro's framed message, with the options that it suggests, in one line."""
    rows = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    parts: list[list[str]] = [[]]
    for row in rows:
        if set(row) == {"─"}:
            parts.append([])
        elif row:
            parts[-1].append(row)
    what = " ".join(parts[0]).rstrip(".")
    meant = [row.split()[0] for part in parts if part[:1] == ["Perhaps you meant:"] for row in part if row[:2] == "--"]
    return f"{what}; did you mean {' or '.join(meant)}?" if meant else what
