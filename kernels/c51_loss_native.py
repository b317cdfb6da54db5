"""The critic's two losses on a CPU, in C++ (csrc/kernels/critic.h).

A step's distributions stay in the fastest caches; nothing of the logits' size but the gradient is written.  Called by
:mod:`jowa.kernels.c51_loss`, never directly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jowa.kernels.c51_loss import EPSILON
from jowa.kernels.native import native, threads

_INSTRUCTIONS: str | None = None
"""A set of instructions ("v4", "v3", "portable") to test, None for the best at hand."""


def losses(
    logits: Tensor, actions: Tensor, successor: Tensor, rewards: Tensor, discounts: Tensor, v_min: float, v_max: float
) -> tuple[Tensor, Tensor]:
    """(td, gap), float32 (N,), of contiguous float32 tensors and int64 ``actions``, see jowa.kernels.c51_loss."""
    td, gap = torch.empty_like(rewards), torch.empty_like(rewards)
    if len(rewards):
        native.critic_forward(
            logits.data_ptr(), actions.data_ptr(), successor.data_ptr(), rewards.data_ptr(), discounts.data_ptr(),
            td.data_ptr(), gap.data_ptr(),
            list(logits.shape), [v_min, v_max, EPSILON], threads(), _INSTRUCTIONS,
        )  # fmt: skip
    return td, gap


def gradient(
    logits: Tensor, actions: Tensor, successor: Tensor, rewards: Tensor, discounts: Tensor, v_min: float, v_max: float,
    td_gradient: Tensor, gap_gradient: Tensor,
) -> Tensor:  # fmt: skip
    """float32 (E, N, A, Z), by the logits; distributions are computed anew."""
    by_logits = torch.empty_like(logits)
    if len(rewards):
        td_gradient, gap_gradient = td_gradient.contiguous(), gap_gradient.contiguous()
        native.critic_backward(
            logits.data_ptr(), actions.data_ptr(), successor.data_ptr(), rewards.data_ptr(), discounts.data_ptr(),
            td_gradient.data_ptr(), gap_gradient.data_ptr(), by_logits.data_ptr(),
            list(logits.shape), [v_min, v_max, EPSILON], threads(), _INSTRUCTIONS,
        )  # fmt: skip
    return by_logits
