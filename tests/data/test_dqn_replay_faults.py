"""What can go wrong with an import: damaged sources, kills, full and read-only disks, two writers."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from jowa.data import EpisodeStore, EpisodeWriter
from jowa.data.dqn_replay.config import ImportConfig
from jowa.data.dqn_replay.importer import import_dqn_replay
from jowa.data.dqn_replay.pieces import Job, Outcome, import_piece
from jowa.errors import DataError, JowaError, describe_os_error

CRASHING = Path(__file__).with_name("crashing_import.py")
LENGTHS = [20, 13, 31, 9, 40, 17, 28, 5, 36, 22, 11, 8]
SIZES = [60, 60, 60, 60]


@pytest.fixture
def source(tmp_path: Path, fake: ModuleType) -> Path:
    """Pong: 12 episodes in 4 checkpoints; Freeway: 3 in 2."""
    place = tmp_path / "source"
    fake.write_run(place, "Pong", 1, fake.make_run(LENGTHS, 6), SIZES)
    fake.write_run(place, "Freeway", 1, fake.make_run([20, 25, 15], 3), [30, 30])
    return place


@pytest.fixture
def config(source: Path, tmp_path: Path) -> ImportConfig:
    return ImportConfig(str(source), ("Pong",), tmp_path / "out", fraction=1.0, workers=1)


def contents(folder: Path) -> dict[Path, bytes]:
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def starts_and_lengths(store: EpisodeStore) -> list[tuple[int, int]]:
    return [(60 * int(info.policy[-2:]) + info.seed, info.length) for info in store.episodes("Pong")]


EPISODES = list(zip([0, *np.cumsum(LENGTHS)[:-1].tolist()], LENGTHS, strict=True))
BORDERS = (60, 120, 180)
WITHOUT_2 = [(start, length) for start, length in EPISODES if start + length <= 120 or start >= 180]
"""Episodes that need no row of checkpoint 2 (rows 120 to 180); two more lack a beginning or an end."""


def truncated(path: Path, kind: str, fake: ModuleType) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def without_checksum(path: Path, kind: str, fake: ModuleType) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def corrupt(path: Path, kind: str, fake: ModuleType) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def wrong_checksum(path: Path, kind: str, fake: ModuleType) -> None:
    data = bytearray(path.read_bytes())
    data[-6] ^= 0x10
    path.write_bytes(data)


def no_gzip(path: Path, kind: str, fake: ModuleType) -> None:
    path.write_bytes(gzip.decompress(path.read_bytes()))


def no_array(path: Path, kind: str, fake: ModuleType) -> None:
    path.write_bytes(gzip.compress(b"<html>no such object</html>"))


def empty(path: Path, kind: str, fake: ModuleType) -> None:
    path.write_bytes(b"")


def missing(path: Path, kind: str, fake: ModuleType) -> None:
    path.unlink()


def rewrite(change: Callable) -> Callable:
    def fault(path: Path, kind: str, fake: ModuleType) -> None:
        with gzip.open(path) as file:
            array = np.load(file)
        fake.write_file(path, change(array))

    return fault


def shorter_than_its_header(path: Path, kind: str, fake: ModuleType) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-5]))


def longer_than_its_header(path: Path, kind: str, fake: ModuleType) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"more"))


ALL = ("observation", "action", "reward", "terminal")
FAULTS: dict[str, tuple[tuple[str, ...], Callable, str]] = {
    "truncated": (ALL, truncated, r"is truncated or damaged \(gzip: "),
    "without_checksum": (ALL, without_checksum, r"is truncated or damaged \(gzip: EOFError"),
    "corrupt": (ALL, corrupt, r"(is truncated or damaged|is no .npy array|ends after|goes on behind|holds)"),
    "wrong_checksum": (ALL, wrong_checksum, r"is truncated or damaged \(gzip: "),
    "no_gzip": (ALL, no_gzip, r"is truncated or damaged \(gzip: BadGzipFile"),
    "no_array": (ALL, no_array, r"is no .npy array \(ValueError"),
    "empty": (ALL, empty, r"is (no .npy array|truncated or damaged) \("),
    "missing": (ALL, missing, r"is missing"),
    "dtype": (ALL, rewrite(lambda array: array.astype(np.int64)), r"holds int64 \(60.*\): expected \w+ \((60|N)"),
    "shape": (ALL, rewrite(lambda array: array[:, None]), r"holds \w+ \(60, 1.*\): expected \w+ \((60|N)"),
    "count": (
        ("observation", "action", "reward"), rewrite(lambda array: array[:-1]),
        r"holds \w+ \(59.*\): expected \w+ \(60.*\) as its terminal file",
    ),
    "no rows": (("terminal",), rewrite(lambda array: array[:0]), r"holds uint8 \(0,\): expected uint8 \(N\) with N at"),
    "short": (ALL, shorter_than_its_header, r"ends after \d+ rows: expected 60"),
    "long": (ALL, longer_than_its_header, r"goes on behind its 60 rows"),
    "action 6": (("action",), rewrite(lambda a: a + 3), r"holds actions from 3 to 8: expected 0 to 5, the minimal set"),
    "negative action": (("action",), rewrite(lambda a: a - 1), r"holds actions from -1 to 4: expected 0 to 5"),
    "rewards": (("reward",), rewrite(lambda a: a * 7), r"holds rewards that are not finite or outside \[-1, 1\]"),
    "nan": (("reward",), rewrite(lambda a: a * np.float32("nan")), r"holds rewards that are not finite"),
    "terminals": (("terminal",), rewrite(lambda a: a * np.uint8(3)), r"holds the value 3: expected 0 and 1"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, (kinds, *_) in FAULTS.items() for kind in kinds]
)  # fmt: skip
def test_a_bad_file_is_named_and_stops_or_is_skipped(config, source, fake, name: str, kind: str) -> None:
    _, damage, cause = FAULTS[name]
    path = fake.file_of(source, "Pong", 1, 2, kind)
    damage(path, kind, fake)
    with pytest.raises(DataError) as stopped:
        import_dqn_replay(config, progress=False)
    message = str(stopped.value)
    assert message.startswith(f"{path} ") and "\n" not in message and "--on-error skip" in message
    assert re.search(cause, message), message
    with EpisodeWriter.open(config.out) as writer:
        assert writer.num_episodes("Pong") == 0
    summary = import_dqn_replay(replace(config, on_error="skip"), progress=False)
    store = EpisodeStore.open(config.out)
    assert starts_and_lengths(store) == WITHOUT_2
    noted = store.attributes["imported"]["Pong"]["faults"]
    assert [fault["file"] for fault in noted] == [str(path)] and re.search(cause, noted[0]["cause"])
    assert f"Pong: skipped {path} {noted[0]['cause']}" in summary.describe().splitlines()
    for number, (start, length) in enumerate(WITHOUT_2):
        episode = store.read_episode("Pong", number)
        assert np.array_equal(episode.frames[:, 0, 7], np.arange(start, start + length))


@pytest.mark.parametrize(
    "name", ["truncated", "without_checksum", "corrupt", "wrong_checksum", "no_gzip", "no_array", "empty", "short"]
)
def test_without_isal_damage_is_told_the_same_way(config, source, fake, monkeypatch, name: str) -> None:
    monkeypatch.setattr("jowa.data.dqn_replay.source._open_gzip", gzip.open)
    import_dqn_replay(replace(config, out=config.out.with_name("good")), progress=False)
    _, damage, cause = FAULTS[name]
    path = fake.file_of(source, "Pong", 1, 2, "observation")
    damage(path, "observation", fake)
    with pytest.raises(DataError, match=re.escape(str(path)) + " " + cause):
        import_dqn_replay(config, progress=False)


def test_a_worker_that_does_not_see_the_data_set(config, monkeypatch) -> None:
    def elsewhere(job: Job) -> Outcome:
        shutil.move(config.out, config.out.with_name("the coordinator's"))
        return import_piece(job)

    monkeypatch.setattr("jowa.data.dqn_replay.importer.import_piece", elsewhere)
    with pytest.raises(DataError, match=r"the worker on .* does not see .*frames: put --out on a file system that all"):
        import_dqn_replay(config, progress=False)
    assert not config.out.exists()


def test_a_cluster_that_loses_its_workers(config, monkeypatch) -> None:
    class KilledWorker(Exception):
        """Dask's, by its name."""

    class Dying(Executor):
        def submit(self, *_: object, **__: object) -> Future:
            raise KilledWorker

    monkeypatch.setattr("jowa.data.dqn_replay.importer.dask_workers", lambda _: nullcontext((Dying(), 1)))
    with pytest.raises(JowaError, match=r"Dask workers died on a piece .*; finished pieces are kept"):
        import_dqn_replay(replace(config, dask="tcp://there:1"), progress=False)


