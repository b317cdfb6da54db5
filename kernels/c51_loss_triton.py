"""The critic's two losses and the Bellman projection in one pass over the logits, forward and backward, in Triton.

Letters: E ensemble members, N steps, A actions, Z atoms.  Called by :mod:`jowa.kernels.c51_loss`, never directly.
A program handles one step: its E x A x Z logits are read once forward and twice backward, and nothing of that size but
the gradient is written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WARPS = 4


@triton.jit
def _softmax(logits, member, step, N, A: tl.constexpr, Z: tl.constexpr, rows, columns):
    """One member's distributions (BLOCK_A, BLOCK_Z); 0 outside A x Z."""
    inside = (rows < A)[:, None] & (columns < Z)[None, :]
    at = ((member * N + step).to(tl.int64) * A + rows[:, None]) * Z + columns[None, :]
    x = tl.load(logits + at, mask=inside, other=float("-inf")).to(tl.float32)
    x = tl.where((rows < A)[:, None], x, 0.0)  # a row of -inf has no softmax
    powers = tl.exp(x - tl.max(x, axis=1)[:, None])
    return tl.where(inside, powers / tl.sum(powers, axis=1)[:, None], 0.0)


@triton.jit
def _mean_and_values(
    logits, step, N, v_min, spacing, E: tl.constexpr, A: tl.constexpr, Z: tl.constexpr, rows, columns
):  # fmt: skip
    """The ensemble's mean distribution (BLOCK_A, BLOCK_Z), Q (BLOCK_A,), the atoms (BLOCK_Z,)."""
    mean = _softmax(logits, 0, step, N, A, Z, rows, columns)
    for member in range(1, E):
        mean += _softmax(logits, member, step, N, A, Z, rows, columns)
    mean = mean / E
    atoms = v_min + columns.to(tl.float32) * spacing
    return mean, tl.sum(mean * atoms[None, :], axis=1), atoms


@triton.jit
def _projected(successor, rewards, discounts, step, v_min, spacing, Z: tl.constexpr, columns):
    """The Bellman projection (BLOCK_Z,) of one step: atom j gathers from each moved atom what lies within a spacing."""
    mass = tl.load(successor + step * Z + columns, mask=columns < Z, other=0.0).to(tl.float32)
    moved = tl.load(rewards + step) + tl.load(discounts + step) * (v_min + columns.to(tl.float32) * spacing)
    place = tl.minimum(tl.maximum((moved - v_min) / spacing, 0.0), Z - 1.0)
    shares = tl.maximum(1.0 - tl.abs(place[:, None] - columns.to(tl.float32)[None, :]), 0.0)
    return tl.sum(mass[:, None] * shares, axis=0)


@triton.jit
def _read(
    logits, actions, successor, rewards, discounts, step, N, v_min, spacing,
    E: tl.constexpr, A: tl.constexpr, Z: tl.constexpr, rows, columns,
):  # fmt: skip
    """What both directions need of a step: mean distribution, Q (-inf beyond A), atoms, which row was taken, target."""
    wanted = _projected(successor, rewards, discounts, step, v_min, spacing, Z, columns)
    mean, q, atoms = _mean_and_values(logits, step, N, v_min, spacing, E, A, Z, rows, columns)
    taken = rows == tl.load(actions + step)
    return mean, tl.where(rows < A, q, float("-inf")), atoms, taken, wanted


@triton.jit
def forward_kernel(
    logits, actions, successor, rewards, discounts, td, gap, N, v_min, spacing, epsilon,
    E: tl.constexpr, A: tl.constexpr, Z: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_Z: tl.constexpr,
):  # fmt: skip
    """td: -sum m log(p(a) + epsilon); gap: logsumexp of Q over the actions minus Q of the one taken."""
    step = tl.program_id(0)
    rows, columns = tl.arange(0, BLOCK_A), tl.arange(0, BLOCK_Z)
    mean, q, _, taken, wanted = _read(
        logits, actions, successor, rewards, discounts, step, N, v_min, spacing, E, A, Z, rows, columns
    )
    predicted = tl.sum(tl.where(taken[:, None], mean, 0.0), axis=0)
    tl.store(td + step, -tl.sum(wanted * tl.log(predicted + epsilon), axis=0))
    highest = tl.max(q, axis=0)
    spread = highest + tl.log(tl.sum(tl.exp(q - highest), axis=0))
    tl.store(gap + step, spread - tl.sum(tl.where(taken, q, 0.0), axis=0))


