"""Writing an episode store: one writer at a time, whole episodes, each commit one rename."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from jowa.data import lock as locking
from jowa.data import schema
from jowa.data.arrays import ArrayInfo, ShardWriter
from jowa.data.remote import remote_address
from jowa.data.schema import (
    EPISODE_ARRAYS,
    NUM_EPISODES,
    NUM_ROWS,
    NUM_STEPS,
    POLICIES,
    STEP_ARRAYS,
    STEPS_PER_SHARD,
    Layout,
)
from jowa.errors import DataError, UsageError
from jowa.games import GAMES
from jowa.types import Episode


class EpisodeWriter:
    """Appends whole episodes to a store.

    Episodes are committed by one atomic replacement of ``<game>/zarr.json``; before that moment no reader sees
    any of them, and a writer that opens the store later overwrites what was left behind.
    """

    def __init__(self, path: Path, layout: Layout, lock: int) -> None:
        """Use :meth:`open`."""
        self.path = path
        self.layout = layout
        """How the frames of games that are new to the store are packed."""
        self._lock = lock
        self._committed: dict[str, dict[str, Any]] = {}
        self._writers: dict[str, dict[str, ShardWriter]] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str], layout: str = "default") -> EpisodeWriter:
        """Create the store at ``path``, or resume it.

        Raises :class:`DataError` when the folder holds something else, a damaged store, another schema
        version, or when another writer is at work; OSError when the folder cannot be written.
        """
        packing = schema.get_layout(layout)
        folder = Path(path)
        if address := remote_address(path):
            raise UsageError(f"{address} is an address: data sets are written to folders; choose one and copy it there")
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder} is a file: choose a folder for the data set")
        if not locking.is_blank(folder):
            _check_version(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock = locking.take_lock(folder)
        try:
            is_blank = locking.is_blank(folder)  # looked at again: another writer may just have finished
            locking.remove_leftovers(folder, [*(game.name for game in GAMES), ".import"])
            writer = cls(folder, packing, lock)
            if is_blank:
                attributes: dict[str, Any] = {"schema": schema.SCHEMA, "version": schema.VERSION}
                document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
                schema.write_document(folder / "zarr.json", document)
            for name in schema.game_names(folder):
                writer._resume(name)
        except BaseException:
            os.close(lock)
            raise
        return writer

    @property
    def attributes(self) -> dict[str, Any]:
        """The root attributes (a copy)."""
        return schema.check_root(self.path)

    def update_attributes(self, values: dict[str, Any]) -> None:
        """Merge ``values`` (JSON types) into the root attributes, atomically; None removes a name."""
        if {"schema", "version", schema.CHECKSUM} & values.keys():
            raise UsageError("schema and version of a data set are fixed: choose other attribute names")
        document = schema.read_document(self.path / "zarr.json", f"the data set {self.path}")
        attributes = {key: value for key, value in (document["attributes"] | values).items() if value is not None}
        schema.write_document(self.path / "zarr.json", document | {"attributes": attributes})

    def num_episodes(self, game: str) -> int:
        """Committed episodes of ``game``; 0 for a game that the store does not have yet."""
        return self._count(game, NUM_EPISODES)

    def num_steps(self, game: str) -> int:
        """Committed agent steps of ``game``."""
        return self._count(game, NUM_STEPS)

    def num_rows(self, game: str) -> int:
        """Rows of the step arrays of ``game`` that are taken."""
        return self._count(game, NUM_ROWS)

    def next_block(self, game: str) -> int:
        """The first row of the next shard that is free: where a block written by :class:`ShardWriter` may begin."""
        return -(-self.num_rows(game) // STEPS_PER_SHARD) * STEPS_PER_SHARD

    def append(self, episode: Episode) -> None:
        """Write and commit one episode, right behind the last one.

        Raises :class:`DataError` for arrays that break the schema, OSError when the disk is full;
        in both cases the store keeps exactly the episodes it had.
        """
        schema.check_episode(episode)
        game = episode.game
        self.create(game)
        row = {
            "offset": self.num_rows(game),
            "length": len(episode),
            "terminal": episode.terminal,
            "seed": episode.seed,
            "score": episode.score,
        }
        try:
            for name, writer in self._open(game).items():
                writer.write(getattr(episode, name))
                writer.flush()
            table = {name: np.array([value]) for name, value in row.items()}
            self.commit(game, table, [episode.policy], self.num_rows(game) + len(episode))
        except BaseException:
            self._writers.pop(game, None)  # they hold rows that were not committed
            raise

    def create(self, game: str) -> None:
        """Make an empty group for ``game`` unless there is one."""
        if game not in self._committed:
            schema.create_game_group(self.path, game, self.layout)
            self._committed[game] = schema.check_game(self.path, game)

    def infos(self, game: str) -> dict[str, ArrayInfo]:
        """The step arrays of ``game``, for a :class:`ShardWriter` that writes a block of rows."""
        return {name: ArrayInfo.read(self.path / game / name) for name in STEP_ARRAYS}

    def commit(self, game: str, table: Mapping[str, NDArray[Any]], policies: Sequence[str], rows: int) -> None:
        """Make episodes part of the store whose steps are on disk already.

        ``table``: the columns offset, length, terminal, seed and score, each (n,), offsets ascending behind all
        that is committed; ``policies``: who played each; ``rows``: how many rows the step arrays have now.
        """
        count, known = self.num_episodes(game), list(self._committed[game][POLICIES])
        known += [policy for policy in dict.fromkeys(policies) if policy not in known]
        columns = {**table, "policy": np.array([known.index(policy) for policy in policies], np.int64)}
        total = count + len(policies)
        folder = self.path / game
        with zarr.config.set({"array.write_empty_chunks": True}):
            for name, dtype in EPISODE_ARRAYS.items():
                schema.set_rows(folder / name, total)
                array = zarr.open_array(folder / name, mode="r+", zarr_format=3)
                array[count:total] = np.asarray(columns[name.removeprefix("episode_")]).astype(dtype)
        for name in STEP_ARRAYS:
            schema.set_rows(folder / name, rows)
        steps = self.num_steps(game) + int(np.sum(table["length"]))
        counts = {NUM_EPISODES: total, NUM_STEPS: steps, NUM_ROWS: rows, POLICIES: known}
        document = schema.read_document(folder / "zarr.json", f"game {game} of {self.path}")
        schema.write_document(folder / "zarr.json", document | {"attributes": document["attributes"] | counts})
        self._committed[game] = counts

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

    def _open(self, game: str) -> dict[str, ShardWriter]:
        first = self.num_rows(game)
        writers = self._writers.get(game)
        if writers is None or writers["frames"].row != first:  # or a block was committed that others wrote
            self._writers[game] = {name: ShardWriter(info, first) for name, info in self.infos(game).items()}
        return self._writers[game]

    def _resume(self, game: str) -> None:
        """Cut every array of ``game`` back to what was committed; files that lie behind will be overwritten."""
        committed = schema.check_game(self.path, game)
        for name in (*STEP_ARRAYS, *EPISODE_ARRAYS):
            rows = committed[NUM_EPISODES if name in EPISODE_ARRAYS else NUM_ROWS]
            folder = self.path / game / name
            shape = schema.read_sealed(folder / "zarr.json", str(folder)).get("shape")
            if not isinstance(shape, list) or not shape or shape[0] < rows:
                raise DataError(f"{folder} is truncated: shape {shape}, expected {rows} rows; restore a copy")
            schema.set_rows(folder, rows)
        self._committed[game] = committed


def _check_version(folder: Path) -> None:
    if schema.check_root(folder)["version"] != schema.VERSION:
        raise DataError(
            f"{folder} has an older schema version, which can be read but not extended: convert it with "
            f"python -m jowa.data merge {folder} --out NEW"
        )
