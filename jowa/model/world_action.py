"""The joint world-action model: one transformer that predicts the world and values the actions.

Letters: B batch, L steps, K = 36 tokens a frame, T = 37 L tokens, A = 18 actions, Z = 51 atoms,
E ensemble members, D width, V codebook size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jowa.config import TOKENS_PER_FRAME, TOKENS_PER_STEP, ModelConfig
from jowa.errors import UsageError
from jowa.model.heads import END_CLASSES, REWARD_CLASSES, PredictionHead, QHead, mean_values
from jowa.model.layout import action_positions, frame_head_positions, interleave, value_positions
from jowa.model.transformer import Transformer


@dataclass(frozen=True)
class Predictions:
    """What the heads say about a batch of segments; logits, in the dtype of the computation."""

    frames: Tensor
    """(B, 36 L, V): next-frame-token logits at every position but the last frame token of each step."""
    rewards: Tensor
    """(B, L, 3): reward sign -1, 0, +1 of each step."""
    ends: Tensor
    """(B, L, 2): whether the step ended the game."""
    q: Tensor | None
    """(E, B, L, A, Z): value distribution of each action at each step, with Z = 1 the value itself; None if not asked
    for."""
    q_target: Tensor | None
    """(E, B, L, A, Z): the same from the target head, without gradient."""


class WorldActionModel(nn.Module):
    """See the module's docstring.  ``forward`` is for training; planning goes through ``jowa.planner``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.width % config.heads:
            raise UsageError(f"width {config.width} is not a multiple of heads {config.heads}: choose one that is")
        self.config = config
        self.transformer = Transformer(config)
        self.position_embedding = nn.Embedding(config.context_steps * TOKENS_PER_STEP, config.width)
        self.action_embedding = nn.Embedding(config.num_actions, config.width)
        self.frame_embedding = nn.Embedding(config.vocab_size, config.width)
        self.action_task_embedding = nn.Embedding(config.num_tasks, config.width)
        self.frame_task_embedding = nn.Embedding(config.num_tasks, config.width)
        self.frame_head = PredictionHead(config, config.vocab_size)
        self.reward_head = PredictionHead(config, REWARD_CLASSES)
        self.end_head = PredictionHead(config, END_CLASSES)
        initialise(self, config)
        self.q_head = QHead(config)
        self.q_target_head = QHead(config).requires_grad_(False)
        self.update_target()
        self.q_target_head.eval()

    def train(self, mode: bool = True) -> WorldActionModel:
        """As usual, but the target head stays in evaluation mode: its dropout must never be on."""
        super().train(mode)
        self.q_target_head.eval()
        return self

    @torch.no_grad()
    def update_target(self, rate: float = 1.0) -> None:
        """Move the target head towards the Q head; 1 copies it (hard update)."""
        for target, source in zip(self.q_target_head.parameters(), self.q_head.parameters(), strict=True):
            target.lerp_(source, rate)

    def embed_frames(self, tokens: Tensor, positions: Tensor, tasks: Tensor) -> Tensor:
        """float (B, N, D) of frame tokens int64 (B, N) at ``positions`` int64 (B or 1, N); tasks int64 (B,)."""
        embedded = self.frame_embedding(tokens) + self.position_embedding(positions)
        return embedded + self.frame_task_embedding(tasks)[:, None] if self.config.task_embedding else embedded

    def embed_actions(self, actions: Tensor, positions: Tensor, tasks: Tensor) -> Tensor:
        """float (B, N, D) of actions int64 (B, N) at ``positions`` int64 (B or 1, N); tasks int64 (B,)."""
        embedded = self.action_embedding(actions) + self.position_embedding(positions)
        return embedded + self.action_task_embedding(tasks)[:, None] if self.config.task_embedding else embedded

    def embed(self, tokens: Tensor, actions: Tensor, tasks: Tensor) -> Tensor:
        """Input embeddings float (B, 37 L, D) of tokens int64 (B, L, 36) and actions int64 (B, L)."""
        batch, steps, _ = tokens.shape
        positions = torch.arange(steps * TOKENS_PER_STEP, device=tokens.device).view(steps, TOKENS_PER_STEP)
        frames = self.embed_frames(tokens.flatten(1), positions[:, :TOKENS_PER_FRAME].reshape(1, -1), tasks)
        return interleave(
            frames.view(batch, steps, TOKENS_PER_FRAME, -1),
            self.embed_actions(actions, positions[None, :, TOKENS_PER_FRAME], tasks),
        )

    def forward(
        self, tokens: Tensor, actions: Tensor, tasks: Tensor, target: bool = False, detach_q: bool = False,
        values: bool = True,
    ) -> Predictions:  # fmt: skip
        """Predictions for tokens int64 (B, L, 36), actions int64 (B, L), tasks int64 (B,).

        ``target``: also evaluate the target head.  ``detach_q``: stop the Q gradient at the backbone.  ``values``:
        evaluate the Q head, which stage 1 does not need.
        """
        steps, device = tokens.shape[1], tokens.device
        hidden = self.transformer(self.embed(tokens, actions, tasks))
        at_actions = hidden[:, action_positions(steps, device)]
        at_values = hidden[:, value_positions(steps, device)]
        with torch.no_grad():
            q_target = self.q_target_head(at_values) if target else None
        return Predictions(
            frames=self.frame_head(hidden[:, frame_head_positions(steps, device)]),
            rewards=self.reward_head(at_actions),
            ends=self.end_head(at_actions),
            q=self.q_head(at_values.detach() if detach_q else at_values) if values else None,
            q_target=q_target,
        )

    def q_values(self, hidden: Tensor) -> Tensor:
        """Q float32 (..., A), all 18 actions, from hidden states (..., D) at last frame tokens."""
        return mean_values(self.q_head(hidden), self.config.v_min, self.config.v_max)


