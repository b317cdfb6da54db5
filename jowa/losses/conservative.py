"""The conservative term (CQL, Kumar et al. 2020): push down all actions, pull up the data's."""

from __future__ import annotations

from torch import Tensor


def conservative_loss(q: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
    """Mean over unpadded steps of logsumexp over all actions of Q minus Q of the data's action.

    ``q`` float (B, L, A), ``actions`` int64 (B, L), ``mask`` bool (B, L).  Returns a scalar.
    """
    taken = q.gather(2, actions[:, :, None])[:, :, 0]
    gap = q.logsumexp(dim=-1) - taken
    weights = mask.to(gap.dtype)
    return (gap * weights).sum() / weights.sum().clamp_min(1)
