"""The critic's two losses: distributional TD (C51) and the conservative term (CQL, Kumar et al. 2020).

Letters: E ensemble members, B batch, L steps, A actions, Z atoms.
"""

from __future__ import annotations

from torch import Tensor

from jowa.kernels.c51_loss import c51_loss
from jowa.losses.ablations import masked_mean


def critic_losses(
    q_logits: Tensor,
    actions: Tensor,
    successor: Tensor,
    rewards: Tensor,
    discounts: Tensor,
    weights: Tensor,
    mask: Tensor,
    v_min: float,
    v_max: float,
) -> tuple[Tensor, Tensor]:
    """(td, cql), float32 scalars.

    td: mean over ``weights`` of -sum m log(p(a) + 1e-8), m the projection of r + g Z'.  cql: mean over ``mask`` of
    logsumexp over all actions of Q minus Q of the data's action; it pushes down all actions and pulls up the data's.
    ``q_logits`` float (E, B, L, A, Z), ``actions`` int64 (B, L), ``successor`` float32 (B, L, Z) from
    :func:`jowa.losses.td.td_successors`, ``rewards`` and ``discounts`` float (B, L), 0 at an end, ``weights`` and
    ``mask`` bool (B, L).
    """
    td, gap = c51_loss(
        q_logits.flatten(1, 2), actions.flatten(), successor.flatten(0, 1), rewards.flatten(), discounts.flatten(),
        v_min, v_max,
    )  # fmt: skip
    return masked_mean(td, weights.flatten()), masked_mean(gap, mask.flatten())
