"""The published layout: which files there are, and reading one gzipped .npy in blocks of a few megabytes."""

from __future__ import annotations

import contextlib
import gzip
import posixpath
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Self, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from jowa.data.remote import is_remote, open_filesystem
from jowa.errors import DataError

FILES: dict[str, tuple[str, tuple[int, ...]]] = {
    "observation": ("uint8", (84, 84)),
    "action": ("int32", ()),
    "reward": ("float32", ()),
    "terminal": ("uint8", ()),
}
"""Files of a checkpoint: dtype and the shape of a row."""

BLOCK_BYTES = 4 << 20
"""Rows of a stream are read in blocks of about this size."""

_DAMAGED: tuple[type[Exception], ...] = (gzip.BadGzipFile, EOFError, zlib.error)
_open_gzip: Any = gzip.open
with contextlib.suppress(ImportError):  # isal decodes two to three times as fast
    from isal import igzip, isal_zlib

    _open_gzip = igzip.open
    _DAMAGED = (*_DAMAGED, cast(type[Exception], isal_zlib.error))


@dataclass(frozen=True)
class Checkpoint:
    """One of a run's checkpoints: four files."""

    source: str
    game: str
    run: int
    number: int

    def file(self, kind: str) -> str:
        """The address of the file of ``kind``, one of :data:`FILES`."""
        return posixpath.join(_logs(self.source, self.game, self.run), f"$store$_{kind}_ckpt.{self.number}.gz")


@dataclass(frozen=True)
class Fault:
    """What is wrong with one file of the source."""

    run: int
    number: int
    file: str
    cause: str

    def describe(self) -> str:
        """The file and what is wrong with it."""
        return f"{self.file} {self.cause}"


class BadFile(Exception):
    """A file of the source is missing or damaged, or does not fit the others."""

    def __init__(self, checkpoint: Checkpoint, kind: str, cause: str) -> None:
        super().__init__(cause)
        self.fault = Fault(checkpoint.run, checkpoint.number, checkpoint.file(kind), cause)


def list_checkpoints(source: str, game: str, run: int) -> dict[int, set[str]]:
    """Number → kinds of files that are there, ascending.

    Raises :class:`DataError` when the run has none, or its address cannot be reached.
    """
    folder = _logs(source, game, run)
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if is_remote(source):
            names = [posixpath.basename(entry) for entry in _listed(source, game, run)]
        else:
            names = [entry.name for entry in Path(folder).iterdir()]
    found: dict[int, set[str]] = {}
    for name in names:
        match = re.fullmatch(r"\$store\$_(\w+)_ckpt\.(\d+)\.gz", name)
        if match and match[1] in FILES:
            found.setdefault(int(match[2]), set()).add(match[1])
    if not found:
        raise DataError(
            f"no checkpoints in {folder}: expected files like $store$_observation_ckpt.0.gz there; "
            "check --source, --games and --runs"
        )
    return dict(sorted(found.items()))


def _listed(source: str, game: str, run: int) -> list[str]:
    filesystem, root = _filesystem(source)
    try:
        return list(filesystem.ls(_logs(root, game, run), detail=False, refresh=True))
    except FileNotFoundError:
        raise
    except Exception as error:  # each protocol's client has its own, not all of them OSError
        raise DataError(
            f"{source} cannot be read ({_one_line(error)}): check the connection and --source, then run it again; what "
            "was finished is kept"
        ) from error


