"""A whole Monte Carlo decision on one device: encoded, searched in a fixed number of rounds, and decided.

On a GPU it is one CUDA graph (:mod:`jowa.planner.captured`); the host reads the answer alone.
Letters: R roots, M leaves a round, N nodes a root can hold, A actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.config import TOKENS_PER_FRAME, TOKENS_PER_STEP
from jowa.planner.captured import Captured, Shapes, passes_to_try
from jowa.planner.device_trees import DeviceMCTSTree
from jowa.planner.engine import Level
from jowa.planner.imagination import Context
from jowa.planner.mcts_tree import MCTSSettings
from jowa.planner.plan import PlannerConfig
from jowa.planner.rollout import Rollout
from jowa.planner.tree_state import Arrays, Float, Int

MOST_PASSES = 500
"""Passes through the model that are captured at most; a decision that may need more asks the host at every round."""


def settings_of(config: PlannerConfig) -> MCTSSettings:
    """How the trees weigh."""
    return MCTSSettings(config.gamma, config.temperature, respect_ends=config.respect_ends, gumbel=config.gumbel)


@dataclass(frozen=True)
class Trees:
    """What the trees of R roots found, on the host but for the tensors."""

    actions: Int
    """(R,): -1 for a root that could not be decided."""
    scores: Float
    """(R,)."""
    failed: Int
    """(R,): as of the tree."""
    nodes: Arrays
    """As of the tree."""
    tokens: Tensor
    """int64 (R, N, 36) at least: the imagined frame of each node."""
    q: Tensor
    """float32 (R, A): the ensemble's mean at the root."""
    spread: Tensor
    """float32 (R, A)."""


@dataclass(frozen=True)
class Decision:
    """What was decided, on the device; overwritten by the next call."""

    actions: Tensor
    """int64 (R,)."""
    scores: Tensor
    """float32 (R,)."""
    q: Tensor
    """float32 (R, A): the ensemble's mean at the root."""
    spread: Tensor
    """float32 (R, A)."""
    complete: Tensor
    """bool (): whether the passes sufficed; if not, the rest means nothing."""
    spent: Tensor
    """bool (): whether the rounds sufficed for every root's budget; if not, the search is unfinished."""


