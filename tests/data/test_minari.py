"""Store → Minari → store gives the same episodes; other data sets come in if they are what they must be."""

from __future__ import annotations

import json
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jowa.data import minari_export
from jowa.data.minari_export import export
from jowa.data.minari_import import import_episodes, open_source
from jowa.data.store import EpisodeStore
from jowa.errors import DataError, UsageError, describe_os_error
from jowa.games import get_game

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")
gymnasium = pytest.importorskip("gymnasium")


@pytest.fixture
def episodes(make_episode):
    first = make_episode("Pong", 37, 1, policy="expert:0.1")
    return [
        replace(first, seed=2**64 - 1, score=-3.25),
        make_episode("Pong", 1, 2, terminal=False, policy="agent:/a/long/path"),
        replace(make_episode("Pong", 20, 3), rewards=np.full(20, 0.1, np.float32), score=0.1 + 0.2),
    ]


@pytest.fixture
def store(tmp_path, episodes, make_episode, make_store_of) -> EpisodeStore:
    return EpisodeStore.open(make_store_of(tmp_path / "store", [*episodes, make_episode("Boxing", 5)]))


def test_a_round_trip_is_exact(tmp_path, store, episodes, assert_same_episode) -> None:
    assert export(store, tmp_path / "pong-v0", "Pong", progress=False) == (3, 58)
    summary = import_episodes(open_source(tmp_path / "pong-v0"), tmp_path / "back", progress=False)
    assert (summary.episodes, summary.steps, summary.clipped, summary.source.lossy) == (3, 58, 0, False)
    back = EpisodeStore.open(tmp_path / "back")
    assert back.games == ("Pong",) and back.attributes["imported"]["Pong"]["dataset"] == "pong-v0"
    for number, episode in enumerate(episodes):
        assert_same_episode(back.read_episode("Pong", number), episode)
    assert not list(tmp_path.rglob("*.partial"))


def test_minari_reads_what_was_exported(tmp_path, store, episodes, monkeypatch) -> None:
    before = dict(os.environ)
    export(store, tmp_path / "pong-v0", "Pong", progress=False)
    assert dict(os.environ) == before
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    dataset = minari.load_dataset("pong-v0")
    assert dataset.id == "pong-v0" and dataset.total_episodes == 3 and dataset.total_steps == 58
    assert dataset.action_space == gymnasium.spaces.Discrete(18)
    assert dataset.observation_space == gymnasium.spaces.Box(0, 255, (84, 84), np.uint8)
    assert "the one before it, repeated" in dataset.storage.metadata["description"]
    for data, episode in zip(dataset.iterate_episodes(), episodes, strict=True):
        assert np.array_equal(data.observations[:-1], episode.frames) and data.actions.dtype == np.int64
        assert np.array_equal(data.observations[-1], episode.frames[-1])
        assert np.array_equal(data.rewards, episode.rewards) and np.array_equal(data.actions, episode.actions)
        assert data.terminations.tolist() == [False] * (len(episode) - 1) + [episode.terminal]
        assert data.truncations.tolist() == [False] * (len(episode) - 1) + [not episode.terminal]


def test_what_export_refuses(tmp_path, store) -> None:
    (tmp_path / "there-v0").mkdir()
    for out, game, message in (
        ("pong-v0", None, "has Boxing, Pong: choose one with --game"),
        ("pong", "Pong", "must be like pong-v0"),
        ("there-v0", "Pong", "exists: Minari data sets are not overwritten"),
        ("pong-v0", "Pnog", "unknown game 'Pnog'"),
    ):
        with pytest.raises(UsageError, match=message):
            export(store, tmp_path / out, game, progress=False)
    with pytest.raises(DataError, match="has no episodes of Breakout"):
        export(store, tmp_path / "breakout-v0", "Breakout", progress=False)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["store", "there-v0"]


def test_an_export_that_fails_or_is_killed_leaves_nothing_under_its_name(tmp_path, store, monkeypatch) -> None:
    file = store.path / "Pong/frames/c/0/0/0"
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-20_000] ^= 1
    file.write_bytes(flipped[:400] + b"x" + flipped[401:])
    with pytest.raises(DataError, match="Pong/frames/c/0/0/0 is damaged"):
        export(store, tmp_path / "pong-v0", "Pong", progress=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]
    file.write_bytes(whole)
    killed = tmp_path / ".pong-v0.partial/pong-v0/data"
    killed.mkdir(parents=True)
    (killed / "main_data.hdf5").write_bytes(b"half")
    export(EpisodeStore.open(store.path), tmp_path / "pong-v0", "Pong", progress=False)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["pong-v0", "store"]
    assert len(minari.MinariDataset(tmp_path / "pong-v0/data")) == 3


