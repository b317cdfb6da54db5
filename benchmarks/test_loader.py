"""Random segments for training: the native loader beside the published scheme and zarr-python, warm and cold.

The published scheme opens an uncompressed HDF5 file for every sample and reads the whole episode's terminals; here it
has a file an episode, which was about as fast as one a game.  All rivals read the same frames, one thread each unless
a name says otherwise.
"""

from __future__ import annotations

import ctypes.util
import gc
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from jowa.data.arrays import ShardWriter, read_chunks
from jowa.data.loader import SegmentLoader, read_segment
from jowa.data.record import RecordConfig, record
from jowa.data.schema import STEPS_PER_SHARD
from jowa.data.segments import SegmentIndex
from jowa.data.store import EpisodeStore
from jowa.data.tokens import TokenStore
from jowa.data.writer import EpisodeWriter
from jowa.tokenizer.dataset import encode_missing
from jowa.types import Episode

h5py = pytest.importorskip("h5py", reason="the published scheme reads HDF5: pip install h5py")

GAMES = ("Atlantis", "Boxing", "Breakout", "Freeway", "Pong", "SpaceInvaders")
STEPS = 16_000
BATCH = 512
BLOSC_HEADER = 24
"""Bytes before LZ4's own in a container of one block."""


@dataclass(frozen=True)
class Sets:
    """The same episodes in all their packings."""

    default: EpisodeStore
    fast: EpisodeStore
    published: Path
    gzip: Path
    folder: Path


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sets]:
    folder = tmp_path_factory.mktemp("sets")
    for games, policies in ((GAMES[:-1], ()), (GAMES[-1:], ("random",))):
        record(RecordConfig(folder / "default", games, steps=STEPS, policies=policies), progress=False)
    default = EpisodeStore.open(folder / "default")
    with EpisodeWriter.open(folder / "fast", "fast") as writer:
        for game in GAMES:
            for number in range(default.num_episodes(game)):
                episode = default.read_episode(game, number)
                writer.append(episode)
                write_hdf5(folder / "published" / f"{game}-{number}.h5", episode, None)
                write_hdf5(folder / "gzip" / f"{game}-{number}.h5", episode, "gzip")
    yield Sets(default, EpisodeStore.open(folder / "fast"), folder / "published", folder / "gzip", folder)
    shutil.rmtree(folder)


def write_hdf5(path: Path, episode: Episode, compression: str | None) -> None:
    path.parent.mkdir(exist_ok=True)
    chunks = (min(32, len(episode)), 84, 84) if compression else None
    terminals = np.zeros(len(episode), np.bool_)
    terminals[-1] = episode.terminal
    with h5py.File(path, "w") as file:
        file.create_dataset("observations", data=episode.frames, compression=compression, chunks=chunks)
        file.create_dataset("actions", data=episode.actions)
        file.create_dataset("rewards", data=episode.rewards)
        file.create_dataset("terminals", data=terminals)


def published_batch(sets: Sets, index: SegmentIndex, ids: np.ndarray) -> np.ndarray:
    """The published way to a batch, without what its DataLoader would add."""
    windows = index.look_up(ids)
    out = np.zeros((len(ids), index.length, 84, 84), np.uint8)
    tables = {game: sets.default.table(game) for game in index.games}
    for row, (game, first, count) in enumerate(zip(windows.game, windows.first, windows.count, strict=True)):
        offsets = tables[index.games[game]]["offset"]
        episode = int(np.searchsorted(offsets, first, side="right")) - 1
        start = int(first - offsets[episode])
        with h5py.File(sets.published / f"{index.games[game]}-{episode}.h5", "r") as file:
            terminals = file["terminals"][:]
            assert start < len(terminals)
            out[row, :count] = file["observations"][start : start + count]
            file["actions"][start : start + count], file["rewards"][start : start + count]
    return out


def rate(batch: Callable[[], object], samples: int, runs: int = 5) -> float:
    """Samples a second, by the median of some runs after a first one."""
    batch()
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        batch()
        seconds.append(time.perf_counter() - began)
    return samples / statistics.median(seconds)


