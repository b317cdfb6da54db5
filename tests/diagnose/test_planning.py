"""Planned against greedy actions: made-up plans by hand, and real ones against the agent's own player."""

from __future__ import annotations

import numpy as np
import pytest

from jowa.agent import Agent
from jowa.diagnose.measure import _plans
from jowa.diagnose.memory import Memory, context_of, remember
from jowa.diagnose.planning import Decisions, compare, decide, planning_figures
from jowa.dream.world import Start
from jowa.games import get_game
from jowa.planner import Plan, PlannerConfig

LEGAL = get_game("Pong").action_mask


def plan(actions: list[int], scores: list[float], candidates: list[list[tuple[int, float]]]) -> Plan:
    """Every root's Q is 0.1 a legal action's number, and of 3 it is 5: greed takes 3."""
    roots, width = len(actions), max(map(len, candidates))
    q = np.where(LEGAL, 0.1 * np.arange(18), -np.inf).astype(np.float32)
    q[3] = 5
    taken, worth = np.full((roots, width, 2), -1), np.full((roots, width), -np.inf, np.float32)
    for root, row in enumerate(candidates):
        for place, (action, value) in enumerate(row):
            taken[root, place, 0], worth[root, place] = action, value
    rows = np.repeat(q[None], roots, axis=0)
    return Plan(
        np.array(actions), np.array(scores, np.float32), rows, np.zeros_like(rows), worth, taken, {}, None
    )  # fmt: skip


def test_gains_by_hand() -> None:
    made = plan(
        [3, 4, 4, 4],
        [7, 7, 8, 4],
        [[(3, 7), (4, 6)], [(4, 7), (3, 6.5), (3, 6)], [(4, 8), (1, 7)], [(4, 4), (3, 4.5)]],
    )
    found = compare(made, 0.0)
    assert found.greedy.tolist() == [3, 3, 3, 3] and found.changed.tolist() == [False, True, True, True]
    # Weighed: less its best plan; not weighed: less max Q; a search by visits may take what scores less.
    assert found.gain.tolist() == [0.0, 0.5, 3.0, -0.5]
    assert found.weighed.tolist() == [True, True, False, True]
    figures = planning_figures(found, np.arange(4), 0)
    assert figures.changed.value == 0.75 and figures.gain.value == pytest.approx(1.0)
    assert figures.greedy_weighed.value == pytest.approx(2 / 3) and figures.gain.n == 3


def test_greed_is_as_cautious_as_the_planner() -> None:
    made = plan([4], [1.0], [[(4, 1.0)]])
    made.spread[0, 3] = 10
    assert compare(made, 0.0).greedy[0] == 3
    careful = compare(made, 1.0)
    assert careful.greedy[0] == np.flatnonzero(LEGAL)[-1]
    assert careful.gain[0] == pytest.approx(1.0 - 0.1 * np.flatnonzero(LEGAL)[-1])


def test_nothing_changed_has_no_gain() -> None:
    figures = planning_figures(compare(plan([3, 3], [5, 5], [[(3, 5)], [(3, 5)]]), 0.0), np.arange(2), 0)
    assert (figures.changed.value, figures.gain.value, figures.greedy_weighed.value) == (0.0, None, None)


@pytest.mark.parametrize("config", [
    PlannerConfig("beam", 2, 2), PlannerConfig("beam", 3, 1, uncertainty=2.0), PlannerConfig("none"),
    PlannerConfig("mcts", 2, 2, simulations=9), PlannerConfig("beam", 2, 0),
])  # fmt: skip
def test_decisions_are_those_of_the_agents_player(agent: Agent, config: PlannerConfig) -> None:
    """A game played by the player, and its moments decided alone; greedy ones as a greedy player's."""
    generator = np.random.default_rng(0)
    frames = generator.integers(256, size=(12, 84, 84), dtype=np.uint8)
    taken = generator.choice([0, 3, 4], size=12)
    greed = PlannerConfig("none", uncertainty=config.uncertainty)
    chosen: dict[str, list[int]] = {"planned": [], "greedy": []}
    for name, settings in (("planned", config), ("greedy", greed)):
        player = agent.player(["Pong"], settings, 2)
        for frame, action in zip(frames, taken, strict=True):
            chosen[name] += player.decide([0], frame[None]).actions.tolist()
            player.took([0], np.array([action]))
    starts = [Start(frames[max(0, t - 3) : t + 1], taken[max(0, t - 3) : t]) for t in range(12)]
    planner = agent.planner(config)
    found = decide(agent, planner, config, "Pong", remember(agent, starts, 2))
    assert found.greedy.tolist() == chosen["greedy"]
    if config.name != "mcts":  # whose tree a player keeps from one decision to the next
        assert found.planned.tolist() == chosen["planned"]
    if config.depth == 0:
        assert not found.changed.any() and not found.gain.any()
    else:
        assert np.isfinite(found.gain).all()
        if config.uncertainty:  # this agent's Q are far apart otherwise
            assert found.changed.any()
        if config.name == "beam":
            assert (found.gain[found.changed & found.weighed] >= 0).all()
    parts = [decide(agent, planner, config, "Pong", remember(agent, starts[i : i + 5], 2)) for i in (0, 5, 10)]
    joined = Decisions.join(parts)
    np.testing.assert_array_equal(joined.planned, found.planned)
    np.testing.assert_array_equal(joined.gain, found.gain)


def test_a_memory_forgets_what_is_too_old(agent: Agent) -> None:
    frames = np.random.default_rng(1).integers(256, size=(4, 84, 84), dtype=np.uint8)
    tokens = agent.encode(frames)
    memory = Memory(2)
    for seen, action in zip(tokens[:3], (5, 6, 7), strict=True):
        memory.see(seen)
        memory.took(action)
    copied = memory.copy()
    memory.see(tokens[3])
    [recorded] = remember(agent, [Start(frames, np.array([5, 6, 7]))], 2)
    for one in (memory, recorded):
        context = context_of(agent, "Pong", [one])
        assert context.tokens[0].tolist() == tokens[2:].tolist()
        assert context.actions[0, 0] == 7 and context.lengths.tolist() == [2]
    assert len(copied.actions) == 2 and copied.tokens[-1].tolist() == tokens[2].tolist()


@pytest.mark.parametrize(("config", "plans"), [
    (PlannerConfig("none"), False), (PlannerConfig("beam", 2, 0), False), (PlannerConfig("beam", 2, 1), True),
    (PlannerConfig("mcts", 2, 0), False), (PlannerConfig("mcts", 2, 0, simulations=4), True),
    (PlannerConfig("mcts", 2, 2, simulations=0), False),
])  # fmt: skip
def test_who_plans(config: PlannerConfig, plans: bool) -> None:
    assert _plans(config) == plans
