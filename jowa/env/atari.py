"""ALE behind the exact preprocessing that the agent is trained on, one game and many at once.

One agent step is four emulator frames with the same action.  What the agent sees is the pixel
maximum over the last two of the four grayscale screens, resized to 84x84 by area interpolation.
Losing a life does not end an episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import gymnasium
import numpy as np
from ale_py import Action, ALEInterface, ALEState, LoggerMode, roms
from ale_py.vector_env import AtariVectorEnv
from numpy.typing import NDArray

from jowa.errors import UsageError
from jowa.games import ACTIONS, NUM_ACTIONS, Game, get_game

FRAME_SIZE = 84
FRAME_SKIP = 4
RAM_SIZE = 128

ALEInterface.setLoggerMode(LoggerMode.Error)


@dataclass(frozen=True)
class AtariOptions:
    """How the emulator is run."""

    sticky: float = 0.25
    """Probability, per emulator frame, that the previous action is repeated instead of the chosen one."""
    max_steps: int = 27_000
    """Agent steps (four emulator frames each) after which an episode is cut off."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.sticky < 1.0:
            raise UsageError(f"sticky is {self.sticky}: expected a probability in [0, 1)")
        if self.max_steps < 1:
            raise UsageError(f"max_steps is {self.max_steps}: expected at least 1 agent step")


def seed_of_emulator(seed: int) -> int:
    """The non-negative 31-bit seed that ALE is given for a user's ``seed`` (any non-negative integer).

    ALE draws its sticky actions from a generator seeded with small integers badly mixed, so the
    seed goes through NumPy's seed sequence first.
    """
    return int(np.random.SeedSequence(seed).generate_state(1)[0] & 0x7FFFFFFF)


