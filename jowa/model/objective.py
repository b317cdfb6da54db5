"""The training objective as one module: batch in, named losses out.

A distributed wrapper must see the loss being computed, or it never averages gradients; so the losses
live in this module's ``forward`` and the wrapper goes around it.  ``forward`` communicates nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
    """Share of a stage 2 batch (``Batch.noisy``) whose remembered actions are replaced by random legal ones, 0 as
    published.  Above 0 the critic trains on those segments alone and the world losses on the others: a critic that sees
    what was done a step ago learns to repeat it (causal confusion, de Haan et al. 2019) long before it reads the
    frame."""


class Objective(nn.Module):
    """Wraps a :class:`WorldActionModel`; ``forward`` returns weighted losses, to be summed and differentiated."""

    def __init__(self, model: WorldActionModel, config: ObjectiveConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def forward(self, batch: Batch, critic: bool, counts: Tensor | None = None) -> dict[str, Tensor]:
        """Scalars float32: the world losses, and with ``critic`` (stage 2) TD, CQL and the weighted world losses.

        ``batch.tokens`` must be set.  ``counts`` float32 (5,), optional: over how many targets each mean is taken, as
        :func:`target_counts` gives them; by default over those of ``batch``.  A microbatch is given its batch's, so
        that the losses of all microbatches add up to those of the batch, however many targets each of them holds.
        """
        assert batch.tokens is not None, "tokenise the batch before the objective"
        world, judged = roles(batch, critic)
        actions = batch.actions
        if critic and batch.noisy is not None:
            drawn = torch.multinomial(batch.legal.float(), actions.shape[1], replacement=True)
            actions = torch.where(batch.noisy[:, None], drawn, actions)
        predictions = self.model(
            batch.tokens, actions, batch.tasks, target=critic, detach_q=self.config.detach_q, values=critic
        )
        weight = self.config.world_weight if critic else 1.0
        losses = {
            "frame": weight * frame_loss(predictions.frames, batch.tokens, world),
            "reward": weight * reward_loss(predictions.rewards, batch.rewards, world),
            "end": weight * end_loss(predictions.ends, batch.ends, world),
        }
        if critic:
            losses |= self._critic_losses(predictions.q, predictions.q_target, batch, judged)
        if counts is None:
            return losses
        shares = target_counts(batch, critic) / counts.clamp_min(torch.finfo(torch.float32).tiny)
        return {name: loss * shares[TARGETS.index(name)] for name, loss in losses.items()}

    def _critic_losses(
        self, q_logits: Tensor | None, target_logits: Tensor | None, batch: Batch, mask: Tensor
    ) -> dict[str, Tensor]:
        assert q_logits is not None and target_logits is not None
        v_min, v_max = self.model.config.v_min, self.model.config.v_max
        successor = td_successors(q_distribution(target_logits), batch.legal, v_min, v_max)
        discounts = self.config.gamma * (~batch.ends).float()
        weights = td_weights(batch.ends, mask)
        td, cql = critic_losses(
            q_logits, batch.actions, successor, batch.rewards, discounts, weights, mask, v_min, v_max
        )
        return {"td": td} | ({"cql": self.config.cql_weight * cql} if self.config.cql_weight > 0 else {})


TARGETS = ("frame", "reward", "end", "td", "cql")
"""The losses, in the order of :func:`target_counts`."""


def roles(batch: Batch, critic: bool) -> tuple[Tensor, Tensor]:
    """Masks bool (B, L): the steps that the world losses learn from, and those that the critic learns from."""
    if not critic or batch.noisy is None:
        return batch.mask, batch.mask
    return batch.mask & ~batch.noisy[:, None], batch.mask & batch.noisy[:, None]


def target_counts(batch: Batch, critic: bool) -> Tensor:
    """float32 (5,): over how many targets of ``batch`` each loss of :data:`TARGETS` is a mean."""
    world, judged = roles(batch, critic)
    steps = world.sum()
    frame = steps * TOKENS_PER_FRAME - world[:, 0].sum()
    return torch.stack([frame, steps, steps, td_weights(batch.ends, judged).sum(), judged.sum()]).float()
