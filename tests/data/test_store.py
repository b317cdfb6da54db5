"""Writing, reading, resuming and locking an episode store."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from jowa.data import schema
from jowa.data.store import EpisodeStore
from jowa.data.writer import EpisodeWriter
from jowa.errors import DataError, UsageError
from jowa.types import Episode

CRASHING_WRITER = Path(__file__).parent / "crashing_writer.py"


def test_what_is_written_is_read(tmp_path, make_episode, assert_same_episode) -> None:
    # Lengths around the borders of chunks (32) and shards (4096), and one over several shards.
    lengths = [1, 31, 32, 33, 3999, 4200, 7]
    written = [make_episode("Pong", n, seed=n, terminal=n % 2 == 0, policy=f"p{n % 3}") for n in lengths]
    with EpisodeWriter.open(tmp_path) as writer:
        for episode in written:
            writer.append(episode)
        assert writer.num_episodes("Pong") == len(lengths) and writer.num_steps("Pong") == sum(lengths)
        assert writer.num_episodes("Breakout") == 0
    store = EpisodeStore.open(tmp_path)
    assert store.games == ("Pong",) and store.num_steps("Pong") == sum(lengths)
    for number, episode in enumerate(written):
        assert_same_episode(store.read_episode("Pong", number), episode)
    infos = store.episodes("Pong")
    assert [info.length for info in infos] == lengths
    assert [info.offset for info in infos] == np.cumsum([0, *lengths[:-1]]).tolist()
    frames, actions, rewards = store.read("Pong", 60, 70)
    whole = [np.concatenate([getattr(e, name) for e in written]) for name in ("frames", "actions", "rewards")]
    for got, expected in zip((frames, actions, rewards), whole, strict=True):
        assert np.array_equal(got, expected[60:70])


def test_any_zarr_reader_opens_it(make_store) -> None:
    store = make_store(Pong=[40, 4100])
    group = zarr.open_group(store.path, mode="r", zarr_format=3)
    assert dict(group.attrs).items() >= {"schema": "jowa-episodes", "version": 2}.items()
    frames = group["Pong/frames"]
    assert frames.shape == (4140, 84, 84) and frames.chunks == (16, 84, 84) and frames.shards == (16384, 84, 84)
    assert np.array_equal(frames[:], store.read_frames("Pong", 0, 4140))
    counts = {"num_episodes": 2, "num_steps": 4140, "num_rows": 4140, "policies": ["random"]}
    assert dict(group["Pong"].attrs).items() >= counts.items()
    actions, rewards = store.read_scalars("Pong", 0, 4140)
    assert np.array_equal(group["Pong/actions"][:], actions) and np.array_equal(group["Pong/rewards"][:], rewards)


def test_frames_without_any_light_are_stored_too(tmp_path) -> None:
    # An all-zero chunk is what Zarr would leave out; here a missing chunk must mean damage.
    dark = Episode(
        "Pong",
        np.zeros((64, 84, 84), np.uint8),
        np.zeros(64, np.uint8),
        np.zeros(64, np.float32),
        True,
        "random",
        0,
        0.0,
    )
    with EpisodeWriter.open(tmp_path) as writer:
        writer.append(dark)
    assert (tmp_path / "Pong/frames/c/0/0/0").is_file()
    assert not EpisodeStore.open(tmp_path).read_frames("Pong", 0, 64).any()


def test_a_reader_sees_a_snapshot(tmp_path, make_episode) -> None:
    with EpisodeWriter.open(tmp_path) as writer:
        writer.append(make_episode("Pong", 20, 1))
        store = EpisodeStore.open(tmp_path)
        writer.append(make_episode("Pong", 30, 2))
        writer.append(make_episode("Boxing", 10, 3))
        assert store.num_steps("Pong") == 20 and store.games == ("Pong",)
        assert len(store.read_episode("Pong", 0)) == 20
    assert EpisodeStore.open(tmp_path).games == ("Boxing", "Pong")


def test_second_writer_is_refused_until_the_first_is_done(tmp_path, make_episode) -> None:
    with EpisodeWriter.open(tmp_path) as writer:
        with pytest.raises(DataError, match="is being written by another process: wait"):
            EpisodeWriter.open(tmp_path)
        writer.append(make_episode("Pong", 3))
    with EpisodeWriter.open(tmp_path) as writer:
        assert writer.num_episodes("Pong") == 1


def test_uncommitted_data_are_ignored_and_overwritten(tmp_path, make_episode, assert_same_episode) -> None:
    episodes = [make_episode("Pong", n, n) for n in (50, 70, 60)]
    with EpisodeWriter.open(tmp_path) as writer:
        writer.append(episodes[0])
    before = (tmp_path / "Pong/zarr.json").read_bytes()
    with EpisodeWriter.open(tmp_path) as writer:
        writer.append(episodes[1])
    (tmp_path / "Pong/zarr.json").write_bytes(before)  # as if killed just before the commit
    store = EpisodeStore.open(tmp_path)
    assert len(store.episodes("Pong")) == 1 and store.num_steps("Pong") == 50
    with EpisodeWriter.open(tmp_path) as writer:
        assert writer.num_steps("Pong") == 50
        assert zarr.open_array(tmp_path / "Pong/frames", mode="r").shape[0] == 50
        writer.append(episodes[2])
    store = EpisodeStore.open(tmp_path)
    assert_same_episode(store.read_episode("Pong", 1), episodes[2])
    assert store.num_steps("Pong") == 110


@pytest.mark.parametrize("where", ["before", "after"])
def test_kill_9_at_any_write_loses_and_doubles_nothing(tmp_path, where, make_episode, assert_same_episode) -> None:
    """The writer is killed, again and again, at random writes, until it has all its episodes."""
    lengths, chance, rounds = [40, 4090, 25, 33], random.Random(where), 0
    while True:
        survives_after = 1000 if rounds == 3 else chance.randrange(1, 40)
        arguments = [str(tmp_path), where, str(survives_after), *map(str, lengths)]
        done = subprocess.run([sys.executable, str(CRASHING_WRITER), *arguments], capture_output=True, text=True)
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        rounds += 1
        assert rounds <= 3, "without a kill the writer must come to its end"
        if _has_episode(tmp_path):
            store = EpisodeStore.open(tmp_path)
            for number in range(store.num_episodes("Pong")):
                assert_same_episode(store.read_episode("Pong", number), make_episode("Pong", lengths[number], number))
    assert rounds >= 2, "the test must have killed something"
    store = EpisodeStore.open(tmp_path)
    assert store.num_episodes("Pong") == len(lengths)
    for number, length in enumerate(lengths):
        assert_same_episode(store.read_episode("Pong", number), make_episode("Pong", length, number))
    assert not list(tmp_path.rglob("*.partial"))


def test_the_commit_is_one_write(tmp_path, make_episode, monkeypatch) -> None:
    with EpisodeWriter.open(tmp_path) as writer:
        writer.append(make_episode("Pong", 3))
        replaced = []
        original = Path.replace
        monkeypatch.setattr(
            Path, "replace", lambda self, target: (replaced.append(Path(target)), original(self, target))
        )
        writer.append(make_episode("Pong", 4))
    document = tmp_path / "Pong/zarr.json"
    assert replaced.count(document) == 1 and replaced[-1] == document


def _has_episode(path: Path) -> bool:
    return (path / "Pong/zarr.json").exists() and schema.check_game(path, "Pong")["num_episodes"] > 0


def test_bad_episodes_never_reach_the_disk(tmp_path, make_episode) -> None:
    from dataclasses import replace

    good = make_episode("Pong", 10)
    bad = {
        r"frames float32 .* expected uint8": replace(good, frames=good.frames.astype(np.float32)),
        r"actions uint8 \(9,\)|frames uint8 \(10": replace(good, actions=good.actions[:9]),
        r"rewards outside \[-1, 1\]": replace(good, rewards=good.rewards * 3),
        r"rewards outside": replace(good, rewards=np.full(10, np.nan, np.float32)),
        r"actions that are illegal": replace(good, actions=np.full(10, 2, np.uint8)),
        r"actions that are illegal in it": replace(good, actions=np.full(10, 200, np.uint8)),
        r"seed -1": replace(good, seed=-1),
        r"score nan": replace(good, score=float("nan")),
        r"at least one step": make_episode("Pong", 1).__class__(
            "Pong", good.frames[:0], good.actions[:0], good.rewards[:0], True, "random", 0, 0.0
        ),
    }
    with EpisodeWriter.open(tmp_path) as writer:
        for message, episode in bad.items():
            with pytest.raises(DataError, match=message):
                writer.append(episode)
        with pytest.raises(UsageError, match="unknown game"):
            writer.append(replace(good, game="Pongo"))
        writer.append(good)
        assert writer.num_episodes("Pong") == 1


def test_attributes_merge_and_keep_the_schema(tmp_path) -> None:
    with EpisodeWriter.open(tmp_path) as writer:
        writer.update_attributes({"source": "here"})
        with pytest.raises(UsageError, match="fixed"):
            writer.update_attributes({"version": 3})
    with EpisodeWriter.open(tmp_path) as writer:
        assert writer.attributes == {"schema": "jowa-episodes", "version": 2, "source": "here"}


def test_questions_about_absent_things(make_store) -> None:
    store = make_store(Pong=[5, 6])
    with pytest.raises(DataError, match="has no episodes of Boxing: it has Pong"):
        store.num_steps("Boxing")
    with pytest.raises(UsageError, match="unknown game 'Pnog'"):
        store.num_steps("Pnog")
    with pytest.raises(UsageError, match="no episode 2: choose 0 to 1"):
        store.read_episode("Pong", 2)
    with pytest.raises(UsageError, match="steps 5 to 12 of Pong: its arrays have 11 rows"):
        store.read("Pong", 5, 12)
