"""The distributional Bellman projection (Bellemare et al. 2017, algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor


def c51_projection(probabilities: Tensor, rewards: Tensor, discounts: Tensor, v_min: float, v_max: float) -> Tensor:
    """Distribution of r + g Z on the fixed atoms, where Z has ``probabilities``.

    ``probabilities`` float32 (N, Z), ``rewards`` and ``discounts`` float32 (N,); a discount of 0
    gives the projection of r alone.  Atoms are spread evenly over [v_min, v_max]; what falls
    outside is clamped to the ends.  Returns float32 (N, Z), rows summing to 1.
    """
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
