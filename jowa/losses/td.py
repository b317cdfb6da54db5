"""What the distributional temporal-difference loss (C51) looks ahead to, from the target head alone.

Letters: B batch, L steps, A actions, Z atoms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def td_weights(ends: Tensor, mask: Tensor) -> Tensor:
    """bool (B, L): steps that have a TD target: unpadded, and ending the game or followed by an unpadded step."""
    followed = torch.zeros_like(mask)
    followed[:, :-1] = mask[:, 1:]
    return mask & (ends | followed)


def td_successors(target: Tensor, legal: Tensor, v_min: float, v_max: float) -> Tensor:
    """Z(s', a*) float32 (B, L, Z): what the target head expects of each step's successor.

    ``target`` probabilities (B, L, A, Z) from the target head, ``legal`` bool (B, A).  a* maximises the target's own
    expectation over legal actions.  The last step has no successor; see :func:`td_weights`.
    """
    atoms = torch.linspace(v_min, v_max, target.shape[-1], device=target.device)
    # Not a matrix product: autocast would round it to bfloat16.
    values = (target * atoms).sum(dim=-1).masked_fill(~legal[:, None], -math.inf)
    best = values.argmax(dim=-1)
    chosen = target.gather(2, best[:, :, None, None].expand(-1, -1, 1, target.shape[-1]))[:, :, 0]
    return torch.cat([chosen[:, 1:], chosen[:, -1:]], dim=1)