EMBEDDING_STD = 0.5
"""Of the ``scaled`` start: of the order of what the blocks add, so that deeper ones still see the token."""


def initialise(model: nn.Module, config: ModelConfig) -> None:
    """Start all Linear and Embedding weights as ``config.init`` says; biases at 0."""
    scaled = config.init == "scaled"
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=EMBEDDING_STD if scaled else 0.02)
        elif isinstance(module, nn.Linear):
            std = module.in_features**-0.5 if scaled else 0.02
            if scaled and name.endswith((".proj", ".mlp.2")):
                std *= (2 * config.layers) ** -0.5
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)


@torch.no_grad()
def code_embeddings(codes: Tensor, table: Tensor, generator: torch.Generator) -> Tensor:
    """float (V, D) to start the embedding ``table`` (V, D) from: codes float (V, C) that are similar begin alike.

    A random projection of the codes' principal components, each divided by the square root of its standard deviation:
    else a ball would be lost beside the brightness of what is around it.  As spread out as ``table`` is.
    ``generator``: on the CPU.
    """
    left, singular, _ = torch.linalg.svd((codes - codes.mean(0)).float(), full_matrices=False)
    projection = torch.randn(len(singular), table.shape[1], generator=generator).to(codes.device)
    embedded = (left * singular.sqrt()) @ projection
    return embedded * (table.std() / embedded.std())


RIDGE = 0.01
"""Of the codes' largest singular value: directions in which they vary less than this say nothing."""


@torch.no_grad()
def carry_over(table: Tensor, before: Tensor, codes: Tensor) -> Tensor:
    """float (V, D): ``table``, whose rows belonged to the codes ``before`` (V, C), for ``codes`` float (V, C).

    A code that has moved stands for another patch, so what its row had learned is of no use.  It gets what a linear
    map, fitted by ridge regression from all of ``before`` to ``table``, says of it, spread out as ``table`` is: a patch
    like one that the model knows then looks alike to it.  Rows of codes that stayed are kept.
    """
    moved = (codes != before).any(1)
    if not moved.any():
        return table.clone()
    centre, mean = before.mean(0), table.mean(0)
    left, singular, right = torch.linalg.svd((before - centre).float(), full_matrices=False)
    shrunk = singular / (singular.square() + (RIDGE * singular[0]).square())
    offsets = ((codes[moved] - centre).float() @ right.T * shrunk) @ (left.T @ (table - mean).float())
    spread = (table - mean).square().mean().sqrt() / offsets.square().mean().sqrt().clamp_min(1e-12)
    carried = table.clone()
    carried[moved] = mean + (offsets * spread).to(table.dtype)
    return carried
