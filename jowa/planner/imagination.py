"""Rolling the model forward: contexts encoded once per root, imagined steps decoded token by token.

Letters: R roots, M rows a root (a rectangle: a root with fewer live rows leaves some idle), N = R M,
K = 36 tokens a frame, S = 37 tokens a step, A = 18 actions, H heads, d head width, D width.

A root's context keys and values are stored once and shared by its rows; each row owns only the pages of
its imagined steps, 37 tokens each.  Nothing here decodes pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from jowa.config import TOKENS_PER_FRAME, TOKENS_PER_STEP
from jowa.model import WorldActionModel


@dataclass(frozen=True)
class Context:
    """What R roots remember, oldest first, right-padded to n steps: n frames and the n - 1 actions between."""

    tokens: Tensor
    """int64 (R, n, 36)."""
    actions: Tensor
    """int64 (R, n): action t followed frame t; the entry of the last frame and of padding is ignored."""
    lengths: Tensor
    """int64 (R,): frames of each root, 1..n."""
    tasks: Tensor
    """int64 (R,)."""
    legal: Tensor
    """bool (R, 18)."""


@dataclass(frozen=True)
class Roots:
    """Encoded contexts."""

    keys: Tensor
    """(layers, R, H, T, d) with T = 37 n - 1."""
    values: Tensor
    visible: Tensor
    """bool (R, T): which context positions exist."""
    lengths: Tensor
    """int64 (R,): steps in each context."""
    tasks: Tensor
    q: Tensor
    """float32 (R, 18): Q of all actions at the last frame."""
    tokens: Tensor
    """int64 (R, 36): the last frame."""


@dataclass(frozen=True)
class Rows:
    """One level of imagined states, R roots by M rows; idle rows hold arbitrary values.

    Where a head answered NaN or infinity, reward and Q are NaN.
    """

    tokens: Tensor
    """int64 (R, M, 36): the imagined frame."""
    rewards: Tensor
    """float32 (R, M): reward of the step into this state: -1, 0 or 1."""
    ends: Tensor
    """bool (R, M): whether that step ended the game."""
    q: Tensor
    """float32 (R, M, 18): Q of all actions in this state."""
    keys: Tensor
    """(layers, N, H, 37 h, d): pages of the h imagined steps down to this row."""
    values: Tensor


class Imagination:
    """Greedy imagination with ``model`` (put it in evaluation mode): most likely token, reward and end class.

    Ties go to the lowest index.  ``autocast`` names the dtype of the computation, None for the weights' own.
    """

    def __init__(self, model: WorldActionModel, autocast: torch.dtype | None = None) -> None:
        self.model = model
        self.autocast = autocast
        self._head_width = model.config.width // model.config.heads

    def _precision(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, dtype=self.autocast, enabled=self.autocast is not None)

    @torch.inference_mode()
    def encode(self, context: Context) -> Roots:
        """Encode the contexts of R roots.  Raises ValueError when a context is empty or longer than the model's."""
        roots, steps, _ = context.tokens.shape
        if not 1 <= steps <= self.model.config.context_steps:
            raise ValueError(f"a context holds 1 to {self.model.config.context_steps} steps, got {steps}")
        device = context.tokens.device
        with self._precision(device):
            embedded = self.model.embed(context.tokens, context.actions, context.tasks)[:, :-1]
            keys: list[Tensor] = []
            values: list[Tensor] = []

            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                keys.append(k)
                values.append(v)
                return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

            hidden = self.model.transformer(embedded, attend)
            # Padding stands behind the last frame and the mask is causal, so it never reaches it.
            last = (context.lengths - 1) * TOKENS_PER_STEP + TOKENS_PER_FRAME - 1
            at_last = hidden[torch.arange(roots, device=device), last]
            q_values = self.model.q_values(at_last)
        visible = torch.arange(embedded.shape[1], device=device) <= last[:, None]
        tokens = context.tokens[torch.arange(roots, device=device), context.lengths - 1]
        return Roots(torch.stack(keys), torch.stack(values), visible, context.lengths, context.tasks, q_values, tokens)

    @torch.inference_mode()
    def step(self, roots: Roots, parents: Rows | None, parent_rows: Tensor, actions: Tensor) -> Rows:
        """Take ``actions`` int64 (R, M) from the parents' rows ``parent_rows`` int64 (R, M) and imagine what follows.

        ``parents`` None means the roots themselves.  Idle rows may name any valid parent and action.
        """
        count, rows = actions.shape
        depth = 0 if parents is None else parents.keys.shape[3] // TOKENS_PER_STEP
        pages = _Pages(roots, parents, parent_rows, depth)
        tasks = roots.tasks.repeat_interleave(rows)
        first = (roots.lengths + depth) * TOKENS_PER_STEP - 1
        positions = first.repeat_interleave(rows)[:, None]
        with self._precision(actions.device):
            hidden = self._feed(self.model.embed_actions(actions.reshape(-1, 1), positions, tasks), pages)
            reward_logits, end_logits = self.model.reward_head(hidden), self.model.end_head(hidden)
            sound = reward_logits.isfinite().all(-1) & end_logits.isfinite().all(-1)
            rewards, ends = reward_logits.argmax(-1).float() - 1, end_logits.argmax(-1) == 1
            tokens = []
            for _ in range(TOKENS_PER_FRAME):
                logits = self.model.frame_head(hidden)
                sound &= logits.isfinite().all(-1)
                tokens.append(logits.argmax(-1, keepdim=True))
                positions = positions + 1
                hidden = self._feed(self.model.embed_frames(tokens[-1], positions, tasks), pages)
            q_values = self.model.q_values(hidden)
        return Rows(
            torch.cat(tokens, 1).view(count, rows, TOKENS_PER_FRAME),
            # The most likely class would hide that another's logit was NaN.
            rewards.masked_fill(~sound, torch.nan).view(count, rows),
            ends.view(count, rows),
            q_values.masked_fill(~sound[:, None], torch.nan).view(count, rows, -1),
            pages.keys,
            pages.values,
        )

    def _feed(self, embedded: Tensor, pages: _Pages) -> Tensor:
        """One token per row, float (N, 1, D), through the blocks; returns hidden states (N, D)."""
        hidden = self.model.transformer(embedded, pages.attend)
        pages.filled += 1
        return hidden[:, 0]


