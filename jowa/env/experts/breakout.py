"""Breakout: the expert meets the ball where it will come down, the follower stays under it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jowa.env.experts.base import FIRE, LEFT, NOOP, RIGHT, fold

BALL_X, BALL_Y, PADDLE_X = 99, 101, 72
LEFT_WALL, RIGHT_WALL = 56.0, 200.0
PADDLE_Y = 178.0
PADDLE_CENTRE = 7.0
COAST = 0.5
"""How far the paddle rolls on after the button is let go, in units of its movement in the last step."""
NEAR = 6.0
AIM = 3
"""Farthest from the paddle's centre, in pixels, at which the ball is met on purpose."""


class BreakoutExpert:
    """Serves, predicts the bounce off the side walls, and changes its aim at every return."""

    def __init__(self) -> None:
        """Call :meth:`reset` before play."""
        self._generator = np.random.default_rng(0)
        self._last: tuple[int, int, int] | None = None
        self._aim = 0.0
        self._falling = False

    def reset(self, generator: np.random.Generator) -> None:
        """See :class:`Expert`."""
        self._generator, self._last, self._falling = generator, None, False

    def choose(self, ram: NDArray[np.uint8]) -> int:
        """See :class:`Expert`."""
        x, y, paddle = int(ram[BALL_X]), int(ram[BALL_Y]), int(ram[PADDLE_X])
        last, self._last = self._last, (x, y, paddle)
        if y == 0:  # no ball in play
            self._last = None
            return FIRE
        if last is None:
            return NOOP
        dx, dy = x - last[0], y - last[1]
        falling = dy > 0
        if falling and not self._falling:
            # Meeting the ball off centre sends it elsewhere; always the centre would end in a loop.
            self._aim = float(self._generator.integers(-AIM, AIM + 1))
        self._falling = falling
        target = float(x)
        if falling and y < PADDLE_Y:
            target = fold(x + dx * (PADDLE_Y - y) / dy, LEFT_WALL, RIGHT_WALL) + self._aim
        gap = target - (paddle + PADDLE_CENTRE + COAST * (paddle - last[2]))
        return NOOP if abs(gap) <= NEAR else (RIGHT if gap > 0 else LEFT)


class BreakoutFollower:
    """Stays under the ball, wherever it flies: what to do shows in a single frame.

    It holds the fire button instead of doing nothing: to serve is then what an imitator does when it sees no reason to
    move, and not a rare action that it never learns.
    """

    def reset(self, generator: np.random.Generator) -> None:
        """See :class:`Expert`."""

    def choose(self, ram: NDArray[np.uint8]) -> int:
        """See :class:`Expert`."""
        gap = int(ram[BALL_X]) - (int(ram[PADDLE_X]) + PADDLE_CENTRE)
        in_play = ram[BALL_Y] != 0
        return FIRE if not in_play or abs(gap) <= NEAR else (RIGHT if gap > 0 else LEFT)
