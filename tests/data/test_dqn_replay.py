"""Importing DQN-Replay: what arrives equals the source's rows, the draw, its rules and its counts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from jowa.data import EpisodeStore, EpisodeWriter
from jowa.data.dqn_replay.config import ImportConfig
from jowa.data.dqn_replay.importer import import_dqn_replay
from jowa.data.record import RecordConfig, record
from jowa.errors import DataError, UsageError
from jowa.games import get_game

LENGTHS = [20, 13, 31, 9, 40, 1, 17, 28, 5, 36, 22, 11, 7]
SIZES = [60, 70, 50, 60]


@pytest.fixture
def source(tmp_path: Path, fake: ModuleType) -> Path:
    """Pong, two runs of 13 episodes in 4 checkpoints each; Freeway, one run of one checkpoint."""
    place = tmp_path / "source"
    for run in (1, 2):
        fake.write_run(place, "Pong", run, fake.make_run(LENGTHS, 6, seed=run), SIZES)
    fake.write_run(place, "Freeway", 1, fake.make_run([30, 12, 18], 3), [60])
    return place


@pytest.fixture
def run_import(source: Path, tmp_path: Path) -> Callable[..., EpisodeStore]:
    """Import with the given options and open the store."""

    def call(out: str | Path = "out", **options: object) -> EpisodeStore:
        given = {"games": ("Pong",), "workers": 1, "source": str(source)} | options
        if "transitions" not in given:
            given = {"fraction": 1.0} | given
        place = out if isinstance(out, Path) else tmp_path / out
        import_dqn_replay(ImportConfig(out=place, **given), progress=False)
        return EpisodeStore.open(place)

    return call


def starts_of(lengths: list[int]) -> list[int]:
    return [0, *np.cumsum(np.abs(lengths))[:-1].tolist()]


def counts_of(store: EpisodeStore, game: str = "Pong") -> dict[str, int]:
    return store.attributes["imported"][game]["counts"]


def place_of(info, sizes: list[int] = SIZES) -> tuple[int, int]:
    """(run, row in the whole run) of an imported episode's first step."""
    _, run, checkpoint = info.policy.split("/")
    return int(run[3:]), sum(sizes[: int(checkpoint[4:])]) + info.seed


def assert_equals_source(store: EpisodeStore, source: Path, fake: ModuleType, game: str = "Pong", sizes=SIZES) -> None:
    legal = np.array(get_game(game).legal_actions)
    for number, info in enumerate(store.episodes(game)):
        run, row = place_of(info, sizes)
        logs = fake.read_run(source, game, run, range(len(sizes)))
        episode = store.read_episode(game, number)
        rows = slice(row, row + info.length)
        assert np.array_equal(episode.frames, logs["observation"][rows])
        assert np.array_equal(episode.actions, legal[logs["action"][rows]])
        assert np.array_equal(episode.rewards, logs["reward"][rows])
        assert episode.score == logs["reward"][rows].sum()
        assert episode.terminal == logs["terminal"][row + info.length - 1]
        assert not logs["terminal"][rows][:-1].any()


def test_everything_arrives_as_it_was(run_import, source, fake) -> None:
    store = run_import(games=("Pong", "Freeway"), runs=(1,))
    assert store.games == ("Freeway", "Pong")
    infos = store.episodes("Pong")
    assert [info.length for info in infos] == LENGTHS and all(info.terminal for info in infos)
    assert [place_of(info) for info in infos] == [(1, start) for start in starts_of(LENGTHS)]
    assert_equals_source(store, source, fake)
    assert_equals_source(store, source, fake, "Freeway", [60])
    # The borders 60, 130 and 180 fall into the episodes that begin at 33, 114 and 164.
    assert counts_of(store) == {
        "found": 13, "drawn": 13, "episodes": 13, "transitions": 240, "padding_rows": 0, "joined": 3,
        "unreadable": 0, "surplus": 0,
    }  # fmt: skip
    # Each checkpoint's episodes begin a shard of their own, so that pieces never share a file.
    begins = {info.policy: info.offset for info in reversed(infos)}
    assert sorted(begins.values()) == [0, 16384, 32768, 49152]


def test_several_runs_and_a_share(run_import, source, fake) -> None:
    store = run_import(runs=(2, 1), fraction=0.5)
    assert store.num_episodes("Pong") == 13 and counts_of(store)["found"] == 26
    assert {place_of(info)[0] for info in store.episodes("Pong")} == {1, 2}
    assert_equals_source(store, source, fake)
    assert run_import("least", fraction=0.001).num_episodes("Pong") == 1


