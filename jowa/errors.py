"""The errors a user may meet, and how a command turns them into one line.

Every message says what was wrong, what was expected and what to do.  Exit codes follow the
shell's habit: 2 for a mistake in how the command was called, 1 for anything else.
"""

from __future__ import annotations

import difflib
import errno
import functools
import sys
from collections.abc import Callable, Iterable


class JowaError(Exception):
    """A failure with a message meant for the user; ``exit_code`` is what a command returns."""

    exit_code = 1


class UsageError(JowaError):
    """The call itself is wrong: an unknown game, preset, key, planner or option value."""

    exit_code = 2


class DataError(JowaError):
    """A data set is missing, empty, of another schema version, or damaged."""


class CheckpointError(JowaError):
    """A checkpoint or agent folder is missing, damaged, or does not fit its configuration."""


class NumericalError(JowaError):
    """A loss or gradient is not finite."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a ``name`` that is not one of ``known``: suggests the nearest ones."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of: {', '.join(names)}"
    return UsageError(f"unknown {kind} {name!r}: {hint}")


def describe_os_error(error: OSError) -> str:
    """One sentence for the file-system failures that a long job meets."""
    where = f" at {error.filename}" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{where}: free some space or choose another folder and rerun; what was finished is kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to write{where}: choose a folder you own or change its permissions"
    return f"{error.strerror or error}{where}"


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a command's ``main`` so that a :class:`JowaError` ends it with one line on stderr."""

    @functools.wraps(main)
    def wrapped() -> None:
        try:
            main()
        except JowaError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        except OSError as error:
            print(f"error: {describe_os_error(error)}", file=sys.stderr)
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(130) from None

    return wrapped
