"""The training objective as one module: batch in, named losses out.

A distributed wrapper must see the loss being computed, or it never averages gradients; so the losses
live in this module's ``forward`` and the wrapper goes around it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.distributed
from torch import Tensor, nn

from jowa.config import TOKENS_PER_FRAME
from jowa.losses import critic_losses, end_loss, frame_loss, reward_loss, td_successors, td_weights
from jowa.model.heads import q_distribution
from jowa.model.world_action import WorldActionModel
from jowa.types import Batch


@dataclass(frozen=True)
class ObjectiveConfig:
    """Weights and switches of the joint loss (arXiv 2410.00564)."""

    gamma: float = 0.99
    """Discount a step."""
    cql_weight: float = 0.1
    """Weight of the conservative term beside the TD loss; 0 leaves it out."""
    world_weight: float = 0.1
    """Weight of the three world losses beside the TD loss in stage 2 (the paper fine-tunes with 0.5)."""
    detach_q: bool = False
    """Stop the Q gradient at the backbone: the paper's ablation of joint optimisation."""
    action_noise: float = 0.0
    """Share of a stage 2 batch whose remembered actions are replaced by random legal ones, 0 as published.  Above 0 the
    critic trains on those segments alone and the world losses on the others: a critic that sees what was done a
    step ago learns to repeat it (causal confusion, de Haan et al. 2019) long before it reads the frame."""


class Objective(nn.Module):
    """Wraps a :class:`WorldActionModel`; ``forward`` returns weighted losses, to be summed and differentiated."""

    def __init__(self, model: WorldActionModel, config: ObjectiveConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def forward(self, batch: Batch, critic: bool) -> dict[str, Tensor]:
        """Scalars float32: the world losses, and with ``critic`` (stage 2) TD, CQL and the weighted world losses.

        ``batch.tokens`` must be set.
        """
        assert batch.tokens is not None, "tokenise the batch before the objective"
        world, judged = batch, batch
        actions = batch.actions
        if critic and self.config.action_noise > 0:
            noisy = torch.arange(len(actions), device=actions.device) < round(self.config.action_noise * len(actions))
            drawn = torch.multinomial(batch.legal.float(), actions.shape[1], replacement=True)
            actions = torch.where(noisy[:, None], drawn, actions)
            world = replace(batch, mask=batch.mask & ~noisy[:, None])
            judged = replace(batch, mask=batch.mask & noisy[:, None])
        predictions = self.model(batch.tokens, actions, batch.tasks, target=critic, detach_q=self.config.detach_q)
        weight = self.config.world_weight if critic else 1.0
        losses = {
            "frame": weight * frame_loss(predictions.frames, batch.tokens, world.mask),
            "reward": weight * reward_loss(predictions.rewards, batch.rewards, world.mask),
            "end": weight * end_loss(predictions.ends, batch.ends, world.mask),
        }
        if critic:
            losses |= self._critic_losses(predictions.q, predictions.q_target, judged)
        return _as_means_over_all_ranks(losses, world.mask, judged)

    def _critic_losses(self, q_logits: Tensor, target_logits: Tensor | None, batch: Batch) -> dict[str, Tensor]:
        assert target_logits is not None
        v_min, v_max = self.model.config.v_min, self.model.config.v_max
        successor = td_successors(q_distribution(target_logits), batch.legal, v_min, v_max)
        discounts = self.config.gamma * (~batch.ends).float()
        weights = td_weights(batch.ends, batch.mask)
        td, cql = critic_losses(
            q_logits, batch.actions, successor, batch.rewards, discounts, weights, batch.mask, v_min, v_max
        )
        return {"td": td} | ({"cql": self.config.cql_weight * cql} if self.config.cql_weight > 0 else {})


def _as_means_over_all_ranks(losses: dict[str, Tensor], world: Tensor, judged: Batch) -> dict[str, Tensor]:
    """Scale each rank's mean so that the average over ranks is the mean over the joined batch.

    Ranks hold different numbers of unpadded targets, and a distributed wrapper averages their gradients
    with equal weight.  ``world`` bool (B, L) masks the world losses, ``judged.mask`` those of the critic.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return losses
    steps = world.sum()
    local = {
        "frame": steps * TOKENS_PER_FRAME - world[:, 0].sum(),
        "reward": steps,
        "end": steps,
        "td": td_weights(judged.ends, judged.mask).sum(),
        "cql": judged.mask.sum(),
    }
    counts = torch.stack(list(local.values())).float()
    total = counts.clone()
    torch.distributed.all_reduce(total)
    shares = dict(zip(local, counts * torch.distributed.get_world_size() / total.clamp_min(1), strict=True))
    return {name: loss * shares[name] for name, loss in losses.items()}
