"""Imagination that is right so many times out of so many, and the figures that must follow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from jowa.agent import Agent
from jowa.diagnose.estimates import Estimate, Resampler
from jowa.diagnose.imagination import AgentsWorld, Rolled, Scored, bound_terms, score, step_figures
from jowa.diagnose.moments import Followed
from jowa.dream.world import Dreams, Start

SIDE = 14
"""Pixels along each side of a patch: a token of the made-up world is the grey level of its patch."""


def picture(tokens: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Frames (..., 84, 84) of tokens (..., 36)."""
    grid = tokens.reshape(*tokens.shape[:-1], 6, 6)
    return grid.repeat(SIDE, axis=-2).repeat(SIDE, axis=-1).astype(np.uint8)


class MadeUpWorld:
    """Imagines what it is told to."""

    def __init__(self, rolled: Rolled) -> None:
        self.rolled = rolled

    def imagine(self, starts: Sequence[Start], actions: NDArray[np.int64]) -> Rolled:
        assert len(starts) == len(actions) == len(self.rolled.rewards)
        return self.rolled

    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.int64]:
        return frames[..., ::SIDE, ::SIDE].reshape(*frames.shape[:-2], 36).astype(np.int64)

    def decode(self, tokens: NDArray[np.int64]) -> NDArray[np.uint8]:
        return picture(tokens) + np.uint8(1)  # a tokenizer that is one grey level off


def two_moments() -> tuple[Followed, Rolled]:
    """Step 1 changes four patches from 10 to 50; of moment 0 three of them are imagined, of moment 1 all.

    Nothing is recorded after moment 1's first step, which ends the game.
    """
    before = np.full((2, 36), 10)
    after = np.repeat(before[:, None], 2, axis=1)
    after[:, :, :4] = 50
    starts = [Start(picture(tokens)[None], np.zeros(0, np.int64)) for tokens in before]
    frames = picture(after)
    frames[1, 1] = 0
    rewards = np.array([[1.0, -1.0], [-0.5, 0.0]], np.float32)
    ends, happened = np.array([[0, 0], [1, 0]], bool), np.array([[1, 1], [1, 0]], bool)
    seen = np.array([[1, 1], [1, 0]], bool)
    imagined = after.copy()
    imagined[0, 0, 3] = 10
    imagined[0, 1, :4] = 20
    said = np.array([[1.0, 1.0], [0.0, 1.0]], np.float32)
    ends_said = np.array([[0, 1], [1, 1]], bool)
    rolled = Rolled(imagined, picture(imagined), said, ends_said)
    return Followed(starts, np.zeros((2, 2), np.int64), frames, rewards, ends, happened, seen), rolled


@pytest.fixture(scope="module")
def scored() -> Scored:
    followed, rolled = two_moments()
    return score(MadeUpWorld(rolled), followed)


def test_every_figure_is_the_one_by_hand(scored: Scored) -> None:
    first, second = step_figures(scored, np.ones(2), Resampler(np.arange(2)))
    assert (first.k, second.k) == (1, 2)
    assert first.tokens.value == pytest.approx(71 / 72) and first.tokens_copy.value == pytest.approx(64 / 72)
    assert first.changed_tokens.value == pytest.approx(7 / 8) and first.changed_tokens.n == 8
    assert (first.frames.value, first.frames_copy.value) == (0.5, 0.0)
    # One of eight moving patches is 40 grey levels off; copying misses all of them by 40.
    assert first.pixels.value == pytest.approx(5) and first.pixels_copy.value == pytest.approx(40)
    assert first.pixels_tokenizer.value == pytest.approx(1)
    # Real +1 and -, said +1 and 0; ends: said where it was, and not where it was not.
    assert (first.rewards.value, first.rewards_copy.value) == (0.5, 0.0)
    assert (first.reward_precision.value, first.reward_recall.value) == (1.0, 0.5)
    assert (first.ends.value, first.ends_copy.value) == (1.0, 0.5)
    assert (first.end_precision.value, first.end_recall.value) == (1.0, 1.0)
    # The second step of moment 1 never happened: what is said of it counts nowhere.
    assert second.tokens.value == pytest.approx(32 / 36) and second.changed_tokens.value == 0
    assert second.pixels.value == pytest.approx(30) and second.frames.n == second.rewards.n == 1
    assert (second.rewards.value, second.reward_precision.value, second.reward_recall.value) == (0, 0, 0)
    assert (second.end_precision.value, second.end_recall.value, second.end_recall.n) == (0.0, None, 0)


def test_weights_count(scored: Scored) -> None:
    first, _ = step_figures(scored, np.array([3.0, 1.0]), Resampler(np.arange(2)))
    assert first.frames.value == pytest.approx(1 / 4) and first.reward_recall.value == pytest.approx(3 / 4)
    assert first.tokens.value == pytest.approx((3 * 35 + 36) / (4 * 36))


def test_scores_of_parts_join(scored: Scored) -> None:
    twice = Scored.join([scored, scored])
    assert twice.tokens_right.tolist() == [*scored.tokens_right.tolist()] * 2


def test_the_terms_of_the_bound(scored: Scored) -> None:
    figures = step_figures(scored, np.ones(2), Resampler(np.arange(2)))
    first, second = bound_terms(figures, 0.5, 4.0)
    assert first.tokens == pytest.approx(1 / 72) and first.frames == 0.5 and first.critic == 2.0
    assert second.tokens == pytest.approx(1 / 72 + 0.5 * 4 / 36) and second.rewards == pytest.approx(0.5 + 0.5)
    assert second.frames == pytest.approx(0.5 + 0.5) and second.ends == pytest.approx(0.5) and second.critic == 1.0
    assert bound_terms(figures, 0.5, None)[0].critic is None


def test_what_is_unknown_stays_unknown_further_ahead(scored: Scored) -> None:
    figures = step_figures(scored, np.ones(2), Resampler(np.arange(2)))
    nothing = Estimate(None, None, None, 0)
    object.__setattr__(figures[0], "tokens", nothing)
    assert [row.tokens for row in bound_terms(figures, 0.5, 1.0)] == [None, None]


def test_the_agents_world_is_its_dream_beyond_the_context(agent: Agent) -> None:
    """Each of two moments is imagined as if alone, over more steps than the model's four."""
    generator = np.random.default_rng(3)
    starts = [
        Start(generator.integers(256, size=(n, 84, 84), dtype=np.uint8), generator.choice([0, 3, 4], size=n - 1))
        for n in (1, 2)
    ]
    actions = generator.choice([0, 3, 4], size=(2, 6))
    world = AgentsWorld(agent, "Pong", 2)
    rolled = world.imagine(starts, actions)
    assert rolled.tokens.shape == (2, 6, 36) and len(np.unique(rolled.tokens.reshape(12, 36), axis=0)) > 2
    for row, start in enumerate(starts):
        dream = Dreams(agent, "Pong", 1, 2, sample=False, temperature=1.0)
        dream.begin(0, start)
        for step in range(6):
            frames, rewards, ends = dream.step([0], actions[row, step : step + 1], np.zeros(1, np.int64))
            np.testing.assert_array_equal(dream.tokens(0), rolled.tokens[row, step])
            np.testing.assert_array_equal(frames[0], rolled.frames[row, step])
            assert (rewards[0], ends[0]) == (rolled.rewards[row, step], rolled.ends[row, step])
    np.testing.assert_array_equal(world.decode(rolled.tokens), rolled.frames)
