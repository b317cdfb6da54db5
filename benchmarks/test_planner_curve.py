"""Scores in real games against the time of a decision: without planning, beam search and MCTS at several budgets.

Plays the demo agent (``make demo``), or the one that JOWA_AGENT names; JOWA_EPISODES episodes (10) of each of its
games, sticky actions, at most 3,000 agent steps each.  A better critic makes another curve.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest

from jowa.agent import Agent, Planning
from jowa.evaluate import agent_player, get_protocol, play, summarise
from jowa.planner import PlannerConfig

AGENT = Path(os.environ.get("JOWA_AGENT", "runs/demo/agent"))
EPISODES = int(os.environ.get("JOWA_EPISODES", "10"))
PICTURE = Path(__file__).parent / "results" / "planner-curve.png"
PLANNERS = {
    "none": PlannerConfig("none"),
    "none, cautious": PlannerConfig("none", uncertainty=1.0),
    "beam, width 2": PlannerConfig("beam", width=2, horizon=1),
    "beam, width 2, lambda 0.25": PlannerConfig("beam", width=2, horizon=1, td_lambda=0.25),
    "beam, width 4": PlannerConfig("beam", width=4, horizon=1),
    "mcts, 4 simulations": PlannerConfig("mcts", horizon=1, simulations=4),
    "mcts, 16 simulations": PlannerConfig("mcts", horizon=1, simulations=16),
}
Point = tuple[float, float, tuple[float, float]]


@pytest.mark.skipif(not AGENT.exists(), reason=f"no agent in {AGENT}: run make demo, or set JOWA_AGENT")
@pytest.mark.timeout(0)
def test_curve(compare) -> None:
    agent = Agent.load(AGENT)
    protocol = dataclasses.replace(get_protocol("sticky"), max_steps=3_000)
    curves: dict[str, dict[str, Point]] = {game: {} for game in agent.tasks}
    for label, config in PLANNERS.items():
        planning = Planning(config, agent.planning.context)
        for game in agent.tasks:
            decisions = 0

            def count(_: int, steps: int) -> None:
                nonlocal decisions
                decisions = steps

            start = time.perf_counter()
            played = play(agent_player(agent, {game: planning}), [game], EPISODES, protocol, 0, on_progress=count)
            seconds = time.perf_counter() - start
            found = summarise(game, [p.score for p in played])
            curves[game][label] = 1e3 * seconds / decisions, found.mean, (found.low, found.high)
            compare.note(
                "score against time", f"{game}, {label}", score=found.mean, low=found.low, high=found.high,
                milliseconds_a_step=1e3 * seconds / decisions, episodes=EPISODES,
            )  # fmt: skip
    draw(curves)


def draw(curves: dict[str, dict[str, Point]]) -> None:
    """One panel a game: score with its interval against milliseconds a step, the emulator's included."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(curves), figsize=(6 * len(curves), 4.5), squeeze=False)
    for panel, (game, points) in zip(panels[0], curves.items(), strict=True):
        for number, (label, (milliseconds, mean, (low, high))) in enumerate(points.items()):
            error = [[mean - low], [high - mean]]
            panel.errorbar(milliseconds, mean, error, marker="o", capsize=4, label=label, color=f"C{number}")
        panel.set(title=game, xlabel="milliseconds a step and environment", ylabel="score (95% interval)")
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
    panels[0][-1].legend(fontsize=8, loc="best")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)
    pyplot.close(figure)