def test_what_is_skipped_is_counted(config, source, fake) -> None:
    truncated(fake.file_of(source, "Pong", 1, 2, "observation"), "observation", fake)
    summary = import_dqn_replay(replace(config, on_error="skip"), progress=False)
    counts = summary.games[0].counts
    assert counts["unreadable"] == len(EPISODES) - len(WITHOUT_2) and counts["drawn"] == counts["found"] == 12
    assert counts["transitions"] == sum(length for _, length in WITHOUT_2)
    assert f"{counts['unreadable']} in damaged files" in summary.describe()
    # Nothing of the piece that has nothing to give stays on disk.
    assert len(list((config.out / "Pong/frames/c").iterdir())) == 3


def test_an_exact_draw_goes_on_past_what_cannot_be_read(config, source, fake) -> None:
    """As long as the readable episodes have enough transitions, whichever were drawn first."""
    truncated(fake.file_of(source, "Pong", 1, 2, "observation"), "observation", fake)
    readable = sum(length for _, length in WITHOUT_2)
    wanted = readable - 3 * len(WITHOUT_2)
    exact = replace(config, fraction=None, transitions=wanted, on_error="skip")
    summary = import_dqn_replay(exact, progress=False)
    store = EpisodeStore.open(config.out)
    assert store.num_steps("Pong") == wanted and summary.games[0].counts["transitions"] == wanted
    assert [fault.file.endswith("$store$_observation_ckpt.2.gz") for fault in summary.games[0].faults] == [True]
    starts = {start for start, _ in starts_and_lengths(store)}
    assert starts <= {start for start, _ in WITHOUT_2}
    first = contents(config.out)
    again = replace(exact, out=config.out.with_name("again"))
    import_dqn_replay(again, progress=False)
    assert contents(again.out) == first
    with pytest.raises(DataError, match="transitions"):
        import_dqn_replay(replace(again, out=config.out.with_name("more"), transitions=readable + 1), progress=False)


