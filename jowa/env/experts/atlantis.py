"""Atlantis without looking: the two outer guns in turn sweep the lanes that the enemy flies along."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jowa.env.experts.base import LEFTFIRE, NOOP, RIGHTFIRE

# A gun fires again only after its button was seen released, hence the pauses.
PATTERN = (RIGHTFIRE, NOOP, LEFTFIRE, NOOP)


class AtlantisExpert:
    """Repeats one pattern of four actions, from a random place in it."""

    def __init__(self) -> None:
        """Call :meth:`reset` before play."""
        self._turn = 0

    def reset(self, generator: np.random.Generator) -> None:
        """See :class:`Expert`."""
        self._turn = int(generator.integers(len(PATTERN)))

    def choose(self, ram: NDArray[np.uint8]) -> int:
        """See :class:`Expert`."""
        del ram
        self._turn = (self._turn + 1) % len(PATTERN)
        return PATTERN[self._turn]
