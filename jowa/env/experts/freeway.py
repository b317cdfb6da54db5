"""Freeway: the cars never change their speeds, so the quickest safe way across can be computed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jowa.env.experts.base import DOWN, NOOP, UP

CHICKEN_Y = 14
FIRST_CAR_X, LANES = 108, 10
SPEEDS = np.array([0.8, 1.0, 4 / 3, 2.0, 4.0, -4.0, -2.0, -4 / 3, -1.0, -0.8])
"""Pixels an agent step, by lane, bottom to top."""
ROAD = 160
"""Pixels after which a car comes round again."""

BOTTOM, TOP = 6, 177
STRIDE = 4
"""Pixels the chicken walks in an agent step."""
LANE_FIRST, LANE_PITCH, LANE_HEIGHT = 14, 16, 14
HIT_LEFT, HIT_RIGHT = 39.0, 54.0
"""A car whose x lies between these runs over a chicken in its lane."""
MARGIN = 1.0
"""Pixels kept from a car, for the frames between two steps and for sticky actions."""
HIT_COST = 14.0
"""Steps that a hit costs: the chicken is pushed back a lane and a half and lies still for a while."""
HORIZON = 48


class FreewayExpert:
    """Dynamic programming over (step, chicken's y): least steps to the other side, hits counted as lost steps."""

    def reset(self, generator: np.random.Generator) -> None:
        """See :class:`Expert`."""

    def choose(self, ram: NDArray[np.uint8]) -> int:
        """See :class:`Expert`."""
        y = int(ram[CHICKEN_Y])
        heights = np.arange(BOTTOM + (y - BOTTOM) % STRIDE, TOP + STRIDE, STRIDE)
        cost = _hit_costs(ram[FIRST_CAR_X : FIRST_CAR_X + LANES].astype(np.float64), heights)
        to_go = (TOP - heights) / STRIDE  # beyond the horizon: as if the road were empty
        for step in range(HORIZON - 1, -1, -1):
            to_go = to_go + cost[step]
            up, down = np.append(to_go[1:], 0.0), np.append(to_go[0], to_go[:-1])
            options = np.stack([up, to_go, down])
            to_go = 1.0 + options.min(axis=0)
            to_go[heights >= TOP] = 0.0
        row = (y - BOTTOM) // STRIDE
        return (UP, NOOP, DOWN)[int(options[:, min(row, len(heights) - 1)].argmin())]


def _hit_costs(cars: NDArray[np.float64], heights: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 (HORIZON, heights): what standing there after that many further steps costs."""
    steps = np.arange(1, HORIZON + 1)
    ahead = (cars + SPEEDS * steps[:, None] - HIT_LEFT + MARGIN) % ROAD
    hit = ahead <= HIT_RIGHT - HIT_LEFT + 2 * MARGIN
    bottom = LANE_FIRST + LANE_PITCH * np.arange(LANES)
    inside = (heights[:, None] >= bottom) & (heights[:, None] <= bottom + LANE_HEIGHT)
    return HIT_COST * (hit.astype(np.float64) @ inside.T.astype(np.float64))
