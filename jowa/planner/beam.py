"""Beam search in imagination, for many roots at once (arXiv 2410.00564).

Letters: R roots, K beam width, C child slots of a level (K at the first, K^2 after), A actions.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.errors import NumericalError
from jowa.model import WorldActionModel
from jowa.planner.imagination import Context, Imagination, Roots, Rows
from jowa.planner.plan import Plan, PlannerConfig
from jowa.planner.tree import SearchTree, make_tree


class BeamPlanner:
    """Beam search, or greedy in Q when the configuration says ``none`` or horizon 0.

    ``model`` must be in evaluation mode.  ``autocast``: dtype of the computation, None for the weights' own.
    """

    def __init__(self, model: WorldActionModel, config: PlannerConfig, autocast: torch.dtype | None = None) -> None:
        self.imagination = Imagination(model, autocast)
        self.config = config
        self.horizon = 0 if config.name == "none" else config.horizon
        self.num_actions = model.config.num_actions

    def plan(self, context: Context, keep_frames: bool = False) -> Plan:
        """See :class:`jowa.planner.plan.Planner`.

        Raises :class:`NumericalError` naming the root when the model answers NaN, ValueError when context and
        horizon together exceed the model's context.
        """
        longest = self.imagination.model.config.context_steps
        if context.tokens.shape[1] + self.horizon > longest:
            raise ValueError(
                f"a context of {context.tokens.shape[1]} steps and a horizon of {self.horizon} exceed the model's "
                f"{longest} steps: shorten the context"
            )
        roots = self.imagination.encode(context)
        legal = context.legal.cpu().numpy()
        q_root = roots.q.float().cpu().numpy()
        tree = make_tree(
            len(legal), self.config.width, self.horizon, self.num_actions, self.config.gamma, self.config.respect_ends
        )
        _refuse_nan(q_root, legal)
        frames: list[NDArray[np.uint16]] = []
        if self.horizon == 0:
            tree.decide_greedy(q_root, legal)
        else:
            self._search(tree, roots, q_root, legal, context.legal, frames if keep_frames else None)
        actions, scores = tree.best()
        beam_scores, beam_actions, held = tree.beam()
        beam_scores = np.where(held, beam_scores, np.float32(-np.inf))
        return Plan(actions, scores, np.where(legal, q_root, -np.inf), beam_scores, beam_actions, tree.nodes(), frames)

    def _search(
        self,
        tree: SearchTree,
        roots: Roots,
        q_root: NDArray[np.float32],
        legal: NDArray[np.bool_],
        legal_device: Tensor,
        frames: list[NDArray[np.uint16]] | None,
    ) -> None:
        """Drive ``tree`` to its end; ``q_root`` (R, A), ``legal`` (R, A), appends each level's tokens to ``frames``."""
        device = roots.q.device
        q = q_root[:, None]
        rows: Rows | None = None
        kept_rows: NDArray[np.int64] = np.zeros((len(legal), 1), dtype=np.int64)
        while not tree.finished():
            expansion = tree.expand(q, legal)
            parent_rows = np.take_along_axis(kept_rows, expansion.parents, axis=1)
            rows = self.imagination.step(roots, rows, _to(parent_rows, device), _to(expansion.actions, device))
            values = rows.q.masked_fill(~legal_device[:, None], -torch.inf).amax(-1)
            values_host = values.float().cpu().numpy()
            _refuse_nan(values_host, expansion.valid)
            kept = tree.keep(rows.rewards.cpu().numpy(), rows.ends.cpu().numpy(), values_host)
            kept_rows = np.where(kept.carried | ~kept.valid, 0, kept.slots)
            q = np.take_along_axis(rows.q.float().cpu().numpy(), kept_rows[:, :, None], axis=1)
            if frames is not None:
                frames.append(rows.tokens.cpu().numpy().astype(np.uint16))


def _refuse_nan(values: NDArray[np.float32], used: NDArray[np.bool_]) -> None:
    """Raise :class:`NumericalError` naming the first root where ``values`` (R, ...) is NaN and ``used`` (R, ...)."""
    roots = np.flatnonzero((np.isnan(values) & used).any(axis=1))
    if roots.size:
        raise NumericalError(
            f"the model's Q of root {roots[0]} is NaN: its weights are damaged or training diverged; use another "
            "checkpoint, or --precision float32"
        )


def _to(array: NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
