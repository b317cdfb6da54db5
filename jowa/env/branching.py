"""One game that can be played on from the same moment again and again, with chance of one's own choosing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ale_py import Action, ALEState
from numpy.typing import NDArray

from jowa.env.atari import AtariEnv, AtariOptions


@dataclass(frozen=True)
class BranchPoint:
    """A moment of a game, to be played on from by any :class:`BranchingEnv` of the same game."""

    state: ALEState
    held: Action
    """The action that a sticky frame would repeat."""
    steps: int
    """Agent steps played before."""


class BranchingEnv(AtariEnv):
    """An :class:`AtariEnv` whose sticky actions are drawn here and not in the emulator.

    ALE takes a new seed only when it loads a ROM, which takes a tenth of a second; here a branch with chance of its
    own costs microseconds.  Frames, rewards and the law of sticky actions are the same; the draws are not.
    """

    def __init__(self, game: str, options: AtariOptions | None = None) -> None:
        """Load ``game``'s ROM.  Raises :class:`UsageError` for an unknown game."""
        options = options or AtariOptions()
        super().__init__(game, dataclasses.replace(options, sticky=0.0))
        self.sticky = options.sticky
        self._held = Action.NOOP
        self._chance = np.random.default_rng(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start an episode; see :meth:`AtariEnv.reset`."""
        if seed is not None:
            self._chance = np.random.default_rng(seed)
        self._held = Action.NOOP
        return super().reset(options=options)

    def branch_point(self) -> BranchPoint:
        """This moment; a copy."""
        return BranchPoint(self.snapshot(), self._held, self._steps)

    def branch(self, point: BranchPoint, seed: Sequence[int]) -> None:
        """Go on from ``point``; all chance from here on follows from ``seed``."""
        self._ale.restoreState(point.state)
        self._held, self._steps, self._running = point.held, point.steps, True
        self._chance = np.random.default_rng(list(seed))

    def _act(self, chosen: Action) -> int:
        if not self.sticky or self._chance.random() >= self.sticky:
            self._held = chosen
        return self._ale.act(self._held)