class _Pages:
    """Keys and values that the rows of one level see: their root's context, then their own pages."""

    def __init__(self, roots: Roots, parents: Rows | None, parent_rows: Tensor, depth: int) -> None:
        layers, count, heads, _, width = roots.keys.shape
        rows = parent_rows.shape[1]
        self.roots, self.rows = roots, rows
        self.filled = depth * TOKENS_PER_STEP
        shape = (layers, count * rows, heads, self.filled + TOKENS_PER_STEP, width)
        self.keys, self.values = roots.keys.new_empty(shape), roots.values.new_empty(shape)
        self.hidden_context = torch.where(roots.visible, 0.0, -math.inf).to(roots.keys.dtype)[:, None, None]
        if parents is not None:
            offsets = torch.arange(count, device=parent_rows.device)[:, None] * (parents.keys.shape[1] // count)
            source = (parent_rows + offsets).flatten()
            self.keys[:, :, :, : self.filled] = parents.keys[:, source]
            self.values[:, :, :, : self.filled] = parents.values[:, source]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v (N, H, 1, d) of the token being fed, to the mixed values (N, H, 1, d)."""
        end = self.filled + 1
        self.keys[layer, :, :, self.filled] = k[:, :, 0]
        self.values[layer, :, :, self.filled] = v[:, :, 0]
        context_keys, context_values = self.roots.keys[layer], self.roots.values[layer]
        count, heads, length, width = context_keys.shape
        q = q * width**-0.5
        # The context is read once per root: its rows are the query axis of one product.
        by_root = q.view(count, self.rows, heads, width).transpose(1, 2)
        to_context = by_root @ context_keys.transpose(-1, -2) + self.hidden_context
        to_pages = q @ self.keys[layer, :, :, :end].transpose(-1, -2)
        scores = torch.cat([to_context.transpose(1, 2).reshape(-1, heads, 1, length), to_pages], dim=-1)
        weights = scores.softmax(dim=-1).to(context_values.dtype)
        context_weights = weights[..., :length].view(count, self.rows, heads, length).transpose(1, 2)
        from_context = (context_weights @ context_values).transpose(1, 2).reshape(-1, heads, 1, width)
        return from_context + weights[..., length:] @ self.values[layer, :, :, :end]
