"""A look at the agent while it trains: a few real games without and with planning, and how far Q is off."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jowa.agent import Agent, Planning
from jowa.config import PlannerName
from jowa.evaluate import GameScore, get_protocol, summarise
from jowa.evaluate.play import Decider, play
from jowa.train.config import TrainConfig
from jowa.train.scoring import plannings

Floats = NDArray[np.float64]

TAIL = 300
"""Steps before a cut-off whose returns are not judged: what came after is unknown, and weighs 0.99^300 < 0.05."""


@dataclass(frozen=True)
class Look:
    """What was seen."""

    metrics: dict[str, float]
    """By name: for each game the score greedily and with planning, planning's gain, and Q's bias; means over games."""
    score: float
    """How well the agent plays as it will be saved: the mean over games of the human-normalised score; of the raw score
    where no game has a human one."""

    def describe(self) -> str:
        """In one line."""
        return ", ".join(f"{name} {value:.3g}" for name, value in self.metrics.items())


def look(config: TrainConfig, agent: Agent, seed: int) -> Look:
    """Play ``health.evaluate_episodes`` of each game by the greedy agent and by the planning one."""
    own = agent.planning.planner.name
    planned: PlannerName = "beam" if own == "none" else own
    greedy, judged = _played(config, agent, "none", seed)
    with_planning, _ = _played(config, agent, planned, seed)
    metrics: dict[str, float] = {}
    for game, without, by_plan in zip(config.data.games, greedy, with_planning, strict=True):
        metrics[f"greedy/{game}"] = without.mean
        metrics[f"{planned}/{game}"] = by_plan.mean
        metrics[f"planner_gain/{game}"] = by_plan.mean - without.mean
        if judged[game]:
            metrics[f"q_bias/{game}"] = float(np.mean(judged[game]))
    score = mean_score(greedy if own == "none" else with_planning)
    metrics["greedy/mean"], metrics[f"{planned}/mean"] = mean_score(greedy), mean_score(with_planning)
    return Look(metrics, score)


def mean_score(scores: Sequence[GameScore]) -> float:
    """The mean human-normalised score of the games that have one; of raw scores if none has."""
    normalised = [score.hns for score in scores if score.hns is not None]
    return float(np.mean(normalised or [score.mean for score in scores]))


def _played(
    config: TrainConfig, agent: Agent, planner: PlannerName, seed: int
) -> tuple[list[GameScore], dict[str, list[float]]]:
    """The scores in each game, and for each game Q minus the return at the steps played."""
    settings, games = config.evaluation, config.data.games
    named = get_protocol(settings.protocol)
    protocol = dataclasses.replace(named, max_steps=min(named.max_steps, config.health.evaluate_steps))
    observer = _Observer(agent, plannings(config, agent, planner))
    played = play(observer, games, config.health.evaluate_episodes, protocol, seed)
    scores = [summarise(game, [p.score for p in played if p.game == game]) for game in games]
    return scores, observer.errors(config.objective.gamma, protocol.max_steps)


class _Observer:
    """Makes players, and notes what their critic expected at each step and what was then earned."""

    def __init__(self, agent: Agent, plannings: Mapping[str, Planning]) -> None:
        self._agent, self._plannings = agent, plannings
        self._episodes: list[tuple[str, list[float], list[float]]] = []

    def __call__(self, jobs: Sequence[tuple[str, int]]) -> Decider:
        games = [game for game, _ in jobs]
        chosen = [self._plannings[game] for game in games]
        player = self._agent.player(games, [one.planner for one in chosen], [one.context for one in chosen])
        episodes: list[tuple[str, list[float], list[float]]] = [(game, [], []) for game in games]
        self._episodes += episodes

        def choose(slots: NDArray[np.int64], frames: NDArray[np.uint8]) -> NDArray[np.int64]:
            plan = player.decide(slots.tolist(), frames)
            for slot, q in zip(slots, plan.q, strict=True):
                episodes[slot][1].append(float(q.max()))
            return plan.actions

        def earned(slots: list[int], rewards: Floats) -> None:
            for slot, reward in zip(slots, rewards, strict=True):
                episodes[slot][2].append(float(np.clip(reward, -1, 1)))

        return Decider(choose, player.took, earned)

    def errors(self, gamma: float, most: int) -> dict[str, list[float]]:
        """Q minus the discounted clipped return, game by game; without the last steps of what was cut off."""
        found: dict[str, list[float]] = {}
        for game, values, rewards in self._episodes:
            kept = len(rewards) - TAIL if len(rewards) >= most else len(rewards)
            errors = (np.array(values) - discounted_returns(np.array(rewards), gamma))[: max(kept, 0)]
            found.setdefault(game, []).extend(errors.tolist())
        return found


def discounted_returns(rewards: Floats, gamma: float) -> Floats:
    """float64 (T,): what is earned from each step on, for ``rewards`` float64 (T,)."""
    returns = np.empty(len(rewards))
    later = 0.0
    for step in range(len(rewards) - 1, -1, -1):
        later = rewards[step] + gamma * later
        returns[step] = later
    return returns
