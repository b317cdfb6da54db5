"""Pong: the expert waits where the ball will cross the paddle's plane, the follower stays level with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jowa.env.experts.base import FIRE, LEFT, NOOP, RIGHT, fold

BALL_X, BALL_Y, PADDLE_Y = 49, 54, 51
TOP, BOTTOM = 44.0, 207.0
PLANE_X = 188.0
PADDLE_CENTRE = 5.0
COAST = 0.4
"""How far the paddle rolls on after the button is let go, in units of its movement in the last step."""
NEAR = 9.0
"""No correction within so many pixels: the paddle cannot move less than that."""


class PongExpert:
    """Predicts the bounce off the top and bottom walls while the ball approaches; otherwise waits in the middle."""

    def __init__(self) -> None:
        """Call :meth:`reset` before play."""
        self._last: tuple[int, int, int] | None = None

    def reset(self, generator: np.random.Generator) -> None:
        """See :class:`Expert`."""
        self._last = None

    def choose(self, ram: NDArray[np.uint8]) -> int:
        """See :class:`Expert`."""
        x, y, paddle = int(ram[BALL_X]), int(ram[BALL_Y]), int(ram[PADDLE_Y])
        last, self._last = self._last, (x, y, paddle)
        if x == 0:  # no ball in play
            self._last = None
            return FIRE
        if last is None:
            return NOOP
        dx, dy = x - last[0], y - last[1]
        target = (TOP + BOTTOM) / 2
        if dx > 0 and x < PLANE_X:
            target = fold(y + dy * (PLANE_X - x) / dx, TOP, BOTTOM)
        gap = target - (paddle + PADDLE_CENTRE + COAST * (paddle - last[2]))
        # RIGHT moves the paddle up the screen, LEFT down.
        return NOOP if abs(gap) <= NEAR else (LEFT if gap > 0 else RIGHT)


FOLLOWED_AT, FOLLOWED_NEAR = 11.0, 6.0
"""Below the paddle's top, in pixels: where the follower wants the ball, and how near is near enough."""


class PongFollower:
    """Stays level with the ball, wherever it flies: what to do shows in a single frame."""

    def reset(self, generator: np.random.Generator) -> None:
        """See :class:`Expert`."""

    def choose(self, ram: NDArray[np.uint8]) -> int:
        """See :class:`Expert`."""
        gap = int(ram[BALL_Y]) - (int(ram[PADDLE_Y]) + FOLLOWED_AT)
        in_play = ram[BALL_X] != 0
        return FIRE if not in_play or abs(gap) <= FOLLOWED_NEAR else (LEFT if gap > 0 else RIGHT)
