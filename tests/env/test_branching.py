"""Playing on from the same moment: an ordinary environment, whose chance can be drawn again."""

from __future__ import annotations

import numpy as np
import pytest
from ale_py import Action

from jowa.env.atari import AtariEnv, AtariOptions
from jowa.env.branching import BranchingEnv

ACTIONS = np.random.default_rng(0).choice([0, 1, 3, 4], size=60).tolist()


@pytest.fixture(scope="module")
def env() -> BranchingEnv:
    return BranchingEnv("Breakout", AtariOptions(sticky=0.25))


def play(env: AtariEnv, actions: list[int]) -> list[tuple[bytes, float]]:
    outcomes = [env.step(action) for action in actions]
    return [(frame.tobytes(), reward) for frame, reward, *_ in outcomes]


def test_without_sticky_actions_it_is_the_ordinary_one() -> None:
    plain, branching = (kind("Breakout", AtariOptions(sticky=0.0)) for kind in (AtariEnv, BranchingEnv))
    assert plain.reset(seed=1)[0].tobytes() == branching.reset(seed=1)[0].tobytes()
    assert play(plain, [1, *ACTIONS]) == play(branching, [1, *ACTIONS])


def test_a_branch_follows_from_its_point_and_its_seed(env: BranchingEnv) -> None:
    env.reset(seed=3)
    play(env, [1, *ACTIONS[:20]])
    point = env.branch_point()
    games = []
    for seed in ((5, 0), (5, 1), (5, 0)):
        env.branch(point, seed)
        games.append(play(env, ACTIONS))
    assert games[0] == games[2] and games[0] != games[1]


def test_a_branch_repeats_the_action_before_it(env: BranchingEnv) -> None:
    """The first emulator frame of a branch may still hold what was done before the point."""
    env.reset(seed=0)
    env.sticky = 0.0
    env.step(3)
    point = env.branch_point()
    play(env, [4, 4])
    env.sticky = 0.999999
    env.branch(point, (0,))
    held = play(env, [0] * 5)
    env.sticky = 0.0
    env.branch(point, (0,))
    assert held == play(env, [3] * 5)
    env.branch(point, (0,))
    assert held != play(env, [0] * 5)
    env.sticky = 0.25


def test_steps_are_counted_from_the_beginning_of_the_game() -> None:
    env = BranchingEnv("Pong", AtariOptions(max_steps=6))
    env.reset(seed=0)
    play(env, [0] * 4)
    point = env.branch_point()
    for _ in range(2):
        env.branch(point, (1,))
        assert [env.step(0)[3] for _ in range(2)] == [False, True]


def test_sticky_frames_are_as_frequent_as_asked(env: BranchingEnv) -> None:
    env.reset(seed=0)
    held = 0
    for _ in range(3000):
        env._held = Action.NOOP
        env._act(Action.RIGHT)
        held += env._held == Action.NOOP
    assert 0.22 < held / 3000 < 0.28  # four standard deviations around 0.25
