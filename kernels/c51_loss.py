"""TD cross-entropy and conservative gap of a distributional critic, step by step, from its logits.

Letters: E ensemble members, N steps, A actions, Z atoms.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

EPSILON = 1e-8
"""Added to probabilities before the logarithm, as published."""


def c51_loss(logits: Tensor, actions: Tensor, targets: Tensor, v_min: float, v_max: float) -> tuple[Tensor, Tensor]:
    """(td, gap), both float32 (N,): -sum m log(p(a) + 1e-8), and logsumexp of Q over all actions minus Q(a).

    ``logits`` float (E, N, A, Z), ``actions`` int64 (N,) below A, ``targets`` float32 (N, Z) without gradient; p is the
    ensemble's mean distribution, Q its expectation on atoms spread evenly over [v_min, v_max].  With Triton on a GPU
    one kernel each way (:mod:`jowa.kernels.c51_loss_triton`), else :func:`c51_loss_reference`.
    Raises ValueError for shapes, dtypes or devices that do not fit.
    """
    _check(logits, actions, targets)
    if not _runs_triton(logits):
        return c51_loss_reference(logits, actions, targets, v_min, v_max)
    from jowa.kernels.c51_loss_triton import FusedC51

    arguments = (logits.contiguous(), actions.contiguous(), targets.float().contiguous())
    td, gap = FusedC51.apply(*arguments, v_min, v_max, EPSILON)  # type: ignore[no-untyped-call]
    return td, gap


def c51_loss_reference(
    logits: Tensor, actions: Tensor, targets: Tensor, v_min: float, v_max: float
) -> tuple[Tensor, Tensor]:
    """The definition; see :func:`c51_loss`."""
    mean = logits.float().softmax(-1).mean(0)
    steps = torch.arange(len(actions), device=actions.device)
    td = -(targets * (mean[steps, actions] + EPSILON).log()).sum(-1)
    q = (mean * torch.linspace(v_min, v_max, mean.shape[-1], device=mean.device)).sum(-1)
    return td, q.logsumexp(-1) - q[steps, actions]


def _runs_triton(logits: Tensor) -> bool:
    return logits.is_cuda and find_spec("triton") is not None


def _check(logits: Tensor, actions: Tensor, targets: Tensor) -> None:
    if logits.ndim != 4 or actions.shape != logits.shape[1:2] or targets.shape != (len(actions), logits.shape[3]):
        raise ValueError(
            "logits (E, N, A, Z), actions (N,) and targets (N, Z) must share N and Z, got "
            f"{tuple(logits.shape)}, {tuple(actions.shape)}, {tuple(targets.shape)}"
        )
    if not logits.is_floating_point() or actions.dtype != torch.int64:
        raise ValueError(f"logits must be floating and actions int64, got {logits.dtype} and {actions.dtype}")
    if not logits.device == actions.device == targets.device:
        raise ValueError(
            f"logits are on {logits.device}, actions on {actions.device}, targets on {targets.device}: move them"
        )
