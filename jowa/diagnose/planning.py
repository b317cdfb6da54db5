"""What planning changes at recorded moments, and what it believes to gain by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from jowa.agent import Agent
from jowa.diagnose.estimates import Estimate, Floats, Resampler
from jowa.diagnose.memory import Memory, context_of
from jowa.planner import Plan, Planner, PlannerConfig


@dataclass(frozen=True)
class Decisions:
    """What was decided at N moments."""

    planned: NDArray[np.int64]
    """(N,): the planner's action."""
    greedy: NDArray[np.int64]
    """(N,): the action of the highest (cautious) Q."""
    gain: Floats
    """(N,): imagined gain, in clipped reward: the score of the chosen plan less that of the best plan weighed that
    begins with the greedy action, or less max Q where there was none."""
    weighed: NDArray[np.bool_]
    """(N,): there was one."""
    q: Floats
    """(N, 18): the ensemble's mean; illegal actions -inf."""
    spread: Floats
    """(N, 18)."""

    @classmethod
    def join(cls, parts: Sequence[Decisions]) -> Decisions:
        """All of ``parts``, one after the other."""
        names = ("planned", "greedy", "gain", "weighed", "q", "spread")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @property
    def changed(self) -> NDArray[np.bool_]:
        """(N,): planning chose another action than greed."""
        return self.planned != self.greedy


@torch.inference_mode()
def decide(agent: Agent, planner: Planner, config: PlannerConfig, game: str, memories: Sequence[Memory]) -> Decisions:
    """Let ``planner`` decide with the settings ``config`` in games of ``game``."""
    context = context_of(agent, game, memories)
    return compare(planner.plan(context, configs=[config] * len(memories)), config.uncertainty)


def compare(plan: Plan, uncertainty: float) -> Decisions:
    """The plan's actions beside the greedy ones."""
    cautious = plan.q - np.float32(uncertainty) * plan.spread
    greedy = cautious.argmax(1)
    begins = (plan.candidate_actions[..., 0] == greedy[:, None]) if plan.candidate_actions.shape[2] else None
    rows = np.arange(len(greedy))
    rival = cautious[rows, greedy].astype(np.float64)
    weighed = np.zeros(len(greedy), np.bool_)
    if begins is not None:
        begins &= np.isfinite(plan.candidate_scores)
        weighed = begins.any(1)
        best = np.where(begins, plan.candidate_scores, -np.inf).max(1, initial=-np.inf)
        rival = np.where(weighed, best, rival)
    gain = np.where(plan.actions == greedy, 0.0, plan.scores - rival)
    return Decisions(
        plan.actions, greedy, gain, weighed, plan.q.astype(np.float64), plan.spread.astype(np.float64)
    )  # fmt: skip


@dataclass(frozen=True)
class PlanningFigures:
    """What planning makes of the model, at recorded moments."""

    changed: Estimate
    """Share of moments at which the planned action is not the greedy one."""
    gain: Estimate
    """Mean imagined gain where it is not, in clipped reward."""
    greedy_weighed: Estimate
    """Share of those at which a plan that begins with the greedy action was weighed."""


def planning_figures(decisions: Decisions, units: NDArray[np.int64], seed: int) -> PlanningFigures:
    """All figures; ``units`` int64 (N,) are resampled for the intervals."""
    resampler, changed = Resampler(units, seed), decisions.changed
    return PlanningFigures(
        resampler.share(changed, np.ones(len(changed))),
        resampler.ratio(decisions.gain * changed, changed),
        resampler.share(changed & decisions.weighed, changed),
    )
