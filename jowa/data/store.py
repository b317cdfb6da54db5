"""The episode store, for reading: whole episodes of Atari play in Zarr v3.  Layout and promises: docs/dataset.md."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from jowa.data import schema
from jowa.data.arrays import ArrayInfo, Damage, Rows
from jowa.data.remote import Mirror, remote_address
from jowa.data.schema import EPISODE_ARRAYS, NUM_EPISODES, NUM_ROWS, NUM_STEPS, POLICIES
from jowa.errors import DataError, UsageError
from jowa.games import get_game
from jowa.types import Episode


@dataclass(frozen=True)
class EpisodeInfo:
    """One row of a game's episode table."""

    offset: int
    """Row of the episode's first step in the game's step arrays."""
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

    def __init__(
        self,
        path: Path,
        attributes: dict[str, Any],
        committed: dict[str, dict[str, Any]],
        native: bool = True,
        mirror: Mirror | None = None,
    ) -> None:
        """Use :meth:`open`."""
        self.path = path
        """The folder; of a remote store the local folder that its shards are fetched into."""
        self.attributes = attributes
        """The root group's attributes: schema, version, how the data were recorded."""
        self._committed = committed
        self._native = native
        self._mirror = mirror
        self._arrays: dict[tuple[str, str], zarr.Array[Any]] = {}
        self._rows: dict[tuple[str, str], Rows] = {}
        self._tables: dict[str, dict[str, NDArray[Any]]] = {}

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], native: bool = True, cache: str | os.PathLike[str] | None = None
    ) -> EpisodeStore:
        """Open the store at ``path``, a folder or any address that fsspec knows (``gs://bucket/store``).

        The shards of a remote store are fetched when they are first needed, into ``cache`` (default:
        ``~/.cache/jowa``).  ``native=False`` reads through zarr-python: slow, and the oracle of the fast way.
        Raises :class:`DataError` when the store is missing, empty, damaged, or of another schema version.
        """
        address = remote_address(path)
        mirror = None if address is None else Mirror.open(address, cache)
        folder = Path(path) if mirror is None else mirror.folder
        attributes = schema.check_root(folder)
        version = attributes["version"]
        committed = {name: schema.check_game(folder, name, version) for name in schema.game_names(folder)}
        committed = {name: counts for name, counts in committed.items() if counts[NUM_EPISODES]}
        if not committed:
            raise DataError(f"the data set {path} holds no finished episode: record some with python -m jowa.record")
        return cls(folder, attributes, committed, native, mirror)

    @property
    def is_remote(self) -> bool:
        """Whether shards are fetched from elsewhere when they are needed: see :meth:`fetch`."""
        return self._mirror is not None

    @property
    def games(self) -> tuple[str, ...]:
        """Games with at least one episode, alphabetically."""
        return tuple(self._committed)

    def num_steps(self, game: str) -> int:
        """Committed agent steps of ``game``."""
        return int(self._counts(game)[NUM_STEPS])

    def num_rows(self, game: str) -> int:
        """Rows of the step arrays of ``game``: its steps, and what lies unused between blocks of episodes."""
        return int(self._counts(game)[NUM_ROWS])

    def num_episodes(self, game: str) -> int:
        """Committed episodes of ``game``."""
        return int(self._counts(game)[NUM_EPISODES])

    def table(self, game: str) -> dict[str, NDArray[Any]]:
        """The columns of the episode table, each (episodes,): offset, length, terminal, seed, score, policy.

        Offsets ascend, and episodes do not overlap.  Raises :class:`DataError` when the table is damaged or
        contradicts itself.
        """
        if game not in self._tables:
            self._tables[game] = self._read_table(game)
        return self._tables[game]

    def _read_table(self, game: str) -> dict[str, NDArray[Any]]:
        count = self.num_episodes(game)
        columns = {
            name.removeprefix("episode_"): self._read_array(game, name, 0, count, "the episode table")
            for name in EPISODE_ARRAYS
        }
        lengths, offsets = columns["length"], columns["offset"]
        policies = self._counts(game)[POLICIES]
        ends = offsets + lengths
        whole = (
            lengths.min() > 0
            and offsets[0] >= 0
            and (ends[:-1] <= offsets[1:]).all()
            and ends[-1] <= self.num_rows(game)
            and lengths.sum() == self.num_steps(game)
        )
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

    def episode(self, game: str, index: int) -> EpisodeInfo:
        """One row of :meth:`episodes`.  Raises :class:`UsageError` when there is none."""
        columns, count = self.table(game), self.num_episodes(game)
        if not 0 <= index < count:
            raise UsageError(f"{game} has no episode {index}: choose 0 to {count - 1}")
        values = {name: columns[name][index].item() for name in columns}
        return EpisodeInfo(**values | {"policy": self._counts(game)[POLICIES][values["policy"]]})

    def digest(self, game: str, episodes: int | None = None) -> str:
        """SHA-256 of the table of the first ``episodes`` of ``game`` (default: all): which recording this is."""
        digest = hashlib.sha256()
        for name in ("offset", "length", "terminal", "seed", "score"):
            digest.update(np.ascontiguousarray(self.table(game)[name][:episodes]).tobytes())
        return digest.hexdigest()

    def read_episode(self, game: str, index: int) -> Episode:
        """Episode number ``index`` of ``game``.  Raises :class:`DataError` naming what is damaged."""
        info = self.episode(game, index)
        frames, actions, rewards = self.read(game, info.offset, info.offset + info.length)
        return Episode(game, frames, actions, rewards, info.terminal, info.policy, info.seed, info.score)

    def read(
        self, game: str, start: int, stop: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
        """Rows ``start`` to ``stop`` (exclusive) of the step arrays of ``game``; an episode's begin at its offset.

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

    def rows(self, game: str, name: str) -> Rows:
        """The fast reader of the step array ``name`` (frames, actions, rewards) of ``game``."""
        if (game, name) not in self._rows:
            info = ArrayInfo.read(self.path / game / name, self.attributes["version"] > 1)
            expected = schema.STEP_ARRAYS[name]
            if (info.dtype.name, info.row_shape) != expected or info.rows < self.num_rows(game):
                raise DataError(
                    f"{info.folder} holds {info.rows} rows of {info.dtype} {info.row_shape}: expected at least "
                    f"{self.num_rows(game)} of {expected[0]} {expected[1]}; restore it from a copy"
                )
            self._rows[game, name] = Rows(info)
        return self._rows[game, name]

    def fetch(self, game: str, name: str, first: NDArray[np.int64], stop: NDArray[np.int64]) -> None:
        """Bring the shards of a remote store that hold the rows [first, stop) into the cache; no-op for a local one."""
        if self._mirror is not None:
            info = self.rows(game, name).info
            shards = np.unique(np.concatenate([first // info.shard_rows, (stop - 1) // info.shard_rows]))
            self._mirror.fetch([info.shard_file(int(shard)) for shard in shards])

    def _read_steps(self, game: str, name: str, start: int, stop: int) -> NDArray[Any]:
        if not 0 <= start <= stop <= self.num_rows(game):
            raise UsageError(f"steps {start} to {stop} of {game}: its arrays have {self.num_rows(game)} rows")
        if start == stop or not self._native:
            return self._read_array(game, name, start, stop, f"steps {start} to {stop}")
        rows = self.rows(game, name)
        if self._mirror is not None:
            step = rows.info.shard_rows
            firsts = np.arange(start // step * step, stop, step, dtype=np.int64)
            self.fetch(game, name, firsts, firsts + step)
        found = rows.read(start, stop)
        if isinstance(found, Damage):
            raise self.damaged(game, found)
        return found

    def _counts(self, game: str) -> dict[str, Any]:
        if game not in self._committed:
            get_game(game)
            raise DataError(f"{self.path} has no episodes of {game}: it has {', '.join(self.games)}")
        return self._committed[game]

    def _open_array(self, game: str, name: str) -> zarr.Array[Any]:
        if (game, name) not in self._arrays:
            place = self.path / game / name
            if self.attributes["version"] > 1:
                schema.read_sealed(place / "zarr.json", str(place))
            try:
                array = zarr.open_array(place, mode="r", zarr_format=3)
            except Exception as error:  # whatever zarr makes of a missing or mangled document
                raise DataError(f"{place} is damaged ({_first_line(error)}): restore it from a copy") from None
            rows = self.num_episodes(game) if name in EPISODE_ARRAYS else self.num_rows(game)
            if array.shape[0] < rows:
                raise DataError(f"{place} is truncated: it has {array.shape[0]} rows, expected {rows}; restore a copy")
            self._arrays[game, name] = array
        return self._arrays[game, name]

    def _read_array(self, game: str, name: str, start: int, stop: int, where: str) -> NDArray[Any]:
        array = self._open_array(game, name)
        axes = array.ndim
        size = int((array.shards or array.chunks)[0])
        pieces = [slice(at, min(stop, at + size)) for at in range(start // size * size, stop, size)]
        for piece in pieces:  # zarr would read an absent or empty file as zeros
            file = schema.shard_file(self.path / game / name, piece.start // size, axes)
            if not file.is_file() or file.stat().st_size == 0:
                raise self.damaged(game, Damage(file, piece.start, piece.stop, "the file is missing or empty"), name)
        try:
            return np.asarray(array[start:stop])
        except Exception as error:  # codecs raise ValueError, RuntimeError, zstd's own errors, OSError
            for piece in pieces:
                try:
                    array[max(start, piece.start) : piece.stop]
                except Exception as cause:
                    file = schema.shard_file(self.path / game / name, piece.start // size, axes)
                    damage = Damage(file, piece.start, piece.stop, _first_line(cause))
                    raise self.damaged(game, damage, name) from None
            raise DataError(f"{where} of {game} in {self.path} could not be read: {_first_line(error)}") from None

    def damaged(self, game: str, damage: Damage, name: str = "frames") -> DataError:
        """The error for ``damage`` in an array of ``game``: it names the file and the episodes that suffer."""
        episodes = ""
        if name not in EPISODE_ARRAYS:
            with contextlib.suppress(DataError):
                table = self.table(game)
                hit = np.flatnonzero(
                    (table["offset"] < damage.stop) & (table["offset"] + table["length"] > damage.first)
                )
                if len(hit):
                    episodes = f" (episode {hit[0]})" if len(hit) == 1 else f" (episodes {hit[0]} to {hit[-1]})"
        advice = "restore the file from a copy, or make this game's data anew"
        if name == "tokens":
            advice = "delete the file and run python -m jowa.tokenize again"
        return DataError(
            f"{damage.file} is damaged at steps {damage.first} to {damage.stop - 1} of {game}{episodes}: "
            f"{damage.reason}; {advice}"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
