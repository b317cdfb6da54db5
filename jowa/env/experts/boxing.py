"""Boxing: walk to where a straight punch lands, and punch every other step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jowa.env.experts.base import FIRE, NOOP

OWN_X, OWN_Y, OTHER_X, OTHER_Y = 32, 34, 33, 35
REACH_X, REACH_Y = 20, 5
"""Where to stand relative to the opponent, in pixels: a glove's length away, one arm above or below."""
CLOSE = 3

# Indices of the full action set by (dx, dy) of the move, without and with the fire button.
MOVES = {(0, 0): NOOP, (0, -1): 2, (1, 0): 3, (-1, 0): 4, (0, 1): 5, (1, -1): 6, (-1, -1): 7, (1, 1): 8, (-1, 1): 9}
PUNCHES = {
    (0, 0): FIRE, (0, -1): 10, (1, 0): 11, (-1, 0): 12, (0, 1): 13, (1, -1): 14, (-1, -1): 15, (1, 1): 16, (-1, 1): 17
}  # fmt: skip


class BoxingExpert:
    """Approaches the nearer side of the opponent."""

    def __init__(self) -> None:
        """Call :meth:`reset` before play."""
        self._punched = False

    def reset(self, generator: np.random.Generator) -> None:
        """See :class:`Expert`."""
        self._punched = bool(generator.integers(2))

    def choose(self, ram: NDArray[np.uint8]) -> int:
        """See :class:`Expert`."""
        dx = int(ram[OTHER_X]) - int(ram[OWN_X])
        dy = int(ram[OTHER_Y]) - int(ram[OWN_Y])
        gap_x = dx - (REACH_X if dx >= 0 else -REACH_X)
        gap_y = dy - (REACH_Y if dy >= 0 else -REACH_Y)
        move = (_direction(gap_x), _direction(gap_y))
        self._punched = not self._punched
        return (PUNCHES if self._punched else MOVES)[move]


def _direction(gap: int) -> int:
    return 0 if abs(gap) <= CLOSE else (1 if gap > 0 else -1)
