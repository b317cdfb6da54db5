"""Which moments are drawn, with which weights, and what followed them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jowa.data.store import EpisodeStore
from jowa.data.writer import EpisodeWriter
from jowa.diagnose.moments import FEW_EPISODES, Moments, draw_moments, held_out, read_followed
from jowa.types import Episode

GAMMA = 0.9
MakeStore = Callable[..., EpisodeStore]


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """A store of Pong; every argument is the rewards of an episode, with whether it ended."""

    def make(*episodes: tuple[list[float], bool]) -> EpisodeStore:
        with EpisodeWriter.open(tmp_path / "store") as writer:
            for number, (rewards, terminal) in enumerate(episodes):
                length = len(rewards)
                frames = np.full((length, 84, 84), number, np.uint8)
                frames[:, 0, 0] = np.arange(length) % 256
                actions = (np.arange(length) % 2 + 3).astype(np.uint8)
                earned = np.array(rewards, np.float32)
                writer.append(Episode("Pong", frames, actions, earned, terminal, "random", number, 0.0))
        return EpisodeStore.open(tmp_path / "store")

    return make


def draw(store: EpisodeStore, count: int, steps: int = 3, hidden: float = 0.05, seed: int = 0) -> Moments:
    generator = np.random.default_rng(seed)
    return draw_moments(store, "Pong", range(store.num_episodes("Pong")), count, steps, GAMMA, hidden, generator)


def test_the_last_share_is_held_out_and_at_least_one(make_store: MakeStore) -> None:
    store = make_store(*[([0.0] * 5, True)] * 11)
    assert list(held_out(store, "Pong", 0.1)) == [10]
    assert list(held_out(store, "Pong", 0.3)) == [8, 9, 10]
    assert list(held_out(store, "Pong", 0.01)) == [10]
    assert list(held_out(store, "Pong", 1.0)) == list(range(11))


def test_returns_are_discounted_and_hidden_ones_left_out(make_store: MakeStore) -> None:
    store = make_store(([0, 1, 0, -1], True), ([1.0] * 60, False))
    moments = draw(store, 64)
    plain = moments.uniform
    by_place = {
        (e, s): r for e, s, r in zip(moments.episodes[plain], moments.steps[plain], moments.returns[plain], strict=True)
    }
    assert len(by_place) == 64, "drawn without replacement, all of them"
    assert by_place[0, 3] == -1 and by_place[0, 1] == pytest.approx(1 - GAMMA**2)
    # 0.9^28 = 0.0523, 0.9^29 = 0.0471: with 29 steps left the cut hides less than 0.05.
    assert np.isnan(by_place[1, 60 - 28]) and np.isfinite(by_place[1, 60 - 29])


def test_weights_undo_the_oversampling(make_store: MakeStore) -> None:
    """Rewards stand in 2 % of the steps and are drawn much oftener; weighted, they are 2 % again."""
    rewards = np.zeros(4000)
    rewards[25::50] = 1
    moments = draw(make_store((rewards.tolist(), True)), 800, steps=1)
    hit = rewards[moments.steps] != 0
    assert hit.mean() > 0.05
    assert (moments.weights * hit).sum() / moments.weights.sum() == pytest.approx(0.02, abs=0.004)
    assert moments.weights.mean() == pytest.approx(1.0)
    assert hit.sum() >= 80 and (~moments.uniform).sum() == 80 + 1, "all 80 rewards, and the end"


def test_no_rewards_and_no_ends(make_store: MakeStore) -> None:
    moments = draw(make_store(([0.0] * 40, False)), 20)
    assert len(moments) == 20 and moments.uniform.all()
    np.testing.assert_array_equal(moments.weights, 1.0)


def test_few_episodes_are_cut_into_stretches(make_store: MakeStore) -> None:
    few = draw(make_store(([0.0] * 600, True)), 600)
    assert few.unit == "stretches of 256 steps" and len(set(few.units.tolist())) == 3
    assert draw(make_store(*[([0.0] * 3, True)] * FEW_EPISODES), 9).unit == "episodes"


def test_a_seed_fixes_the_moments(make_store: MakeStore) -> None:
    store = make_store(([0.0, 1.0] * 100, True))
    one, same, other = (draw(store, 30, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.steps, same.steps)
    assert (one.steps != other.steps).any()


@pytest.mark.parametrize("terminal", [True, False])
def test_what_followed_stops_with_the_recording(make_store: MakeStore, terminal: bool) -> None:
    store = make_store(([0, 0, 0, 1, -1], terminal))
    moments = draw(store, 5, steps=3)
    [(rows, followed)] = read_followed(store, moments, context=2, steps=3, batch=100)
    assert rows == slice(0, len(moments))
    row = int(np.flatnonzero(moments.steps == 3)[0])
    assert [frame[0, 0] for frame in followed.starts[row].frames] == [2, 3]
    assert followed.starts[row].actions.tolist() == [3]
    assert followed.actions[row].tolist() == [4, 3, 0] and followed.rewards[row].tolist() == [1, -1, 0]
    assert followed.happened[row].tolist() == [True, True, False]
    assert followed.seen[row].tolist() == [True, False, False] and followed.frames[row, 0, 0, 0] == 4
    assert followed.ends[row].tolist() == [False, terminal, False], "a cut-off is not an end"
    first = int(np.flatnonzero(moments.steps == 0)[0])
    assert len(followed.starts[first].frames) == 1 and len(followed.starts[first].actions) == 0
    assert followed.frames[first, :, 0, 0].tolist() == [1, 2, 3]


def test_batches_change_nothing(make_store: MakeStore) -> None:
    store = make_store(([0.0, 1.0] * 20, True))
    moments = draw(store, 30)
    parts = list(read_followed(store, moments, 2, 3, batch=7))
    [(_, whole)] = read_followed(store, moments, 2, 3, batch=1000)
    for name in ("actions", "frames", "rewards", "ends", "happened", "seen"):
        joined = np.concatenate([getattr(part, name) for _, part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
