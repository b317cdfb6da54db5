"""One step array of a store: what its document says, reading its rows, and writing whole shards of it.

The layout is Zarr v3's ``sharding_indexed`` with inner codecs bytes, zstd (or none) and crc32c.  zarr-python reads the
same files and is the oracle in the tests; :class:`Rows` maps them, and decodes without Python's lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numcodecs.blosc import Blosc
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from jowa.data import schema
from jowa.errors import DataError, JowaError
from jowa.files import atomic_write

if TYPE_CHECKING:
    from jowa import _native

ABSENT = np.uint64(2**64 - 1)
"""Offset and size, in a shard's index, of a chunk that was never written."""


def native() -> ModuleType:
    """The native core; :class:`JowaError` where it was not built."""
    try:
        from jowa import _native
    except ImportError as error:
        raise JowaError(
            f"jowa's native core is missing ({error}): build it with pip install -e . (or make install); without it, "
            "EpisodeStore.open(path, native=False) reads slowly"
        ) from None
    return _native


_CODECS = [["bytes", *inner, *end] for inner in (["zstd"], ["blosc"], []) for end in (["crc32c"], [])]


def _is_readable(codec: str, settings: dict[str, Any], chunk_bytes: int) -> bool:
    """Whether the native core reads what a codec with these settings writes: of Blosc's many ways just one."""
    wanted = {"cname": "lz4", "shuffle": "noshuffle", "typesize": 1, "blocksize": chunk_bytes}
    return codec != "blosc" or all(settings.get(name) == value for name, value in wanted.items())


@dataclass(frozen=True)
class ArrayInfo:
    """A sharded array as its ``zarr.json`` describes it."""

    folder: Path
    rows: int
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    shard_rows: int
    chunk_rows: int
    codec: str
    """``zstd``, ``blosc`` (LZ4 in one block) or ``none``."""
    settings: tuple[tuple[str, Any], ...]
    """The codec's own configuration, as numcodecs takes it."""
    checksum: bool
    """Whether chunks end in their crc32c."""

    @classmethod
    def read(cls, folder: Path, sealed: bool = True) -> ArrayInfo:
        """The array in ``folder``; :class:`DataError` when its document is damaged or describes another layout."""
        read = schema.read_sealed if sealed else schema.read_document
        document = read(folder / "zarr.json", str(folder))
        try:
            (shards,) = document["codecs"]
            inner = shards["configuration"]
            codecs = {codec["name"]: codec.get("configuration", {}) for codec in inner["codecs"]}
            shape, chunk = tuple(document["shape"]), tuple(inner["chunk_shape"])
            shard = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
            known = (
                shards["name"] == "sharding_indexed"
                and list(codecs) in _CODECS
                and [codec["name"] for codec in inner["index_codecs"]] == ["bytes", "crc32c"]
                and inner.get("index_location", "end") == "end"
                and shape[1:] == chunk[1:] == shard[1:]
            )
            dtype = np.dtype(document["data_type"]).newbyteorder("<")
            codec = next((name for name in ("zstd", "blosc") if name in codecs), "none")
            chunk_bytes = int(np.prod(chunk, dtype=np.int64)) * dtype.itemsize
            if not known or shard[0] % chunk[0] or not _is_readable(codec, codecs.get(codec, {}), chunk_bytes):
                raise ValueError
            settings = tuple(codecs.get(codec, {}).items())
            return cls(folder, shape[0], shape[1:], dtype, shard[0], chunk[0], codec, settings, "crc32c" in codecs)
        except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError):
            raise DataError(
                f"{folder} is not packed as docs/dataset.md says (shards of bytes, zstd or LZ4, crc32c): restore it "
                "from a copy, or convert the data set with python -m jowa.data merge"
            ) from None

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in memory."""
        return int(np.prod(self.row_shape, dtype=np.int64)) * self.dtype.itemsize

    def shard_file(self, shard: int) -> Path:
        """Where shard number ``shard`` lies."""
        return schema.shard_file(self.folder, shard, 1 + len(self.row_shape))


@dataclass(frozen=True)
class Damage:
    """What is wrong with the rows ``first`` to ``stop`` (exclusive), and in which file."""

    file: Path
    first: int
    stop: int
    reason: str


class Rows:
    """Reads rows of one array through the native core; any number of threads at once."""

    def __init__(self, info: ArrayInfo) -> None:
        self.info = info

    @cached_property
    def reader(self) -> _native.RowReader:
        """The native reader."""
        info, axes = self.info, len(self.info.row_shape)
        return native().RowReader(
            str(info.folder / "c"), "/0" * axes, info.shard_rows, info.chunk_rows, info.row_bytes,
            info.codec, info.checksum,
        )  # fmt: skip

    def read(self, first: int, stop: int) -> NDArray[Any] | Damage:
        """Rows ``first`` to ``stop`` (exclusive), or what is wrong with them."""
        out = np.empty((stop - first, *self.info.row_shape), self.info.dtype)
        fault = self.reader.read(first, stop - first, out)
        return out if fault is None else self.damage(fault)

    def check(self, first: int, stop: int) -> Damage | None:
        """Whether all chunks of rows ``first`` to ``stop`` are there, keep their checksums and decode."""
        info = self.info
        for shard in range(first // info.shard_rows, -(-stop // info.shard_rows)):
            start = max(first - shard * info.shard_rows, 0) // info.chunk_rows
            end = -(-min(stop - shard * info.shard_rows, info.shard_rows) // info.chunk_rows)
            fault = self.reader.check(shard, start, end - start)
            if fault is not None:
                return self.damage(fault)
        return None

    def damage(self, fault: tuple[int, int, str]) -> Damage:
        """The native core's (shard, chunk or -1, reason), in rows."""
        shard, chunk, reason = fault
        first, rows = shard * self.info.shard_rows, self.info.shard_rows
        if chunk >= 0:
            first, rows = first + chunk * self.info.chunk_rows, self.info.chunk_rows
        return Damage(self.info.shard_file(shard), first, first + rows, reason)


