"""The joint world-action transformer."""

from jowa.model.world_action import Predictions, WorldActionModel, code_embeddings

__all__ = ["Predictions", "WorldActionModel", "code_embeddings"]
