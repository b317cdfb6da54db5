"""Importing DQN-Replay against the plain way: whole files through NumPy, rows written through zarr-python.

The logs are recorded play in the published layout, repeated: gzip's window is shorter than five frames, so that
neither packing nor unpacking notices.
"""

from __future__ import annotations

import gzip
import importlib.util
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import zarr

from jowa.data import EpisodeStore, EpisodeWriter
from jowa.data.dqn_replay.config import ImportConfig
from jowa.data.dqn_replay.importer import import_dqn_replay
from jowa.data.dqn_replay.source import Checkpoint, Stream
from jowa.data.record import RecordConfig, record
from jowa.games import get_game

CHECKPOINTS, ROWS, RUNS = 2, 60_000, 3
GAMES = ("Breakout", "Freeway")


def fake() -> ModuleType:
    path = Path(__file__).parents[1] / "tests/data/fake_dqn_replay.py"
    spec = importlib.util.spec_from_file_location("fake_dqn_replay", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def logs(tmp_path_factory) -> Path:
    """``CHECKPOINTS`` checkpoints of ``ROWS`` rows a game."""
    folder = tmp_path_factory.mktemp("dqn-replay")
    record(RecordConfig(folder / "recorded", GAMES, steps=4000), progress=False)
    store = EpisodeStore.open(folder / "recorded")
    for game in GAMES:
        total, steps = CHECKPOINTS * ROWS, store.num_steps(game)
        frames, actions, rewards = store.read(game, 0, steps)
        repeat = np.arange(total) % steps
        table = store.table(game)
        last = np.zeros(steps, np.uint8)
        last[table["offset"] + table["length"] - 1] = 1
        arrays = {
            "observation": frames[repeat],
            "action": np.searchsorted(get_game(game).legal_actions, actions[repeat]).astype(np.int32),
            "reward": rewards[repeat],
            "terminal": last[repeat],
        }
        fake().write_run(folder / "source", game, 1, arrays, [ROWS] * CHECKPOINTS, level=9)
    return folder / "source"


def ours(source: Path, game: str, fraction: float, out: Path) -> None:
    import_dqn_replay(ImportConfig(str(source), (game,), out, fraction=fraction, workers=1), progress=False)


def plain(source: Path, game: str, fraction: float, out: Path) -> None:
    """Whole files, a share of their whole episodes, arrays of the same layout."""
    legal = np.array(get_game(game).legal_actions, np.uint8)
    with EpisodeWriter.open(out) as writer:
        writer.create(game)
    arrays = {name: zarr.open_array(out / game / name, mode="r+") for name in ("frames", "actions", "rewards")}
    at = 0
    with zarr.config.set({"array.write_empty_chunks": True}):
        for number in range(CHECKPOINTS):
            files = {}
            for kind in ("observation", "action", "reward", "terminal"):
                with gzip.open(fake().file_of(source, game, 1, number, kind)) as file:
                    files[kind] = np.load(file)
            ends = np.flatnonzero(files["terminal"]) + 1
            spans = list(zip(np.concatenate([[0], ends[:-1]]), ends, strict=True))
            chosen = np.random.default_rng(0).permutation(len(spans))[: max(1, round(fraction * len(spans)))]
            rows = np.concatenate([np.arange(*spans[index]) for index in np.sort(chosen)])
            columns = files["observation"][rows], legal[files["action"][rows]], files["reward"][rows]
            for array, column in zip(arrays.values(), columns, strict=True):
                array.resize((at + len(rows), *array.shape[1:]))
                array[at : at + len(rows)] = column
            at += len(rows)


def decode(source: Path, game: str) -> None:
    """What no import can do without: every frame unpacked."""
    for number in range(CHECKPOINTS):
        with Stream(Checkpoint(str(source), game, 1, number), "observation") as stream:
            for _ in stream.blocks():
                pass


def peak_of(way: str, *arguments: str) -> float:
    """Megabytes of a fresh process at its largest, doing one import."""
    done = subprocess.run([sys.executable, __file__, way, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("fraction", [0.1, 1.0])
@pytest.mark.timeout(900)
def test_import(compare, logs: Path, tmp_path: Path, game: str, fraction: float) -> None:
    calls = iter(range(1000))
    frames = CHECKPOINTS * ROWS
    shapes = f"{game}, {CHECKPOINTS} checkpoints of {ROWS:,} frames, {fraction:.0%} of the episodes, one process"

    def run(way) -> None:
        way(logs, game, fraction, tmp_path / str(next(calls)))

    ratio = compare("import of DQN-Replay", shapes, lambda: run(ours), lambda: run(plain), runs=RUNS)
    cpu = {"ours": [], "floor": []}
    for _ in range(RUNS):
        for name, call in (("ours", lambda: run(ours)), ("floor", lambda: decode(logs, game))):
            start = time.process_time()
            call()
            cpu[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in cpu.items()}
    peaks = {way: peak_of(way, str(logs), game, str(fraction), str(tmp_path / way)) for way in ("ours", "plain")}
    empty = peak_of("nothing")
    compare.note(
        "rate and memory of an import of DQN-Replay", shapes,
        frames_per_cpu_second=round(frames / medians["ours"]),
        decoding_alone_frames_per_cpu_second=round(frames / medians["floor"]),
        share_of_the_floor=round(medians["floor"] / medians["ours"], 3),
        peak_mb=round(peaks["ours"]), rival_peak_mb=round(peaks["plain"]), peak_mb_without_any_work=round(empty),
    )  # fmt: skip
    assert ratio > 1 and peaks["ours"] < peaks["plain"]


if __name__ == "__main__":
    way, *arguments = sys.argv[1:]
    if way != "nothing":
        place, name, share, where = arguments
        {"ours": ours, "plain": plain}[way](Path(place), name, float(share), Path(where))
    # Not getrusage: its maximum is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)