def test_a_head_whose_checkpoint_has_no_piece_is_checked_to_its_end(tmp_path, config, fake) -> None:
    place = tmp_path / "heads"
    # Longer than a block, or reading the head would come upon the checksum anyway.
    fake.write_run(place, "Pong", 1, fake.make_run([40, 30, -2000], 6), [60, 2010])
    wrong_checksum(fake.file_of(place, "Pong", 1, 1, "observation"), "observation", fake)
    with pytest.raises(DataError, match=r"observation_ckpt.1.gz is truncated or damaged"):
        import_dqn_replay(replace(config, source=str(place)), progress=False)
    import_dqn_replay(replace(config, source=str(place), on_error="skip"), progress=False)
    assert starts_and_lengths(EpisodeStore.open(config.out)) == [(0, 40)]


def test_a_whole_checkpoint_that_is_missing(config, source, fake) -> None:
    for kind in ALL:
        fake.file_of(source, "Pong", 1, 2, kind).unlink()
    with pytest.raises(DataError, match=r"observation_ckpt\.2\.gz is missing: mend or fetch it again"):
        import_dqn_replay(config, progress=False)
    summary = import_dqn_replay(replace(config, on_error="skip"), progress=False)
    assert len(summary.games[0].faults) == 4 and starts_and_lengths(EpisodeStore.open(config.out)) == WITHOUT_2
    counts = summary.games[0].counts
    assert (counts["no_start"], counts["no_end"]) == (1, 1)


def test_when_nothing_can_be_read(config, source, fake) -> None:
    for number in range(4):
        truncated(fake.file_of(source, "Pong", 1, number, "action"), "action", fake)
    with pytest.raises(DataError, match=r"Pong: all drawn episodes lie in damaged files, among them .*action_ckpt.0"):
        import_dqn_replay(replace(config, on_error="skip"), progress=False)
    for number in range(4):
        fake.file_of(source, "Pong", 1, number, "terminal").write_bytes(b"")
    with pytest.raises(DataError, match=r"the chosen checkpoints of Pong hold no whole episode"):
        import_dqn_replay(replace(config, on_error="skip"), progress=False)


def test_a_mended_file_is_read_again_and_finished_pieces_are_not(config, source, fake, tmp_path) -> None:
    import_dqn_replay(replace(config, out=tmp_path / "once"), progress=False)
    path = fake.file_of(source, "Pong", 1, 2, "observation")
    good = path.read_bytes()
    truncated(path, "observation", fake)
    with pytest.raises(DataError):
        import_dqn_replay(config, progress=False)
    # In files as small as these, damage at the end spoils the head, which the piece before needs.
    assert [file.name for file in (config.out / ".import/Pong").iterdir()] == ["run1-ckpt00.json"]
    path.write_bytes(good)
    summary = import_dqn_replay(config, progress=False)
    # A piece reads its 60 frames, and of the next checkpoint's as many as its last episode has there.
    heads = [
        next(start + length - border for start, length in EPISODES if start + length > border) for border in BORDERS
    ]
    assert summary.resumed == 60 + heads[0] and summary.frames == 180 + heads[1] + heads[2]
    assert contents(config.out) == contents(tmp_path / "once")


