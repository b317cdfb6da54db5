"""A linear layer and the cross-entropy of its logits, without all logits in memory at once.

Letters: N rows, D width, V classes.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LOGITS_AT_ONCE = 1 << 25
"""Logits in memory at one time: 64 MiB in 16 bits, enough rows of 2048 classes to fill a GPU with one product."""
IGNORED = -100
LARGEST = 1 << 14
"""Classes that a program of the kernel holds in registers."""


def linear_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Sum over the rows of -log softmax(hidden weight^T + bias)[target], a float32 scalar.

    ``hidden`` float (N, D), ``weight`` float (V, D), ``bias`` float (V,), ``targets`` int64 (N,) below V, -100 for rows
    that do not count.  Under autocast the products are in its dtype, else ``hidden``, ``weight`` and ``bias`` must
    share one.  Equal to :func:`linear_cross_entropy_reference` but for rounding.

    A stretch of rows after another: logits, losses and at once the gradient by the logits in their place (on a GPU with
    Triton in one pass, :mod:`jowa.kernels.linear_cross_entropy_triton`), and from that the gradients by what is given.
    So N x V numbers are never kept, at no product more than autograd takes.  Nothing is differentiable twice.
    Raises ValueError, naming the argument, for a dtype, device or shape that does not fit.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight, bias = (tensor.to(dtype) for tensor in (hidden, weight, bias))
    _check(hidden, weight, bias, targets)
    with torch.autocast(device, enabled=False):
        total: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, targets)  # type: ignore[no-untyped-call]
    return total


def linear_cross_entropy_reference(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """The definition, by autograd; see :func:`linear_cross_entropy`."""
    logits = functional.linear(hidden, weight, bias)
    return functional.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")


def cross_entropy_in_place(logits: Tensor, targets: Tensor, differentiate: bool) -> Tensor:
    """float32 scalar, the sum of the rows' cross-entropies; ``logits`` (N, V) become its gradient by them if asked for.

    ``targets`` as above.  The softmax is in float32, whatever the logits' dtype.
    """
    if logits.is_cuda and logits.shape[1] <= LARGEST and find_spec("triton") is not None:
        from jowa.kernels.linear_cross_entropy_triton import losses_in_place

        with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]
            return losses_in_place(logits, targets, differentiate).sum()
    counted = targets != IGNORED
    chosen = targets.masked_fill(~counted, 0)[:, None]
    logarithms = logits.float().log_softmax(1)
    losses = -logarithms.gather(1, chosen)[:, 0].masked_fill(~counted, 0.0)
    if differentiate:
        gradient = logarithms.exp_()
        gradient.scatter_add_(1, chosen, gradient.new_full((1, 1), -1.0).expand(len(chosen), 1))
        logits.copy_(gradient.masked_fill_(~counted[:, None], 0.0))
    return losses.sum()


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        wanted = context.needs_input_grad[:3]
        total = hidden.new_zeros((), dtype=torch.float32)
        by_hidden = torch.empty_like(hidden) if wanted[0] else None
        # In float32, or each stretch would be rounded into the sum of those before.
        by_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted[1] else None
        by_bias = torch.zeros_like(bias, dtype=torch.float32) if wanted[2] else None
        rows = max(1, LOGITS_AT_ONCE // len(weight))
        for first in range(0, len(hidden), rows):
            part = hidden[first : first + rows]
            logits = torch.addmm(bias, part, weight.t())
            total += cross_entropy_in_place(logits, targets[first : first + rows], any(wanted))
            if by_hidden is not None:
                torch.mm(logits, weight, out=by_hidden[first : first + rows])
            if by_weight is not None:
                by_weight += logits.t() @ part
            if by_bias is not None:
                by_bias += logits.sum(0, dtype=torch.float32)
        kept = [gradient for gradient in (by_hidden, by_weight, by_bias) if gradient is not None]
        context.save_for_backward(*kept)
        context.types = (hidden.dtype, weight.dtype, bias.dtype)
        return total

    @staticmethod
    def backward(context: Any, by_total: Tensor) -> tuple[Tensor | None, ...]:
        kept = iter(context.saved_tensors)
        gradients = [
            (next(kept) * by_total).to(dtype) if wanted else None
            for wanted, dtype in zip(context.needs_input_grad[:3], context.types, strict=True)
        ]
        return (*gradients, None)


def _check(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> None:
    if hidden.ndim != 2 or not hidden.is_floating_point():
        raise ValueError(f"hidden must be floating (N, D), got {hidden.dtype} {tuple(hidden.shape)}")
    if weight.ndim != 2 or weight.shape[1] != hidden.shape[1] or len(weight) == 0:
        raise ValueError(f"weight must be (V, {hidden.shape[1]}) with V at least 1, got {tuple(weight.shape)}")
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape ({len(weight)},), got {tuple(bias.shape)}")
    if targets.shape != hidden.shape[:1]:
        raise ValueError(f"targets must have shape ({len(hidden)},), got {tuple(targets.shape)}")
    if targets.dtype != torch.int64:
        raise ValueError(f"targets must be int64, got {targets.dtype}")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor.dtype != hidden.dtype:
            raise ValueError(f"{name} must be {hidden.dtype} as hidden is, got {tensor.dtype}")
    for name, tensor in (("weight", weight), ("bias", bias), ("targets", targets)):
        if tensor.device != hidden.device:
            raise ValueError(f"{name} on {tensor.device}, hidden on {hidden.device}: move them")
