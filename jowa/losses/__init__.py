"""Losses: pure functions of tensors."""

from jowa.losses.critic import critic_losses
from jowa.losses.td import td_successors, td_weights
from jowa.losses.world import end_loss, frame_loss, reward_loss

__all__ = ["critic_losses", "end_loss", "frame_loss", "reward_loss", "td_successors", "td_weights"]