def test_damaged_or_foreign_markers_are_done_again(config, tmp_path, source, fake) -> None:
    import_dqn_replay(replace(config, out=tmp_path / "once"), progress=False)
    path = fake.file_of(source, "Pong", 1, 3, "observation")
    good = path.read_bytes()
    truncated(path, "observation", fake)
    with pytest.raises(DataError):
        import_dqn_replay(config, progress=False)
    folder = config.out / ".import/Pong"
    shutil.copy(folder / "run1-ckpt00.json", folder / "run1-ckpt01.json")
    (folder / "run1-ckpt00.json").write_text("{}")
    path.write_bytes(good)
    summary = import_dqn_replay(config, progress=False)
    assert summary.resumed == 0 and contents(config.out) == contents(tmp_path / "once")


def test_a_source_that_cannot_be_reached_says_nothing_about_the_data(config, source, fake) -> None:
    path = fake.file_of(source, "Pong", 1, 2, "observation")
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"could not be read \(IsADirectoryError.*check the connection and the perm"):
        import_dqn_replay(replace(config, on_error="skip"), progress=False)
    with EpisodeWriter.open(config.out) as writer:
        assert writer.num_episodes("Pong") == 0


def test_two_imports_into_one_store(config) -> None:
    with EpisodeWriter.open(config.out), pytest.raises(DataError, match="is being written by another process: wait"):
        import_dqn_replay(config, progress=False)
    assert import_dqn_replay(config, progress=False).games[0].counts["episodes"] == 12


@pytest.mark.parametrize("fails_at", [1, 5, 14, 20, 26, 33])
def test_a_full_disk_is_a_clear_error_and_loses_nothing(config, full_disk, tmp_path, fails_at) -> None:
    with full_disk(fails_at), pytest.raises(OSError) as full:
        import_dqn_replay(config, progress=False)
    assert describe_os_error(full.value).startswith(f"the disk is full at {config.out}: free some space")
    import_dqn_replay(config, progress=False)
    import_dqn_replay(replace(config, out=tmp_path / "once"), progress=False)
    assert contents(config.out) == contents(tmp_path / "once")


def test_a_read_only_folder_is_a_clear_error(config, tmp_path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(config.out))

    with monkeypatch.context() as patch:  # root may write everywhere, so permissions alone would prove nothing
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(PermissionError) as denied:
            import_dqn_replay(config, progress=False)
    assert describe_os_error(denied.value).startswith(
        f"no permission to write at {config.out}: choose a folder you own"
    )
    import_dqn_replay(config, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.mkstemp", refuse)
        with pytest.raises(PermissionError):
            import_dqn_replay(replace(config, games=("Pong", "Freeway")), progress=False)
    assert starts_and_lengths(EpisodeStore.open(config.out)) == EPISODES


@pytest.mark.slow
def test_kill_9_at_50_points_loses_and_changes_nothing(source, tmp_path) -> None:
    (tmp_path / "killed").mkdir()
    done = subprocess.run(
        [sys.executable, str(CRASHING), str(source), str(tmp_path / "killed"), "50", "50"],
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    told = [line.split() for line in done.stdout.splitlines()]
    assert [exits[:2] for exits in told] == [["-9", "0"]] * 50, (told, done.stderr)
    expected = contents(tmp_path / "killed" / "once")
    for place, point in enumerate(told):
        assert contents(tmp_path / "killed" / str(place)) == expected, point


@pytest.mark.slow
def test_the_command_and_its_processes_die_together_and_a_rerun_completes(tmp_path, fake, config) -> None:
    """Killed from outside, at times that fall into all of its life, with two processes at work."""
    place = tmp_path / "more"
    for run in (1, 2):
        fake.write_run(place, "Pong", run, fake.make_run([300] * 16, 6, seed=run), [600] * 8)
    options = ["--source", str(place), "--games", "Pong", "--runs", "1", "2", "--fraction", "0.7", "--workers", "2"]
    command = [sys.executable, "-m", "jowa.import_dqn_replay", *options, "--out"]
    subprocess.run([*command, str(tmp_path / "once")], check=True, capture_output=True, timeout=200)
    for stop_when in ("Pong", ".import/Pong"):
        killed = subprocess.Popen([*command, str(tmp_path / "out")], stdout=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 60
        while not (tmp_path / "out" / stop_when).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait() == -9
        while session_lives(killed.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not session_lives(killed.pid), "its processes must die with it"
    subprocess.run([*command, str(tmp_path / "out")], check=True, capture_output=True, timeout=200)
    assert contents(tmp_path / "out") == contents(tmp_path / "once")


def session_lives(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True
