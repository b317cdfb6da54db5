"""From segments to arrays: everything in memory for small sets, and the plain oracle through Zarr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from jowa.data.segments import SegmentIndex
from jowa.data.store import EpisodeStore
from jowa.errors import DataError, UsageError
from jowa.games import get_game
from jowa.types import Segments

TOKENS_PER_FRAME = 36


class InMemoryEpisodes:
    """All steps of some games in memory: 7 KB a frame, 282 MB for 40,000 frames."""

    def __init__(
        self,
        games: tuple[str, ...],
        frames: Mapping[str, NDArray[np.uint8]],
        actions: Mapping[str, NDArray[np.uint8]],
        rewards: Mapping[str, NDArray[np.float32]],
        tasks: Mapping[str, int] | None = None,
    ) -> None:
        """Use :meth:`load`, or give per game frames (N, 84, 84), actions (N,), rewards (N,) in [-1, 1]."""
        self.games = games
        self.frames = frames
        self.actions = actions
        self.rewards = rewards
        self.tasks = {name: get_game(name).task_id for name in games} | dict(tasks or {})
        """Task id of each game."""

    @classmethod
    def load(
        cls,
        store: EpisodeStore,
        games: Sequence[str] | None = None,
        tasks: Mapping[str, int] | None = None,
        frames: bool = True,
    ) -> InMemoryEpisodes:
        """Read ``games`` (default: all) whole.

        ``tasks``: game name → task id, for games that borrow one; the others keep their own.
        ``frames=False`` leaves the pixels on disk, for training on tokens.
        Raises :class:`DataError` naming what is damaged.
        """
        names = tuple(store.games if games is None else games)
        pixels, actions, rewards = {}, {}, {}
        for name in names:
            steps = store.num_steps(name)
            actions[name], rewards[name] = store.read_scalars(name, 0, steps)
            if frames:
                pixels[name] = store.read_frames(name, 0, steps)
        return cls(names, pixels, actions, rewards, tasks)

    def gather(
        self,
        index: SegmentIndex,
        ids: NDArray[np.int64],
        tokens: Mapping[str, NDArray[np.uint16]] | None = None,
    ) -> Segments:
        """The segments ``ids`` int64 (B,) of ``index`` as one batch.

        With ``tokens`` (per game uint16 (N, 36), row n the tokens of frame n) the batch's ``frames`` field
        holds them, int64 (B, L, 36), padding 0, instead of pixels.
        """
        ids = np.asarray(ids, dtype=np.int64)
        shape = (len(ids), index.length)
        count = index.count[ids]
        mask = np.arange(index.length) < count[:, None]
        source: Mapping[str, NDArray[np.uint8] | NDArray[np.uint16]] = self.frames if tokens is None else tokens
        row = (84, 84) if tokens is None else (TOKENS_PER_FRAME,)
        frames = np.zeros((*shape, *row), np.uint8 if tokens is None else np.int64)
        actions, rewards = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        games = index.game[ids]
        for number in np.unique(games):
            name = index.games[number]
            if name not in source:
                raise UsageError(f"{name} was not loaded: its frames (or tokens) are not in memory")
            rows = np.flatnonzero(games == number)
            batch_row, step = np.nonzero(mask[rows])
            where = index.first[ids[rows]][batch_row] + step
            frames[rows[batch_row], step] = source[name][where]
            actions[rows[batch_row], step] = self.actions[name][where]
            rewards[rows[batch_row], step] = self.rewards[name][where]
        ends = np.zeros(shape, np.bool_)
        ends[np.arange(len(ids)), count - 1] = index.ends_terminal[ids]
        tasks = np.array([self.tasks[name] for name in index.games], np.int64)[games]
        legal = np.stack([get_game(name).action_mask for name in index.games])[games]
        return Segments(frames, actions, rewards, ends, mask, tasks, legal)


def read_segment(
    store: EpisodeStore, index: SegmentIndex, segment: int, tasks: Mapping[str, int] | None = None
) -> Segments:
    """Segment number ``segment`` as a batch of one, straight from the store: the slow, plain oracle of loaders."""
    game = get_game(index.games[index.game[segment]])
    first, count = int(index.first[segment]), int(index.count[segment])
    containing = [e for e in store.episodes(game.name) if e.offset <= first < e.offset + e.length]
    if len(containing) != 1 or first + count > containing[0].offset + containing[0].length:
        raise DataError(f"segment {segment} of {game.name} crosses episodes: the index is of another data set")
    frames, actions, rewards = store.read(game.name, first, first + count)
    episode, padding = containing[0], index.length - count
    last = first + count == episode.offset + episode.length
    steps = np.arange(index.length)
    return Segments(
        frames=np.concatenate([frames, np.zeros((padding, 84, 84), np.uint8)])[None],
        actions=np.concatenate([actions, np.zeros(padding, np.uint8)]).astype(np.int64)[None],
        rewards=np.concatenate([rewards, np.zeros(padding, np.float32)])[None],
        ends=((steps == count - 1) & (last and episode.terminal))[None],
        mask=(steps < count)[None],
        tasks=np.array([(tasks or {}).get(game.name, game.task_id)], np.int64),
        legal=game.action_mask[None],
    )
