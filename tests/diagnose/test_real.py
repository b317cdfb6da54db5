"""Branches of the real game: what is gained where it is known, nothing where nothing differs, always the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jowa.agent import Agent, Planning
from jowa.diagnose.memory import Memory
from jowa.diagnose.real import Fork, RealGames, real_figures
from jowa.evaluate.play import Protocol
from jowa.planner import PlannerConfig

STICKY = Protocol("sticky", sticky=0.25, max_steps=1000, random_action=0.01)
UP, NOOP = 2, 0


def games(agent: Agent, game: str, protocol: Protocol = STICKY, seed: int = 0) -> RealGames:
    return RealGames(agent, game, Planning(PlannerConfig("beam", 2, 1), context=2), protocol, 2, seed)


def nothing(done: int) -> None:
    del done


@pytest.fixture(scope="module")
def pong(agent: Agent) -> RealGames:
    return games(agent, "Pong")


def test_moments_are_reached_and_played_out_the_same_way_each_time(agent: Agent, pong: RealGames) -> None:
    forks, changed, made_in = pong.reach(80, 3, nothing)
    assert len(changed) == len(made_in) == 80 and len(forks) == 3 and changed.sum() > 3
    assert all(fork.planned != fork.greedy for fork in forks)
    returns = pong.play_out(forks, 2, 12, nothing)
    again, changed_again, _ = pong.reach(80, 3, nothing)
    np.testing.assert_array_equal(changed, changed_again)
    assert [fork.point.steps for fork in again] == [fork.point.steps for fork in forks]
    np.testing.assert_array_equal(pong.play_out(again, 2, 12, nothing), returns)
    alone = pong.play_out(again[:1], 2, 12, nothing)
    np.testing.assert_array_equal(alone, returns[:1])


def test_the_same_action_twice_gains_nothing(pong: RealGames) -> None:
    """Both branches meet the same chance, so only what is done can make a difference."""
    forks, _, _ = pong.reach(120, 2, nothing)
    same = [dataclasses.replace(fork, planned=fork.greedy) for fork in forks]
    returns = pong.play_out(same, 3, 60, nothing)
    np.testing.assert_array_equal(returns[..., 0], returns[..., 1])
    assert np.abs(returns).sum() > 0, "60 steps of random play lose points"


def test_a_known_gain(agent: Agent) -> None:
    """One step below the far side of the road, going on earns a point and waiting does not."""
    protocol = Protocol("fixed", sticky=0.0, max_steps=1000, random_action=0.0)
    freeway = games(agent, "Freeway", protocol)
    env = freeway._envs[0]
    frame, _ = env.reset(seed=0)
    for _ in range(200):
        point, seen = env.branch_point(), frame
        frame, reward, *_ = env.step(UP)
        if reward:
            break
    assert reward == 1
    memory = Memory(2)
    memory.see(agent.encode(seen))
    fork = Fork(point, memory, UP, NOOP, imagined=0.5)
    returns = freeway.play_out([fork, dataclasses.replace(fork, planned=NOOP, greedy=UP)], 2, 1, nothing)
    assert returns.tolist() == [[[1, 0]] * 2, [[0, 1]] * 2]
    changed, made_in = np.array([True, True, False, False]), np.array([0, 1, 0, 1])
    found = real_figures([fork, fork], np.stack([returns[0], returns[0]]), changed, made_in, 1, 0)
    assert (found.gain.value, found.better.value, found.worse.value) == (1.0, 1.0, 0.0)
    assert found.gain_a_decision == 0.5 and found.imagined.value == 0.5 and found.repeats == 2


def test_returns_are_discounted_and_clipped(agent: Agent) -> None:
    """The same point reached two steps later is worth the discount twice."""
    protocol = Protocol("fixed", sticky=0.0, max_steps=1000, random_action=0.0)
    freeway = games(agent, "Freeway", protocol)
    freeway.greed = dataclasses.replace(freeway.greed, gamma=0.5)
    env, points = freeway._envs[0], []
    frame, _ = env.reset(seed=0)
    for _ in range(200):
        points.append((env.branch_point(), frame))
        frame, reward, *_ = env.step(UP)
        if reward:
            break
    point, seen = points[-3]
    memory = Memory(2)
    memory.see(agent.encode(seen))
    freeway._spoiled = lambda action, chance: UP  # type: ignore[method-assign,assignment]
    returns = freeway.play_out([Fork(point, memory, UP, UP, 0.0)], 1, 3, nothing)
    assert returns.ravel().tolist() == [0.25, 0.25]


def test_no_fork_has_no_gain() -> None:
    found = real_figures([], np.zeros((0, 4, 2)), np.zeros(6, bool), np.zeros(6, np.int64), 50, 0)
    assert (found.changed.value, found.gain.value, found.gain_a_decision, found.gain.n) == (0.0, None, None, 0)


def test_every_fork_is_kept_equally_often(agent: Agent, pong: RealGames, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 decisions that all differ, each is one of the 10 kept in a quarter of the draws."""
    import jowa.diagnose.real as real

    def differ(agent: Agent, planner: object, config: object, game: str, memories: list[Memory]) -> real.Decisions:
        n = len(memories)
        nil = np.zeros(n)
        return real.Decisions(np.zeros(n, int), np.ones(n, int), nil, nil == 0, np.zeros((n, 18)), np.zeros((n, 18)))

    monkeypatch.setattr(real, "decide", differ)
    kept = np.zeros(10)
    for seed in range(30):
        pong.seed = seed
        forks, _, _ = pong.reach(40, 10, nothing)
        kept += np.bincount([fork.point.steps for fork in forks], minlength=10)
    pong.seed = 0
    assert kept.sum() == 300 and (kept > 12).all(), kept  # 30 expected at each step, 4 standard deviations are 19
