"""Recorded moments to measure at, and what followed them.

Letters: N moments, K steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jowa.data.store import EpisodeStore
from jowa.dream.world import Start
from jowa.errors import DataError

FEW_EPISODES = 10
"""With fewer, a resampling of whole episodes says little: stretches of :data:`STRETCH` steps stand for them."""
STRETCH = 256
"""Agent steps, 17 seconds of play."""


@dataclass(frozen=True)
class Moments:
    """Steps of recorded episodes of one game."""

    game: str
    episodes: NDArray[np.int64]
    """(N,)."""
    steps: NDArray[np.int64]
    """(N,): the step of the episode whose frame was the last one seen."""
    weights: NDArray[np.float64]
    """(N,): mean 1; so that moments drawn oftener than others count as often as they occur."""
    uniform: NDArray[np.bool_]
    """(N,): drawn from all moments alike."""
    units: NDArray[np.int64]
    """(N,): what is resampled for intervals."""
    unit: str
    """What that is."""
    returns: NDArray[np.float64]
    """(N,): discounted return that followed; NaN where a cut hides more than the tolerated share of it."""

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class Followed:
    """What really followed n moments; arrays are 0 where nothing happened any more."""

    starts: list[Start]
    actions: NDArray[np.int64]
    """(n, K)."""
    frames: NDArray[np.uint8]
    """(n, K, 84, 84): the frame that step k led to."""
    rewards: NDArray[np.float32]
    """(n, K), in [-1, 1]."""
    ends: NDArray[np.bool_]
    """(n, K): the game ended with step k."""
    happened: NDArray[np.bool_]
    """(n, K): step k was played."""
    seen: NDArray[np.bool_]
    """(n, K): and led to a frame that was recorded."""


def held_out(store: EpisodeStore, game: str, share: float) -> range:
    """The last ``share`` of the episodes of ``game``, at least one."""
    count = store.num_episodes(game)
    return range(count - max(1, round(count * share)), count)


def draw_moments(
    store: EpisodeStore, game: str, episodes: Sequence[int], count: int, steps: int, gamma: float, hidden: float,
    generator: np.random.Generator,
) -> Moments:  # fmt: skip
    """``count`` moments of all alike, and up to half as many again of which ``steps`` steps hold a reward or the end.

    ``hidden``: share of the discount that a cut-off may hide from a return.
    """
    columns = [_episode_columns(store, game, index, steps, gamma, hidden) for index in episodes]
    which, at, near_reward, near_end, returns = (np.concatenate(column) for column in zip(*columns, strict=True))
    everything = np.ones(len(at), dtype=np.bool_)
    chosen: list[NDArray[np.int64]] = []
    expected = np.zeros(len(at))
    for pool, wanted in ((everything, count), (near_reward, count // 4), (near_end, count // 4)):
        size = int(pool.sum())
        chosen.append(np.sort(generator.permutation(np.flatnonzero(pool))[:wanted]))
        expected += pool * (min(wanted, size) / max(size, 1))
    rows = np.concatenate(chosen)
    weights = 1 / expected[rows]
    few = len(episodes) < FEW_EPISODES
    stretch = at[rows] // STRETCH if few else np.zeros_like(rows)
    return Moments(
        game, which[rows], at[rows], weights / weights.mean(), np.arange(len(rows)) < len(chosen[0]),
        which[rows] * 1_000_000 + stretch, f"stretches of {STRETCH} steps" if few else "episodes", returns[rows],
    )  # fmt: skip


def _episode_columns(
    store: EpisodeStore, game: str, index: int, steps: int, gamma: float, hidden: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    """Of every step: episode, step, whether a reward and whether the end is near, and the return."""
    info = store.episode(game, index)
    _, rewards = store.read_scalars(game, info.offset, info.offset + info.length)
    length = info.length
    at = np.arange(length)
    last = np.minimum(at + steps, length)
    counts = np.concatenate([[0], np.cumsum(rewards != 0)])
    returns = np.zeros(length)
    following = 0.0
    for step in range(length - 1, -1, -1):
        following = returns[step] = float(rewards[step]) + gamma * following
    if not info.terminal:
        returns[gamma ** (length - at).astype(np.float64) > hidden] = np.nan
    near_end = np.full(length, info.terminal) & (at + steps >= length)
    return np.full(length, index), at, counts[last] > counts[at], near_end, returns


def read_followed(
    store: EpisodeStore, moments: Moments, context: int, steps: int, batch: int
) -> Iterator[tuple[slice, Followed]]:
    """What ``context`` frames led up to the moments and what followed, ``batch`` of them at a time."""
    for first in range(0, len(moments), batch):
        rows = slice(first, min(first + batch, len(moments)))
        yield rows, _read(store, moments, rows, context, steps)


def _read(store: EpisodeStore, moments: Moments, rows: slice, context: int, steps: int) -> Followed:
    count = rows.stop - rows.start
    starts = []
    actions, rewards = np.zeros((count, steps), np.int64), np.zeros((count, steps), np.float32)
    frames = np.zeros((count, steps, 84, 84), np.uint8)
    ends, happened, seen = (np.zeros((count, steps), np.bool_) for _ in range(3))
    places = zip(moments.episodes[rows].tolist(), moments.steps[rows].tolist(), strict=True)
    for row, (episode, step) in enumerate(places):
        info = store.episode(moments.game, episode)
        first, stop = max(0, step + 1 - context), min(step + steps + 1, info.length)
        pictures, taken, earned = store.read(moments.game, info.offset + first, info.offset + stop)
        now = step - first
        starts.append(Start(pictures[: now + 1], taken[:now].astype(np.int64)))
        played = min(steps, info.length - step)
        actions[row, :played], rewards[row, :played] = taken[now : now + played], earned[now : now + played]
        shown = len(pictures) - now - 1
        frames[row, :shown] = pictures[now + 1 :]
        happened[row, :played], seen[row, :shown] = True, True
        ends[row, played - 1] = info.terminal and step + played == info.length
    return Followed(starts, actions, frames, rewards, ends, happened, seen)


def check_store(store: EpisodeStore, games: Sequence[str]) -> None:
    """Raise :class:`DataError` unless every game has an episode."""
    for game in games:
        if game not in store.games:
            raise DataError(f"{store.path} holds no episode of {game}: choose among {', '.join(store.games)}")
