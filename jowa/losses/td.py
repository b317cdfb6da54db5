"""Targets of the distributional temporal-difference loss (C51), from the target head alone.

Letters: B batch, L steps, A actions, Z atoms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jowa.kernels.c51_projection import c51_projection


def td_weights(ends: Tensor, mask: Tensor) -> Tensor:
    """bool (B, L): steps that have a TD target: unpadded, and ending the game or followed by an unpadded step."""
    followed = torch.zeros_like(mask)
    followed[:, :-1] = mask[:, 1:]
    return mask & (ends | followed)


def td_targets(
    target: Tensor, rewards: Tensor, ends: Tensor, legal: Tensor, v_min: float, v_max: float, gamma: float
) -> Tensor:
    """Projected targets float32 (B, L, Z): r + gamma Z(s', a*), or r alone at an end.

    ``target`` probabilities (B, L, A, Z) from the target head, ``rewards`` float (B, L), ``ends`` bool (B, L),
    ``legal`` bool (B, A).  a* maximises the target's own expectation over legal actions.  The last
    step's target is meaningless unless it ends the game: see :func:`td_weights`.
    """
    atoms = torch.linspace(v_min, v_max, target.shape[-1], device=target.device)
    # Not a matrix product: autocast would round it to bfloat16.
    values = (target * atoms).sum(dim=-1).masked_fill(~legal[:, None], -math.inf)
    best = values.argmax(dim=-1)
    chosen = target.gather(2, best[:, :, None, None].expand(-1, -1, 1, target.shape[-1]))[:, :, 0]
    successor = torch.cat([chosen[:, 1:], chosen[:, -1:]], dim=1)
    discounts = gamma * (~ends).float()
    projected = c51_projection(successor.flatten(0, 1), rewards.flatten(), discounts.flatten(), v_min, v_max)
    return projected.view_as(successor)