class Draws:
    """Batches of ids, each drawn once."""

    def __init__(self, index: SegmentIndex, size: int = BATCH) -> None:
        self.index, self.size, self.generator = index, size, np.random.default_rng(0)

    def __call__(self) -> np.ndarray:
        return self.generator.integers(0, len(self.index), self.size)


def test_segments_beside_the_published_scheme(sets: Sets, compare) -> None:
    index = SegmentIndex.build(sets.default)
    draw, few = Draws(index), Draws(index, 64)
    loaders = {name: SegmentLoader(getattr(sets, name), index, threads=1) for name in ("default", "fast")}
    ids = draw()
    expected = published_batch(sets, index, ids)
    for loader in loaders.values():
        assert np.array_equal(loader.read(ids).frames, expected)
    shapes = f"8-step segments in batches of {BATCH}, {len(GAMES)} games x {STEPS:,} frames, one thread, warm"
    plain = EpisodeStore.open(sets.default.path, native=False)
    rates = {
        "published": rate(lambda: published_batch(sets, index, draw()), BATCH),
        "zarr_python": rate(lambda: [read_segment(plain, index, int(i)) for i in few()], 64, 3),
        **{name: rate(lambda loader=loader: loader.read(draw()), BATCH, 9) for name, loader in loaders.items()},
    }
    ratios = {
        "default_over_published": rates["default"] / rates["published"],
        "fast_over_published": rates["fast"] / rates["published"],
        "default_over_zarr_python": rates["default"] / rates["zarr_python"],
    }
    floors = {}
    for name in loaders:
        decoding = decoding_rate(getattr(sets, name), index)
        if decoding:
            floors[f"{name}_share_of_decoding"] = rates[name] / decoding
    compare.note("random segments, segments/s", shapes, **rates, **ratios, **floors)
    assert ratios["default_over_published"] >= 20 and ratios["fast_over_published"] >= 50
    assert ratios["default_over_zarr_python"] >= 20


