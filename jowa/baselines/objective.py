"""The rivals' losses, each as one module: batch in, named losses out.

Letters: B batch, L steps, A = 18 actions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from jowa.baselines.config import CriticObjective
from jowa.baselines.feed import Transitions
from jowa.losses import critic_losses, masked_mean, reward_loss, td_successors
from jowa.model.heads import mean_values, q_distribution
from jowa.rivals.conv import ConvCritic
from jowa.rivals.sequence import SequencePolicy, return_tokens
from jowa.types import Batch

AGREEMENT = "agreement"
"""Name of the share of a batch's steps in which the rival's most likely (or most valued) legal action is the data's."""


class CloningObjective(nn.Module):
    """Cross-entropy of the data's actions; for ``mgdt`` of the returns to come and of the rewards' signs too."""

    def __init__(self, model: SequencePolicy) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, returns: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        """Losses float32 () by name, to be summed, and the agreement; ``batch.tokens`` must be set.

        ``returns`` float32 (B, L): rewards still to come, for ``mgdt``.  All mean over unpadded steps.
        """
        assert batch.tokens is not None
        if returns is None:
            policy = self.model(batch.tokens, batch.actions, batch.tasks)
        else:
            wanted, signs = return_tokens(returns), batch.rewards.sign().long() + 1
            policy = self.model(batch.tokens, batch.actions, batch.tasks, wanted, signs)
        losses = {"action": _cross_entropy(policy.actions, batch.actions, batch.mask)}
        if returns is not None:
            losses["return"] = _cross_entropy(policy.returns, wanted, batch.mask)
            losses["reward"] = reward_loss(policy.rewards, batch.rewards, batch.mask)
        chosen = policy.actions.detach().masked_fill(~batch.legal[:, None], -math.inf).argmax(-1)
        return losses, masked_mean((chosen == batch.actions).float(), batch.mask)


class ConservativeObjective(nn.Module):
    """C51 temporal difference towards the target network, plus weighted CQL."""

    def __init__(self, model: ConvCritic, config: CriticObjective) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, batch: Transitions, returns: None = None) -> tuple[dict[str, Tensor], Tensor]:
        """Losses float32 () by name, to be summed, and the agreement."""
        low, high = self.model.config.v_min, self.model.config.v_max
        with torch.no_grad():
            target = q_distribution(self.model.target(batch.later, batch.tasks))
            successor = td_successors(target[:, None], batch.legal, low, high)
        logits = self.model.network(batch.frames, batch.tasks)
        td, cql = critic_losses(
            logits[:, :, None], batch.actions[:, None], successor, batch.rewards[:, None], batch.discounts[:, None],
            batch.known[:, None], batch.mask[:, None], low, high,
        )  # fmt: skip
        values = mean_values(logits.detach(), low, high).masked_fill(~batch.legal, -math.inf)
        agreement = masked_mean((values.argmax(-1) == batch.actions).float(), batch.mask)
        return {"td": td, "cql": self.config.cql_weight * cql}, agreement


def _cross_entropy(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Mean over ``mask`` bool (B, L) of the cross-entropy of ``targets`` int64 (B, L) under ``logits`` (B, L, C)."""
    each = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    return masked_mean(each.view_as(targets), mask)
