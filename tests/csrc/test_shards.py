"""The native reader of shards: every fault has a name, and bad arguments never reach it."""

from __future__ import annotations

import gc
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

_native = pytest.importorskip("jowa._native")

ROWS, CHUNK, ROW = 64, 8, (3, 5)


def make_reader(folder: Path, **changes) -> _native.RowReader:
    options = {
        "folder": str(folder / "a" / "c"), "suffix": "/0/0", "shard_rows": ROWS, "chunk_rows": CHUNK, "row_bytes": 15,
        "codec": "zstd", "checksum": True,
    }  # fmt: skip
    return _native.RowReader(**(options | changes))


@pytest.fixture(params=["zstd", "blosc", "none"])
def codec(request) -> str:
    return request.param


@pytest.fixture
def written(tmp_path, codec) -> tuple[Path, np.ndarray]:
    """Two shards and a half, written by zarr-python."""
    import zarr
    from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

    compress = {
        "zstd": [ZstdCodec(level=1)], "none": [],
        "blosc": [BloscCodec(typesize=1, cname="lz4", clevel=9, shuffle="noshuffle", blocksize=CHUNK * 15)],
    }[codec]  # fmt: skip
    data = np.random.default_rng(0).integers(0, 3, (160, *ROW), dtype=np.uint8)
    data[40:48] = 7  # compresses to next to nothing
    data[48:56] = np.random.default_rng(1).integers(0, 256, (8, *ROW))  # does not compress at all
    sharding = ShardingCodec(chunk_shape=(CHUNK, *ROW), codecs=[BytesCodec(), *compress, Crc32cCodec()])
    array = zarr.create_array(
        tmp_path / "a", shape=data.shape, chunks=(ROWS, *ROW), dtype="uint8", serializer=sharding, compressors=None,
        config={"write_empty_chunks": True},
    )  # fmt: skip
    array[:] = data
    return tmp_path, data


def test_any_stretch_of_rows(written, codec) -> None:
    folder, data = written
    reader = make_reader(folder, codec=codec)
    generator = np.random.default_rng(1)
    for _ in range(300):
        first = int(generator.integers(0, 160))
        count = int(generator.integers(0, 161 - first))
        out = np.full((count, *ROW), 9, np.uint8)
        assert reader.read(first, count, out) is None
        assert np.array_equal(out, data[first : first + count]), (first, count)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("prefetch", [False, True])
def test_windows_of_several_arrays(written, codec, threads, prefetch) -> None:
    folder, data = written
    games = [make_reader(folder, codec=codec), make_reader(folder, codec=codec)]
    generator = np.random.default_rng(2)
    first = generator.integers(0, 150, 40)
    count, game = generator.integers(0, 11, 40), generator.integers(0, 2, 40).astype(np.int32)
    outs = [np.full((40, 10, *ROW), 9, np.uint8) for _ in range(2)]
    found = _native.gather([games, games[::-1]], outs, game, first, count, 10, threads, prefetch)
    assert found is None
    for window in range(40):
        for out in outs:
            assert np.array_equal(out[window, : count[window]], data[first[window] : first[window] + count[window]])
            assert not out[window, count[window] :].any()


def maps(folder: Path) -> int:
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counts mappings as Linux lists them")
def test_the_mapped_files_of_all_readers_are_bounded(written, codec) -> None:
    """The system bounds a process's mappings, however many arrays it reads."""
    folder, data = written
    readers = [make_reader(folder, codec=codec) for _ in range(5)]
    out = np.empty((160, *ROW), np.uint8)
    for reader in readers:
        assert reader.read(0, 160, out) is None
    assert maps(folder) == 15
    before = _native.set_max_mapped(4)
    try:
        assert before == 32768 and maps(folder) == 4
        for _ in range(3):
            for reader in readers:
                assert reader.read(0, 160, out) is None and np.array_equal(out, data)
                assert maps(folder) <= 4
        first = np.arange(0, 160, 8)
        batch = np.empty((20, 8, *ROW), np.uint8)
        game = (np.arange(20) % 5).astype(np.int32)
        assert _native.gather([readers], [batch], game, first, np.full(20, 8), 8, 4, True) is None
        assert np.array_equal(batch, data.reshape(20, 8, *ROW))
    finally:
        _native.set_max_mapped(before)
    del readers, reader
    gc.collect()
    assert maps(folder) == 0
    with pytest.raises(ValueError, match="at least 1"):
        _native.set_max_mapped(0)


def test_the_first_fault_is_told_and_the_rest_is_read(written, codec) -> None:
    folder, data = written
    shard = folder / "a/c/1/0/0"
    content = bytearray(shard.read_bytes())
    index = np.frombuffer(bytes(content[-(8 * 16 + 4) : -4]), "<u8").reshape(8, 2)
    content[int(index[2, 0])] ^= 1
    content[int(index[5, 0])] ^= 1
    shard.write_bytes(bytes(content))
    reader = make_reader(folder, codec=codec)
    out = np.empty((20, 8, *ROW), np.uint8)
    first = np.arange(0, 160, 8)
    found = _native.gather([[reader]], [out], np.zeros(20, np.int32), first, np.full(20, 8), 8, 3, False)
    assert found == (10, 0, (1, 2, "the checksum of a chunk is wrong"))
    assert np.array_equal(out[14:], data.reshape(20, 8, *ROW)[14:])
    assert reader.check(1, 0, 2) is None and reader.check(1, 0, 8) == (1, 2, "the checksum of a chunk is wrong")


