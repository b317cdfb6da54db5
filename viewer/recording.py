"""Recorded episodes: whatever is chosen, what was recorded happens; in colour where the game can be played again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.data.store import EpisodeStore
from jowa.env.atari import AtariOptions
from jowa.errors import UsageError
from jowa.viewer.export import STICKIES
from jowa.viewer.worlds import MomentsEnv, Outcome, Sight, in_grey

BLOCK = 64
"""Frames read at once; and those that a game played again must share with a recording before its colours count."""
KEPT_EVERY = 100
"""Steps between the moments of the game that are kept, to go back to from anywhere behind them."""
STICKY = (0.25, 0.0)
"""What sticky actions are tried with when a recording does not say."""


class Rerun:
    """The game of a recorded episode played again: same seed, same actions, so the same chance, and colours."""

    def __init__(self, game: str, seed: int, actions: NDArray[np.uint8], sticky: float) -> None:
        self._env = MomentsEnv(game, AtariOptions(sticky, len(actions) + 1))
        self._actions = actions
        frame, _ = self._env.reset(seed=seed)
        self._first = self._sight = Sight(frame, self._env.screen())
        self._at, self._kept = 0, {0: self._env.moment()}

    def sight(self, step: int) -> Sight:
        """What was seen after ``step`` actions.  Raises RuntimeError or ValueError where it cannot be the same game."""
        if step == 0:
            return self._first
        if not 0 < self._at <= step:
            self._at = max(kept for kept in self._kept if kept < step)
            self._env.go_to(self._kept[self._at])
        while self._at < step:
            frame, *_ = self._env.step(int(self._actions[self._at]))
            self._at += 1
            self._sight = Sight(frame, self._env.screen())
            if self._at % KEPT_EVERY == 0:
                self._kept.setdefault(self._at, self._env.moment())
        return self._sight


class ReplayWorld:
    """One recorded episode as a :class:`jowa.viewer.worlds.World` that can also go to any step."""

    def __init__(self, path: Path, game: str | None, episode: int) -> None:
        store = EpisodeStore.open(path)
        self.game = game or store.games[0]
        if self.game not in store.games:
            raise UsageError(f"{path} has no episodes of {self.game}: it has {', '.join(store.games)}")
        info = store.episode(self.game, episode)
        self._store, self._offset, self._at = store, info.offset, 0
        self._block: tuple[int, NDArray[np.uint8]] = (0, np.zeros((0, 84, 84), np.uint8))
        self.actions, self.rewards = store.read_scalars(self.game, info.offset, info.offset + info.length)
        recorded = store.attributes.get("recording", {}).get(self.game, {}).get("sticky")
        known = [*([] if recorded is None else [recorded]), *store.attributes.get(STICKIES, ())]
        self._rerun = self._played_again(info.seed, known or STICKY)

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def in_colour(self) -> bool:
        """Whether the game, played again, is the one recorded; otherwise the recording's own grey frames are shown."""
        return self._rerun is not None

    def begin(self, seed: int) -> Sight:
        """See :meth:`jowa.viewer.worlds.World.begin`."""
        del seed
        return self.go_to(0)

    @property
    def action(self) -> int:
        """What was done at this moment."""
        return int(self.actions[self._at])

    def step(self, action: int) -> Outcome:
        """See :meth:`jowa.viewer.worlds.World.step`.  A recording ends at its last frame, before its last action."""
        del action
        reward = float(self.rewards[self._at])
        sight = self.go_to(min(self._at + 1, len(self) - 1))
        return Outcome(sight, reward, self._at == len(self) - 1)

    def go_to(self, step: int) -> Sight:
        """Go on from ``step``."""
        self._at = step
        frame = self.frames(step, step + 1)[0]
        if self._rerun is not None:
            again = _sight_of(self._rerun, step)
            if again is not None and np.array_equal(again.frame, frame):
                return again
            self._rerun = None
        return in_grey(frame)

    def save(self) -> object:
        """See :meth:`jowa.viewer.worlds.World.save`."""
        return self._at

    def restore(self, saved: Any) -> None:
        """See :meth:`jowa.viewer.worlds.World.restore`."""
        self._at = saved

    def frames(self, first: int, stop: int) -> NDArray[np.uint8]:
        """uint8 (stop - first, 84, 84): what the agent sees before these steps; a copy."""
        start, frames = self._block
        if not start <= first < stop <= start + len(frames):
            start = first
            stop_block = min(max(stop, first + BLOCK), len(self))
            frames = self._store.read_frames(self.game, self._offset + first, self._offset + stop_block)
            self._block = start, frames
        return frames[first - start : stop - start].copy()

    def _played_again(self, seed: int, tries: Iterable[float]) -> Rerun | None:
        """The game that shows the recorded frames when it is played again, with one of ``tries`` as sticky actions."""
        for sticky in tries:
            rerun = Rerun(self.game, seed, self.actions, float(sticky))
            recorded = self.frames(0, min(BLOCK, len(self)))
            seen = (_sight_of(rerun, step) for step in range(len(recorded)))
            if all(sight is not None and np.array_equal(sight.frame, recorded[step])
                   for step, sight in enumerate(seen)):  # fmt: skip
                return rerun
        return None


def _sight_of(rerun: Rerun, step: int) -> Sight | None:
    """None: another game, which ended or does not know the action."""
    try:
        return rerun.sight(step)
    except (RuntimeError, ValueError):
        return None
