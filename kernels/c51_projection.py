"""The distributional Bellman projection (Bellemare et al. 2017, algorithm 1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def c51_projection(probabilities: Tensor, rewards: Tensor, discounts: Tensor, v_min: float, v_max: float) -> Tensor:
    """Distribution of r + g Z on the fixed atoms, where Z has ``probabilities``.

    ``probabilities`` float32 (N, Z), ``rewards`` and ``discounts`` float32 (N,); a discount of 0
    gives the projection of r alone.  Atoms are spread evenly over [v_min, v_max]; what falls
    outside is clamped to the ends.  Returns float32 (N, Z), rows summing to 1.
    Raises ValueError for shapes, dtypes or devices that do not fit.
    """
    _check(probabilities, rewards, discounts)
    check_atoms("probabilities", probabilities.shape[1], v_min, v_max)
    atoms = probabilities.shape[1]
    spacing = (v_max - v_min) / (atoms - 1)
    support = torch.linspace(v_min, v_max, atoms, device=probabilities.device, dtype=torch.float32)
    moved = (rewards[:, None].float() + discounts[:, None].float() * support).clamp(v_min, v_max)
    place = ((moved - v_min) / spacing).clamp(0, atoms - 1)
    lower = place.floor()
    share_above = place - lower
    below = lower.long()
    above = (below + 1).clamp_max(atoms - 1)
    mass = probabilities.float()
    target = torch.zeros_like(mass)
    target.scatter_add_(1, below, mass * (1 - share_above))
    target.scatter_add_(1, above, mass * share_above)
    return target


def c51_projection_reference(
    probabilities: Tensor, rewards: Tensor, discounts: Tensor, v_min: float, v_max: float
) -> Tensor:
    """The definition: atom j gathers mass from each moved atom in proportion to 1 - distance / spacing."""
    atoms = probabilities.shape[1]
    spacing = (v_max - v_min) / (atoms - 1)
    support = torch.linspace(v_min, v_max, atoms, device=probabilities.device, dtype=torch.float64)
    moved = (rewards.double()[:, None] + discounts.double()[:, None] * support).clamp(v_min, v_max)
    weights = (1 - (moved[:, :, None] - support).abs() / spacing).clamp(0, 1)
    return (probabilities.double()[:, :, None] * weights).sum(1).float()


def check_atoms(name: str, atoms: int, v_min: float, v_max: float) -> None:
    """Raises ValueError unless there are two atoms or more, from ``v_min`` up to ``v_max``."""
    if atoms < 2:
        raise ValueError(f"{name} must have at least 2 atoms, got {atoms}")
    if not -math.inf < v_min < v_max < math.inf:
        raise ValueError(f"v_min must be below v_max and both finite, got {v_min} and {v_max}")


def _check(probabilities: Tensor, rewards: Tensor, discounts: Tensor) -> None:
    if probabilities.ndim != 2:
        raise ValueError(f"probabilities must be (N, Z), got {tuple(probabilities.shape)}")
    for name, tensor in (("rewards", rewards), ("discounts", discounts)):
        if tensor.shape != probabilities.shape[:1]:
            raise ValueError(f"{name} must have shape ({len(probabilities)},), got {tuple(tensor.shape)}")
        if tensor.device != probabilities.device:
            raise ValueError(f"{name} on {tensor.device}, probabilities on {probabilities.device}: move them")
    for name, tensor in (("probabilities", probabilities), ("rewards", rewards), ("discounts", discounts)):
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating, got {tensor.dtype}")