class Stream:
    """The rows of one file, in order, block by block; a context manager."""

    def __init__(self, checkpoint: Checkpoint, kind: str, rows: int | None = None) -> None:
        """Open the file and check its header, and that it has ``rows`` rows.  Raises :class:`BadFile`."""
        self.checkpoint = checkpoint
        self.kind = kind
        self._open = contextlib.ExitStack()
        with contextlib.ExitStack() as stack, self._understood():
            raw = stack.enter_context(_open_raw(checkpoint, kind))
            self._file = cast(IO[bytes], stack.enter_context(_open_gzip(raw, "rb")))
            self.rows = self._read_header(rows)
            self._open = stack.pop_all()

    def _read_header(self, rows: int | None) -> int:
        dtype, row = FILES[self.kind]
        version = npy.read_magic(self._file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f".npy version {version}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, found = read(self._file)
        expected = "N" if rows is None else str(rows)
        described = f"expected {dtype} ({', '.join([expected, *map(str, row)])})"
        if found != np.dtype(dtype) or shape[1:] != row or len(shape) != 1 + len(row) or (fortran and row):
            order = " in Fortran order" if fortran and row else ""
            raise BadFile(self.checkpoint, self.kind, f"holds {found} {shape}{order}: {described}")
        if shape[0] < 1 or shape[0] != (rows or shape[0]):
            others = " as its terminal file" if rows else " with N at least 1"
            raise BadFile(self.checkpoint, self.kind, f"holds {found} {shape}: {described}{others}")
        return int(shape[0])

    def blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """(first row, rows) again and again; the rows are valid until the next block is asked for.

        Behind the last block the gzip checksum has been compared.  Raises :class:`BadFile`.
        """
        dtype, row = FILES[self.kind]
        row_bytes = int(np.prod(row, dtype=np.int64)) * np.dtype(dtype).itemsize
        size = max(1, min(BLOCK_BYTES // row_bytes, self.rows))
        buffer = np.empty((size, *row), dtype)
        for first in range(0, self.rows, size):
            block = buffer[: min(size, self.rows - first)]
            self._fill(block.reshape(-1).view(np.uint8).data, first, row_bytes)
            yield first, block
        with self._understood():
            if self._file.read(1):
                raise BadFile(self.checkpoint, self.kind, f"goes on behind its {self.rows} rows")

    def _fill(self, view: memoryview, first: int, row_bytes: int) -> None:
        done = 0
        with self._understood():
            while done < len(view):
                count = self._file.readinto(view[done:])  # type: ignore[attr-defined]
                if not count:
                    had = first + done // row_bytes
                    raise BadFile(self.checkpoint, self.kind, f"ends after {had} rows: expected {self.rows}")
                done += count

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        """Tell a damaged file from one that cannot be reached: the latter says nothing about the data."""
        try:
            yield
        except (BadFile, MemoryError):
            raise
        except FileNotFoundError:
            raise BadFile(self.checkpoint, self.kind, "is missing") from None
        except _DAMAGED as error:
            raise BadFile(self.checkpoint, self.kind, f"is truncated or damaged (gzip: {_one_line(error)})") from None
        except (ValueError, SyntaxError) as error:
            raise BadFile(self.checkpoint, self.kind, f"is no .npy array ({_one_line(error)})") from None
        except Exception as error:  # fsspec's clients raise whatever their transport raises
            raise DataError(
                f"{self.checkpoint.file(self.kind)} could not be read ({_one_line(error)}): check the connection and "
                "the permissions and run it again; finished pieces are kept"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def read_array(checkpoint: Checkpoint, kind: str, rows: int | None = None) -> NDArray[Any]:
    """All rows of one of the small files.  Raises :class:`BadFile`."""
    with Stream(checkpoint, kind, rows) as stream:
        return np.concatenate([block.copy() for _, block in stream.blocks()])


def _open_raw(checkpoint: Checkpoint, kind: str) -> Any:
    if not is_remote(checkpoint.source):
        return Path(checkpoint.file(kind)).open("rb")
    filesystem, root = _filesystem(checkpoint.source)
    return filesystem.open(Checkpoint(root, checkpoint.game, checkpoint.run, checkpoint.number).file(kind), "rb")


def _logs(source: str, game: str, run: int) -> str:
    return posixpath.join(source, game, str(run), "replay_logs")


_filesystem = lru_cache(maxsize=4)(open_filesystem)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
