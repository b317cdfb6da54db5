"""What is played: the real game, a dream of it, or a recording, behind one face that can go back to any moment."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jowa.agent import Agent
from jowa.data.store import EpisodeStore
from jowa.dream.world import Dreams, Start
from jowa.env.atari import AtariEnv, AtariOptions
from jowa.errors import UsageError


@dataclass(frozen=True)
class Sight:
    """What is seen at one moment."""

    frame: NDArray[np.uint8]
    """(84, 84): for the agent."""
    screen: NDArray[np.uint8]
    """(height, width, 3): for the person."""


@dataclass(frozen=True)
class Outcome:
    """What followed an action."""

    sight: Sight
    reward: float
    ended: bool


@dataclass(frozen=True)
class Packed:
    """An array of bytes, compressed: a screen takes about 1 kB instead of 100."""

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: NDArray[np.uint8]) -> Packed:
        """Compress ``array``."""
        return cls(array.shape, zlib.compress(array.tobytes(), 1))

    def array(self) -> NDArray[np.uint8]:
        """The array, read-only."""
        return np.frombuffer(zlib.decompress(self.data), np.uint8).reshape(self.shape)


class World(Protocol):
    """Something to play.  Belongs to the session's thread."""

    game: str

    def begin(self, seed: int) -> Sight:
        """Start anew."""
        ...

    def step(self, action: int) -> Outcome:
        """What follows ``action`` (of 18, legal)."""
        ...

    def save(self) -> object:
        """This moment, chance to come included, for :meth:`restore`."""
        ...

    def restore(self, saved: Any) -> None:
        """Go on from a moment of this world."""
        ...


class _MomentsEnv(AtariEnv):
    """The game as the agent's environment plays it, with its moments."""

    def moment(self) -> tuple[Any, int]:
        """The console with its random state, and the steps played."""
        return self._ale.cloneState(include_rng=True), self._steps

    def go_to(self, moment: tuple[Any, int]) -> None:
        """Go on from there."""
        self._ale.restoreState(moment[0])
        self._steps, self._running = moment[1], True


class RealWorld:
    """The Atari game."""

    def __init__(self, game: str, sticky: float) -> None:
        self.game = game
        self._env = _MomentsEnv(game, AtariOptions(sticky))

    def begin(self, seed: int) -> Sight:
        """See :meth:`World.begin`."""
        frame, _ = self._env.reset(seed=seed)
        return Sight(frame, self._env.screen())

    def step(self, action: int) -> Outcome:
        """See :meth:`World.step`."""
        frame, reward, terminated, truncated, _ = self._env.step(action)
        return Outcome(Sight(frame, self._env.screen()), reward, terminated or truncated)

    def save(self) -> object:
        """See :meth:`World.save`."""
        return self._env.moment()

    def restore(self, saved: Any) -> None:
        """See :meth:`World.restore`."""
        self._env.go_to(saved)


class DreamWorld:
    """The game inside the agent's world model, from ``start`` on; what is drawn follows from the seed."""

    def __init__(self, agent: Agent, game: str, start: Start, sample: bool = True) -> None:
        self.game, self._start = game, start
        self._dreams = Dreams(agent, game, 1, None, sample, 1.0)
        self._seed = self._steps = 0

    def begin(self, seed: int) -> Sight:
        """See :meth:`World.begin`: back to the moment at which the dream began."""
        self._seed, self._steps = seed, 0
        return _grey(self._dreams.begin(0, self._start))

    def step(self, action: int) -> Outcome:
        """See :meth:`World.step`."""
        # Chance is a function of the step, so that a moment can be returned to.
        seed = np.random.default_rng((self._seed, self._steps)).integers(2**63, size=1)
        frames, rewards, ends = self._dreams.step([0], np.array([action], dtype=np.int64), seed)
        self._steps += 1
        return Outcome(_grey(frames[0]), float(rewards[0]), bool(ends[0]))

    def save(self) -> object:
        """See :meth:`World.save`."""
        return self._dreams.moment(0), self._seed, self._steps

    def restore(self, saved: Any) -> None:
        """See :meth:`World.restore`."""
        moment, self._seed, self._steps = saved
        self._dreams.return_to(0, moment)


class ReplayWorld:
    """A recorded episode: whatever is chosen, what was recorded happens."""

    def __init__(self, path: Path, game: str | None, episode: int) -> None:
        store = EpisodeStore.open(path)
        self.game = game or store.games[0]
        if self.game not in store.games:
            raise UsageError(f"{path} has no episodes of {self.game}: it has {', '.join(store.games)}")
        self.info = store.episode(self.game, episode)
        self._store, self._at = store, 0
        self._block: tuple[int, NDArray[np.uint8]] = (0, np.zeros((0, 84, 84), np.uint8))
        first = self.info.offset
        self._actions, self._rewards = store.read_scalars(self.game, first, first + self.info.length)

    def begin(self, seed: int) -> Sight:
        """See :meth:`World.begin`."""
        del seed
        self._at = 0
        return self._sight()

    @property
    def action(self) -> int:
        """What was done at this moment."""
        return int(self._actions[self._at])

    def step(self, action: int) -> Outcome:
        """See :meth:`World.step`.  A recording holds no frame after its last action: it ends at the last one."""
        del action
        reward = float(self._rewards[self._at])
        self._at = min(self._at + 1, self.info.length - 1)
        return Outcome(self._sight(), reward, self._at == self.info.length - 1)

    def save(self) -> object:
        """See :meth:`World.save`."""
        return self._at

    def restore(self, saved: Any) -> None:
        """See :meth:`World.restore`."""
        self._at = saved

    def _sight(self) -> Sight:
        first, frames = self._block
        if not first <= self._at < first + len(frames):
            first = self._at
            stop = min(first + 64, self.info.length)
            frames = self._store.read_frames(self.game, self.info.offset + first, self.info.offset + stop)
            self._block = first, frames
        return _grey(frames[self._at - first].copy())


def _grey(frame: NDArray[np.uint8]) -> Sight:
    return Sight(frame, np.repeat(frame[..., None], 3, axis=2))
