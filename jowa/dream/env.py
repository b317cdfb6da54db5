"""One dream as a Gymnasium environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from jowa.agent import Agent
from jowa.dream.vector import DreamVectorEnv


class DreamEnv(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """One game inside the world model of an agent; :class:`jowa.dream.vector.DreamVectorEnv` says what is what."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(self, agent: Agent | Path | str, game: str, render_mode: str | None = None, **settings: Any) -> None:
        self.render_mode = render_mode
        self._vector = DreamVectorEnv(agent, game, 1, render_mode=render_mode, **settings)
        self.agent, self.game, self.actions = self._vector.agent, self._vector.game, self._vector.actions
        self.observation_space = self._vector.single_observation_space
        self.action_space = self._vector.single_action_space
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begin a dream: (frame uint8 (84, 84), info); ``options["start"]``: a Start to go on from."""
        super().reset(seed=seed)
        self._over = False
        frames, info = self._vector.reset(seed=None if seed is None else [seed], options=options)
        return frames[0], {"tokens": info["tokens"][0]}

    def step(self, action: int | np.integer[Any]) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Imagine what follows ``action``.  Raises RuntimeError when the episode has ended or not begun."""
        if self._over:
            raise RuntimeError("the episode is over: call reset() before step()")
        frames, rewards, terminated, truncated, info = self._vector.step(np.array([int(action)]))
        self._over = bool(terminated[0] or truncated[0])
        return frames[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {"tokens": info["tokens"][0]}

    def render(self) -> NDArray[np.uint8] | None:
        """uint8 (84, 84, 3), or None without a render mode."""
        shown = self._vector.render()
        return None if shown is None else shown[0]
