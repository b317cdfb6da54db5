"""Beam search in imagination, for many roots at once (arXiv 2410.00564).

Letters: R roots, K beam width, C child slots of a level (K at the first, K^2 after), A actions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.model import WorldActionModel
from jowa.planner.captured import may_stay_on_device
from jowa.planner.device_beam import BeamOnDevice, Searched
from jowa.planner.drafts import DraftHead
from jowa.planner.engine import Engine, Level
from jowa.planner.imagination import Context
from jowa.planner.plan import Plan, PlannerConfig, PlanningError, check_configs, empty_plan
from jowa.planner.rollout import Rollout
from jowa.planner.tree import BeamTreeProtocol, Int, describe_fault, make_beam_tree


class BeamPlanner:
    """Beam search, or greedy in Q when the configuration says ``none`` or horizon 0.

    ``model`` must be in evaluation mode.  ``autocast``: dtype of the computation, None for the weights' own.
    ``engine``: one that exists already (its weights are then used), which several planners may share.
    """

    def __init__(
        self,
        model: WorldActionModel,
        config: PlannerConfig,
        autocast: torch.dtype | None = None,
        engine: Engine | None = None,
        draft_head: DraftHead | None = None,
    ) -> None:
        self.config = config
        self.rollout = Rollout(model, config, autocast, engine, draft_head)
        self._on_device = BeamOnDevice(self.rollout, config) if may_stay_on_device(self.rollout) else None

    @torch.inference_mode()
    def plan(
        self,
        context: Context,
        keep_frames: bool = False,
        configs: Sequence[PlannerConfig] | None = None,
        slots: Sequence[int] | None = None,
    ) -> Plan:
        """See :class:`jowa.planner.plan.Planner`; beam search keeps nothing between decisions."""
        del slots
        start = time.perf_counter()
        configs = [self.config] * len(context.lengths) if configs is None else configs
        check_configs(configs, self.config, context, self.rollout.context_steps)
        if not configs:
            one = np.ones(1, dtype=np.int64)
            actions = self.rollout.num_actions
            return empty_plan(make_beam_tree(one, one, actions).nodes(), actions, keep_frames)
        widths = np.array([config.width for config in configs], dtype=np.int64)
        horizons = np.array([config.depth for config in configs], dtype=np.int64)
        caution = torch.tensor([config.uncertainty for config in configs], device=self.rollout.device)
        budget = np.inf if self.config.milliseconds is None else self.config.milliseconds / 1000
        with self.rollout.working():
            searched = None
            if self._on_device is not None and budget == np.inf:
                searched = self._on_device.search(context, widths, horizons, caution)
            if searched is None:
                searched = self._on_host(context, widths, horizons, caution, start + budget)
        plan = _plan_of(searched, context.legal.cpu().numpy(), keep_frames)
        if plan.failed:
            raise PlanningError(plan)
        return plan

    def _on_host(self, context: Context, widths: Int, horizons: Int, caution: Tensor, deadline: float) -> Searched:
        """The tree on the host, which looks at every level's results."""
        own, num_actions = self.config, self.rollout.num_actions
        tree = make_beam_tree(widths, horizons, num_actions, own.gamma, own.respect_ends, own.td_lambda)
        self.rollout.reserve(len(widths), len(widths) * tree.pages_per_root)
        values = self.rollout.encode(context)
        levels: list[tuple[NDArray[np.bool_], NDArray[np.uint16]]] = []
        self._search(tree, context, values.q - caution[:, None] * values.spread, caution, deadline, levels)
        actions, scores = tree.best()
        return Searched(
            actions, scores, values.q.cpu().numpy(), values.spread.cpu().numpy(), tree.beam(), tree.nodes(),
            tree.failed, levels,
        )  # fmt: skip

    def _search(
        self,
        tree: BeamTreeProtocol,
        context: Context,
        q_root: Tensor,
        caution: Tensor,
        deadline: float,
        levels: list[tuple[NDArray[np.bool_], NDArray[np.uint16]]],
    ) -> None:
        """Drive ``tree`` to its end or the deadline; appends each level's valid rows and their tokens to ``levels``."""
        legal = context.legal.cpu().numpy()
        q = q_root[:, None]
        roots = torch.arange(len(legal), device=q.device)
        tokens = context.tokens[roots, context.lengths - 1][:, None]
        while True:
            expansion = tree.expand(q.cpu().numpy(), legal)
            if not expansion.valid.any() or time.perf_counter() > deadline:
                return
            rows = self._to(expansion.parents)
            parents = torch.take_along_dim(tokens, rows[..., None], 1)
            level = Level(self._to(expansion.actions), self._to(expansion.page_table), self._to(expansion.depths))
            found = self.rollout.imagine(level, parents, context.tasks)
            q_found = found.q - caution[:, None, None] * found.spread
            values = q_found.masked_fill(~context.legal[:, None], -torch.inf).amax(-1)
            kept = tree.keep(found.rewards.cpu().numpy(), found.ends.cpu().numpy(), values.cpu().numpy())
            levels.append((expansion.valid.copy(), found.tokens.cpu().numpy().astype(np.uint16)))
            if tree.finished():
                return
            slots = self._to(np.where(kept.carried | ~kept.valid, 0, kept.slots))
            q = torch.take_along_dim(q_found, slots[..., None], 1)
            tokens = torch.take_along_dim(found.tokens, slots[..., None], 1)

    def _to(self, array: NDArray[np.int64] | NDArray[np.int32]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.rollout.device)


def _plan_of(searched: Searched, legal: NDArray[np.bool_], keep_frames: bool) -> Plan:
    """The answer; ``legal`` (R, A)."""
    beam, failed = searched.beam, searched.failed
    return Plan(
        np.where(failed == 0, searched.actions, -1),
        searched.scores,
        np.where(legal, searched.q, -np.inf).astype(np.float32),
        searched.spread,
        np.where(beam.valid, beam.scores, np.float32(-np.inf)),
        beam.actions,
        searched.nodes,
        _by_node(searched.levels, len(legal)) if keep_frames else None,
        {int(root): describe_fault(int(failed[root])) for root in np.flatnonzero(failed)},
    )


def _by_node(levels: list[tuple[NDArray[np.bool_], NDArray[np.uint16]]], roots: int) -> NDArray[np.uint16]:
    """The levels' frames in the order of the tree's nodes: root by root, as they were evaluated."""
    frames = [tokens[root][valid[root]] for root in range(roots) for valid, tokens in levels]
    return np.concatenate(frames) if frames else np.zeros((0, 36), dtype=np.uint16)
