"""One writer at a time, and what a writer that was killed left behind."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from jowa.errors import DataError
from jowa.files import PARTIAL

LOCK_NAME = "writer.lock"
_TEMPORARY_ROOT = re.compile(r"\.?zarr\..*" + re.escape(PARTIAL))


def is_blank(folder: Path) -> bool:
    """Whether ``folder`` is missing, empty, or holds only what a writer killed at its very beginning leaves."""
    if not folder.exists():
        return True
    return all(e.name == LOCK_NAME or _TEMPORARY_ROOT.fullmatch(e.name) for e in folder.iterdir())


def take_lock(folder: Path) -> int:
    """The open lock file's descriptor; :class:`DataError` when another process has it."""
    # The kernel lets go of the lock when the process dies, however it dies.
    lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise DataError(
            f"{folder} is being written by another process: wait until it is done, or choose another folder"
        ) from None
    return lock


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Delete what a killed writer left half-made in ``folder``: of its own document, and of the entries ``names``.

    Whatever else lies there belongs to others, finished or not.
    """
    for entry in folder.iterdir():
        if _TEMPORARY_ROOT.fullmatch(entry.name) and entry.is_file():
            entry.unlink(missing_ok=True)
    for name in names:
        shutil.rmtree(folder / (name + PARTIAL), ignore_errors=True)
        for leftover in list((folder / name).rglob("*" + PARTIAL)):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)
