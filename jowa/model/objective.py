"""The training objective as one module: batch in, named losses out.

A distributed wrapper must see the loss being computed, or it never averages gradients; so the losses
live in this module's ``forward`` and the wrapper goes around it.  ``forward`` communicates nothing itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jowa.config import TOKENS_PER_FRAME, ObjectiveConfig
from jowa.kernels.c51_projection import c51_projection
from jowa.losses import (
    c51_td,
    critic_losses,
    end_loss,
    frame_loss,
    masked_mean,
    mixed_distribution,
    mixed_values,
    pull_up,
    push_down,
    rem_weights,
    reward_loss,
    squared_td,
    td_successors,
    td_weights,
)
from jowa.model.heads import expectation, q_distribution
from jowa.model.world_action import WorldActionModel
from jowa.types import Batch


class Objective(nn.Module):
    """Wraps a :class:`WorldActionModel`; ``forward`` returns weighted losses, to be summed and differentiated."""

    def __init__(self, model: WorldActionModel, config: ObjectiveConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def forward(self, batch: Batch, critic: bool, counts: Tensor | None = None) -> dict[str, Tensor]:
        """Scalars float32: the world losses, and with ``critic`` (stage 2) TD, the conservative term (COMBO: its two
        halves) and the weighted world losses.

        ``batch.tokens`` must be set.  ``counts`` float32 (7,), optional: over how many targets each mean is taken, as
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
        config = self.config
        discounts, weights = config.gamma * (~batch.ends).float(), td_steps(batch, mask)
        if (config.critic, config.ensemble) != ("c51", "mean") or config.conservative == "combo":
            mixture = rem_weights(len(q_logits), q_logits.device) if config.ensemble == "rem" else None
            td, values = self._mixed_td(q_logits, target_logits, batch, discounts, mixture)
            return {"td": masked_mean(td, weights)} | self._conservative(values, batch, mask)
        v_min, v_max = self.model.config.v_min, self.model.config.v_max
        successor = td_successors(q_distribution(target_logits), batch.legal, v_min, v_max)
        successor = self._with_observed(successor, batch, v_min, v_max)
        td, cql = critic_losses(
            q_logits, batch.actions, successor, batch.rewards, discounts, weights, mask, v_min, v_max
        )
        return {"td": td} | ({"cql": config.cql_weight * cql} if self.is_conservative else {})

    def _with_observed(self, successor: Tensor, batch: Batch, v_min: float, v_max: float) -> Tensor:
        """``successor`` float32 (B, L, Z) mixed with the return that was observed from the next step on."""
        if batch.returns is None:
            return successor
        gamma, share = self.config.gamma, self.config.observed_weight
        after = ((batch.returns - batch.rewards) / gamma).flatten()
        observed = c51_projection(successor.flatten(0, 1), after, torch.zeros_like(after), v_min, v_max)
        followed = td_weights(batch.ends, batch.mask)
        shares = torch.where(followed, share, 1.0)
        if batch.imagined is not None:  # what was imagined was not observed
            shares = shares * ~batch.imagined[:, None]
        return torch.lerp(successor, observed.view_as(successor), shares[..., None])

    @property
    def is_conservative(self) -> bool:
        """Whether there is a conservative term."""
        return self.config.conservative != "none" and self.config.cql_weight > 0

    def _mixed_td(
        self, q_logits: Tensor, target_logits: Tensor, batch: Batch, discounts: Tensor, mixture: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The ablations' TD loss of every step, float32 (B, L), and Q float32 (B, L, A)."""
        if self.config.critic == "mse":
            values = mixed_values(q_logits[..., 0], mixture)
            target = mixed_values(target_logits[..., 0], mixture)
            return squared_td(values, batch.actions, target, batch.legal, batch.rewards, discounts), values
        v_min, v_max = self.model.config.v_min, self.model.config.v_max
        predicted = mixed_distribution(q_logits, mixture)
        successor = td_successors(mixed_distribution(target_logits, mixture), batch.legal, v_min, v_max)
        successor = self._with_observed(successor, batch, v_min, v_max)
        td = c51_td(predicted, batch.actions, successor, batch.rewards, discounts, v_min, v_max)
        return td, expectation(predicted, v_min, v_max)

    def _conservative(self, values: Tensor, batch: Batch, mask: Tensor) -> dict[str, Tensor]:
        if not self.is_conservative:
            return {}
        weight, down = self.config.cql_weight, push_down(values, mask)
        if self.config.conservative == "cql":
            return {"cql": weight * (down + pull_up(values, batch.actions, mask))}
        up = pull_up(values, batch.actions, recorded(batch, mask))
        return {"push_down": weight * down, "pull_up": weight * up}


TARGETS = ("frame", "reward", "end", "td", "cql", "push_down", "pull_up")
"""The losses, in the order of :func:`target_counts`."""


def roles(batch: Batch, critic: bool) -> tuple[Tensor, Tensor]:
    """Masks bool (B, L): the steps that the world losses learn from, and those that the critic learns from."""
    world = judged = batch.mask
    if critic and batch.noisy is not None:
        world = world & ~batch.noisy[:, None]
        critics = batch.noisy if batch.imagined is None else batch.noisy | batch.imagined
        judged = judged & critics[:, None]
    # What the model imagined teaches it nothing about the world.
    return recorded(batch, world), judged


def td_steps(batch: Batch, mask: Tensor) -> Tensor:
    """bool (B, L): the steps of ``mask`` that have a TD target; with observed returns all that were recorded."""
    weights = td_weights(batch.ends, mask)
    return weights if batch.returns is None else weights | recorded(batch, mask)


def recorded(batch: Batch, mask: Tensor) -> Tensor:
    """``mask`` bool (B, L) without the rows that were imagined."""
    return mask if batch.imagined is None else mask & ~batch.imagined[:, None]


def target_counts(batch: Batch, critic: bool) -> Tensor:
    """float32 (7,): over how many targets of ``batch`` each loss of :data:`TARGETS` is a mean."""
    world, judged = roles(batch, critic)
    steps, states = world.sum(), judged.sum()
    frame = steps * TOKENS_PER_FRAME - world[:, 0].sum()
    pulled = recorded(batch, judged).sum()
    return torch.stack([frame, steps, steps, td_steps(batch, judged).sum(), states, states, pulled]).float()
