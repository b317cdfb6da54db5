"""What is played: the real game or a dream of it (:mod:`jowa.viewer.recording`: a recording), behind one face."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jowa.agent import Agent
from jowa.dream.world import Dreams, Start
from jowa.env.atari import AtariEnv, AtariOptions


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


class MomentsEnv(AtariEnv):
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
        self.game, self.sticky = game, sticky
        self._env = MomentsEnv(game, AtariOptions(sticky))

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
        return in_grey(self._dreams.begin(0, self._start))

    def step(self, action: int) -> Outcome:
        """See :meth:`World.step`."""
        # Chance is a function of the step, so that a moment can be returned to.
        seed = np.random.default_rng((self._seed, self._steps)).integers(2**63, size=1)
        frames, rewards, ends = self._dreams.step([0], np.array([action], dtype=np.int64), seed)
        self._steps += 1
        return Outcome(in_grey(frames[0]), float(rewards[0]), bool(ends[0]))

    def save(self) -> object:
        """See :meth:`World.save`."""
        return self._dreams.moment(0), self._seed, self._steps

    def restore(self, saved: Any) -> None:
        """See :meth:`World.restore`."""
        moment, self._seed, self._steps = saved
        self._dreams.return_to(0, moment)


def in_grey(frame: NDArray[np.uint8]) -> Sight:
    """``frame`` uint8 (84, 84) as both are shown that see no colours."""
    return Sight(frame, np.repeat(frame[..., None], 3, axis=2))
