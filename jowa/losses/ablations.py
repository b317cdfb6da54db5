"""What the paper's ablations put in the place of the critic's losses, in plain PyTorch.

Letters: E ensemble members, B batch, L steps, A actions, Z atoms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jowa.kernels.c51_loss import EPSILON
from jowa.kernels.c51_projection import c51_projection


def rem_weights(members: int, device: torch.device) -> Tensor:
    """float32 (E,), positive, summing to 1: one random convex combination (REM, Agarwal et al. 2020).

    Uniform numbers divided by their sum, as there; drawn from torch's own generator, which the caller seeds.
    """
    drawn = torch.rand(members, device=device).clamp_min(torch.finfo(torch.float32).eps)
    return drawn / drawn.sum()


def mixed_distribution(logits: Tensor, weights: Tensor | None) -> Tensor:
    """The ensemble's distributions (E, ..., Z) as one, float32 (..., Z); ``weights`` float32 (E,), None: all alike."""
    return mixed_values(logits.float().softmax(-1), weights)


def mixed_values(values: Tensor, weights: Tensor | None) -> Tensor:
    """Mean over the ensemble of ``values`` (E, ...), float32 (...); ``weights`` float32 (E,), None: all alike."""
    values = values.float()
    if weights is None:
        return values.mean(0)
    # Not a matrix product: autocast would round it to bfloat16.
    return (weights.view(-1, *[1] * (values.ndim - 1)) * values).sum(0)


def c51_td(
    predicted: Tensor, actions: Tensor, successor: Tensor, rewards: Tensor, discounts: Tensor, v_min: float,
    v_max: float,
) -> Tensor:  # fmt: skip
    """-sum m log(p(a) + 1e-8) of every step, float32 (B, L), m the projection of r + g Z'.

    As :func:`jowa.kernels.c51_loss.c51_loss`, but from the distributions: ``predicted`` float32 (B, L, A, Z),
    ``actions`` int64 (B, L), ``successor`` float32 (B, L, Z), ``rewards`` and ``discounts`` float (B, L).
    """
    with torch.no_grad():
        flat = (successor.flatten(0, 1), rewards.flatten(), discounts.flatten())
        targets = c51_projection(*flat, v_min, v_max).view_as(successor)
    taken = predicted.gather(2, actions[:, :, None, None].expand(-1, -1, 1, predicted.shape[-1]))[:, :, 0]
    return -(targets * (taken + EPSILON).log()).sum(-1)


def squared_td(
    values: Tensor, actions: Tensor, target: Tensor, legal: Tensor, rewards: Tensor, discounts: Tensor
) -> Tensor:
    """(Q(s, a) - r - g max_a' Q'(s', a'))^2 of every step, float32 (B, L): the TD loss of a scalar critic.

    ``values`` and ``target`` float32 (B, L, A): Q, and the target head's; the maximum is over actions ``legal`` bool
    (B, A) of the next step's, and ``target`` gets no gradient.  ``actions`` int64 (B, L), ``rewards`` and
    ``discounts`` float (B, L), 0 at an end.  The last step has no successor; see
    :func:`jowa.losses.td.td_weights`.
    """
    with torch.no_grad():
        best = target.masked_fill(~legal[:, None], -math.inf).amax(-1)
        following = torch.cat([best[:, 1:], best[:, -1:]], dim=1)
        wanted = rewards + discounts * following
    return (taken_values(values, actions) - wanted).square()


def taken_values(values: Tensor, actions: Tensor) -> Tensor:
    """Q(s, a) float32 (B, L) of ``values`` (B, L, A) and ``actions`` int64 (B, L)."""
    return values.gather(2, actions[..., None])[..., 0]


def push_down(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over ``mask`` bool (B, L) of logsumexp over all actions of ``values`` float32 (B, L, A); a scalar."""
    return masked_mean(values.logsumexp(-1), mask)


def pull_up(values: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
    """Minus the mean over ``mask`` bool (B, L) of Q of ``actions`` int64 (B, L); a scalar.

    :func:`push_down` plus this on the same steps is CQL's term.  COMBO (Yu et al. 2021) takes real steps alone here,
    and imagined ones too there.
    """
    return -masked_mean(taken_values(values, actions), mask)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` float32 (B, L) where ``mask`` bool (B, L) is true; 0 where it is nowhere."""
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp_min(1)
