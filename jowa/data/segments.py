"""Which steps form a training sample: windows of L steps, and which of them a training step draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jowa.data.store import EpisodeStore
from jowa.errors import DataError, UsageError


@dataclass(frozen=True)
class SegmentIndex:
    """All segments of some games, one row each.

    A segment starts every ``stride`` steps of an episode and holds up to ``length`` steps of it; the last
    ones of an episode are shorter and get padded on the right.  With ``stride <= length`` every step of
    every episode, the terminal one included, is in at least one segment; with ``stride < length`` so is
    every pair of a step and its successor.
    """

    games: tuple[str, ...]
    length: int
    """Steps of a segment, padding included."""
    stride: int
    game: NDArray[np.int16]
    """int16 (S,): index into ``games``."""
    first: NDArray[np.int64]
    """int64 (S,): first step, absolute in the game's arrays."""
    count: NDArray[np.int16]
    """int16 (S,): real steps, 1 to ``length``."""
    ends_terminal: NDArray[np.bool_]
    """bool (S,): true when the last real step is one after which the game ended."""

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def build(
        cls, store: EpisodeStore, games: Sequence[str] | None = None, length: int = 8, stride: int = 4
    ) -> SegmentIndex:
        """The segments of ``games`` (default: all of the store's), in order of game, episode, start."""
        if length < 1 or not 1 <= stride <= length:
            raise UsageError(f"segments of {length} steps every {stride}: expected 1 <= stride <= length")
        names = tuple(store.games if games is None else games)
        if not names:
            raise UsageError("no games chosen for segments: name at least one")
        parts = []
        for number, name in enumerate(names):
            table = store.table(name)
            first, count, ends = windows(table["offset"], table["length"], table["terminal"], length, stride)
            parts.append((np.full(len(first), number, np.int16), first, count, ends))
        game, first, count, ends = (np.concatenate(column) for column in zip(*parts, strict=True))
        return cls(names, length, stride, game, first, count, ends)


def windows(
    offsets: NDArray[np.int64],
    lengths: NDArray[np.int64],
    terminal: NDArray[np.bool_],
    length: int,
    stride: int,
) -> tuple[NDArray[np.int64], NDArray[np.int16], NDArray[np.bool_]]:
    """Starts, real steps and "ends in a terminal" of every window of the given episodes (E,) → (S,) each."""
    per_episode = -(-lengths // stride)
    episode = np.repeat(np.arange(len(lengths)), per_episode)
    within = np.arange(len(episode)) - np.repeat(np.cumsum(per_episode) - per_episode, per_episode)
    start = within * stride
    left = lengths[episode] - start
    count = np.minimum(left, length)
    return offsets[episode] + start, count.astype(np.int16), terminal[episode] & (left <= length)


class SegmentSampler:
    """Draws the segments of every training step; a pure function of (seed, step), so it has no state to save.

    Uniform over segments: each epoch is one permutation, every segment once; an incomplete last batch is
    filled from the next epoch's permutation.  With ``balance_games`` every draw picks a game uniformly first;
    each game then goes through its own permutations at its own pace.
    """

    def __init__(
        self,
        index: SegmentIndex,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        balance_games: bool = False,
    ) -> None:
        """``batch_size``: of all ranks together.  Raises :class:`UsageError` when it does not divide by ``world``."""
        if batch_size < 1 or world < 1 or batch_size % world or not 0 <= rank < world:
            raise UsageError(f"batch of {batch_size} for rank {rank} of {world}: expected a multiple of the ranks")
        if len(index) == 0:
            raise DataError("no segments to draw from: the data set is empty")
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.balance_games = balance_games
        order = np.argsort(index.game, kind="stable")
        counts = np.bincount(index.game, minlength=len(index.games))
        groups = np.split(order, np.cumsum(counts)[:-1]) if balance_games else [np.arange(len(index))]
        self._groups = [group for group in groups if len(group)]
        self._cache: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def indices(self, step: int) -> NDArray[np.int64]:
        """int64 (batch_size / world,): this rank's rows of the index for training step ``step`` (from 0)."""
        draws = np.arange(self.batch_size, dtype=np.int64) + step * self.batch_size
        # Draw d takes game d mod G: exactly balanced over any G draws, and a function of d alone.
        group, turn = draws % len(self._groups), draws // len(self._groups)
        batch = np.empty(self.batch_size, np.int64)
        for number in np.unique(group):
            chosen = group == number
            batch[chosen] = self._draw(int(number), turn[chosen])
        share = self.batch_size // self.world
        return batch[self.rank * share : (self.rank + 1) * share]

    def _draw(self, group: int, turns: NDArray[np.int64]) -> NDArray[np.int64]:
        size = len(self._groups[group])
        rows = np.empty(len(turns), np.int64)
        for epoch in np.unique(turns // size):
            chosen = turns // size == epoch
            rows[chosen] = self._permutation(group, int(epoch))[turns[chosen] % size]
        return rows

    def _permutation(self, group: int, epoch: int) -> NDArray[np.int64]:
        cached = self._cache.get(group)
        if cached is None or cached[0] != epoch:
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, group, epoch))))
            cached = (epoch, generator.permutation(self._groups[group]))
            self._cache[group] = cached
        return cached[1]