def test_two_exports_to_one_place(tmp_path, store, monkeypatch) -> None:
    written = minari_export._write

    def second_one(*arguments) -> None:
        with pytest.raises(DataError, match="is being written by another process"):
            export(store, tmp_path / "pong-v0", "Pong", progress=False)
        written(*arguments)

    monkeypatch.setattr(minari_export, "_write", second_one)
    export(store, tmp_path / "pong-v0", "Pong", progress=False)
    assert len(minari.MinariDataset(tmp_path / "pong-v0/data")) == 3


def test_an_import_goes_on_where_it_was_stopped(tmp_path, store, episodes, full_disk, contents) -> None:
    export(store, tmp_path / "pong-v0", "Pong", progress=False)
    source = open_source(tmp_path / "pong-v0")
    import_episodes(source, tmp_path / "whole", progress=False)
    for fails_at in (3, 30, 50):
        with full_disk(fails_at), pytest.raises(OSError) as caught:
            import_episodes(source, tmp_path / f"out{fails_at}", progress=False)
        assert describe_os_error(caught.value).startswith(f"the disk is full at {tmp_path}/out{fails_at}")
        again = import_episodes(source, tmp_path / f"out{fails_at}", progress=False)
        assert again.reused == {3: 0, 30: 0, 50: 1}[fails_at]
        assert contents(tmp_path / f"out{fails_at}") == contents(tmp_path / "whole")
    assert import_episodes(source, tmp_path / "whole", progress=False).reused == 3


def foreign(folder: Path, buffers, observations=None, actions=None, **options) -> Path:
    """A data set that somebody else made."""
    box = gymnasium.spaces.Box(0, 255, (84, 84), np.uint8)
    folder.parent.mkdir(parents=True, exist_ok=True)
    options = {"jpeg_encoding": False, **options}
    with warnings.catch_warnings(), minari_export._written_below(folder.parent):
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            folder.name, buffers, observation_space=observations or box,
            action_space=actions or gymnasium.spaces.Discrete(18), **options,
        )  # fmt: skip
    return folder


def buffer(steps: int = 6, shape=(84, 84), actions=None, rewards=None, frames=None, **options):
    generator = np.random.default_rng(steps)
    return minari.data_collector.EpisodeBuffer(
        observations=generator.integers(0, 255, (steps + 1, *shape), dtype=np.uint8) if frames is None else frames,
        actions=np.zeros(steps, np.int64) if actions is None else np.array(actions),
        rewards=np.zeros(steps) if rewards is None else np.array(rewards),
        terminations=np.arange(steps) == steps - 1,
        truncations=np.zeros(steps, np.bool_),
        **{"infos": {}, **options},
    )


def test_somebody_elses_data(tmp_path) -> None:
    rewards = [0.5, -7.0, 1.0, 200.0, 0.0, -1.0]
    legal = get_game("Pong").legal_actions
    data = buffer(actions=np.arange(6) + 5, rewards=rewards, shape=(84, 84, 1))
    space = gymnasium.spaces.Discrete(len(legal), start=5)
    shape = gymnasium.spaces.Box(0, 255, (84, 84, 1), np.uint8)
    place = foreign(
        tmp_path / "p-v3", [data, buffer(4, (84, 84, 1), np.full(4, 5))], shape, space, algorithm_name="DQN"
    )
    with pytest.raises(UsageError, match="does not say whose data it holds: name the game with --game"):
        open_source(place)
    with pytest.raises(UsageError, match=r"has 6 actions: expected ALE's full set of 18.* add --minimal-actions"):
        open_source(place, "Pong")
    with pytest.raises(UsageError, match="has 6 actions, Boxing's minimal set 18: drop"):
        open_source(place, "Boxing", minimal_actions=True)
    summary = import_episodes(open_source(place, "Pong", minimal_actions=True), tmp_path / "out", progress=False)
    assert "2 rewards clipped" in summary.describe() and summary.clipped == 2
    episode = EpisodeStore.open(tmp_path / "out").read_episode("Pong", 0)
    assert episode.actions.tolist() == list(legal) and episode.rewards.tolist() == [0.5, -1, 1, 1, 0, -1]
    assert (episode.score, episode.seed, episode.policy, episode.terminal) == (193.5, 0, "DQN", True)
    assert np.array_equal(episode.frames, data.observations[:-1, :, :, 0])