def test_faults_have_names(written, codec) -> None:
    folder, _ = written
    shard, out = folder / "a/c/0/0/0", np.empty((1, *ROW), np.uint8)
    whole = shard.read_bytes()

    def fault(content: bytes) -> tuple[int, int, str]:
        shard.unlink(missing_ok=True)  # a new file: the old one stays mapped
        shard.write_bytes(content)
        return make_reader(folder, codec=codec).read(0, 1, out)

    def with_entry(offset: int, size: int) -> bytes:
        index = np.array(np.frombuffer(whole[-(8 * 16 + 4) : -4], "<u8")).reshape(8, 2)
        index[0] = offset, size
        packed = index.tobytes()
        return whole[: -(8 * 16 + 4)] + packed + int(google_crc32c.value(packed)).to_bytes(4, "little")

    assert fault(whole) is None
    assert fault(b"") == (0, -1, "the file is truncated")
    assert fault(whole[:100]) == (0, -1, "the file is truncated")
    assert fault(whole[1:])[2] in ("the checksum of a chunk is wrong", "a chunk cannot be decoded")
    assert fault(whole[:-1]) == (0, -1, "the checksum of its index is wrong")
    assert fault(with_entry(2**64 - 1, 2**64 - 1)) == (0, 0, "a chunk was never written")
    for offset, size in ((2**40, 8), (0, 2**63), (2**63, 2**63), (0, 3), (len(whole), 1)):
        assert fault(with_entry(offset, size)) == (0, 0, "its index points outside the file")
    # A chunk with a right checksum that is no chunk.
    junk = bytes(range(40))
    sealed = junk + int(google_crc32c.value(junk)).to_bytes(4, "little")
    with_junk = with_entry(0, len(sealed))
    assert fault(sealed + with_junk[len(sealed) :]) == (0, 0, "a chunk cannot be decoded")
    shard.unlink()
    assert make_reader(folder, codec=codec).read(0, 1, out) == (0, -1, "the file is missing")
    shard.mkdir()
    assert "cannot be read" in make_reader(folder, codec=codec).read(0, 1, out)[2]


def test_random_bytes_never_crash_it(written, codec) -> None:
    """Chunks and indices of nonsense with right checksums: an answer or a fault, never a wrong access."""
    folder, _ = written
    shard, generator = folder / "a/c/0/0/0", np.random.default_rng(3)
    whole = shard.read_bytes()
    out = np.empty((ROWS, *ROW), np.uint8)
    for _ in range(200):
        body = bytearray(whole[: -(8 * 16 + 4)])
        index = np.frombuffer(whole[-(8 * 16 + 4) : -4], "<u8").reshape(8, 2)
        for chunk in range(8):
            start, stop = int(index[chunk, 0]), int(index[chunk, 0] + index[chunk, 1]) - 4
            for at in generator.integers(start, stop, 2):
                body[at] = generator.integers(0, 256)
            body[stop : stop + 4] = int(google_crc32c.value(bytes(body[start:stop]))).to_bytes(4, "little")
        shard.unlink()
        shard.write_bytes(bytes(body) + whole[-(8 * 16 + 4) :])
        fault = make_reader(folder, codec=codec).read(0, ROWS, out)
        assert fault is None or fault[2] == "a chunk cannot be decoded"


@pytest.mark.parametrize("size", [0, 1, 3, 7, 8, 9, 63, 64, 1000, 100_003])
def test_crc32c(size) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    assert _native.crc32c(data) == google_crc32c.value(data.tobytes())
    assert _native.crc32c(data.tobytes()[1:]) == google_crc32c.value(data.tobytes()[1:]), "unaligned"
    assert _native.crc32c(b"123456789") == 0xE3069283, "the check value of RFC 3720"


def test_bad_arguments_are_refused(tmp_path) -> None:
    for changes, message in [
        ({"chunk_rows": 7}, "multiple of chunk_rows"), ({"row_bytes": 0}, "positive"),
        ({"codec": "gzip"}, "codec must be zstd, blosc or none, got gzip"), ({"row_bytes": 2**40}, "less than 2 GiB"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            make_reader(tmp_path, **changes)
    reader, out = make_reader(tmp_path), np.empty((4, *ROW), np.uint8)
    with pytest.raises(ValueError, match="out must hold 75 bytes, got 60"):
        reader.read(0, 5, out)
    with pytest.raises(ValueError, match="C-contiguous"):
        reader.read(0, 2, out[::2])
    with pytest.raises(ValueError, match="negative"):
        reader.read(-1, 4, out)
    with pytest.raises(ValueError, match="within a shard"):
        reader.check(0, 0, 9)
    one, zero = np.ones(1, np.int64), np.zeros(1, np.int32)
    for readers, outs, game, first, count in [
        ([[reader]], [], zero, one, one), ([[]], [out], zero, one, one), ([[reader]], [out], zero + 1, one, one),
        ([[reader]], [out], zero, -one, one), ([[reader]], [out], zero, one, 5 * one),
        ([[reader]], [out], zero, one, one[:0]),
    ]:  # fmt: skip
        with pytest.raises(ValueError):
            _native.gather(readers, outs, game, first, count, 4, 1, False)
    assert _native.gather([], [], zero[:0], one[:0], one[:0], 4, 1, False) is None
