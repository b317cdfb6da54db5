"""Cross-entropy and its gradient by the logits in one pass over them, in Triton.

Letters: N rows, V classes.  Called by :mod:`jowa.kernels.linear_cross_entropy`, never directly.  A program holds one
row's logits in registers: they are read once, and their gradient is written over them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def in_place_kernel(logits, targets, losses, V: tl.constexpr, BLOCK: tl.constexpr, DIFFERENTIATE: tl.constexpr):
    """Loss of one row, 0 for a target below 0; its logits become softmax minus one-hot, or 0."""
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    at = logits + row.to(tl.int64) * V + columns
    target = tl.load(targets + row)
    x = tl.load(at, mask=columns < V, other=float("-inf")).to(tl.float32)
    highest = tl.max(x, axis=0)
    powers = tl.exp(x - highest)
    total = tl.sum(powers, axis=0)
    chosen = tl.sum(tl.where(columns == target, x, 0.0), axis=0)
    counts = target >= 0
    tl.store(losses + row, tl.where(counts, highest + tl.log(total) - chosen, 0.0))
    if DIFFERENTIATE:
        gradient = powers / total - tl.where(columns == target, 1.0, 0.0)
        gradient = tl.where(counts, gradient, 0.0)
        tl.store(at, gradient.to(logits.dtype.element_ty), mask=columns < V)


def warps_of(block: int) -> int:
    """32 numbers a thread at most, where 16 warps reach that."""
    return max(1, min(16, block // 1024 * 2))


def losses_in_place(logits: Tensor, targets: Tensor, differentiate: bool) -> Tensor:
    """float32 (N,), the losses of contiguous ``logits`` (N, V); ``targets`` int64 (N,), negative: does not count."""
    rows, classes = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    block = triton.next_power_of_2(classes)
    if rows:
        in_place_kernel[(rows,)](
            logits, targets.contiguous(), losses, classes, block, differentiate, num_warps=warps_of(block)
        )
    return losses