def test_the_draw_is_a_function_of_the_seed_and_not_of_the_workers(run_import) -> None:
    def drawn(store: EpisodeStore) -> list[tuple[int, int]]:
        return [place_of(info) for info in store.episodes("Pong")]

    first = run_import("a", runs=(1, 2), fraction=0.4, seed=3)
    again = run_import("b", runs=(2, 1), fraction=0.4, seed=3, workers=2)
    other = run_import("c", runs=(1, 2), fraction=0.4, seed=4)
    assert drawn(first) == drawn(again) and len(set(drawn(first))) == 10 and drawn(first) != drawn(other)
    contents = [
        {file.relative_to(store.path): file.read_bytes() for file in store.path.rglob("*") if file.is_file()}
        for store in (first, again)
    ]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("wanted", [1, 50, 133, 230])
def test_an_exact_number_of_transitions(run_import, source, fake, wanted: int) -> None:
    store = run_import(runs=(1,), transitions=wanted, seed=wanted)
    assert store.num_steps("Pong") == wanted == counts_of(store)["transitions"]
    infos = store.episodes("Pong")
    assert sum(not info.terminal for info in infos) <= 1
    cut = [place_of(info)[1] for info in infos if not info.terminal]
    whole = dict(zip(starts_of(LENGTHS), LENGTHS, strict=True))
    assert all(info.length == whole[place_of(info)[1]] for info in infos if info.terminal)
    assert all(start in whole for start in cut)
    for number, info in enumerate(infos):
        run, row = place_of(info)
        logs = fake.read_run(source, "Pong", run, range(4))
        assert info.score == logs["reward"][row : row + info.length].sum()
        assert np.array_equal(store.read_episode("Pong", number).frames, logs["observation"][row : row + info.length])


def test_more_transitions_than_there_are(run_import) -> None:
    with pytest.raises(DataError, match=r"Pong hold 240 transitions in whole episodes: 5000 are wanted; choose"):
        run_import(transitions=5000)


def test_episodes_across_checkpoints_are_dropped_on_request(run_import, source, fake) -> None:
    store = run_import(runs=(1,), crossing="drop")
    borders, starts = np.cumsum(SIZES)[:-1], starts_of(LENGTHS)
    inside = [
        (start, length)
        for start, length in zip(starts, LENGTHS, strict=True)
        if not any(start < border < start + length for border in borders)
    ]
    assert [(place_of(info)[1], info.length) for info in store.episodes("Pong")] == inside
    assert counts_of(store)["crossing_dropped"] == len(LENGTHS) - len(inside) == 3
    assert_equals_source(store, source, fake)


def test_an_episode_over_several_checkpoints(tmp_path, run_import, fake) -> None:
    lengths, sizes = [10, 100, 30], [30, 20, 25, 40, 25]
    fake.write_run(tmp_path / "long", "Pong", 1, fake.make_run(lengths, 6), sizes)
    store = run_import(source=str(tmp_path / "long"))
    assert [info.length for info in store.episodes("Pong")] == lengths and counts_of(store)["joined"] == 2
    assert_equals_source(store, tmp_path / "long", fake, sizes=sizes)


@pytest.mark.parametrize(("subset", "numbers"), [("mixed", range(6)), ("weak", [0, 1]), ("expert", [4, 5])])
def test_subsets_are_fifths_of_the_checkpoints(tmp_path, run_import, fake, subset, numbers) -> None:
    fake.write_run(tmp_path / "six", "Pong", 1, fake.make_run([10] * 18, 6), [30] * 6)
    store = run_import(source=str(tmp_path / "six"), subset=subset)
    found = [int(info.policy[-2:]) for info in store.episodes("Pong")]
    # The first episode of checkpoint 4 cannot be known to be whole without checkpoint 3.
    expected = [number for number in numbers for _ in range(3)][1 if subset == "expert" else 0 :]
    assert found == expected and counts_of(store).get("no_start", 0) == (subset == "expert")


def test_open_beginnings_and_endings_are_dropped_and_counted(tmp_path, run_import, fake) -> None:
    arrays = fake.make_run([15, 25, 20, 30, -10], 6)
    fake.write_run(tmp_path / "part", "Pong", 1, arrays, [40, 60], first=7)
    with pytest.raises(DataError, match=r"ckpt\.0\.gz is missing"):  # a run begins with number 0
        run_import(source=str(tmp_path / "part"))
    store = run_import(source=str(tmp_path / "part"), on_error="skip")
    assert [info.length for info in store.episodes("Pong")] == [25, 20, 30]
    counts = counts_of(store)
    assert (counts["no_start"], counts["no_end"], counts["lost_rows"]) == (1, 1, 25)


