"""Tokens of a data set's frames, encoded once: one Zarr array a game, beside the frames or anywhere else.

A folder of tokens is a Zarr v3 group that names the tokenizer (the fingerprint of its weights, its precision) and the
recordings, with an array uint16 (rows, 36) a game whose row n holds the tokens of the game's frame n.  A shard of it is
finished or absent, so whoever is killed goes on with the shards that are missing, and processes share the shards.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from jowa.data import lock as locking
from jowa.data import schema
from jowa.data.arrays import ArrayInfo, Rows, ShardWriter
from jowa.data.store import EpisodeStore
from jowa.errors import DataError
from jowa.files import PARTIAL
from jowa.games import GAMES as ALL_GAMES

TOKENS = "tokens"
SCHEMA, VERSION = "jowa-tokens", 1
TOKENS_PER_FRAME = 36
TOKENS_PER_CHUNK = 64
"""Frames whose tokens are compressed together."""
IDENTITY, VOCAB_SIZE, GAMES = "tokenizer", "vocab_size", "games"

Encode = Callable[[NDArray[np.uint8]], NDArray[np.uint16]]
"""Frames uint8 (n, 84, 84) in order of time to their tokens uint16 (n, 36)."""


def identity(fingerprint: str, precision: str = "float32") -> str:
    """What tokens depend on: the tokenizer's ``fingerprint`` and the precision in which it computes."""
    return fingerprint if precision == "float32" else f"{fingerprint}-{precision}"


def short(name: str) -> str:
    """The folder of the tokens with the identity ``name``: 16 digits of the fingerprint, and the precision."""
    fingerprint, dash, precision = name.partition("-")
    return fingerprint[:16] + dash + precision


def tokens_folder(store: EpisodeStore, name: str) -> Path:
    """Where the tokens with the identity ``name`` lie in a store."""
    return store.path / TOKENS / short(name)


def kinds(store: EpisodeStore) -> list[str]:
    """The folders of tokens that ``store`` holds, finished or not."""
    folder = store.path / TOKENS
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


@dataclass(frozen=True)
class Piece:
    """A shard of tokens to be made: rows ``first`` to ``stop`` (exclusive) of ``game``."""

    game: str
    first: int
    stop: int


@dataclass(frozen=True)
class Extent:
    """Which part of which recording of a game is encoded, or being encoded."""

    episodes: int
    rows: int
    digest: str
    """Of the table of those episodes: tokens of another recording would be somebody else's."""
    finished: bool = False


