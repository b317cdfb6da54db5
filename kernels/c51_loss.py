"""TD cross-entropy and conservative gap of a distributional critic, step by step, from its logits.

Letters: E ensemble members, N steps, A actions, Z atoms.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from jowa.kernels.c51_projection import c51_projection, check_atoms
from jowa.kernels.native import native_runs

EPSILON = 1e-8
"""Added to probabilities before the logarithm, as published."""
MOST_ACTIONS, MOST_ATOMS = 32, 64
"""What a program of the kernels holds in registers: with 128 atoms it would spill them (tests/kernels/compiled.py)."""


def c51_loss(
    logits: Tensor, actions: Tensor, successor: Tensor, rewards: Tensor, discounts: Tensor, v_min: float, v_max: float
) -> tuple[Tensor, Tensor]:
    """(td, gap), both float32 (N,): -sum m log(p(a) + 1e-8), and logsumexp of Q over all actions minus Q(a).

    ``logits`` float (E, N, A, Z), ``actions`` int64 (N,) below A; p is the ensemble's mean distribution, Q its
    expectation on atoms spread evenly over [v_min, v_max].  m is the projection of r + g Z' (Bellemare et al. 2017):
    ``successor`` float (N, Z) the distribution of Z', ``rewards`` and ``discounts`` float (N,), a discount of 0 for r
    alone; none of them gets a gradient.  With Triton on a GPU one kernel each way, without a tensor of N Z Z
    (:mod:`jowa.kernels.c51_loss_triton`), up to 32 actions and 64 atoms, on a CPU native code
    (:mod:`jowa.kernels.c51_loss_native`), else :func:`c51_loss_reference`.
    Raises ValueError for shapes, dtypes or devices that do not fit.
    """
    _check(logits, actions, successor, rewards, discounts)
    check_atoms("logits", logits.shape[3], v_min, v_max)
    triton = _runs_triton(logits)
    if not triton and not native_runs(logits):
        return c51_loss_reference(logits, actions, successor, rewards, discounts, v_min, v_max)
    targets = (tensor.detach().float().contiguous() for tensor in (successor, rewards, discounts))
    own = logits if triton else logits.float()
    td, gap = torch.ops.jowa.c51_loss(own.contiguous(), actions.contiguous(), *targets, v_min, v_max)
    return td, gap


def c51_loss_reference(
    logits: Tensor, actions: Tensor, successor: Tensor, rewards: Tensor, discounts: Tensor, v_min: float, v_max: float
) -> tuple[Tensor, Tensor]:
    """The definition; see :func:`c51_loss`."""
    with torch.no_grad():
        targets = c51_projection(successor, rewards, discounts, v_min, v_max)
    mean = logits.float().softmax(-1).mean(0)
    steps = torch.arange(len(actions), device=actions.device)
    td = -(targets * (mean[steps, actions] + EPSILON).log()).sum(-1)
    q = (mean * torch.linspace(v_min, v_max, mean.shape[-1], device=mean.device)).sum(-1)
    return td, q.logsumexp(-1) - q[steps, actions]


def _runs_triton(logits: Tensor) -> bool:
    return logits.is_cuda and logits.shape[2] <= MOST_ACTIONS and logits.shape[3] <= MOST_ATOMS and _has_triton()


def _has_triton() -> bool:
    return find_spec("triton") is not None


# What torch.compiler.assume_constant_result sets; calling it would import the whole compiler here.
_has_triton._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _check(logits: Tensor, actions: Tensor, successor: Tensor, rewards: Tensor, discounts: Tensor) -> None:
    steps = (len(actions),)
    fits = logits.ndim == 4 and actions.shape == logits.shape[1:2] and successor.shape == (*steps, logits.shape[3])
    if not fits or rewards.shape != steps or discounts.shape != steps:
        raise ValueError(
            "logits (E, N, A, Z), actions, rewards, discounts (N,) and successor (N, Z) must share N and Z, got "
            f"{tuple(logits.shape)}, {tuple(actions.shape)}, {tuple(rewards.shape)}, {tuple(discounts.shape)} and "
            f"{tuple(successor.shape)}"
        )
    if actions.dtype != torch.int64:
        raise ValueError(f"actions must be int64, got {actions.dtype}")
    floats = {"logits": logits, "successor": successor, "rewards": rewards, "discounts": discounts}
    for name, tensor in floats.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating, got {tensor.dtype}")
    for name, tensor in {"actions": actions, **floats}.items():
        if tensor.device != logits.device:
            raise ValueError(f"{name} on {tensor.device}, logits on {logits.device}: move them")
    if logits.shape[0] == 0 or logits.shape[2] == 0:
        raise ValueError(f"logits (E, N, A, Z) must have at least one member and one action, got {tuple(logits.shape)}")


@torch.library.custom_op("jowa::c51_loss", mutates_args=())
def _forward(
    logits: Tensor, actions: Tensor, successor: Tensor, rewards: Tensor, discounts: Tensor, v_min: float, v_max: float
) -> tuple[Tensor, Tensor]:
    if _runs_triton(logits):
        from jowa.kernels.c51_loss_triton import forward

        return forward(logits, actions, successor, rewards, discounts, v_min, v_max, EPSILON)
    from jowa.kernels.c51_loss_native import losses

    return losses(logits, actions, successor, rewards, discounts, v_min, v_max)


@torch.library.custom_op("jowa::c51_loss_backward", mutates_args=())
def _backward(
    logits: Tensor, actions: Tensor, successor: Tensor, rewards: Tensor, discounts: Tensor, td_gradient: Tensor,
    gap_gradient: Tensor, v_min: float, v_max: float,
) -> Tensor:  # fmt: skip
    """The gradient by the logits."""
    if _runs_triton(logits):
        from jowa.kernels.c51_loss_triton import backward

        gradients = (td_gradient, gap_gradient)
        return backward(logits, actions, successor, rewards, discounts, *gradients, v_min, v_max, EPSILON)
    from jowa.kernels.c51_loss_native import gradient

    return gradient(logits, actions, successor, rewards, discounts, v_min, v_max, td_gradient, gap_gradient)


@_forward.register_fake
def _(logits: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    empty = logits.new_empty(logits.shape[1], dtype=torch.float32)
    return empty, torch.empty_like(empty)


@_backward.register_fake
def _(logits: Tensor, *others: Any) -> Tensor:
    return torch.empty_like(logits)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.v_min, ctx.v_max = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, td_gradient: Tensor, gap_gradient: Tensor) -> tuple[Tensor | None, ...]:
    gradient = torch.ops.jowa.c51_loss_backward(*ctx.saved_tensors, td_gradient, gap_gradient, ctx.v_min, ctx.v_max)
    return (gradient, *[None] * 6)


_forward.register_autograd(_differentiate, setup_context=_keep)