class AtariEnv(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """One Atari game as a Gymnasium environment.

    Observations are uint8 (84, 84) frames in [0, 255]; actions are indices into ALE's full set of 18,
    of which only the game's legal ones are accepted; rewards are raw game points, not clipped.
    ``terminated`` means that the game ended, ``truncated`` that ``options.max_steps`` were played.
    ``reset(seed=s)`` makes everything after it a function of ``s`` and the actions.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(self, game: str, options: AtariOptions = AtariOptions()) -> None:
        """Load ``game``'s ROM.  Raises :class:`UsageError` for an unknown game."""
        self.game = get_game(game)
        self.options = options
        shape = (FRAME_SIZE, FRAME_SIZE)
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        # The full set: one action index means the same in every game.  Illegal ones are refused by `step`.
        self.action_space = gymnasium.spaces.Discrete(NUM_ACTIONS)
        self._legal = self.game.action_mask
        self._actions = [Action(index) for index in range(NUM_ACTIONS)]
        self._ale = ALEInterface()
        self._ale.setInt("frame_skip", 1)
        self._ale.setFloat("repeat_action_probability", options.sticky)
        self._load(seed_of_emulator(0))
        height, width = self._ale.getScreenDims()
        self._older = np.empty((height, width), np.uint8)
        self._newer = np.empty((height, width), np.uint8)
        self._steps = 0
        self._running = False

    def _load(self, emulator_seed: int) -> None:
        # ALE takes a new seed only when it loads a ROM.
        self._ale.setInt("random_seed", emulator_seed)
        rom = roms.get_rom_path(self.game.rom)
        assert rom is not None, "ale-py carries the ROMs of all 60 games"
        self._ale.loadROM(rom)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start an episode: (frame uint8 (84, 84), info).  A ``seed`` restarts the sticky actions' generator."""
        super().reset(seed=seed)
        if seed is not None:
            self._load(seed_of_emulator(seed))
        self._ale.reset_game()
        self._steps = 0
        self._running = True
        self._ale.getScreenGrayscale(self._newer)
        return self._resize(self._newer), {}

    def step(self, action: int | np.integer[Any]) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Play ``action`` for four emulator frames.

        Returns (frame uint8 (84, 84), reward in game points, terminated, truncated, info).
        Raises ValueError for an action that is not legal in this game and RuntimeError when the
        episode has ended or not begun.
        """
        index = int(action)
        _check_legal(self.game, self._legal, index)
        if not self._running:
            raise RuntimeError("the episode is over: call reset() before step()")
        chosen = self._actions[index]
        reward = 0
        for _ in range(FRAME_SKIP - 1):  # once the game is over ALE ignores actions and keeps its last screen
            reward += self._act(chosen)
        self._ale.getScreenGrayscale(self._older)
        reward += self._act(chosen)
        self._ale.getScreenGrayscale(self._newer)
        self._steps += 1
        terminated = bool(self._ale.game_over())
        truncated = not terminated and self._steps >= self.options.max_steps
        self._running = not (terminated or truncated)
        return self._resize(np.maximum(self._older, self._newer)), float(reward), terminated, truncated, {}

    def _act(self, chosen: Action) -> int:
        """One emulator frame; returns the game points earned."""
        return self._ale.act(chosen)

    def _resize(self, screen: NDArray[np.uint8]) -> NDArray[np.uint8]:
        resized = cv2.resize(screen, (FRAME_SIZE, FRAME_SIZE), interpolation=cv2.INTER_AREA)
        return np.asarray(resized, dtype=np.uint8)

    def screen(self) -> NDArray[np.uint8]:
        """uint8 (height, width, 3): what the console shows, in its colours; for people."""
        return np.asarray(self._ale.getScreenRGB(), dtype=np.uint8)

    @property
    def ram(self) -> NDArray[np.uint8]:
        """uint8 (128,): the console's memory, for scripted players; a copy."""
        return np.array(self._ale.getRAM(), dtype=np.uint8)

    def snapshot(self) -> ALEState:
        """The console's state without its random state, for a :class:`~jowa.env.simulator.Simulator`; a copy."""
        return self._ale.cloneState(include_rng=False)

    @property
    def legal_actions(self) -> tuple[int, ...]:
        """Indices, ascending, of the actions that ``step`` accepts."""
        return self.game.legal_actions


class AtariVector:
    """``num`` independent environments of one game, stepped together by ALE's own threads, without Python's lock.

    Slot i with seed s plays exactly what :class:`AtariEnv` with seed s plays, whatever the other
    slots do.  A slot whose episode ended stays done: its frame freezes, its rewards are 0 and its
    actions are ignored, until :meth:`reset_done` or :meth:`reset`.
    """

    def __init__(
        self, game: str, num: int, options: AtariOptions = AtariOptions(), seeds: Sequence[int] | None = None
    ) -> None:
        """``seeds``: one a slot (default 0 .. num-1).  Raises :class:`UsageError` for a wrong count."""
        self.game = get_game(game)
        self.options = options
        self.num = num
        self.seeds = list(range(num)) if seeds is None else [int(seed) for seed in seeds]
        if num < 1 or len(self.seeds) != num:
            raise UsageError(f"{num} environments, {len(self.seeds)} seeds: expected one seed for each of at least 1")
        self._legal = self.game.action_mask
        # Every default that differs from AtariEnv's preprocessing is overridden here.
        self._environments = AtariVectorEnv(
            self.game.rom,
            num,
            repeat_action_probability=options.sticky,
            max_num_frames_per_episode=2**31 - 1,  # ALE's own cut stops in the middle of a step: count here instead
            full_action_space=True,
            stack_num=1,
            noop_max=0,
            reward_clipping=False,
            use_fire_reset=False,
        )
        self._frames = np.zeros((num, FRAME_SIZE, FRAME_SIZE), np.uint8)
        self._terminated = np.zeros(num, np.bool_)
        self._truncated = np.zeros(num, np.bool_)
        self._steps = np.zeros(num, np.int64)

    @property
    def done(self) -> NDArray[np.bool_]:
        """bool (num,): slots whose episode has ended."""
        return self._terminated | self._truncated

    def reset(self) -> NDArray[np.uint8]:
        """Start every slot anew from its seed: frames uint8 (num, 84, 84)."""
        observations, _ = self._environments.reset(seed=_emulator_seeds(self.seeds))
        self._frames = np.array(observations[:, 0], np.uint8)
        self._steps[:] = 0
        self._terminated[:] = self._truncated[:] = False
        return self._frames.copy()

    def reset_done(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """Start a new episode in the slots that are done, with ``seeds`` one for each of them, in order.

        Returns frames uint8 (num, 84, 84).  Raises :class:`UsageError` for another number of seeds.
        """
        done = self.done
        if len(seeds) != done.sum():
            raise UsageError(f"{len(seeds)} seeds for {done.sum()} finished environments: expected one each")
        if done.any():
            observations, _ = self._environments.reset(seed=_emulator_seeds(seeds), options={"reset_mask": done})
            self._frames[done] = observations[:, 0] if len(observations) == len(seeds) else observations[done, 0]
        self._steps[done] = 0
        self._terminated[:] = self._truncated[:] = False
        return self._frames.copy()

    def step(
        self, actions: NDArray[np.integer[Any]] | Sequence[int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """Play ``actions`` int (num,), indices into the full set; those of done slots are ignored.

        Returns (frames uint8 (num, 84, 84), rewards float32 (num,) in game points, terminated bool (num,),
        truncated bool (num,)); the last two stay true for done slots.  Raises ValueError for an illegal action.
        """
        alive = ~self.done
        if len(actions) != self.num:
            raise ValueError(f"{len(actions)} actions for {self.num} environments: expected one each")
        # ALE goes on playing a finished slot (from a new start); it idles there and nobody looks.
        chosen = np.where(alive, np.asarray(actions, np.int64), 0)
        for action in np.unique(chosen):
            _check_legal(self.game, self._legal, int(action))
        observations, rewards, terminated, _, _ = self._environments.step(chosen)
        self._frames[alive] = observations[alive, 0]
        self._steps += alive
        self._terminated |= alive & terminated
        self._truncated |= alive & ~terminated & (self._steps >= self.options.max_steps)
        earned = np.where(alive, rewards, 0).astype(np.float32)
        return self._frames.copy(), earned, self._terminated.copy(), self._truncated.copy()

    def close(self) -> None:
        """Let go of the emulators and their threads."""
        self._environments.close()


def _emulator_seeds(seeds: Sequence[int]) -> NDArray[np.int64]:
    return np.array([seed_of_emulator(seed) for seed in seeds], np.int64)


def _check_legal(game: Game, mask: NDArray[np.bool_], action: int) -> None:
    if not 0 <= action < NUM_ACTIONS or not mask[action]:
        legal = ", ".join(f"{i} {ACTIONS[i]}" for i in game.legal_actions)
        raise ValueError(f"action {action} is not legal in {game.name}: choose one of {legal}")
