"""Many dreams as one vectorised Gymnasium environment: one batch through the model a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from jowa.agent import Agent
from jowa.dream.world import Dreams, Start, Starts
from jowa.errors import UsageError
from jowa.games import get_game

Stepped = tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


class DreamVectorEnv(VectorEnv[NDArray[np.uint8], NDArray[np.int64], NDArray[Any]]):
    """``num_envs`` games inside the world model of ``agent``; what each of them does follows from its seed alone.

    Observations: uint8 (N, 84, 84) frames as the tokenizer shows the imagined tokens; ``info["tokens"]``: int64
    (N, 36).  Actions: indices into the game's legal actions, or with ``full_action_space`` into ALE's 18, of which
    the illegal ones are refused.  Rewards are the model's: -1, 0 or 1.  An episode terminates where the model
    predicts its end, and is truncated after ``max_steps``.  An environment that ended begins anew at its next step
    (Gymnasium's next-step autoreset).
    """

    metadata = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        agent: Agent | Path | str,
        game: str,
        num_envs: int = 1,
        context: int | None = None,
        sample: bool = True,
        temperature: float = 1.0,
        data: Path | str | None = None,
        max_steps: int = 1_000,
        full_action_space: bool = False,
        render_mode: str | None = None,
    ) -> None:
        """``agent``: one in memory, its folder, ``demo``, or its name on the Hugging Face hub.  ``context``: steps that
        each step is imagined from; None: the agent's own.  ``sample``: draw from the model's distributions, or else
        take the most likely; frame tokens at ``temperature``.  ``data``: a store whose recorded moments dreams begin
        at; None: they begin in the real game, up to 30 random steps after its start.

        Raises :class:`UsageError` for a game, context or temperature that cannot be used.
        """
        if num_envs < 1 or max_steps < 1:
            raise UsageError(f"num_envs and max_steps are {num_envs} and {max_steps}: expected at least 1")
        if render_mode not in (None, "rgb_array"):
            raise UsageError(f"render_mode is {render_mode!r}: expected None or 'rgb_array'")
        self.num_envs, self.max_steps, self.render_mode = num_envs, max_steps, render_mode
        self.game = get_game(game)
        self.agent = agent if isinstance(agent, Agent) else Agent.from_pretrained(agent)
        self.dreams = Dreams(self.agent, self.game.name, num_envs, context, sample, temperature)
        self._starts = Starts(self.game.name, data, self.dreams.context)
        self.actions: tuple[int, ...] = tuple(range(18)) if full_action_space else tuple(self.game.legal_actions)
        """What each action of this environment is in ALE's set of 18."""
        self.single_observation_space = gymnasium.spaces.Box(0, 255, (84, 84), np.uint8)
        self.single_action_space = gymnasium.spaces.Discrete(len(self.actions))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators = [np.random.default_rng() for _ in range(num_envs)]
        self._frames = np.zeros((num_envs, 84, 84), dtype=np.uint8)
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._over = np.ones(num_envs, dtype=np.bool_)
        self._begun = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begin all dreams.  A ``seed`` s seeds environment i with s + i; a list gives each its own.

        ``options["start"]``: a :class:`jowa.dream.world.Start`, or one for each environment, to go on from;
        ``options["reset_mask"]``: bool (N,), to begin only some.
        """
        options = options or {}
        seeds = (
            [None if seed is None else seed + i for i in range(self.num_envs)] if not isinstance(seed, list) else seed
        )
        starts = options.get("start")
        mask = options.get("reset_mask", np.ones(self.num_envs, dtype=np.bool_))
        if len(seeds) != self.num_envs or len(mask) != self.num_envs:
            raise ValueError(f"expected a seed and a reset_mask entry for each of {self.num_envs} environments")
        for index in np.flatnonzero(mask).tolist():
            if seeds[index] is not None:
                self._generators[index] = np.random.default_rng(seeds[index])
            self._begin(index, starts[index] if isinstance(starts, list | tuple) else starts)
        self._begun = True
        return self._frames.copy(), self._info()

    def step(self, actions: NDArray[np.int64]) -> Stepped:
        """One step of every dream; those that were over begin anew, and ignore their action."""
        if not self._begun:
            raise RuntimeError("no episode has begun: call reset() before step()")
        chosen = np.asarray(actions)
        if chosen.shape != (self.num_envs,) or not ((chosen >= 0) & (chosen < len(self.actions))).all():
            raise ValueError(f"actions must be {self.num_envs} numbers below {len(self.actions)}, got {actions!r}")
        taken = np.array(self.actions, dtype=np.int64)[chosen]
        going = np.flatnonzero(~self._over)
        illegal = going[~self.game.action_mask[taken[going]]]
        if illegal.size:
            raise ValueError(f"action {taken[illegal[0]]} is not legal in {self.game.name}")
        anew = np.flatnonzero(self._over)
        rewards, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=np.bool_)
        if going.size:
            seeds = np.array([self._generators[index].integers(2**63) for index in going], dtype=np.int64)
            self._frames[going], rewards[going], terminated[going] = self.dreams.step(
                going.tolist(), taken[going], seeds
            )
            self._steps[going] += 1
        for index in anew.tolist():
            self._begin(index, None)
        truncated = ~terminated & (self._steps >= self.max_steps)
        self._over = terminated | truncated
        return self._frames.copy(), rewards, terminated, truncated, self._info()

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """uint8 (84, 84, 3) of each environment; None without a render mode."""
        if self.render_mode is None:
            return None
        return tuple(np.repeat(frame[..., None], 3, axis=2) for frame in self._frames)

    def _begin(self, index: int, start: Start | None) -> None:
        start = self._starts.draw(self._generators[index]) if start is None else start
        self._frames[index] = self.dreams.begin(index, start)
        self._steps[index], self._over[index] = 0, False

    def _info(self) -> dict[str, Any]:
        return {"tokens": np.stack([self.dreams.tokens(index) for index in range(self.num_envs)])}