def test_padding_is_left_out_and_counted(tmp_path, run_import, fake) -> None:
    lengths, pads = [20, 15, 1, 30, 12], [3, 0, 2, 5, 1]
    arrays = fake.make_run(lengths, 6, padding=pads)
    sizes = [22, 18, 50]  # the border of checkpoints 0 and 1 stands right before a terminal, 1 and 2 inside padding
    fake.write_run(tmp_path / "pads", "Pong", 1, arrays, [*sizes[:2], sum(lengths) + sum(pads) - 40])
    store = run_import(source=str(tmp_path / "pads"))
    # At most three rows before an episode are padding: of five, two are kept.
    assert [info.length for info in store.episodes("Pong")] == [20, 15, 1, 32, 12]
    assert counts_of(store)["padding_rows"] == 9
    assert_equals_source(store, tmp_path / "pads", fake, sizes=[22, 18, sum(lengths) + sum(pads) - 40])


@pytest.mark.parametrize("wanted", [1, 17, 40, 62])
def test_exact_numbers_do_not_count_padding(tmp_path, run_import, fake, wanted: int) -> None:
    arrays = fake.make_run([20, 15, 4, 30, 12], 6, padding=3)
    fake.write_run(tmp_path / "pads", "Pong", 1, arrays, [48, 48])
    assert run_import(source=str(tmp_path / "pads"), transitions=wanted).num_steps("Pong") == wanted


def test_padding_may_leave_too_few_transitions(tmp_path, run_import, fake) -> None:
    arrays = fake.make_run([20, 15, 4, 30, 12], 6, padding=3)
    fake.write_run(tmp_path / "pads", "Pong", 1, arrays, [48, 48])
    assert run_import(source=str(tmp_path / "pads"), transitions=81).num_steps("Pong") == 81
    with pytest.raises(DataError, match=r"have 81 of 82 transitions without padding and without the 0 that lie in"):
        run_import("b", source=str(tmp_path / "pads"), transitions=82)
    with EpisodeWriter.open(tmp_path / "b") as writer:
        assert writer.num_episodes("Pong") == 0


@pytest.mark.parametrize("kind", ["observation", "action", "reward"])
def test_a_row_that_is_zero_only_in_part_is_no_padding(tmp_path, run_import, fake, kind: str) -> None:
    arrays = fake.make_run([20, 15], 6, padding=[1, 3])
    arrays[kind][21] = 1  # the first of the second episode's three
    fake.write_run(tmp_path / "pads", "Pong", 1, arrays, [39])
    store = run_import(source=str(tmp_path / "pads"))
    assert [info.length for info in store.episodes("Pong")] == [20, 18]


def test_an_import_is_reused_and_other_games_are_added(run_import, source, tmp_path) -> None:
    run_import(runs=(1,))
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out/Pong").rglob("*")}
    again = ImportConfig(str(source), ("Pong", "Freeway"), tmp_path / "out", fraction=1.0, workers=1)
    summary = import_dqn_replay(again, progress=False)
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "out/Pong").rglob("*")}
    assert summary.frames == 60 and [report.reused for report in summary.games] == [True, False]
    lines = summary.describe().splitlines()
    assert lines[0].startswith("Pong (imported before): 13 of 13 whole episodes, 240 transitions; 3 joined")
    assert lines[1].startswith("Freeway: 3 of 3 whole episodes, 60 transitions") and "dropped nothing" in lines[1]
    assert lines[2].startswith(f"{tmp_path / 'out'}: 60 frames read in ")
    assert not (tmp_path / "out/.import").exists()


def test_other_settings_and_foreign_games_are_refused(run_import, source, tmp_path, make_episode) -> None:
    run_import(runs=(1,), seed=1)
    with pytest.raises(UsageError, match=r"other settings \(fraction was 1.0, now 0.5; seed was 1, now 2\): use"):
        run_import(runs=(1,), seed=2, fraction=0.5)
    with EpisodeWriter.open(tmp_path / "recorded") as writer:
        writer.append(make_episode("Pong", 5))
    with pytest.raises(UsageError, match=r"Pong in .*recorded was not imported by this command: choose another folder"):
        run_import("recorded")
    with pytest.raises(UsageError, match=r"Pong in .*out was not recorded by this command"):
        record(RecordConfig(tmp_path / "out", ("Pong",), steps=10, workers=1), progress=False)


