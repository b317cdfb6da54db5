"""The episode store: whole episodes of Atari play in plain Zarr v3.  Layout and promises: docs/dataset.md."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from jowa.data import lock as locking
from jowa.data import schema
from jowa.data.schema import EPISODE_ARRAYS, NUM_EPISODES, NUM_STEPS, POLICIES, STEP_ARRAYS
from jowa.errors import DataError, UsageError
from jowa.games import get_game
from jowa.types import Episode


@dataclass(frozen=True)
class EpisodeInfo:
    """One row of a game's episode table."""

    offset: int
    """Index of the episode's first step in the game's step arrays."""
    length: int
    """Agent steps."""
    terminal: bool
    """True when the game ended after the last step, False when the episode was cut off."""
    seed: int
    score: float
    """Raw game points."""
    policy: str


class EpisodeStore:
    """A store opened for reading: a snapshot of what was committed when it was opened."""

    def __init__(self, path: Path, attributes: dict[str, Any], committed: dict[str, dict[str, Any]]) -> None:
        """Use :meth:`open`."""
        self.path = path
        self.attributes = attributes
        """The root group's attributes: schema, version, how the data were recorded."""
        self._committed = committed
        self._arrays: dict[tuple[str, str], zarr.Array[Any]] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> EpisodeStore:
        """Open the store at ``path``.

        Raises :class:`DataError` when it is missing, empty, damaged, or of another schema version.
        """
        folder = Path(path)
        attributes = schema.check_root(folder)
        committed = {name: schema.check_game(folder, name) for name in schema.game_names(folder)}
        committed = {name: counts for name, counts in committed.items() if counts[NUM_EPISODES]}
        if not committed:
            raise DataError(f"the data set {folder} holds no finished episode: record some with python -m jowa.record")
        return cls(folder, attributes, committed)

    @property
    def games(self) -> tuple[str, ...]:
        """Games with at least one episode, alphabetically."""
        return tuple(self._committed)

    def num_steps(self, game: str) -> int:
        """Committed agent steps of ``game``."""
        return int(self._counts(game)[NUM_STEPS])

    def num_episodes(self, game: str) -> int:
        """Committed episodes of ``game``."""
        return int(self._counts(game)[NUM_EPISODES])

    def table(self, game: str) -> dict[str, NDArray[Any]]:
        """The columns of the episode table, each (episodes,): offset, length, terminal, seed, score, policy.

        Raises :class:`DataError` when the table is damaged or contradicts itself.
        """
        count = self.num_episodes(game)
        columns = {
            name.removeprefix("episode_"): self._read_array(game, name, 0, count, "the episode table")
            for name in EPISODE_ARRAYS
        }
        lengths, offsets = columns["length"], columns["offset"]
        expected = np.concatenate([[0], np.cumsum(lengths)])
        policies = self._counts(game)[POLICIES]
        whole = np.array_equal(offsets, expected[:-1]) and expected[-1] == self.num_steps(game) and lengths.min() > 0
        if not whole or int(columns["policy"].max()) >= len(policies):
            raise DataError(
                f"the episode table of {game} in {self.path} contradicts {game}/zarr.json: "
                "restore the folder from a copy, or record this game anew"
            )
        return columns

    def episodes(self, game: str) -> list[EpisodeInfo]:
        """The episodes of ``game`` in the order they were committed."""
        columns = self.table(game)
        policies: list[str] = self._counts(game)[POLICIES]
        names = ("offset", "length", "terminal", "seed", "score")
        rows = zip(*(columns[name].tolist() for name in names), columns["policy"].tolist(), strict=True)
        return [EpisodeInfo(*values, policy=policies[policy]) for *values, policy in rows]  # type: ignore[misc]

    def read_episode(self, game: str, index: int) -> Episode:
        """Episode number ``index`` of ``game``.  Raises :class:`DataError` naming what is damaged."""
        episodes = self.episodes(game)
        if not 0 <= index < len(episodes):
            raise UsageError(f"{game} has no episode {index}: choose 0 to {len(episodes) - 1}")
        info = episodes[index]
        frames, actions, rewards = self.read(game, info.offset, info.offset + info.length)
        return Episode(game, frames, actions, rewards, info.terminal, info.policy, info.seed, info.score)

    def read(
        self, game: str, start: int, stop: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
        """Steps ``start`` to ``stop`` (exclusive) of ``game``, across episodes.

        Returns frames uint8 (n, 84, 84), actions uint8 (n,), rewards float32 (n,) in [-1, 1].
        Raises :class:`DataError` naming the file and the episode when a chunk is missing or damaged.
        """
        return self.read_frames(game, start, stop), *self.read_scalars(game, start, stop)

    def read_frames(self, game: str, start: int, stop: int) -> NDArray[np.uint8]:
        """The frames of :meth:`read` alone."""
        return self._read_steps(game, "frames", start, stop)

    def read_scalars(self, game: str, start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The actions and rewards of :meth:`read` alone."""
        return self._read_steps(game, "actions", start, stop), self._read_steps(game, "rewards", start, stop)

    def _read_steps(self, game: str, name: str, start: int, stop: int) -> NDArray[Any]:
        if not 0 <= start <= stop <= self.num_steps(game):
            raise UsageError(f"steps {start} to {stop} of {game}: it has {self.num_steps(game)}")
        return self._read_array(game, name, start, stop, f"steps {start} to {stop}")

    def _counts(self, game: str) -> dict[str, Any]:
        if game not in self._committed:
            get_game(game)
            raise DataError(f"{self.path} has no episodes of {game}: it has {', '.join(self.games)}")
        return self._committed[game]

    def _open_array(self, game: str, name: str) -> zarr.Array[Any]:
        if (game, name) not in self._arrays:
            place = self.path / game / name
            try:
                array = zarr.open_array(place, mode="r", zarr_format=3)
            except Exception as error:  # whatever zarr makes of a missing or mangled document
                raise DataError(f"{place} is damaged ({_first_line(error)}): restore it from a copy") from None
            rows = self.num_episodes(game) if name in EPISODE_ARRAYS else self.num_steps(game)
            if array.shape[0] < rows:
                raise DataError(f"{place} is truncated: it has {array.shape[0]} rows, expected {rows}; restore a copy")
            self._arrays[game, name] = array
        return self._arrays[game, name]

    def _read_array(self, game: str, name: str, start: int, stop: int, where: str) -> NDArray[Any]:
        array = self._open_array(game, name)
        for piece in self._pieces(array, start, stop):  # zarr would read an absent or empty file as zeros
            file = schema.shard_file(self.path, game, name, piece.start // _rows_per_file(array))
            if not file.is_file() or file.stat().st_size == 0:
                raise self._damage(game, name, piece, file, "the file is missing or empty")
        try:
            return np.asarray(array[start:stop])
        except Exception as error:  # codecs raise ValueError, RuntimeError, zstd's own errors, OSError
            for piece in self._pieces(array, start, stop):
                try:
                    array[piece]
                except Exception as cause:
                    file = schema.shard_file(self.path, game, name, piece.start // _rows_per_file(array))
                    raise self._damage(game, name, piece, file, _first_line(cause)) from None
            raise DataError(f"{where} of {game} in {self.path} could not be read: {_first_line(error)}") from None

    @staticmethod
    def _pieces(array: zarr.Array[Any], start: int, stop: int) -> Iterator[slice]:
        """The parts of [start, stop) that lie in one chunk each, so that an error can name the place."""
        rows, first = array.chunks[0], start
        while first < stop:
            last = min(stop, (first // rows + 1) * rows)
            yield slice(first, last)
            first = last

    def _damage(self, game: str, name: str, piece: slice, file: Path, reason: str) -> DataError:
        episode = ""
        if name in STEP_ARRAYS:
            with contextlib.suppress(DataError):
                lengths = self._read_array(game, "episode_length", 0, self.num_episodes(game), "")
                first, last = np.searchsorted(np.cumsum(lengths), (piece.start, piece.stop - 1), side="right")
                episode = f" (episode {first})" if first == last else f" (episodes {first} to {last})"
        return DataError(
            f"{file} is damaged at steps {piece.start} to {piece.stop} of {game}{episode}: {reason}; "
            "restore the file from a copy, or record this game anew"
        )


def _rows_per_file(array: zarr.Array[Any]) -> int:
    return int((array.shards or array.chunks)[0])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class EpisodeWriter:
    """Appends whole episodes to a store; one writer at a time.

    An episode is committed by one atomic replacement of ``<game>/zarr.json``; before that moment no
    reader sees any of it, and a writer that opens the store later overwrites what was left behind.
    """

    def __init__(self, path: Path, root: zarr.Group, lock: int) -> None:
        """Use :meth:`open`."""
        self.path = path
        self._root = root
        self._lock = lock
        self._groups: dict[str, zarr.Group] = {}
        self._committed: dict[str, dict[str, Any]] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> EpisodeWriter:
        """Create the store at ``path``, or resume it.

        Raises :class:`DataError` when the folder holds something else, a damaged store, another schema
        version, or when another writer is at work; OSError when the folder cannot be written.
        """
        folder = Path(path)
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder} is a file: choose a folder for the data set")
        if not locking.is_blank(folder):
            schema.check_root(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock = locking.take_lock(folder)
        try:
            is_blank = locking.is_blank(folder)  # looked at again: another writer may just have finished
            locking.remove_leftovers(folder)
            if is_blank:
                attributes: dict[str, Any] = {"schema": schema.SCHEMA, "version": schema.VERSION}
                zarr.create_group(folder, zarr_format=3, attributes=attributes)
            writer = cls(folder, zarr.open_group(folder, mode="r+", zarr_format=3), lock)
            for name in schema.game_names(folder):
                writer._resume(name)
        except BaseException:
            os.close(lock)
            raise
        return writer

    @property
    def attributes(self) -> dict[str, Any]:
        """The root attributes (a copy)."""
        return dict(self._root.attrs)

    def update_attributes(self, values: dict[str, Any]) -> None:
        """Merge ``values`` (JSON types) into the root attributes, atomically."""
        if {"schema", "version"} & values.keys():
            raise UsageError("schema and version of a data set are fixed: choose other attribute names")
        self._root.update_attributes(values)  # one write; `attrs.update` would make one per key

    def num_episodes(self, game: str) -> int:
        """Committed episodes of ``game``; 0 for a game that the store does not have yet."""
        return self._count(game, NUM_EPISODES)

    def num_steps(self, game: str) -> int:
        """Committed agent steps of ``game``."""
        return self._count(game, NUM_STEPS)

    def append(self, episode: Episode) -> None:
        """Write and commit one episode.

        Raises :class:`DataError` for arrays that break the schema, OSError when the disk is full;
        in both cases the store keeps exactly the episodes it had.
        """
        schema.check_episode(episode)
        group = self._groups[episode.game] if episode.game in self._groups else self._create(episode.game)
        first, count = self.num_steps(episode.game), self.num_episodes(episode.game)
        policies: list[str] = list(self._committed[episode.game][POLICIES])
        if episode.policy not in policies:
            policies.append(episode.policy)
        row = {
            "episode_offset": first,
            "episode_length": len(episode),
            "episode_terminal": episode.terminal,
            "episode_seed": episode.seed,
            "episode_score": episode.score,
            "episode_policy": policies.index(episode.policy),
        }
        with zarr.config.set({"array.write_empty_chunks": True}):
            for name in STEP_ARRAYS:
                _write_rows(group, name, first, getattr(episode, name))
            for name, value in row.items():
                _write_rows(group, name, count, np.array([value], dtype=EPISODE_ARRAYS[name]))
        self._commit(episode.game, {NUM_EPISODES: count + 1, NUM_STEPS: first + len(episode), POLICIES: policies})

    def close(self) -> None:
        """Let go of the lock; closing twice is fine."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _count(self, game: str, key: str) -> int:
        return int(self._committed[game][key]) if game in self._committed else 0

    def _commit(self, game: str, counts: dict[str, Any]) -> None:
        try:
            self._groups[game].update_attributes(counts)  # one write; `attrs.update` would make one per key
        except BaseException:
            # zarr changed its copy in memory before it failed to write: forget that copy.
            self._groups[game] = zarr.open_group(self.path / game, mode="r+", zarr_format=3)
            raise
        self._committed[game] = counts

    def _create(self, game: str) -> zarr.Group:
        self._groups[game] = schema.create_game_group(self._root, self.path, get_game(game).name)
        self._committed[game] = schema.check_game(self.path, game)
        return self._groups[game]

    def _resume(self, game: str) -> None:
        """Cut every array of ``game`` back to what was committed."""
        committed = schema.check_game(self.path, game)
        group = zarr.open_group(self.path / game, mode="r+", zarr_format=3)
        for name in (*STEP_ARRAYS, *EPISODE_ARRAYS):
            rows = committed[NUM_EPISODES if name in EPISODE_ARRAYS else NUM_STEPS]
            array = _array(group, name)
            if array.shape[0] < rows:
                raise DataError(f"{self.path / game / name} is truncated: {array.shape[0]} rows, expected {rows}")
            if array.shape[0] > rows:
                array.resize((rows, *array.shape[1:]))
        self._groups[game], self._committed[game] = group, committed


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    try:
        array = group[name]
    except Exception as error:
        raise DataError(f"{group.store_path}/{name} is damaged ({_first_line(error)}): restore a copy") from None
    if not isinstance(array, zarr.Array):
        raise DataError(f"{group.store_path}/{name} is not an array: restore it from a copy")
    return array


def _write_rows(group: zarr.Group, name: str, first: int, rows: NDArray[Any]) -> None:
    array = _array(group, name)
    array.resize((first + len(rows), *array.shape[1:]))
    array[first : first + len(rows)] = rows
