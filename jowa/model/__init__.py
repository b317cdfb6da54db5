"""The joint world-action transformer."""

from jowa.model.world_action import Predictions, WorldActionModel

__all__ = ["Predictions", "WorldActionModel"]