def read_chunks(file: Path, chunks: int) -> list[bytes | None]:
    """The packed inner chunks of a shard ``file``, None for absent ones; :class:`DataError` when it is damaged."""
    data = file.read_bytes()
    index = data[-16 * chunks - 4 :]
    if len(index) < 16 * chunks + 4 or checksum(index[:-4]) != index[-4:]:
        raise DataError(f"{file} is damaged (its index): restore it from a copy")
    entries = np.frombuffer(index[:-4], "<u8").reshape(chunks, 2)
    packed = [None if offset == ABSENT else data[int(offset) : int(offset + size)] for offset, size in entries]
    if any(chunk is not None and len(chunk) != size for chunk, (_, size) in zip(packed, entries, strict=True)):
        raise DataError(f"{file} is damaged (its index points outside): restore it from a copy")
    return packed


def checksum(data: bytes | memoryview) -> bytes:
    """The CRC-32C of ``data`` as it is stored: four bytes, little-endian."""
    import google_crc32c  # beside zarr-python always

    return int(google_crc32c.value(bytes(data))).to_bytes(4, "little")


def _codec(info: ArrayInfo) -> Zstd | Blosc:
    settings = dict(info.settings)
    if info.codec == "zstd":
        return Zstd(settings["level"])
    return Blosc(settings["cname"], settings["clevel"], Blosc.NOSHUFFLE, settings["blocksize"])


class ShardWriter:
    """Writes the rows of one array in order, from ``first`` on; a file appears whole or not at all."""

    def __init__(self, info: ArrayInfo, first: int) -> None:
        """Rows of ``first``'s shard that stand before it are kept; it may be a shard's first row.

        Raises :class:`DataError` when that shard is damaged.
        """
        if info.codec == "none" or not info.checksum:
            raise DataError(f"{info.folder} is not compressed and checksummed: such arrays can be read, not extended")
        self.info = info
        self.row = first
        """The next row to be written."""
        self._codec = _codec(info)
        self._packed: list[bytes] = []
        self._pending = np.empty((0, *info.row_shape), info.dtype)
        inside = first % info.shard_rows
        if inside:
            self._resume(inside)

    def _resume(self, inside: int) -> None:
        chunks = self.info.shard_rows // self.info.chunk_rows
        whole, rest = divmod(inside, self.info.chunk_rows)
        file = self.info.shard_file(self.row // self.info.shard_rows)
        kept = read_chunks(file, chunks)[: whole + bool(rest)]
        for number, chunk in enumerate(kept):
            if chunk is None or checksum(chunk[:-4]) != chunk[-4:]:
                raise DataError(f"{file} is damaged (its chunk {number}): restore it from a copy")
            self._packed.append(chunk)
        if rest:
            decoded = np.frombuffer(self._codec.decode(self._packed.pop()[:-4]), self.info.dtype)
            self._pending = decoded.reshape(self.info.chunk_rows, *self.info.row_shape)[:rest]

    def write(self, rows: NDArray[Any]) -> None:
        """Append ``rows`` (n, *row_shape) of the array's dtype; shards that are full go to disk."""
        rows = np.asarray(rows, self.info.dtype)
        self.row += len(rows)
        size = self.info.chunk_rows
        rows = np.concatenate([self._pending, rows]) if len(self._pending) else rows
        for start in range(0, len(rows) - size + 1, size):
            self._packed.append(self._pack(rows[start : start + size]))
            if len(self._packed) * size == self.info.shard_rows:
                shard = (self.row - (len(rows) - start) + size) // self.info.shard_rows - 1
                self._write_shard(shard, self._packed)
                self._packed = []
        self._pending = rows[len(rows) // size * size :].copy()

    def flush(self) -> None:
        """Bring the last, unfinished shard to disk as well."""
        packed = list(self._packed)
        if len(self._pending):
            padded = np.zeros((self.info.chunk_rows, *self.info.row_shape), self.info.dtype)
            padded[: len(self._pending)] = self._pending
            packed.append(self._pack(padded))
        if packed:
            self._write_shard((self.row - 1) // self.info.shard_rows, packed)

    def _pack(self, rows: NDArray[Any]) -> bytes:
        data = bytes(self._codec.encode(np.ascontiguousarray(rows).view(np.uint8).reshape(-1)))
        return data + checksum(data)

    def _write_shard(self, shard: int, packed: list[bytes]) -> None:
        index = np.full((self.info.shard_rows // self.info.chunk_rows, 2), ABSENT, "<u8")
        sizes = np.array([len(chunk) for chunk in packed], np.uint64)
        index[: len(packed), 0] = np.cumsum(sizes) - sizes
        index[: len(packed), 1] = sizes
        data = index.tobytes()
        content = b"".join([*packed, data, checksum(data)])
        atomic_write(self.info.shard_file(shard), lambda temporary: temporary.write_bytes(content))
