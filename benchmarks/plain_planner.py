"""Beam search over plain imagination: token by token, contexts encoded once, pages copied to each child.

The oracle that the planners are measured against, without native code.  R = 1 root.
"""

from __future__ import annotations

import numpy as np
import torch

from jowa.planner import Context, Imagination, PlannerConfig
from jowa.planner.tree import ReferenceBeamTree


class PlainPlanner:
    """One root at a time."""

    def __init__(self, model: torch.nn.Module, config: PlannerConfig, autocast: torch.dtype | None = None) -> None:
        self.imagination, self.config = Imagination(model, autocast), config  # type: ignore[arg-type]

    def plan(self, context: Context) -> tuple[int, float]:
        """The action for one root, and the score of its plan."""
        config, legal = self.config, context.legal.cpu().numpy()
        sizes = np.array([config.width]), np.array([config.horizon])
        tree = ReferenceBeamTree(*sizes, 18, config.gamma, config.respect_ends, config.td_lambda)
        roots = self.imagination.encode(context)
        q, rows, kept_rows = roots.q.float()[:, None], None, np.zeros((1, 1), np.int64)
        while True:
            expansion = tree.expand(q.cpu().numpy(), legal)
            if tree.finished():
                break
            parents = torch.from_numpy(np.take_along_axis(kept_rows, expansion.parents, 1)).to(q.device)
            rows = self.imagination.step(roots, rows, parents, torch.from_numpy(expansion.actions.copy()).to(q.device))
            values = rows.q.float().masked_fill(~context.legal[:, None], -torch.inf).amax(-1)
            kept = tree.keep(rows.rewards.cpu().numpy(), rows.ends.cpu().numpy(), values.cpu().numpy())
            if tree.finished():
                break
            kept_rows = np.where(kept.carried | ~kept.valid, 0, kept.slots)
            q = torch.take_along_dim(rows.q.float(), torch.from_numpy(kept_rows).to(q.device)[..., None], 1)
        actions, scores = tree.best()
        return int(actions[0]), float(scores[0])
