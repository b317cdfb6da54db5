"""What players without learning are, and the geometry that several scripts share."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jowa.env.atari import AtariEnv

NOOP, FIRE, UP, RIGHT, LEFT, DOWN = range(6)
RIGHTFIRE, LEFTFIRE = 11, 12


class Expert(Protocol):
    """A script that reads the console's memory once an agent step."""

    def reset(self, generator: np.random.Generator) -> None:
        """Begin an episode; all chance comes from ``generator``."""

    def choose(self, ram: NDArray[np.uint8]) -> int:
        """The action for ``ram`` uint8 (128,), an index into the full set of 18."""


class Player(Protocol):
    """Whoever looks into the environment once an agent step and chooses without learning."""

    def reset(self, generator: np.random.Generator) -> None:
        """Begin an episode; all chance comes from ``generator``."""

    def choose(self, environment: AtariEnv) -> int:
        """The action for what ``environment`` is in, an index into the full set of 18."""


def fold(position: float, low: float, high: float) -> float:
    """Where something bouncing between two walls is, that would be at ``position`` without them."""
    span = high - low
    offset = (position - low) % (2 * span)
    return low + (offset if offset <= span else 2 * span - offset)
