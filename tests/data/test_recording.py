"""Recording: episodes are functions of (seed, game, k); resuming, settings, what goes wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jowa.data.record import RecordConfig, episode_seed, play_episode, record
from jowa.data.store import EpisodeStore
from jowa.data.writer import EpisodeWriter
from jowa.env.atari import AtariEnv, AtariOptions
from jowa.errors import DataError, JowaError, UsageError

SHORT = {"max_steps": 25, "workers": 1}


def all_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    store = EpisodeStore.open(path)
    found = {}
    for game in store.games:
        episodes = [store.read_episode(game, k) for k in range(store.num_episodes(game))]
        found[game] = [
            (e.frames.tobytes(), e.actions.tobytes(), e.rewards.tobytes(), e.terminal, e.policy, e.seed, e.score)
            for e in episodes
        ]
    return found


def test_whole_episodes_until_there_are_enough_steps(tmp_path) -> None:
    config = RecordConfig(tmp_path, ("Pong", "Breakout"), steps=60, **SHORT)
    summary = record(config, progress=False)
    store = EpisodeStore.open(tmp_path)
    assert store.games == ("Breakout", "Pong")
    for game in store.games:
        infos = store.episodes(game)
        assert [info.length for info in infos] == [25, 25, 25] and not any(info.terminal for info in infos)
        assert [info.policy for info in infos] == list(config.mixture(game)[:3])
        assert [info.seed for info in infos] == [episode_seed(0, game, k) for k in range(3)]
    assert summary.steps == {"Pong": 75, "Breakout": 75} and summary.reused == 0
    assert store.attributes["recording"]["Pong"] == config.settings("Pong")


def test_resuming_equals_recording_at_once_whatever_the_workers(tmp_path) -> None:
    once = RecordConfig(tmp_path / "once", ("Freeway", "Pong"), steps=140, seed=3, **SHORT)
    record(once, progress=False)
    pieces = replace(once, out=tmp_path / "pieces")
    record(replace(pieces, games=("Pong",), steps=20), progress=False)
    record(replace(pieces, games=("Pong", "Freeway"), steps=70, workers=2), progress=False)
    summary = record(pieces, progress=False)
    assert summary.reused == 6 and "(reusing 6 episodes)" in summary.describe()
    assert all_of(tmp_path / "once") == all_of(tmp_path / "pieces")
    assert record(pieces, progress=False).reused == 12


def test_an_episode_is_what_the_environment_plays(tmp_path) -> None:
    options = AtariOptions(max_steps=400)
    episode = play_episode("Breakout", 4, "expert:0.2", 7, options)
    environment = AtariEnv("Breakout", options)
    frame, _ = environment.reset(seed=episode.seed)
    score = 0.0
    for t, action in enumerate(episode.actions):
        assert np.array_equal(frame, episode.frames[t])
        frame, reward, terminated, truncated, _ = environment.step(int(action))
        assert episode.rewards[t] == np.clip(reward, -1, 1)
        score += reward
    assert (terminated or truncated) and episode.terminal == terminated and episode.score == score
    again = play_episode("Breakout", 4, "expert:0.2", 7, options)
    assert np.array_equal(again.frames, episode.frames)
    other = play_episode("Breakout", 5, "expert:0.2", 7, options)
    assert other.seed != episode.seed and other.actions.tolist() != episode.actions.tolist()


def test_rewards_are_clipped_and_scores_are_not() -> None:
    episode = play_episode("Atlantis", 0, "expert", 0, AtariOptions(max_steps=400))
    assert episode.score >= 100 and set(episode.rewards.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seed": 1}, "seed was 0, now 1"),
        ({"sticky": 0.0}, r"sticky was 0\.25, now 0\.0"),
        ({"max_steps": 26}, "max_steps was 25, now 26"),
        ({"policies": ("random",)}, r"policies was \['follower', .*\], now \['random'\]"),
    ],
)
def test_other_settings_are_refused(tmp_path, change, difference) -> None:
    config = RecordConfig(tmp_path, ("Pong",), steps=1, **SHORT)
    record(config, progress=False)
    before = all_of(tmp_path)
    with pytest.raises(
        UsageError, match=rf"Pong in .* was recorded with other settings \({difference}\): use the same"
    ):
        record(replace(config, steps=100, **change), progress=False)
    assert all_of(tmp_path) == before


def test_imported_games_are_not_recorded_into(tmp_path, make_episode) -> None:
    with EpisodeWriter.open(tmp_path) as writer:
        writer.append(make_episode("Pong", 5))
    with pytest.raises(UsageError, match="was not recorded by this command: choose another folder"):
        record(RecordConfig(tmp_path, ("Pong",), steps=100, **SHORT), progress=False)
    record(RecordConfig(tmp_path, ("Boxing",), steps=1, **SHORT), progress=False)  # another game is fine
    assert EpisodeStore.open(tmp_path).games == ("Boxing", "Pong")


def test_disk_full_while_recording_names_the_folder_and_resumes(tmp_path, full_disk) -> None:
    config = RecordConfig(tmp_path / "full", ("Pong",), steps=100, **SHORT)
    with full_disk(70), pytest.raises(OSError) as caught:
        record(config, progress=False)
    assert caught.value.filename == str(tmp_path / "full")
    finished = EpisodeStore.open(tmp_path / "full").num_episodes("Pong")
    assert 1 <= finished < 4
    assert record(config, progress=False).reused == finished
    record(replace(config, out=tmp_path / "fine"), progress=False)
    assert all_of(tmp_path / "full") == all_of(tmp_path / "fine")


def test_a_dead_player_is_a_plain_error(tmp_path, monkeypatch) -> None:
    from concurrent.futures.process import BrokenProcessPool

    import jowa.data.record as recording

    def dies(*_: object) -> None:
        raise BrokenProcessPool("a child was killed")

    config = RecordConfig(tmp_path, ("Pong",), steps=30, **SHORT)
    record(config, progress=False)
    monkeypatch.setattr(recording, "play_episode", dies)
    with pytest.raises(JowaError, match=r"a working process died .* fewer --workers; finished episodes are kept"):
        record(replace(config, steps=60), progress=False)
    assert EpisodeStore.open(tmp_path).num_episodes("Pong") == 2


def test_mistakes_in_the_configuration(tmp_path) -> None:
    with pytest.raises(UsageError, match="unknown game 'Pnog': did you mean Pong"):
        RecordConfig(tmp_path, ("Pnog",))
    with pytest.raises(UsageError, match="games are none"):
        RecordConfig(tmp_path, ())
    with pytest.raises(UsageError, match="games are Pong Pong"):
        RecordConfig(tmp_path, ("Pong", "Pong"))
    with pytest.raises(UsageError, match="steps 0, workers 0, seed 0"):
        RecordConfig(tmp_path, ("Pong",), steps=0)
    with pytest.raises(UsageError, match="sticky is 2"):
        RecordConfig(tmp_path, ("Pong",), sticky=2.0)
    with pytest.raises(UsageError, match="Seaquest has no scripted expert"):
        record(RecordConfig(tmp_path / "new", ("Seaquest",), policies=("expert",)))
    assert not (tmp_path / "new").exists(), "a mistake in the call must leave nothing behind"
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        record(RecordConfig(tmp_path / "file", ("Pong",)))


@pytest.mark.slow
def test_kill_at_fifty_random_points(tmp_path, killed, contents) -> None:
    """After a rerun the data set is, byte for byte, that of a recording that was never interrupted."""
    config = RecordConfig(tmp_path / "whole", ("Pong",), steps=60, seed=1, max_steps=25, workers=1)
    record(config, progress=False)
    whole = contents(config.out)
    generator, deaths = np.random.default_rng(0), 0
    for point in range(50):
        again = replace(config, out=tmp_path / f"killed{point}")
        number, when = int(generator.integers(1, 70)), str(generator.choice(["before", "after", "half"]))
        deaths += killed(lambda again=again: record(again, progress=False), number, when)
        record(again, progress=False)
        assert contents(again.out) == whole, (number, when)
    assert deaths == 50
