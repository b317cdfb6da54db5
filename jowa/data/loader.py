"""From segments to arrays, ahead of whoever trains on them; and the plain way through Zarr, the oracle."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from jowa.data.arrays import Rows, native
from jowa.data.returns import observed_returns
from jowa.data.segments import SegmentIndex, Windows
from jowa.data.store import EpisodeStore
from jowa.data.tokens import TOKENS, TokenStore
from jowa.errors import DataError
from jowa.games import get_game
from jowa.types import Segments

Allocate = Callable[[tuple[int, ...], Any], NDArray[Any]]
"""Makes an uninitialised array of a shape and dtype: ``np.empty``, or one of pinned memory."""


class SegmentLoader:
    """Reads batches of segments of a store: decodes what they need of it, in native threads, and nothing else.

    Memory and start-up time do not depend on the size of the store.  One thread at a time may call :meth:`read`.
    """

    def __init__(
        self,
        store: EpisodeStore,
        index: SegmentIndex,
        tasks: Mapping[str, int] | None = None,
        frames: bool = True,
        tokens: TokenStore | None = None,
        threads: int = 0,
        prefetch: bool = False,
        gamma: float | None = None,
    ) -> None:
        """``tasks``: game name to task id, for games that borrow one; the others keep their own.

        ``frames``: whether pixels are read; ``tokens``: where to read tokens from.  ``threads``: 0 for one a core.
        ``prefetch``: ask the system for all of a batch's chunks before decoding the first; worth its calls where the
        store is larger than the memory that caches it.  ``gamma``: the discount of the observed returns, which then
        are in each batch (and every step's in memory, 4 bytes each); None: without.
        Raises :class:`DataError` when an array is missing or damaged.
        """
        self.store = store
        self.index = index
        self.threads = threads or len(_own_cores())
        self.prefetch = prefetch
        self._tasks = np.array([(tasks or {}).get(name, get_game(name).task_id) for name in index.games], np.int64)
        self._legal = np.stack([get_game(name).action_mask for name in index.games])
        names = [*(["frames"] if frames else []), "actions", "rewards"]
        self._arrays: dict[str, list[Rows]] = {name: [store.rows(game, name) for game in index.games] for name in names}
        if tokens is not None:
            self._arrays[TOKENS] = [tokens.rows(store, game) for game in index.games]
        self._returns = None if gamma is None else observed_returns(store, index, gamma)

    def read(self, ids: NDArray[np.int64], allocate: Allocate = np.empty) -> Segments:
        """The segments ``ids`` int64 (B,) as one batch, in arrays that come from ``allocate``.

        Raises :class:`DataError` naming the damaged file and episode.
        """
        windows = self.index.look_up(ids)
        shape = (len(windows.first), self.index.length)
        out = {
            name: allocate((*shape, *rows[0].info.row_shape), rows[0].info.dtype) for name, rows in self._arrays.items()
        }
        self._fetch(windows)
        self._gather(windows, out)
        mask = np.arange(self.index.length) < windows.count[:, None]
        ends = np.zeros(shape, np.bool_)
        ends[np.arange(len(windows.first)), windows.count - 1] = windows.ends_terminal
        return Segments(
            frames=out.get("frames"),
            tokens=out.get(TOKENS),
            actions=out["actions"].astype(np.int64),
            rewards=out["rewards"],
            ends=ends,
            mask=mask,
            tasks=self._tasks[windows.game],
            legal=self._legal[windows.game],
            returns=self._observed(windows, mask),
        )

    def _observed(self, windows: Windows, mask: NDArray[np.bool_]) -> NDArray[np.float32] | None:
        if self._returns is None:
            return None
        out = np.zeros(mask.shape, np.float32)
        rows = windows.first[:, None] + np.arange(self.index.length)
        for number in np.unique(windows.game):
            chosen = mask & (windows.game == number)[:, None]
            out[chosen] = self._returns[number][rows[chosen]]
        return out

    def _fetch(self, windows: Windows) -> None:
        """Bring the shards of a remote store here first."""
        if not self.store.is_remote:
            return
        for name in self._arrays:
            for number in np.unique(windows.game) if name != TOKENS else ():
                chosen = windows.game == number
                first = windows.first[chosen]
                self.store.fetch(self.index.games[number], name, first, first + windows.count[chosen])

    def _gather(self, windows: Windows, out: Mapping[str, NDArray[Any]]) -> None:
        fault = native().gather(
            [[rows.reader for rows in readers] for readers in self._arrays.values()],
            [out[name] for name in self._arrays],
            windows.game, windows.first, windows.count, self.index.length, self.threads, self.prefetch,
        )  # fmt: skip
        if fault is not None:
            window, array, found = fault
            assert found is not None
            game, name = int(windows.game[window]), list(self._arrays)[array]
            raise self.store.damaged(self.index.games[game], self._arrays[name][game].damage(found), name)


Item = TypeVar("Item")
_LOOK_EVERY = 1.0
"""Seconds after which whoever waits for a batch looks whether somebody is making it."""


class Prefetcher(Generic[Item]):
    """Makes ``make(first)``, ``make(first + 1)``, … in a thread of its own, up to ``ahead`` of them in advance."""

    def __init__(self, make: Callable[[int], Item], first: int, ahead: int = 2) -> None:
        self._make = make
        self._next = first
        self._ready: queue.Queue[tuple[int, Item | BaseException]] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(first,), name="prefetch", daemon=True)
        self._thread.start()

    def get(self, number: int) -> Item:
        """``make(number)``.  In order they are ready; any other number is made at once, and the order goes on.

        Raises what ``make`` raised.
        """
        if number != self._next or self._stopped.is_set():
            return self._make(number)
        made, item = self._take()
        assert made == number
        if isinstance(item, BaseException):
            self.close()
            raise item
        self._next += 1
        return item

    def _take(self) -> tuple[int, Item | BaseException]:
        while True:
            alive = self._thread.is_alive()  # asked first: what it made last is there by then
            try:
                return self._ready.get(timeout=_LOOK_EVERY if alive else 0)
            except queue.Empty:
                if not alive:
                    raise DataError(
                        "the thread that reads ahead died without saying why, expected it to live as long as its "
                        "reader (is memory short?): run the same command again"
                    ) from None

    def close(self) -> None:
        """Stop making more; closing twice is fine."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, number: int) -> None:
        while not self._stopped.is_set():
            try:
                item: Item | BaseException = self._make(number)
            except BaseException as error:
                item = error
            self._ready.put((number, item))
            if isinstance(item, BaseException):
                return
            number += 1


def _own_cores() -> Sequence[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


def read_segment(
    store: EpisodeStore, index: SegmentIndex, segment: int, tasks: Mapping[str, int] | None = None
) -> Segments:
    """Segment number ``segment`` as a batch of one, straight from the store: the slow, plain oracle of loaders.

    Open the store with ``native=False`` for what zarr-python reads.
    """
    windows = index.look_up(np.array([segment]))
    game = get_game(index.games[int(windows.game[0])])
    first, count = int(windows.first[0]), int(windows.count[0])
    containing = [e for e in store.episodes(game.name) if e.offset <= first < e.offset + e.length]
    if len(containing) != 1 or first + count > containing[0].offset + containing[0].length:
        raise DataError(f"segment {segment} of {game.name} crosses episodes: the index is of another data set")
    frames, actions, rewards = store.read(game.name, first, first + count)
    episode, padding = containing[0], index.length - count
    last = first + count == episode.offset + episode.length
    steps = np.arange(index.length)
    return Segments(
        frames=np.concatenate([frames, np.zeros((padding, 84, 84), np.uint8)])[None],
        tokens=None,
        actions=np.concatenate([actions, np.zeros(padding, np.uint8)]).astype(np.int64)[None],
        rewards=np.concatenate([rewards, np.zeros(padding, np.float32)])[None],
        ends=((steps == count - 1) & (last and episode.terminal))[None],
        mask=(steps < count)[None],
        tasks=np.array([(tasks or {}).get(game.name, game.task_id)], np.int64),
        legal=game.action_mask[None],
    )
