"""``mtbc`` and ``mgdt``: the joint agent's transformer over frame tokens, which predicts what the data does.

Letters: B batch, L steps, A = 18 actions, D width.  A step is 36 frame tokens and then, for ``mtbc``, the action; for
``mgdt`` the return still to come, the action and the reward's sign (Lee et al. 2022, arXiv 2205.15241).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jowa.config import TOKENS_PER_FRAME, ModelConfig
from jowa.errors import UsageError
from jowa.games import GAMES, NUM_ACTIONS
from jowa.model.heads import REWARD_CLASSES, PredictionHead
from jowa.model.transformer import Transformer
from jowa.model.world_action import code_embeddings, initialise
from jowa.rivals.config import SequenceConfig

RETURN_LOW, RETURN_HIGH = -20, 100
"""Range of returns, in clipped reward; one token each, those outside count as the nearest."""
RETURNS = RETURN_HIGH - RETURN_LOW + 1


@dataclass(frozen=True)
class Policy:
    """What the heads say about a batch of segments; logits, in the dtype of the computation."""

    actions: Tensor
    """(B, L, A): the action that the data would take."""
    returns: Tensor | None
    """(B, L, 121): the return still to come; None for ``mtbc``."""
    rewards: Tensor | None
    """(B, L, 3): the sign of the step's reward; None for ``mtbc``."""


def return_tokens(returns: Tensor) -> Tensor:
    """Tokens int64 of sums of clipped rewards still to come, float of any shape."""
    return (returns.round().clamp(RETURN_LOW, RETURN_HIGH) - RETURN_LOW).long()


class SequencePolicy(nn.Module):
    """A policy over frame tokens; with ``conditioned`` on returns (``mgdt``), else behaviour cloning (``mtbc``)."""

    def __init__(self, config: SequenceConfig, vocab_size: int, conditioned: bool) -> None:
        super().__init__()
        if config.width % config.heads:
            raise UsageError(f"width {config.width} is not a multiple of heads {config.heads}: choose one that is")
        self.config, self.conditioned = config, conditioned
        sizes = ModelConfig(
            layers=config.layers, heads=config.heads, width=config.width, vocab_size=vocab_size,
            context_steps=config.context_steps, dropout=config.dropout, init=config.init,
        )  # fmt: skip
        self.tokens_per_step = TOKENS_PER_FRAME + (3 if conditioned else 1)
        self.transformer = Transformer(sizes)
        self.position_embedding = nn.Embedding(config.context_steps * self.tokens_per_step, config.width)
        self.task_embedding = nn.Embedding(len(GAMES), config.width)
        self.frame_embedding = nn.Embedding(vocab_size, config.width)
        self.action_embedding = nn.Embedding(NUM_ACTIONS, config.width)
        self.action_head = PredictionHead(sizes, NUM_ACTIONS)
        if conditioned:
            self.return_embedding = nn.Embedding(RETURNS, config.width)
            self.reward_embedding = nn.Embedding(REWARD_CLASSES, config.width)
            self.return_head = PredictionHead(sizes, RETURNS)
            self.reward_head = PredictionHead(sizes, REWARD_CLASSES)
        initialise(self, sizes)

    @torch.no_grad()
    def embed_codes_alike(self, codes: Tensor, generator: torch.Generator) -> None:
        """Start the frame embedding from the codebook ``codes`` float (V, C) as the joint agent does."""
        table = self.frame_embedding.weight
        table.copy_(code_embeddings(codes, table, generator))

    def forward(
        self, tokens: Tensor, actions: Tensor, tasks: Tensor, returns: Tensor | None = None,
        rewards: Tensor | None = None,
    ) -> Policy:  # fmt: skip
        """Predictions for tokens int64 (B, L, 36), actions int64 (B, L), tasks int64 (B,).

        ``mgdt`` also reads ``returns`` int64 (B, L), tokens of the returns to come, and ``rewards`` int64 (B, L), signs
        plus 1.  Everything looks back alone: what stands at or behind a prediction does not change it.
        """
        parts = [self.frame_embedding(tokens), self.action_embedding(actions)[:, :, None]]
        if self.conditioned:
            assert returns is not None and rewards is not None
            parts.insert(1, self.return_embedding(returns)[:, :, None])
            parts.append(self.reward_embedding(rewards)[:, :, None])
        x = torch.cat(parts, dim=2).flatten(1, 2)[:, :-1]  # nothing is predicted from the last token
        x = x + self.position_embedding.weight[: x.shape[1]] + self.task_embedding(tasks)[:, None]
        hidden = self.transformer(x)
        last, step = TOKENS_PER_FRAME - 1, self.tokens_per_step
        if not self.conditioned:
            return Policy(self.action_head(hidden[:, last::step]), None, None)
        return Policy(
            self.action_head(hidden[:, last + 1 :: step]),
            self.return_head(hidden[:, last::step]),
            self.reward_head(hidden[:, last + 2 :: step]),
        )
