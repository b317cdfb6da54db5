"""Which steps form a training sample: windows of L steps, and which of them a training step draws.

Nothing here grows with the number of segments: a window is computed from the table of episodes, and an epoch's order
from a keyed permutation of the integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from jowa.data.store import EpisodeStore
from jowa.errors import DataError, UsageError


@dataclass(frozen=True)
class Windows:
    """Some segments: where each one's steps lie."""

    game: NDArray[np.int32]
    """int32 (B,): index into the index's ``games``."""
    first: NDArray[np.int64]
    """int64 (B,): row of the first step in the game's arrays."""
    count: NDArray[np.int64]
    """int64 (B,): real steps, 1 to the index's ``length``."""
    ends_terminal: NDArray[np.bool_]
    """bool (B,): true when the last real step is one after which the game ended."""


class SegmentIndex:
    """All segments of some games, numbered in order of game, episode, start.

    A segment starts every ``stride`` steps of an episode and holds up to ``length`` steps of it; the last
    ones of an episode are shorter and get padded on the right.  With ``stride <= length`` every step of
    every episode, the terminal one included, is in at least one segment; with ``stride < length`` so is
    every pair of a step and its successor.
    """

    def __init__(
        self, games: Sequence[str], tables: Sequence[dict[str, NDArray[np.int64]]], length: int, stride: int
    ) -> None:
        """Use :meth:`build`, or give for each game the columns offset, length and terminal of its episodes (all of
        them, or those of a part: :func:`jowa.data.subset.draw_transitions`)."""
        if length < 1 or not 1 <= stride <= length:
            raise UsageError(f"segments of {length} steps every {stride}: expected 1 <= stride <= length")
        if not games:
            raise UsageError("no games chosen for segments: name at least one")
        self.games = tuple(games)
        self.length = length
        """Steps of a segment, padding included."""
        self.stride = stride
        self._game = np.repeat(np.arange(len(games), dtype=np.int32), [len(table["length"]) for table in tables])
        self._offset, self._steps, self._terminal = (
            np.concatenate([table[name] for table in tables]) for name in ("offset", "length", "terminal")
        )
        # Episode e holds the segments number starts[e] to starts[e + 1].
        self._starts = np.concatenate([[0], np.cumsum(-(-self._steps // stride))]).astype(np.int64)
        firsts = np.searchsorted(self._game, np.arange(len(games) + 1))
        self.game_starts: NDArray[np.int64] = self._starts[firsts]
        """int64 (games + 1,): game g holds the segments number ``game_starts[g]`` to ``game_starts[g + 1]``."""

    def __len__(self) -> int:
        return int(self._starts[-1])

    @classmethod
    def build(
        cls, store: EpisodeStore, games: Sequence[str] | None = None, length: int = 8, stride: int = 4
    ) -> SegmentIndex:
        """The segments of ``games`` (default: all of the store's)."""
        names = tuple(store.games if games is None else games)
        return cls(names, [store.table(name) for name in names], length, stride)

    def episodes(self, game: int) -> list[tuple[int, int]]:
        """First row and number of steps of each episode, or part of one, of game number ``game``."""
        own = self._game == game
        return list(zip(self._offset[own].tolist(), self._steps[own].tolist(), strict=True))

    def look_up(self, ids: NDArray[np.int64]) -> Windows:
        """Where the segments ``ids`` int64 (B,) lie.  Raises :class:`UsageError` for numbers out of range."""
        ids = np.asarray(ids, np.int64)
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(self):
            raise UsageError(f"segments {ids.min()} to {ids.max()}: there are {len(self)}")
        episode = np.searchsorted(self._starts, ids, side="right") - 1
        start = (ids - self._starts[episode]) * self.stride
        left = self._steps[episode] - start
        return Windows(
            self._game[episode],
            self._offset[episode] + start,
            np.minimum(left, self.length),
            self._terminal[episode] & (left <= self.length),
        )


SHUFFLED_OUTRIGHT = 1 << 16
"""Permutations of fewer integers are drawn as a whole: a network of so few bits would favour some of them."""
ROUNDS = 8


class Permutation:
    """A pseudo-random permutation of 0 .. size - 1 that needs no memory: place ``i`` is computed when it is asked for.

    A Feistel network over the next power of four, walked until it lands below ``size`` (Black and Rogaway 2002; as
    a shuffle: Mitchell et al. 2021, arXiv 2106.06161).
    """

    def __init__(self, size: int, seed: tuple[int, ...]) -> None:
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
        self._size = size
        self._table = generator.permutation(size) if size < SHUFFLED_OUTRIGHT else None
        self._half = np.uint64(((size - 1).bit_length() + 1) // 2)
        self._mask = np.uint64((1 << int(self._half)) - 1)
        self._keys = generator.integers(0, 2**64, ROUNDS, dtype=np.uint64)

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The integers at ``places`` int64 (n,)."""
        if self._table is not None:
            return self._table[places]
        values = self._encrypt(places.astype(np.uint64))
        while (outside := values >= np.uint64(self._size)).any():
            values[outside] = self._encrypt(values[outside])
        return values.astype(np.int64)

    def _encrypt(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._mask)
        return (left << self._half) | right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


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
        borders = index.game_starts.tolist() if balance_games else [0, len(index)]
        self._groups = [(low, high) for low, high in pairwise(borders) if high > low]
        self._cache: dict[int, tuple[int, Permutation]] = {}

    def indices(self, step: int) -> NDArray[np.int64]:
        """int64 (batch_size / world,): this rank's segments for training step ``step`` (from 0)."""
        share = self.batch_size // self.world
        draws = np.arange(share, dtype=np.int64) + (step * self.batch_size + self.rank * share)
        # Draw d takes game d mod G: exactly balanced over any G draws, and a function of d alone.
        group, turn = draws % len(self._groups), draws // len(self._groups)
        batch = np.empty(share, np.int64)
        for number in np.unique(group):
            chosen = group == number
            batch[chosen] = self._draw(int(number), turn[chosen])
        return batch

    def _draw(self, group: int, turns: NDArray[np.int64]) -> NDArray[np.int64]:
        low, high = self._groups[group]
        rows = np.empty(len(turns), np.int64)
        for epoch in np.unique(turns // (high - low)):
            chosen = turns // (high - low) == epoch
            rows[chosen] = low + self._permutation(group, int(epoch))(turns[chosen] % (high - low))
        return rows

    def _permutation(self, group: int, epoch: int) -> Permutation:
        cached = self._cache.get(group)
        if cached is None or cached[0] != epoch:
            low, high = self._groups[group]
            cached = (epoch, Permutation(high - low, (self.seed, group, epoch)))
            self._cache[group] = cached
        return cached[1]
