"""Segments whose last steps the model imagined, as beam search would have it play: data for the critic.

Letters: B batch, L steps, H imagined steps, N nodes of the search, A actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.model import WorldActionModel
from jowa.model.heads import mean_values
from jowa.planner import BeamPlanner, Context, Plan, PlannerConfig, make_engine
from jowa.planner.native_engine import NativeEngine
from jowa.types import Batch


class Imaginer:
    """Imagines with the weights that ``model`` has at the time, without dropout; what it makes follows from them."""

    def __init__(self, model: WorldActionModel, width: int, horizon: int, gamma: float) -> None:
        self.model, self.horizon = model, horizon
        self.engine = make_engine(model)
        # Guesses of frames that learn would make rounding depend on what was imagined before; these do not.
        self.config = PlannerConfig("beam", width, horizon, gamma, draft="copy")
        with self._thinking():
            self.planner = BeamPlanner(model, self.config, None, self.engine)

    def mix(self, batch: Batch, pieces: Sequence[slice]) -> Batch:
        """``batch``, which holds tokens, with the last half of each of its ``pieces`` imagined.

        Half of every piece and not of the whole, so that microbatches, and processes, hold alike.
        """
        halves = [range(piece.start + (piece.stop - piece.start + 1) // 2, piece.stop) for piece in pieces]
        rows = torch.tensor([row for half in halves for row in half], device=batch.actions.device)
        imagined = torch.zeros(len(batch.actions), dtype=torch.bool, device=rows.device).index_fill(0, rows, True)
        made = self.segments(batch.rows(rows))
        values = {}
        for name in ("tokens", "actions", "rewards", "ends", "mask"):
            values[name] = getattr(batch, name).index_copy(0, rows, getattr(made, name))
        noisy = None if batch.noisy is None else batch.noisy & ~imagined
        return replace(batch, frames=None, noisy=noisy, imagined=imagined, **values)

    @torch.no_grad()
    def segments(self, batch: Batch) -> Batch:
        """Segments that begin like those of ``batch`` and go on as the model imagines.

        A row keeps its first steps, at most L - H frames and the actions between them.  Step t of the result holds
        frame t, the action taken on seeing it, and the reward and end that followed: where t is imagined, all of
        them by the model.  Right-padded, and masked after an end.
        """
        assert batch.tokens is not None, "tokenise the batch before imagining from it"
        longest = batch.actions.shape[1] - self.horizon
        lengths = batch.mask.sum(1).clamp(1, longest)
        steps = torch.arange(batch.actions.shape[1], device=lengths.device)
        kept = steps < lengths[:, None] - 1
        tokens = batch.tokens.masked_fill(steps[:, None] >= lengths[:, None, None], 0)
        actions = batch.actions.masked_fill(~kept, 0)
        rewards = batch.rewards.masked_fill(~kept, 0)
        # A context is cut before its last action, so no recorded end is among the steps it keeps.
        ends = torch.zeros_like(batch.ends)
        with self._thinking():
            context = Context(tokens[:, :longest], actions[:, :longest], lengths, batch.tasks, batch.legal)
            plan = self.planner.plan(context, keep_frames=True)
            last = lengths - 1 + _follow(plan, lengths, tokens, actions, rewards, ends)
            self._act_last(last, tokens, actions, rewards, ends, batch)
        ended_before = ends.long().cumsum(1) - ends.long() > 0
        mask = (steps <= last[:, None]) & ~ended_before
        return replace(
            batch, frames=None, tokens=tokens * mask[..., None], actions=actions * mask, rewards=rewards * mask,
            ends=ends & mask, mask=mask,
        )  # fmt: skip

    def _act_last(
        self, last: Tensor, tokens: Tensor, actions: Tensor, rewards: Tensor, ends: Tensor, batch: Batch
    ) -> None:
        """Write the critic's action at step ``last`` int64 (B,), and what follows it.

        The heads of the whole segment say that: the frame that would follow is not needed, and the model's context
        may have no room for it.
        """
        rows, config = torch.arange(len(last), device=last.device), self.model.config
        q = self.model(tokens, actions, batch.tasks).q[:, rows, last]
        values = mean_values(q, config.v_min, config.v_max)
        actions[rows, last] = values.masked_fill(~batch.legal, -torch.inf).argmax(-1)
        said = self.model(tokens, actions, batch.tasks)
        rewards[rows, last] = said.rewards[rows, last].argmax(-1).float() - 1
        ends[rows, last] = said.ends[rows, last].argmax(-1) == 1

    @contextmanager
    def _thinking(self) -> Iterator[None]:
        """The engine with the present weights, the model without dropout and in its weights' own precision."""
        training = self.model.training
        self.model.eval()
        if isinstance(self.engine, NativeEngine):
            self.engine.refresh()
        try:
            with torch.autocast(self.engine.device.type, enabled=False):
                yield
        finally:
            self.model.train(training)


def _follow(plan: Plan, lengths: Tensor, tokens: Tensor, actions: Tensor, rewards: Tensor, ends: Tensor) -> Tensor:
    """Write the best plan of each root behind its context of ``lengths`` int64 (B,) frames.

    Returns how many frames it imagined, int64 (B,).  The plans are on the host; what they say crosses to the device in
    a few copies, whatever their number.
    """
    assert plan.frames is not None
    nodes = zip(*(plan.nodes[name].tolist() for name in ("root", "parent", "action")), strict=True)
    # A node is found by what it follows, the root counted as -1 - r, and its action.
    children = {(parent if parent >= 0 else -1 - root, action): i for i, (root, parent, action) in enumerate(nodes)}
    taken: list[tuple[int, int, int]] = []
    for root, (length, path) in enumerate(zip(lengths.tolist(), plan.candidate_actions[:, 0].tolist(), strict=True)):
        node = -1 - root
        for step, action in enumerate(path, start=length - 1):
            if action < 0:  # the plan ended the game before its horizon
                break
            node = children[node, action]
            taken.append((root, step, node))
    roots, steps, chosen = np.array(taken, dtype=np.int64).reshape(-1, 3).T

    def there(values: NDArray[Any], dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(tokens.device, dtype)

    row, step_of = there(roots, torch.int64), there(steps, torch.int64)
    for values, name in ((actions, "action"), (rewards, "reward"), (ends, "ended")):
        values[row, step_of] = there(plan.nodes[name][chosen], values.dtype)
    tokens[row, step_of + 1] = there(plan.frames[chosen].astype(np.int64), tokens.dtype)
    return there(np.bincount(roots, minlength=len(lengths)), lengths.dtype)
