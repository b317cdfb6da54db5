"""Made-up logs in the layout of DQN-Replay, for the tests and (loaded by its path) the benchmark."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray]


def log_folder(source: Path, game: str, run: int) -> Path:
    return source / game / str(run) / "replay_logs"


def file_of(source: Path, game: str, run: int, number: int, kind: str) -> Path:
    return log_folder(source, game, run) / f"$store$_{kind}_ckpt.{number}.gz"


def noisy_frames(count: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Frames that differ from one another and are never black."""
    frames = np.zeros((count, 84, 84), np.uint8)
    frames[:, 40:44, 40:44] = generator.integers(1, 255, (count, 4, 4), dtype=np.uint8)
    frames[:, 0, :8] = np.arange(count, dtype=">u8").reshape(-1, 1).view(np.uint8)
    return frames


def make_run(
    lengths: Sequence[int],
    actions: int,
    seed: int = 0,
    padding: int | Sequence[int] = 0,
    make_frames: Callable[[int, np.random.Generator], NDArray[np.uint8]] = noisy_frames,
) -> Arrays:
    """Episodes of ``lengths`` real steps, one after the other; the last one's terminal is left out if it is negative.

    ``padding`` all-zero rows stand before each episode, or as many as the sequence says.
    """
    generator = np.random.default_rng(seed)
    pads = [padding] * len(lengths) if isinstance(padding, int) else padding
    total = sum(abs(length) for length in lengths) + sum(pads)
    arrays = {
        "observation": make_frames(total, generator),
        "action": generator.integers(0, actions, total, dtype=np.int32),
        "reward": generator.choice(np.array([-1.0, 0.0, 1.0], np.float32), total, p=[0.1, 0.7, 0.2]),
        "terminal": np.zeros(total, np.uint8),
    }
    at = 0
    for length, pad in zip(lengths, pads, strict=True):
        for kind in ("observation", "action", "reward"):
            arrays[kind][at : at + pad] = 0
        at += pad + abs(length)
        arrays["terminal"][at - 1] = length > 0
    return arrays


def write_run(
    source: Path, game: str, run: int, arrays: Arrays, sizes: Sequence[int], first: int = 0, level: int = 6
) -> None:
    """Cut a run into checkpoints of ``sizes`` rows, numbered from ``first``, as Dopamine writes them."""
    log_folder(source, game, run).mkdir(parents=True, exist_ok=True)
    assert sum(sizes) == len(arrays["action"])
    at = 0
    for number, size in enumerate(sizes, first):
        for kind, array in arrays.items():
            write_file(file_of(source, game, run, number, kind), array[at : at + size], level)
        at += size


def write_file(path: Path, array: NDArray, level: int = 6) -> None:
    with gzip.open(path, "wb", compresslevel=level) as file:
        np.save(file, array, allow_pickle=False)


def read_run(source: Path, game: str, run: int, numbers: Sequence[int]) -> Arrays:
    """The oracle: whole files, by gzip and NumPy."""
    columns: dict[str, list[NDArray]] = {}
    for kind in ("observation", "action", "reward", "terminal"):
        for number in numbers:
            with gzip.open(file_of(source, game, run, number, kind)) as file:
                columns.setdefault(kind, []).append(np.load(file))
    return {kind: np.concatenate(parts) for kind, parts in columns.items()}
