"""Cross-entropies of the world model: next frame tokens, reward signs, ends.

Letters: B batch, L steps, K = 36 tokens a frame, V codebook size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100


def frame_loss(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy over the frame tokens of unpadded steps; the first token has no prediction.

    ``logits`` (B, 36 L, V) from the frame head, ``tokens`` int64 (B, L, 36), ``mask`` bool (B, L).
    Prediction i is of token i + 1 of the flattened frames.  Returns a float32 scalar.
    """
    targets = tokens.masked_fill(~mask[:, :, None], IGNORED).flatten(1)[:, 1:]
    return _mean_cross_entropy(logits[:, :-1], targets)


def reward_loss(logits: Tensor, rewards: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy of the reward's sign: ``logits`` (B, L, 3), ``rewards`` float (B, L), ``mask`` bool (B, L)."""
    return _mean_cross_entropy(logits, (rewards.sign().long() + 1).masked_fill(~mask, IGNORED))


def end_loss(logits: Tensor, ends: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy of the end flag: ``logits`` (B, L, 2), ``ends`` bool (B, L), ``mask`` bool (B, L)."""
    return _mean_cross_entropy(logits, ends.long().masked_fill(~mask, IGNORED))


def _mean_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    total = functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / (targets != IGNORED).sum().clamp_min(1).to(torch.float32)
