"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

PARTIAL = ".partial"
"""Ending of what is not finished yet."""


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary path beside ``path``, then put the result in its place.

    The data reach the disk before the name does.  On any failure ``path`` is as it was, and the
    temporary file is gone.  Raises what ``write`` raises, OSError (disk full, no permission) among it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write_text(path: Path, text: str) -> None:
    """:func:`atomic_write` of a UTF-8 string."""
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def flush_folder(folder: Path) -> None:
    """Have the names in ``folder`` reach the disk, as ``fsync`` does for what files hold."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_asking = threading.Lock()


def _umask() -> int:
    with _asking:  # asking means setting: two threads at once would leave it at 0
        mask = os.umask(0)
        os.umask(mask)
    return mask
