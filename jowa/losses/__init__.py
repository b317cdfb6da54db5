"""Losses: pure functions of tensors."""

from jowa.losses.conservative import conservative_loss
from jowa.losses.td import td_loss, td_targets, td_weights
from jowa.losses.world import end_loss, frame_loss, reward_loss

__all__ = ["conservative_loss", "end_loss", "frame_loss", "reward_loss", "td_loss", "td_targets", "td_weights"]