@triton.jit
def backward_kernel(
    logits, actions, successor, rewards, discounts, td_gradient, gap_gradient, gradient, N, v_min, spacing, epsilon,
    E: tl.constexpr, A: tl.constexpr, Z: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_Z: tl.constexpr,
):  # fmt: skip
    """The gradient by the logits, from the gradients by each step's td and gap; distributions are computed anew."""
    step = tl.program_id(0)
    rows, columns = tl.arange(0, BLOCK_A), tl.arange(0, BLOCK_Z)
    mean, q, atoms, taken, wanted = _read(
        logits, actions, successor, rewards, discounts, step, N, v_min, spacing, E, A, Z, rows, columns
    )
    policy = tl.exp(q - tl.max(q, axis=0))
    policy = policy / tl.sum(policy, axis=0)
    by_q = tl.load(gap_gradient + step) * (policy - tl.where(taken, 1.0, 0.0))
    by_mean = by_q[:, None] * atoms[None, :]
    by_td = tl.load(td_gradient + step) * wanted[None, :] / (mean + epsilon)
    by_mean = (by_mean - tl.where(taken[:, None], by_td, 0.0)) / E
    inside = (rows < A)[:, None] & (columns < Z)[None, :]
    for member in range(E):
        own = _softmax(logits, member, step, N, A, Z, rows, columns)
        by_logits = own * (by_mean - tl.sum(own * by_mean, axis=1)[:, None])
        at = ((member * N + step).to(tl.int64) * A + rows[:, None]) * Z + columns[None, :]
        tl.store(gradient + at, by_logits.to(gradient.dtype.element_ty), mask=inside)


def forward(
    logits: Tensor, actions: Tensor, successor: Tensor, rewards: Tensor, discounts: Tensor,
    v_min: float, v_max: float, epsilon: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(td, gap), both float32 (N,), of logits (E, N, A, Z), actions int64 (N,), successors (N, Z), and float32 (N,).

    Contiguous inputs on one device.
    """
    td = torch.empty(logits.shape[1], dtype=torch.float32, device=logits.device)
    gap = torch.empty_like(td)
    if logits.shape[1]:
        inputs, (numbers, sizes) = (logits, actions, successor, rewards, discounts), _scalars(logits, v_min, v_max)
        forward_kernel[logits.shape[1:2]](*inputs, td, gap, *numbers, epsilon, *sizes, num_warps=WARPS)
    return td, gap


def backward(
    logits: Tensor, actions: Tensor, successor: Tensor, rewards: Tensor, discounts: Tensor, td_gradient: Tensor,
    gap_gradient: Tensor, v_min: float, v_max: float, epsilon: float,
) -> Tensor:  # fmt: skip
    """The gradient by the logits alone: targets come from a network that is not trained here."""
    gradient = torch.empty_like(logits)
    if logits.shape[1]:
        inputs, (numbers, sizes) = (logits, actions, successor, rewards, discounts), _scalars(logits, v_min, v_max)
        by_losses = td_gradient.contiguous(), gap_gradient.contiguous()
        backward_kernel[logits.shape[1:2]](*inputs, *by_losses, gradient, *numbers, epsilon, *sizes, num_warps=WARPS)
    return gradient


def _scalars(logits: Tensor, v_min: float, v_max: float) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """What both kernels are told: steps, where atoms begin and their spacing; the sizes, and those of the blocks."""
    members, steps, choices, atoms = logits.shape
    blocks = triton.next_power_of_2(choices), triton.next_power_of_2(atoms)
    return (steps, v_min, (v_max - v_min) / (atoms - 1)), (members, choices, atoms, *blocks)
