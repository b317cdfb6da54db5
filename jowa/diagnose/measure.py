"""Every figure of one game."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jowa.agent import Agent, Planning
from jowa.data.store import EpisodeStore
from jowa.diagnose.critic import CriticFigures, CriticMoments, critic_figures
from jowa.diagnose.estimates import Resampler
from jowa.diagnose.imagination import AgentsWorld, BoundTerms, Scored, StepFigures, bound_terms, score, step_figures
from jowa.diagnose.memory import remember
from jowa.diagnose.moments import Moments, draw_moments, held_out, read_followed
from jowa.diagnose.planning import Decisions, PlanningFigures, decide, planning_figures
from jowa.diagnose.real import RealFigures, RealGames, real_figures
from jowa.evaluate.play import Protocol
from jowa.games import get_game
from jowa.planner import PlannerConfig
from jowa.progress import steps_progress

BATCH = 32
"""Recorded moments imagined and planned from at once."""
HIDDEN = 0.05
"""Share of the discount that a cut-off may hide from a return: with a discount of 0.99, the last 299 steps are out."""


@dataclass(frozen=True)
class Settings:
    """How much to measure; see the command's options of the same names."""

    episodes: float
    moments: int
    steps: int
    rollouts: int
    rollout_steps: int
    repeats: int
    play: int
    protocol: Protocol
    seed: int


@dataclass(frozen=True)
class GameFigures:
    """What was measured in one game."""

    episodes: list[int]
    """Recorded episodes measured on."""
    unit: str
    """What the intervals resample."""
    units: int
    moments: int
    """Moments of all alike."""
    extra_moments: int
    """More of them, near rewards and ends."""
    imagination: list[StepFigures]
    critic: CriticFigures
    bound: list[BoundTerms]
    planning: PlanningFigures | None
    """None: the planner is greedy in Q."""
    real: RealFigures | None
    """None: not asked for, or nothing planned."""
    q: NDArray[np.float64]
    """(n,): Q of the recorded actions, for the plot."""
    returns: NDArray[np.float64]
    """(n,): what followed."""


def measure_game(agent: Agent, store: EpisodeStore, game: str, planning: Planning, settings: Settings) -> GameFigures:
    """Measure everything in ``game``; deterministic for ``settings.seed``."""
    generator = np.random.default_rng((settings.seed, get_game(game).task_id))
    episodes = held_out(store, game, settings.episodes)
    moments = draw_moments(
        store, game, episodes, settings.moments, settings.steps, planning.planner.gamma, HIDDEN, generator
    )
    scored, decisions, actions = _at_recorded(agent, store, moments, planning, settings.steps)
    resampler = Resampler(moments.units, settings.seed)
    imagination = step_figures(scored, moments.weights, resampler)
    plain = moments.uniform
    said = _said(decisions, actions, moments.returns[plain])
    critic = critic_figures(said, moments.units[plain], settings.seed)
    planned = _plans(planning.planner)
    known = np.isfinite(said.returns)
    return GameFigures(
        episodes=list(episodes),
        unit=moments.unit,
        units=resampler.units,
        moments=int(plain.sum()),
        extra_moments=int((~plain).sum()),
        imagination=imagination,
        critic=critic,
        bound=bound_terms(imagination, planning.planner.gamma, critic.absolute_error.value),
        planning=planning_figures(decisions, moments.units[plain], settings.seed) if planned else None,
        real=_in_the_real_game(agent, game, planning, settings) if planned and settings.rollouts else None,
        q=said.q[known],
        returns=said.returns[known],
    )


def _plans(config: PlannerConfig) -> bool:
    """Whether anything is imagined before a decision."""
    return config.budget > 0 if config.name == "mcts" else config.depth > 0


def _at_recorded(
    agent: Agent, store: EpisodeStore, moments: Moments, planning: Planning, steps: int
) -> tuple[Scored, Decisions, NDArray[np.int64]]:
    """Imagination at all moments; decisions and the recorded actions (n,) at those of all alike."""
    world = AgentsWorld(agent, moments.game, min(planning.context, agent.model.config.context_steps - 1))
    planner = agent.planner(planning.planner)
    scored, decisions, actions = [], [], []
    with steps_progress(f"{moments.game}: recorded moments", len(moments), "moments") as advance:
        for rows, followed in read_followed(store, moments, planning.context, steps, BATCH):
            scored.append(score(world, followed))
            plain = np.flatnonzero(moments.uniform[rows])
            if len(plain):
                memories = remember(agent, [followed.starts[row] for row in plain], planning.context)
                decisions.append(decide(agent, planner, planning.planner, moments.game, memories))
                actions.append(followed.actions[plain, 0])
            advance(rows.stop)
    return Scored.join(scored), Decisions.join(decisions), np.concatenate(actions)


def _said(decisions: Decisions, actions: NDArray[np.int64], returns: NDArray[np.float64]) -> CriticMoments:
    """What the critic said of the recorded ``actions`` (n,)."""
    rows = np.arange(len(actions))
    best = np.sort(decisions.q, axis=1)[:, ::-1]
    gap = np.where(np.isfinite(best[:, 1]), best[:, 0] - best[:, 1], 0.0)
    greedy = decisions.q.argmax(1)
    return CriticMoments(
        decisions.q[rows, actions], decisions.spread[rows, actions], gap, greedy == actions,
        np.where(np.isfinite(decisions.q[rows, actions]), returns, np.nan),
    )  # fmt: skip


def _in_the_real_game(agent: Agent, game: str, planning: Planning, settings: Settings) -> RealFigures:
    games = RealGames(agent, game, planning, settings.protocol, planning.context, settings.seed)
    with steps_progress(f"{game}: playing", settings.play, "decisions") as advance:
        forks, changed, made_in = games.reach(settings.play, settings.rollouts, advance)
    branches = len(forks) * settings.repeats * 2
    with steps_progress(f"{game}: both actions", branches, "branches", shown=branches > 0) as advance:
        returns = games.play_out(forks, settings.repeats, settings.rollout_steps, advance)
    return real_figures(forks, returns, changed, made_in, settings.rollout_steps, settings.seed)