def decoding_rate(store: EpisodeStore, index: SegmentIndex) -> float | None:
    """Segments a second that the codec alone allows: decoding the chunks that random segments need, and no more.

    Measured with the system's own library, its context kept from chunk to chunk, less what calling it from Python
    costs; None where there is none.  It decodes whole chunks, where the loader stops LZ4 behind the last row it needs.
    """
    windows = index.look_up(np.random.default_rng(1).integers(0, len(index), BATCH))
    needed, shards = [], {}
    for game, first, count in zip(windows.game, windows.first, windows.count, strict=True):
        info = store.rows(index.games[game], "frames").info
        per_shard = info.shard_rows // info.chunk_rows
        for chunk in range(first // info.chunk_rows, (first + count - 1) // info.chunk_rows + 1):
            file = info.shard_file(chunk // per_shard)
            if file not in shards:
                shards[file] = read_chunks(file, per_shard)
            needed.append(shards[file][chunk % per_shard][BLOSC_HEADER if info.codec == "blosc" else 0 : -4])
    decode = decoder(info.codec, info.chunk_rows * info.row_bytes)
    if decode is None:
        return None
    whole = 1 / rate(lambda: [decode(chunk, len(chunk)) for chunk in needed], BATCH)
    calls = 1 / rate(lambda: [decode(chunk, 0) for chunk in needed], BATCH)  # which the library refuses at once
    return 1 / (whole - calls)


def decoder(codec: str, size: int) -> Callable[[bytes, int], object] | None:
    """A call of the system's libzstd or liblz4 that decodes a chunk of ``size`` bytes."""
    name = ctypes.util.find_library({"zstd": "zstd", "blosc": "lz4"}[codec])
    if name is None:
        return None
    library, out = ctypes.CDLL(name), ctypes.create_string_buffer(size)
    pointer, number = ctypes.c_void_p, ctypes.c_size_t
    if codec == "zstd":
        library.ZSTD_createDCtx.restype = pointer
        library.ZSTD_decompressDCtx.argtypes = [pointer, pointer, number, ctypes.c_char_p, number]
        context = library.ZSTD_createDCtx()
        return lambda chunk, length: library.ZSTD_decompressDCtx(context, out, size, chunk, length)
    library.LZ4_decompress_safe.argtypes = [ctypes.c_char_p, pointer, ctypes.c_int, ctypes.c_int]
    return lambda chunk, length: library.LZ4_decompress_safe(chunk, out, length, size)


def test_cold(sets: Sets, compare) -> None:
    """Every file dropped from the page cache, every reader opened anew; a mapped page would stay."""
    index = SegmentIndex.build(sets.default)
    draw = Draws(index)

    def cold(folder: Path, read: Callable[[np.ndarray], object]) -> float:
        seconds = []
        for _ in range(3):
            forget(folder)
            ids = draw()
            began = time.perf_counter()
            read(ids)
            seconds.append(time.perf_counter() - began)
        return BATCH / statistics.median(seconds)

    figures = {"published": cold(sets.published, lambda ids: published_batch(sets, index, ids))}
    for name in ("default", "fast"):
        store = getattr(sets, name)
        store._rows.clear()  # which kept what the set-up read mapped
        for prefetch in (False, True):
            figures[name + "_prefetched" * prefetch] = cold(store.path, partial(read_anew, store.path, index, prefetch))
    shapes = f"8-step segments in batches of {BATCH}, {len(GAMES)} games x {STEPS:,} frames, one thread, cold"
    compare.note("random segments, segments/s", shapes, **figures, ratio=figures["default"] / figures["published"])
    assert figures["default"] > figures["published"]


def read_anew(path: Path, index: SegmentIndex, prefetch: bool, ids: np.ndarray) -> object:
    return SegmentLoader(EpisodeStore.open(path), index, threads=1, prefetch=prefetch).read(ids)


def forget(folder: Path) -> None:
    gc.collect()
    assert str(folder) not in Path("/proc/self/maps").read_text(), "mapped pages are not dropped"
    for file in folder.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def test_frames_and_tokens_on_two_threads(sets: Sets, compare) -> None:
    store, index = sets.default, SegmentIndex.build(sets.default)
    draw = Draws(index)
    # Stand-in tokens that compress about as real ones do: they change where the frame does.
    tokens = TokenStore.create(sets.folder / "tokens", "stand-in", 2048)

    def encode(frames: np.ndarray) -> np.ndarray:
        return frames[:, 7::14, 7::14].reshape(-1, 36).astype(np.uint16) * 8

    encode_missing(tokens, store, GAMES, encode, 0, 1, lambda: None, lambda done, total: None)
    figures = {}
    for threads in (1, 2):
        pixels = SegmentLoader(store, index, threads=threads)
        only_tokens = SegmentLoader(store, index, frames=False, tokens=tokens, threads=threads)
        figures[f"frames_{threads}_threads"] = 8 * rate(lambda loader=pixels: loader.read(draw()), BATCH, 9)
        figures[f"tokens_{threads}_threads"] = 8 * rate(lambda loader=only_tokens: loader.read(draw()), BATCH, 9)
    size = sum(file.stat().st_size for game in GAMES for file in (tokens.folder / game).rglob("*") if file.is_file())
    steps = sum(map(store.num_steps, GAMES))
    compare.note(
        "frames a second, as pixels and as tokens", f"8-step segments in batches of {BATCH}", **figures,
        token_bytes_a_frame=size / steps,
    )  # fmt: skip
    if len(os.sched_getaffinity(0)) > 1:
        assert figures["frames_2_threads"] >= 80_000 and figures["tokens_2_threads"] >= 1_000_000


@pytest.mark.parametrize("game", GAMES)
def test_bytes_a_frame(sets: Sets, compare, game: str) -> None:
    def size(files: Iterator[Path]) -> int:
        return sum(file.stat().st_size for file in files if file.is_file())

    steps = sets.default.num_steps(game)
    figures = {name: size((getattr(sets, name).path / game).rglob("*")) / steps for name in ("default", "fast")} | {
        name: size(getattr(sets, name).glob(f"{game}-*.h5")) / steps for name in ("published", "gzip")
    }
    packed = gzip.compress(sets.default.read_frames(game, 0, sets.default.num_rows(game)).tobytes(), 9)
    figures["dqn_replay_gz"] = len(packed) / steps  # observations alone, as DQN-Replay packs them
    compare.note(
        "bytes a step on disk, everything included", f"{game}, {steps:,} steps",
        **figures, raw=7056.0 + 1 + 4, published_over_default=figures["published"] / figures["default"],
    )  # fmt: skip
    assert figures["default"] * 10 < figures["published"] and figures["default"] < figures["gzip"]


SIZES = (100_000, 1_000_000, 10_000_000)

PROBE = """
import json, sys, time
from jowa.data import EpisodeStore, SegmentIndex, SegmentLoader, SegmentSampler
import numpy as np

def anonymous():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))

warm = EpisodeStore.open(sys.argv[2])  # imports, and the native core's own memory
SegmentLoader(warm, SegmentIndex.build(warm), threads=1).read(np.arange(512))
before, began = anonymous(), time.perf_counter()
store = EpisodeStore.open(sys.argv[1])
index = SegmentIndex.build(store)
loader, sampler = SegmentLoader(store, index, threads=1), SegmentSampler(index, 512, 0)
first = loader.read(sampler.indices(0))
started = time.perf_counter() - began
for step in range(1, 40):
    loader.read(sampler.indices(step))
seconds = []
for step in range(40, 80):
    began = time.perf_counter()
    loader.read(sampler.indices(step))
    seconds.append(time.perf_counter() - began)
print(json.dumps({"segments_a_second": 512 / float(np.median(seconds)), "first_batch_s": started,
                  "memory_MiB": anonymous() - before}))
"""


def test_cost_does_not_grow_with_the_data(sets: Sets, compare, tmp_path: Path) -> None:
    found = {}
    for size in SIZES:
        store = grown(sets.default, tmp_path / str(size), size)
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(store), str(sets.default.path)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found[size] = json.loads(done.stdout)
        compare.note("loader against the size of the data", f"{size:,} frames, one thread, warm", **found[size])
        shutil.rmtree(store)
    small, large = found[SIZES[0]], found[SIZES[-1]]
    assert large["segments_a_second"] > 0.5 * small["segments_a_second"]
    assert large["first_batch_s"] < 1.0 and large["memory_MiB"] < small["memory_MiB"] + 64


def grown(store: EpisodeStore, path: Path, frames: int) -> Path:
    """A store of one game with that many frames: the same recorded shard again and again, as files of their own."""
    game, rows = "Breakout", STEPS_PER_SHARD
    lengths = [info.length for info in store.episodes(game)]
    with EpisodeWriter.open(path) as writer:
        writer.create(game)
        infos = writer.infos(game)
        offsets = np.cumsum([0, *lengths])
        kept = int(np.searchsorted(offsets, rows, side="right")) - 1
        for name, info in infos.items():
            shard = ShardWriter(info, 0)
            shard.write(store.rows(game, name).read(0, int(offsets[kept])))
            shard.flush()
        blocks = -(-frames // int(offsets[kept]))
        for block in range(1, blocks):
            for info in infos.values():
                info.shard_file(block).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(info.shard_file(0), info.shard_file(block))
        starts = (np.arange(blocks)[:, None] * rows + offsets[None, :kept]).ravel()
        each = np.tile(np.array(lengths[:kept]), blocks)
        table = {"offset": starts, "length": each, "terminal": np.ones(len(each), bool)}
        table |= {"seed": np.zeros(len(each), np.uint64), "score": np.zeros(len(each))}
        writer.commit(game, table, ["random"] * len(each), (blocks - 1) * rows + int(offsets[kept]))
    return path
