"""The world model as Gymnasium environments: importing this registers ``jowa/Dream-v0``, single and vectorised."""

import gymnasium

from jowa.dream.env import DreamEnv
from jowa.dream.vector import DreamVectorEnv
from jowa.dream.world import Start

if "jowa/Dream-v0" not in gymnasium.registry:
    gymnasium.register(
        "jowa/Dream-v0", entry_point="jowa.dream.env:DreamEnv", vector_entry_point="jowa.dream.vector:DreamVectorEnv"
    )

__all__ = ["DreamEnv", "DreamVectorEnv", "Start"]
