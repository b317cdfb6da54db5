"""A whole beam-search decision on one device: encoded, expanded, imagined and decided without waiting for it.

On a GPU it is one CUDA graph (:mod:`jowa.planner.captured`); the host reads the answer alone.
Letters: R roots, K beam width, C child slots of a level.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.config import TOKENS_PER_STEP
from jowa.planner.beam_tree import Beam
from jowa.planner.captured import Captured, Shapes, passes_to_try
from jowa.planner.device_trees import DeviceBeamTree
from jowa.planner.engine import Imagined, Level
from jowa.planner.imagination import Context
from jowa.planner.plan import PlannerConfig
from jowa.planner.rollout import Rollout
from jowa.planner.tree_state import Arrays, Int


@dataclass(frozen=True)
class Searched:
    """What a beam search found, on the host; R roots."""

    actions: Int
    """(R,)."""
    scores: NDArray[np.float32]
    """(R,)."""
    q: NDArray[np.float32]
    """(R, 18): the ensemble's mean at the root."""
    spread: NDArray[np.float32]
    """(R, 18)."""
    beam: Beam
    nodes: Arrays
    failed: Int
    """(R,): as of the tree."""
    levels: list[tuple[NDArray[np.bool_], NDArray[np.uint16]]]
    """For each level which rows were imagined, bool (R, C), and their frames (R, C, 36)."""


@dataclass(frozen=True)
class Decision:
    """What was decided, on the device; overwritten by the next call."""

    actions: Tensor
    """int64 (R,)."""
    scores: Tensor
    """float32 (R,)."""
    q: Tensor
    """float32 (R, 18): the ensemble's mean at the root."""
    spread: Tensor
    """float32 (R, 18)."""
    complete: Tensor
    """bool (): whether the passes sufficed; if not, the rest means nothing."""
    levels: list[tuple[Tensor, Tensor]]
    """For each level which rows were imagined, bool (R, C), and their frames int64 (R, C, 36)."""


class DeviceBeam:
    """Beam search for R roots with these widths and horizons, int64 (R,), and contexts of at most ``steps`` steps.

    ``rollout`` must stand on a :class:`jowa.planner.torch_engine.TorchEngine`.  ``passes``: through the model a level;
    with guesses fewer than 37 mostly suffice, and :attr:`Decision.complete` tells.
    """

    def __init__(
        self, rollout: Rollout, config: PlannerConfig, widths: Int, horizons: Int, caution: Tensor, steps: int,
        passes: int = TOKENS_PER_STEP,
    ) -> None:  # fmt: skip
        self.rollout, self.caution, self.passes = rollout, caution, passes
        device, count = rollout.device, len(widths)
        self.tree = DeviceBeamTree(
            widths, horizons, rollout.num_actions, config.gamma, config.respect_ends, device, config.td_lambda
        )
        rollout.reserve(count, count * self.tree.pages_per_root)
        self._captured = Captured(rollout, count, steps, self._decide)

    def decide(self, context: Context) -> Decision:
        """Decide for ``context``, of as many roots and at most as many steps as this was made for."""
        return self._captured(context)

    def _decide(self, context: Context) -> Decision:
        """Static shapes and no look at the numbers, so that it can be captured."""
        tree, rollout = self.tree, self.rollout
        tree.reset()
        values = rollout.encode(context)
        q = (values.q - self.caution[:, None] * values.spread)[:, None]
        tokens = context.tokens[torch.arange(len(q), device=q.device), context.lengths - 1][:, None]
        complete = torch.ones((), dtype=torch.bool, device=q.device)
        levels = []
        for depth in range(max(tree.horizon, 1)):
            expansion = tree.expand(q.contiguous(), context.legal)
            if depth == tree.horizon:  # all are greedy
                break
            level = Level(expansion.actions, expansion.page_table, expansion.depths)
            parents = torch.take_along_dim(tokens, expansion.parents[..., None], 1)
            found, finished = rollout.imagine_on_device(level, parents, context.tasks, self.passes)
            complete = complete & finished
            q_found, best = self._value(found, context.legal)
            levels.append((expansion.valid.clone(), found.tokens))
            kept = tree.keep(found.rewards, found.ends, best)
            slots = torch.where(kept.carried | ~kept.valid, 0, kept.slots)[..., None]
            q, tokens = torch.take_along_dim(q_found, slots, 1), torch.take_along_dim(found.tokens, slots, 1)
        actions, scores = tree.best()
        return Decision(actions, scores, values.q, values.spread, complete, levels)

    def _value(self, found: Imagined, legal: Tensor) -> tuple[Tensor, Tensor]:
        """Cautious Q (R, C, 18) of imagined states, and the best of the legal actions (R, C)."""
        q = found.q - self.caution[:, None, None] * found.spread
        return q, q.masked_fill(~legal[:, None], -torch.inf).amax(-1)


class BeamOnDevice:
    """Decisions without the host, for shapes that come more than once."""

    def __init__(self, rollout: Rollout, config: PlannerConfig) -> None:
        self.rollout, self.config = rollout, config
        self.beams: Shapes[DeviceBeam] = Shapes()

    def search(self, context: Context, widths: Int, horizons: Int, caution: Tensor) -> Searched | None:
        """The whole search; None for a shape that was not asked for just before."""
        shape = (*widths.tolist(), *horizons.tolist(), *caution.tolist(), len(widths))
        if not self.beams.again(shape):
            return None
        longest = max(1, self.rollout.context_steps - int(horizons.min(initial=0)))
        for passes in passes_to_try(self.rollout):
            make = partial(DeviceBeam, self.rollout, self.config, widths, horizons, caution.clone(), longest, passes)
            beam = self.beams.get((*shape, passes), make)
            decision = beam.decide(context)
            if bool(decision.complete):
                break
        return Searched(
            decision.actions.cpu().numpy(), decision.scores.cpu().numpy(), decision.q.cpu().numpy(),
            decision.spread.cpu().numpy(), beam.tree.beam(), beam.tree.nodes(),
            beam.tree.failed.cpu().numpy().astype(np.int64),
            [(valid.cpu().numpy(), tokens.cpu().numpy().astype(np.uint16)) for valid, tokens in decision.levels],
        )  # fmt: skip