def test_an_address_is_read_through_fsspec(run_import, source, fake) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(source), "/dqn", recursive=True)
    try:
        store = run_import(source="memory://dqn", runs=(1,))
        assert_equals_source(store, source, fake)
        assert store.attributes["imported"]["Pong"]["settings"]["source"] == "memory://dqn"
        with pytest.raises(DataError, match=r"no checkpoints in memory://dqn/Boxing/1/replay_logs: expected"):
            run_import("b", source="memory://dqn", games=("Boxing",))
    finally:
        memory.rm("/dqn", recursive=True)


def test_an_address_that_cannot_be_reached_is_named(run_import, tmp_path, monkeypatch) -> None:
    fsspec = pytest.importorskip("fsspec")

    class NoRoute(Exception):
        """Of a client that has errors of its own."""

    def unreachable(*arguments, **options):
        raise NoRoute("cannot connect\nto the host")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "ls", unreachable)
    with pytest.raises(DataError, match=r"^memory://dqn cannot be read \(NoRoute: cannot connect to the host\): check"):
        run_import(source="memory://dqn")
    with pytest.raises(UsageError, match="nowhere://dqn cannot be opened"):
        run_import("none", source="nowhere://dqn")
    assert not (tmp_path / "none").exists(), "nothing was begun"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"games": ()}, "games are none"),
        ({"games": ("Pnog",)}, "unknown game 'Pnog': did you mean Pong"),
        ({"runs": ()}, "runs are none"),
        ({"runs": (0,)}, "runs are 0"),
        ({"fraction": None}, "give --fraction .* or --transitions, not both"),
        ({"transitions": 5}, "give --fraction .* or --transitions, not both"),
        ({"fraction": 0.0}, r"fraction 0.0: expected above 0"),
        ({"fraction": None, "transitions": 0}, "transitions 0: expected at least 1"),
        ({"seed": -1}, "seed -1: expected at least 0"),
    ],
)
def test_mistakes_in_the_configuration(tmp_path, options, message) -> None:
    with pytest.raises(UsageError, match=message):
        ImportConfig(**{"source": "here", "games": ("Pong",), "out": tmp_path, "fraction": 0.1} | options)


def test_the_command(source, tmp_path) -> None:
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jowa.import_dqn_replay", "--games", "Pong", "--workers", "2"]
        return subprocess.run([*command, *options], capture_output=True, text=True, timeout=200)

    done = run("--source", str(source), "--runs", "1", "2", "--fraction", "0.1", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    progress = done.stderr.splitlines()
    assert progress[0].startswith("scanning: ")
    assert progress[-1].startswith("importing: ") and "frames/s" in progress[-1]
    assert done.stdout.startswith("Pong: 3 of 26 whole episodes, ") and "frames/s" in done.stdout
    missing = run("--source", str(tmp_path / "nowhere"), "--fraction", "0.1", "--out", str(tmp_path / "b"))
    assert missing.returncode == 1 and missing.stderr.startswith("error: no checkpoints in ")
    wrong = run("--source", str(source), "--out", str(tmp_path / "b"))
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "--transitions" in wrong.stderr


def test_a_dask_cluster_does_the_same(run_import, tmp_path, monkeypatch) -> None:
    distributed = pytest.importorskip("distributed")
    here = run_import("here", runs=(1, 2), fraction=0.5)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        monkeypatch.chdir(tmp_path)  # which the cluster's process has not done
        there = run_import(out=Path("dask"), runs=(1, 2), fraction=0.5, dask=cluster.scheduler_address)
    contents = [
        {file.relative_to(store.path): file.read_bytes() for file in store.path.rglob("*") if file.is_file()}
        for store in (there, here)
    ]
    assert contents[0] == contents[1]


PEAK = """
import sys
from pathlib import Path
from jowa.data.dqn_replay.config import ImportConfig
from jowa.data.dqn_replay.importer import import_dqn_replay
def peak():
    # Not getrusage: its maximum is inherited from the process that started this one.
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
def load(source, out):
    import_dqn_replay(ImportConfig(source, ("Pong",), Path(out), fraction=1.0, workers=1), progress=False)
load(sys.argv[1], sys.argv[3])
before = peak()
load(sys.argv[2], sys.argv[4])
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's peak memory there")
def test_a_checkpoint_is_never_in_memory(tmp_path, fake) -> None:
    """A checkpoint of 141 MB of frames costs a few megabytes beyond what a small one does."""
    fake.write_run(tmp_path / "small", "Pong", 1, fake.make_run([1200], 6), [1200])
    fake.write_run(tmp_path / "big", "Pong", 1, fake.make_run([1000] * 20, 6), [20_000], level=1)
    arguments = [str(tmp_path / name) for name in ("small", "big", "out-small", "out-big")]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, env=os.environ, timeout=250
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 40