class TokenStore:
    """The tokens that one tokenizer makes of one data set."""

    def __init__(self, folder: Path, attributes: dict[str, Any]) -> None:
        """Use :meth:`open` or :meth:`create`."""
        self.folder = folder
        self.identity: str = attributes[IDENTITY]
        self.extents = {game: Extent(**values) for game, values in attributes[GAMES].items()}
        """Of the games that are encoded, or being encoded."""

    @classmethod
    def open(cls, folder: Path, name: str) -> TokenStore:
        """The tokens in ``folder``.

        Raises :class:`DataError` when there are none, when they are damaged, or when their :func:`identity` is not
        ``name``: tokens mean nothing to a model that was trained with other ones.
        """
        if not (folder / "zarr.json").is_file():
            raise DataError(f"no tokens at {folder}: make them with python -m jowa.tokenize")
        attributes = schema.read_sealed(folder / "zarr.json", f"the tokens in {folder}").get("attributes", {})
        if attributes.get("schema") != SCHEMA or attributes.get("version") != VERSION:
            raise DataError(f"{folder} holds no {SCHEMA} of version {VERSION}: choose another folder")
        if attributes[IDENTITY] != name:
            raise DataError(
                f"the tokens in {folder} were made by tokenizer {short(attributes[IDENTITY])}, expected those of "
                f"{short(name)}: make them anew with python -m jowa.tokenize, or leave them out"
            )
        return cls(folder, attributes)

    @classmethod
    def create(cls, folder: Path, name: str, vocab_size: int) -> TokenStore:
        """:meth:`open`, or an empty folder of tokens if ``folder`` is missing or empty.

        Raises :class:`DataError` when it holds something else.
        """
        if locking.is_blank(folder):
            folder.mkdir(parents=True, exist_ok=True)
            attributes = {"schema": SCHEMA, "version": VERSION, IDENTITY: name, VOCAB_SIZE: vocab_size, GAMES: {}}
            document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
            schema.write_document(folder / "zarr.json", document)
        elif not (folder / "zarr.json").is_file():
            raise DataError(f"{folder} holds something else than tokens: choose another folder")
        return cls.open(folder, name)

    def covers(self, store: EpisodeStore, games: tuple[str, ...]) -> bool:
        """Whether all frames of ``games`` have their tokens here."""
        return all(self._lacking(store, game) is None for game in games)

    def rows(self, store: EpisodeStore, game: str) -> Rows:
        """The fast reader of the tokens of ``game``; :class:`DataError` unless they are all of this recording's."""
        if lacking := self._lacking(store, game):
            raise DataError(lacking)
        return Rows(self._info(game))

    def _lacking(self, store: EpisodeStore, game: str) -> str | None:
        extent = self.extents.get(game)
        if extent is not None and store.digest(game, extent.episodes) != extent.digest:
            return f"the tokens of {game} in {self.folder} are of another recording than {store.path}: choose another"
        if extent is None or not extent.finished or extent.episodes != store.num_episodes(game):
            there = extent.rows if extent is not None and extent.finished else 0
            return (
                f"{self.folder} holds the tokens of {there} rows of {game}, expected {store.num_rows(game)}: finish "
                "them with python -m jowa.tokenize"
            )
        return None

    def prepare(self, store: EpisodeStore, games: tuple[str, ...]) -> None:
        """Make the arrays of ``games`` ready for what ``store`` holds now; one process alone.

        Raises :class:`DataError` when the folder holds tokens of another recording.
        """
        for game in games:
            extent = self.extents.get(game)
            if extent is not None and store.digest(game, extent.episodes) != extent.digest:
                raise DataError(
                    f"{self.folder} holds tokens of another recording of {game} than {store.path}: choose another "
                    "folder, or delete that one"
                )
            rows = store.num_rows(game)
            if not (self.folder / game / "zarr.json").is_file():
                self._create_array(game)
            info = self._info(game)
            if info.rows < rows:
                # What was the last shard had fewer rows: it is made anew.
                info.shard_file(max(info.rows - 1, 0) // info.shard_rows).unlink(missing_ok=True)
                schema.set_rows(info.folder, rows)
            if extent is None or extent.episodes != store.num_episodes(game):
                self.extents[game] = Extent(store.num_episodes(game), rows, store.digest(game))
        self._write_extents()

    def missing(self, store: EpisodeStore, games: tuple[str, ...]) -> list[Piece]:
        """The shards that are to be made for what :meth:`prepare` found, the same in every process.

        Raises :class:`DataError` when this process opened the data set before it grew.
        """
        self.extents = TokenStore.open(self.folder, self.identity).extents
        for game in games:
            if store.num_episodes(game) < self.extents[game].episodes:
                raise DataError(f"{store.path} grew while the processes started: run the same command again")
        return [
            piece for game in games for piece in _pieces(store, game, self.extents[game].episodes)
            if not self._info(game).shard_file(piece.first // schema.STEPS_PER_SHARD).is_file()
        ]  # fmt: skip

    def write(self, store: EpisodeStore, piece: Piece, encode: Encode) -> None:
        """Encode the frames of ``piece`` and put its shard in place."""
        writer = ShardWriter(self._info(piece.game), piece.first)
        at = piece.first
        for first, stop in _runs(store, piece):
            if first > at:  # rows of no episode
                writer.write(np.zeros((first - at, TOKENS_PER_FRAME), np.uint16))
            writer.write(encode(store.read_frames(piece.game, first, stop)))
            at = stop
        writer.flush()

    def finish(self, store: EpisodeStore, games: tuple[str, ...]) -> None:
        """Note that ``games`` are encoded.  Raises :class:`DataError` when a shard is still missing."""
        if left := self.missing(store, games):
            raise DataError(f"{len(left)} shards of tokens are missing in {self.folder}: run the same command again")
        self.extents |= {game: replace(self.extents[game], finished=True) for game in games}
        self._write_extents()

    def _write_extents(self) -> None:
        document = schema.read_sealed(self.folder / "zarr.json", f"the tokens in {self.folder}")
        extents = {game: asdict(extent) for game, extent in self.extents.items()}
        if document["attributes"][GAMES] != extents:
            attributes = document["attributes"] | {GAMES: extents}
            schema.write_document(self.folder / "zarr.json", document | {"attributes": attributes})

    def lock(self) -> int:
        """Refuse a second writer; :class:`DataError` when there is one.  Close the descriptor to let go."""
        lock = locking.take_lock(self.folder)
        locking.remove_leftovers(self.folder, [game.name for game in ALL_GAMES])
        return lock

    def _info(self, game: str) -> ArrayInfo:
        return ArrayInfo.read(self.folder / game)

    def _create_array(self, game: str) -> None:
        unfinished = self.folder / (game + PARTIAL)
        group = zarr.create_group(unfinished, zarr_format=3, overwrite=True)
        row = (TOKENS_PER_FRAME,)
        schema.create_array(group, game, "uint16", (TOKENS_PER_CHUNK, *row), (schema.STEPS_PER_SHARD, *row))
        document = unfinished / game / "zarr.json"
        schema.write_document(document, schema.read_document(document, game))
        (unfinished / game).rename(self.folder / game)
        shutil.rmtree(unfinished)


def _pieces(store: EpisodeStore, game: str, episodes: int) -> Iterator[Piece]:
    """The shards of ``game`` that hold rows of its first ``episodes``."""
    size = schema.STEPS_PER_SHARD
    offset, length = (store.table(game)[name][:episodes] for name in ("offset", "length"))
    stops = offset + length
    for first in range(0, int(stops[-1]), size):
        inside = (offset < first + size) & (stops > first)
        if inside.any():
            yield Piece(game, first, int(min(stops[inside].max(), first + size)))


def _runs(store: EpisodeStore, piece: Piece) -> Iterator[tuple[int, int]]:
    """The stretches of rows of ``piece`` that belong to episodes, neighbours joined."""
    table = store.table(piece.game)
    starts, stops = table["offset"], table["offset"] + table["length"]
    inside = (starts < piece.stop) & (stops > piece.first)
    begun: tuple[int, int] | None = None
    for start, stop in zip(starts[inside].tolist(), stops[inside].tolist(), strict=True):
        start, stop = max(start, piece.first), min(stop, piece.stop)
        if begun is not None and begun[1] == start:
            begun = (begun[0], stop)
            continue
        if begun is not None:
            yield begun
        begun = (start, stop)
    if begun is not None:
        yield begun
