"""Losses: pure functions of tensors."""

from jowa.losses.ablations import (
    c51_td,
    masked_mean,
    mixed_distribution,
    mixed_values,
    pull_up,
    push_down,
    rem_weights,
    squared_td,
)
from jowa.losses.critic import critic_losses
from jowa.losses.td import td_successors, td_weights
from jowa.losses.world import end_loss, frame_loss, reward_loss

__all__ = [
    "c51_td",
    "critic_losses",
    "end_loss",
    "frame_loss",
    "masked_mean",
    "mixed_distribution",
    "mixed_values",
    "pull_up",
    "push_down",
    "rem_weights",
    "reward_loss",
    "squared_td",
    "td_successors",
    "td_weights",
]