def test_the_game_is_read_off_the_environment(tmp_path) -> None:
    import ale_py

    gymnasium.register_envs(ale_py)
    spec = gymnasium.spec("ALE/SpaceInvaders-v5")
    place = tmp_path / "x-v0"
    foreign(place, [buffer()])
    file = place / "data/metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"env_spec": spec.to_json()}))
    assert open_source(place / "data").game == "SpaceInvaders"
    with pytest.raises(UsageError, match="is of SpaceInvaders, not of Pong"):
        open_source(place, "Pong")


def test_jpeg_is_said_to_be_inexact(tmp_path) -> None:
    place = foreign(tmp_path / "x-v0", [buffer()], jpeg_encoding=True)
    summary = import_episodes(open_source(place, "Pong"), tmp_path / "out", progress=False)
    assert "stored as JPEG, which is not exact" in summary.describe()


def test_data_of_another_kind_is_refused(tmp_path) -> None:
    wide = gymnasium.spaces.Box(0, 255, (210, 160, 3), np.uint8)
    floats = gymnasium.spaces.Box(0, 1, (84, 84), np.float32)
    for number, (data, options, message) in enumerate((
        (buffer(shape=(210, 160, 3)), {"observations": wide}, r"of shape \(210, 160, 3\): expected one of"),
        (buffer(), {"observations": floats}, "expected frames of uint8"),
        (buffer(), {"actions": gymnasium.spaces.Box(-1, 1, (2,))}, "expected a Discrete space"),
        (buffer(actions=[2] * 6), {}, "episode 1 of .* cannot be taken: .*actions that are illegal"),
        (buffer(actions=[18] * 6), {}, "episode 1 of .* cannot be taken: it has 6 actions, some not below 18"),
        (buffer(rewards=[np.nan] * 6), {}, r"episode 1 of .* rewards outside \[-1, 1\]"),
        (buffer(frames=np.zeros((6, 84, 84), np.uint8)), {}, "expected one frame more than steps"),
        (buffer(seed=-1), {}, "seed -1"),
    )):  # fmt: skip
        first = buffer(shape=options["observations"].shape if "observations" in options else (84, 84))
        place = foreign(tmp_path / f"x-v{number}", [first, data], **options)
        with pytest.raises(DataError, match=message) as caught:
            import_episodes(open_source(place, "Pong"), tmp_path / f"out{number}", progress=False)
        assert "\n" not in str(caught.value)
    assert EpisodeStore.open(tmp_path / "out3").num_episodes("Pong") == 1  # those before it stay


def test_no_data_set_or_a_damaged_one(tmp_path, store) -> None:
    with pytest.raises(DataError, match="is no Minari data set"):
        open_source(tmp_path / "nowhere")
    export(store, tmp_path / "pong-v0", "Pong", progress=False)
    file = tmp_path / "pong-v0/data/main_data.hdf5"
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"cannot be read .*: restore it from a copy"):
        import_episodes(open_source(tmp_path / "pong-v0"), tmp_path / "out", progress=False)
    (tmp_path / "pong-v0/data/metadata.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be read"):
        open_source(tmp_path / "pong-v0")


def test_other_data_are_not_mixed_in(tmp_path, store, make_episode, make_store_of) -> None:
    for game in ("Pong", "Boxing"):
        export(store, tmp_path / f"{game}-v0", game, progress=False)
        import_episodes(open_source(tmp_path / f"{game}-v0"), tmp_path / "out", progress=False)
    assert EpisodeStore.open(tmp_path / "out").games == ("Boxing", "Pong")
    place = foreign(tmp_path / "other-v0", [buffer()])
    with pytest.raises(UsageError, match=r"Pong in .* came from .*Pong-v0, another data set"):
        import_episodes(open_source(place, "Pong"), tmp_path / "out", progress=False)
    with pytest.raises(UsageError, match="has Pong from elsewhere: import into a new folder, then merge"):
        import_episodes(open_source(place, "Pong"), store.path, progress=False)


@pytest.mark.parametrize("missing", ["minari", "h5py"])
def test_without_minari(tmp_path, store, monkeypatch, missing) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=rf"{missing} is not installed.*: pip install 'minari\[hdf5\]'"):
        export(store, tmp_path / "pong-v0", "Pong", progress=False)
