"""``scaled-ql``: a convolutional distributional Q-network over stacked frames (Kumar et al. 2022, arXiv 2211.15144).

Letters: B batch, A = 18 actions, Z atoms.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from jowa.config import ModelConfig
from jowa.games import GAMES
from jowa.model.heads import QHead, mean_values
from jowa.rivals.config import ConvConfig

HISTORY = 4
"""Frames that the network sees at once, the newest last."""
GROUPS = 4
GRID = 9
"""Cells along each side after the strided convolutions of an 84 x 84 frame."""


def stack_frames(frames: Tensor, newest: Tensor) -> Tensor:
    """The stack uint8 (B, 4, 84, 84) that ends with frame ``newest`` int64 (B,) of ``frames`` uint8 (B, L, 84, 84).

    Frames before the first are the first again.
    """
    back = torch.arange(1 - HISTORY, 1, device=frames.device)
    index = (newest[:, None] + back).clamp_min(0)
    return frames[torch.arange(len(frames), device=frames.device)[:, None], index]


class ResidualBlock(nn.Module):
    """x + conv(relu(norm(conv(relu(norm x))))), float (B, C, 9, 9) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, channels), nn.GroupNorm(GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(functional.relu(self.norm1(x)))
        return x + self.conv2(functional.relu(self.norm2(inner)))


class QNetwork(nn.Module):
    """Frames and task to the logits of each action's value distribution."""

    def __init__(self, config: ConvConfig) -> None:
        super().__init__()
        channels = config.channels
        self.conv1 = nn.Conv2d(HISTORY, channels, 8, stride=4)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 4, stride=2)
        self.blocks = nn.ModuleList(ResidualBlock(2 * channels) for _ in range(config.blocks))
        self.norm = nn.GroupNorm(GROUPS, 2 * channels)
        self.linear = nn.Linear(2 * channels * GRID**2, config.features)
        self.task_embedding = nn.Embedding(len(GAMES), config.features)
        nn.init.normal_(self.task_embedding.weight, std=0.5)
        self.q_head = QHead(
            ModelConfig(
                width=config.features, q_width=config.q_width, q_ensemble=1, num_atoms=config.num_atoms,
                v_min=config.v_min, v_max=config.v_max, q_init=config.q_init, q_dropout=0.0,
            )
        )  # fmt: skip

    def forward(self, frames: Tensor, tasks: Tensor) -> Tensor:
        """Logits (1, B, A, Z) of stacked frames uint8 (B, 4, 84, 84) and tasks int64 (B,)."""
        x = functional.relu(self.conv1(frames.float() / 255))
        x = self.conv2(x)
        for block in self.blocks:
            x = block(x)
        features = self.linear(functional.relu(self.norm(x)).flatten(1))
        # Of one length, whatever the batch taught: what keeps deep Q-networks stable.
        features = functional.normalize(features, dim=-1) * features.shape[-1] ** 0.5
        return self.q_head(features + self.task_embedding(tasks))


class ConvCritic(nn.Module):
    """The Q-network and its target, a whole copy."""

    def __init__(self, config: ConvConfig) -> None:
        super().__init__()
        self.config = config
        self.network = QNetwork(config)
        self.target = copy.deepcopy(self.network).requires_grad_(False)

    @torch.no_grad()
    def update_target(self) -> None:
        """Copy the network into its target."""
        for target, source in zip(self.target.parameters(), self.network.parameters(), strict=True):
            target.copy_(source)

    def values(self, frames: Tensor, tasks: Tensor) -> Tensor:
        """Q float32 (B, A) of stacked frames uint8 (B, 4, 84, 84), tasks int64 (B,)."""
        return mean_values(self.network(frames, tasks), self.config.v_min, self.config.v_max)
