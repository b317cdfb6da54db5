"""The joint world-action transformer."""

from jowa.model.world_action import Predictions, WorldActionModel, carry_over, code_embeddings

__all__ = ["Predictions", "WorldActionModel", "carry_over", "code_embeddings"]
