"""An agent that explains itself: from a memory of frames to a decision with all that was weighed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jowa.agent import Agent
from jowa.config import PlannerName
from jowa.errors import UsageError
from jowa.games import get_game
from jowa.planner import Context, Plan, Planner, PlannerConfig

Memory = tuple[tuple[NDArray[np.int64], int], ...]
"""Frames' tokens (36,) with the action that followed each, oldest first; the newest is not in it."""


@dataclass(frozen=True)
class Thought:
    """One decision, packed small: a thousand of them are remembered."""

    agent: Agent
    config: PlannerConfig
    tokens: NDArray[np.int64]
    """(36,): what was seen."""
    memory: Memory
    """What was remembered."""
    action: int
    score: float
    q: NDArray[np.float32]
    spread: NDArray[np.float32]
    candidates: tuple[tuple[float, tuple[int, ...]], ...]
    """Score and actions of each plan that was kept, best first."""
    nodes: dict[str, NDArray[Any]]
    """Of what was imagined, see :class:`jowa.viewer.events.Tree`; ``tokens`` uint16 (N, 36) among them."""
    seconds: float

    @property
    def greedy(self) -> int:
        """The action with the highest Q."""
        return int(self.q.argmax())

    def child(self, node: int, action: int) -> int:
        """The node that ``action`` leads to from ``node`` (-1: the root); -1 where that was not imagined."""
        found = np.flatnonzero((self.nodes["parent"] == node) & (self.nodes["action"] == action))
        return int(found[0]) if found.size else -1

    def context(self, game: str) -> Context:
        """What was decided from, as the planner and the critic take it."""
        return make_context(self.agent, game, self.memory, self.tokens)


_SMALL = {
    "parent": np.int32, "depth": np.uint8, "action": np.uint8, "reward": np.float32, "value": np.float32,
    "score": np.float32, "ended": np.bool_, "visits": np.int32, "rank": np.int16,
}  # fmt: skip


class Mind:
    """Decides with an agent and a planner; belongs to one thread."""

    def __init__(self, agent: Agent, config: PlannerConfig, context: int) -> None:
        self.agent, self.context = agent, context
        self.config = config
        self._planner: Planner = agent.planner(config)
        self.remembered(config)

    @property
    def longest_context(self) -> int:
        """Steps that context and horizon may fill together."""
        return self.agent.longest_context(replace(self.config, name="none"))

    def remembered(self, config: PlannerConfig) -> int:
        """Steps of memory that ``config`` plans from.  Raises :class:`UsageError` where it leaves room for none."""
        longest = self.agent.longest_context(config)
        if longest < 1:
            raise UsageError(
                f"horizon {config.horizon} leaves no room for what was seen: this agent's model holds "
                f"{self.longest_context} steps, so choose at most {self.longest_context - 1}"
            )
        return min(longest, self.context)

    def set_planner(self, config: PlannerConfig) -> None:
        """Plan as ``config`` says from now on.  Raises :class:`UsageError`, and changes nothing, if it cannot."""
        self.remembered(config)
        self._planner = self.agent.planner(config)
        self.config = config

    def decide(self, game: str, frame: NDArray[np.uint8], memory: Memory, milliseconds: float | None = None) -> Thought:
        """Decide on ``frame`` uint8 (84, 84); ``milliseconds``: think no longer, whatever the planner's own limit."""
        start = time.perf_counter()
        config = self.config
        planner = self._planner
        if milliseconds is not None and not (config.milliseconds or np.inf) <= milliseconds:
            # A limit is among what a planner is made with; what it knows of the tree is lost with it.
            config = replace(config, milliseconds=milliseconds, simulations=config.budget)
            planner = self.agent.planner(config)
        tokens = self.agent.encode(frame.copy()).cpu().numpy()  # remembered frames are read-only
        # Counted without the newest frame; slicing by -0 would keep everything.
        memory = memory[len(memory) - min(len(memory), self.remembered(config) - 1) :]
        plan = planner.plan(make_context(self.agent, game, memory, tokens), True, slots=[0])
        return self._packed(plan, config, tokens, memory, time.perf_counter() - start)

    def _packed(
        self, plan: Plan, config: PlannerConfig, tokens: NDArray[np.int64], memory: Memory, seconds: float
    ) -> Thought:
        nodes: dict[str, NDArray[Any]] = {
            name: plan.nodes[name].astype(dtype) for name, dtype in _SMALL.items() if name in plan.nodes
        }
        nodes["tokens"] = np.zeros((0, 36), np.uint16) if plan.frames is None else plan.frames
        candidates = []
        for score, actions in zip(plan.candidate_scores[0].tolist(), plan.candidate_actions[0].tolist(), strict=True):
            if np.isfinite(score):
                candidates.append((score, tuple(action for action in actions if action >= 0)))
        return Thought(
            self.agent, config, tokens, memory, int(plan.actions[0]), float(plan.scores[0]), plan.q[0],
            plan.spread[0], tuple(candidates), nodes, seconds,
        )  # fmt: skip


def fitting(agent: Agent, game: str, chosen: Mapping[str, Any]) -> tuple[PlannerConfig, int]:
    """How the agent plays ``game``, and from how many steps of memory, changed as the person chose.

    An agent that never plans does so by beam search here, to be looked at; one that has chosen not to in this game
    (python -m jowa.tune) goes by the critic alone until the person says otherwise.
    """
    own, chosen = agent.planning.of(game), dict(chosen)
    context, planner = chosen.pop("context", own.context), own.planner
    longest = agent.longest_context(replace(planner, name="none"))
    if planner.name == "none" or planner.horizon == 0:
        name: PlannerName = "none" if game in agent.planning.games else "beam"
        planner = replace(planner, name=name, width=max(planner.width, 2), horizon=max(planner.horizon, 1))
    config = replace(planner, **chosen)
    return replace(config, horizon=min(config.horizon, longest - 1)), context


def make_context(agent: Agent, game: str, memory: Memory, tokens: NDArray[np.int64]) -> Context:
    """A context of one root."""
    device = agent.device
    frames = np.stack([*(seen for seen, _ in memory), tokens])
    actions = np.array([*(action for _, action in memory), 0], dtype=np.int64)
    return Context(
        torch.from_numpy(frames)[None].to(device),
        torch.from_numpy(actions)[None].to(device),
        torch.tensor([len(frames)], device=device),
        torch.tensor([agent.task_id(game)], device=device),
        torch.from_numpy(get_game(game).action_mask.copy())[None].to(device),
    )