class DeviceMCTS:
    """MCTS for R roots, ``configs`` of each, and contexts of at most ``steps`` steps.

    ``rollout`` must stand on a :class:`jowa.planner.torch_engine.TorchEngine`.  ``rounds``: of selection, imagination
    and backup.  A round ends early where a walk meets what is pending, so how many a budget takes is not known before;
    it is never more than the budget itself.  ``passes``: through the model a round, as of
    :class:`jowa.planner.device_beam.DeviceBeam`.
    """

    def __init__(
        self, rollout: Rollout, configs: Sequence[PlannerConfig], steps: int, rounds: int,
        passes: int = TOKENS_PER_STEP,
    ) -> None:  # fmt: skip
        self.rollout, self.rounds, self.passes = rollout, rounds, passes
        device, count, actions = rollout.device, len(configs), rollout.num_actions

        def each(name: str, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.tensor([getattr(config, name) for config in configs], dtype=dtype, device=device)

        self._budgets, self._leaves, self._considered = each("budget"), each("leaves"), each("considered")
        self._caution = each("uncertainty", torch.float32)
        self._everyone = torch.ones(count, dtype=torch.bool, device=device)
        self._noise = torch.zeros(count, actions, device=device)
        capacity = max(1, *(config.budget for config in configs))
        self.tree = DeviceMCTSTree(
            count, capacity, actions, settings_of(configs[0]), max(config.leaves for config in configs),
            max(1, rollout.context_steps - 1), device,
        )  # fmt: skip
        # The root is node 0; rows that have nothing to imagine write behind the last.
        self.tokens = torch.zeros(count, capacity + 2, TOKENS_PER_FRAME, dtype=torch.int64, device=device)
        rollout.reserve(count, count * self.tree.pages_per_root)
        self._captured = Captured(rollout, count, steps, self._decide)

    def decide(self, context: Context, noise: NDArray[np.float32]) -> Decision:
        """Decide for ``context``; ``noise`` (R, A) counts for Gumbel roots."""
        self._noise.copy_(torch.from_numpy(noise))
        return self._captured(context)

    def _decide(self, context: Context) -> Decision:
        """Static shapes and no look at the numbers, so that it can be captured."""
        tree, rollout = self.tree, self.rollout
        values = rollout.encode(context)
        roots = torch.arange(tree.num_roots, device=rollout.device)
        self.tokens[:, 0] = context.tokens[roots, context.lengths - 1]
        schedule = (self._noise, self._budgets, self._considered) if tree.settings.gumbel else (None, None, None)
        depths = rollout.context_steps - context.lengths
        q = values.q - self._caution[:, None] * values.spread
        tree.start(self._everyone, q.contiguous(), context.legal, depths, None, *schedule)
        complete = torch.ones((), dtype=torch.bool, device=rollout.device)
        for _ in range(self.rounds):
            complete = complete & self._round(context.tasks)
        spent = (tree.exhausted | (tree.simulations() >= self._budgets)).all()
        actions, scores = tree.best()
        return Decision(actions, scores, values.q, values.spread, complete, spent)

    def _round(self, tasks: Tensor) -> Tensor:
        """Imagine the leaves of one round and back their values up; bool (): whether the passes sufficed."""
        tree = self.tree
        left = (self._budgets - tree.simulations()).clamp(min=0)
        chosen = tree.select(torch.minimum(left, self._leaves))
        level = Level(chosen.actions, chosen.page_table, chosen.depths)
        frames = torch.take_along_dim(self.tokens, chosen.parents.long()[..., None], 1)
        found, finished = self.rollout.imagine_on_device(level, frames, tasks, self.passes)
        at = torch.where(chosen.valid, chosen.nodes.long(), self.tokens.shape[1] - 1)
        self.tokens.scatter_(1, at[..., None].expand_as(found.tokens), found.tokens)
        cautious = found.q - self._caution[:, None, None] * found.spread
        tree.backup(found.rewards, found.ends, cautious.contiguous())
        return finished

    def trees(self, decision: Decision) -> Trees:
        """All of it, on the host: waits for the device."""
        failed = self.tree.failed.cpu().numpy().astype(np.int64)
        actions, scores = decision.actions.cpu().numpy(), decision.scores.cpu().numpy()
        return Trees(actions, scores, failed, self.tree.nodes(), self.tokens, decision.q, decision.spread)


class MCTSOnDevice:
    """Decisions without the host, for shapes that come more than once."""

    def __init__(self, rollout: Rollout) -> None:
        self.rollout = rollout
        self.searches: Shapes[DeviceMCTS] = Shapes()
        self._rounds: dict[tuple[object, ...], int] = {}

    def search(self, context: Context, configs: Sequence[PlannerConfig], noise: NDArray[np.float32]) -> Trees | None:
        """The whole search; None for a shape that was not asked for just before, or that takes too many passes."""
        shape = tuple((config.budget, config.leaves, config.considered, config.uncertainty) for config in configs)
        if not self.searches.again(shape):
            return None
        most = max(config.budget for config in configs)
        fewest = max(-(-config.budget // config.leaves) for config in configs)
        tries = list(passes_to_try(self.rollout))
        while tries:
            # What sufficed for this shape before, or at first half as many again as without an early end.
            rounds = self._rounds.get(shape, min(most, fewest + (fewest + 1) // 2))
            if rounds * tries[0] > MOST_PASSES:
                return None
            make = partial(DeviceMCTS, self.rollout, configs, self.rollout.context_steps, rounds, tries[0])
            search = self.searches.get((*shape, rounds, tries[0]), make)
            decision = search.decide(context, noise)
            if not bool(decision.complete):
                tries.pop(0)
            elif bool(decision.spent):
                return search.trees(decision)
            else:
                self._rounds[shape] = min(most, 2 * rounds)
        raise AssertionError("a pass a token suffices always")
