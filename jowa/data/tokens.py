"""Tokens of a data set's frames, encoded once: one Zarr array a game, beside the frames or anywhere else.

A folder of tokens is a Zarr v3 group that names the tokenizer (by the fingerprint of its weights), with an array
uint16 (rows, 36) a game whose row n holds the tokens of the game's frame n.  A shard of it is finished or absent, so
whoever is killed goes on with the shards that are missing, and several processes share the work by shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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

TOKENS = "tokens"
SCHEMA, VERSION = "jowa-tokens", 1
TOKENS_PER_FRAME = 36
TOKENS_PER_CHUNK = 64
"""Frames whose tokens are compressed together."""
FINGERPRINT, VOCAB_SIZE, GAMES = "fingerprint", "vocab_size", "games"

Encode = Callable[[NDArray[np.uint8]], NDArray[np.uint16]]
"""Frames uint8 (n, 84, 84) in order of time to their tokens uint16 (n, 36)."""


def tokens_folder(store: EpisodeStore, fingerprint: str) -> Path:
    """Where the tokens of the tokenizer ``fingerprint`` lie in a store."""
    return store.path / TOKENS / fingerprint[:16]


def fingerprints(store: EpisodeStore) -> list[str]:
    """The tokenizers whose tokens ``store`` holds, finished or not, by the first 16 digits of their fingerprints."""
    folder = store.path / TOKENS
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


@dataclass(frozen=True)
class Piece:
    """A shard of tokens to be made: rows ``first`` to ``stop`` (exclusive) of ``game``."""

    game: str
    first: int
    stop: int


class TokenStore:
    """The tokens that one tokenizer makes of one data set."""

    def __init__(self, folder: Path, attributes: dict[str, Any]) -> None:
        """Use :meth:`open` or :meth:`create`."""
        self.folder = folder
        self.fingerprint: str = attributes[FINGERPRINT]
        self.finished: dict[str, int] = attributes[GAMES]
        """Game to the rows of its array that are encoded, for games that are finished."""

    @classmethod
    def open(cls, folder: Path, fingerprint: str) -> TokenStore:
        """The tokens in ``folder``.

        Raises :class:`DataError` when there are none, when they are damaged, or of another tokenizer than
        ``fingerprint``: tokens mean nothing to a model that was trained with other ones.
        """
        if not (folder / "zarr.json").is_file():
            raise DataError(f"no tokens at {folder}: make them with python -m jowa.tokenize")
        attributes = schema.read_sealed(folder / "zarr.json", f"the tokens in {folder}").get("attributes", {})
        if attributes.get("schema") != SCHEMA or attributes.get("version") != VERSION:
            raise DataError(f"{folder} holds no {SCHEMA} of version {VERSION}: choose another folder")
        if attributes[FINGERPRINT] != fingerprint:
            raise DataError(
                f"the tokens in {folder} were made by tokenizer {attributes[FINGERPRINT][:16]}, expected those of "
                f"{fingerprint[:16]}: make them anew with python -m jowa.tokenize, or leave them out"
            )
        return cls(folder, attributes)

    @classmethod
    def create(cls, folder: Path, fingerprint: str, vocab_size: int) -> TokenStore:
        """:meth:`open`, or an empty folder of tokens if there is none yet."""
        if not (folder / "zarr.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            attributes = {
                "schema": SCHEMA, "version": VERSION, FINGERPRINT: fingerprint, VOCAB_SIZE: vocab_size, GAMES: {}
            }  # fmt: skip
            document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
            schema.write_document(folder / "zarr.json", document)
        return cls.open(folder, fingerprint)

    def covers(self, store: EpisodeStore, games: tuple[str, ...]) -> bool:
        """Whether all frames of ``games`` have their tokens here."""
        return all(self.finished.get(game) == store.num_rows(game) for game in games)

    def rows(self, game: str, expected: int) -> Rows:
        """The fast reader of the tokens of ``game``; :class:`DataError` unless all ``expected`` rows are there."""
        if self.finished.get(game) != expected:
            raise DataError(
                f"{self.folder} holds the tokens of {self.finished.get(game, 0)} rows of {game}, expected {expected}: "
                "finish them with python -m jowa.tokenize"
            )
        return Rows(self._info(game))

    def prepare(self, store: EpisodeStore, games: tuple[str, ...]) -> list[Piece]:
        """Make the arrays of ``games`` ready and say which shards are missing."""
        pieces = []
        for game in games:
            rows = store.num_rows(game)
            if not (self.folder / game / "zarr.json").is_file():
                self._create_array(game)
            info = self._info(game)
            if info.rows < rows:
                # What was the last shard had fewer rows: it is made anew.
                info.shard_file(max(info.rows - 1, 0) // info.shard_rows).unlink(missing_ok=True)
                schema.set_rows(info.folder, rows)
            pieces += [piece for piece in _pieces(store, game, info.shard_rows) if self._lacks(info, piece)]
        return pieces

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
        left = [piece for game in games for piece in _pieces(store, game, schema.STEPS_PER_SHARD)
                if self._lacks(self._info(game), piece)]  # fmt: skip
        if left:
            raise DataError(f"{len(left)} shards of tokens are missing in {self.folder}: run the same command again")
        self.finished = self.finished | {game: store.num_rows(game) for game in games}
        document = schema.read_sealed(self.folder / "zarr.json", f"the tokens in {self.folder}")
        attributes = document["attributes"] | {GAMES: self.finished}
        schema.write_document(self.folder / "zarr.json", document | {"attributes": attributes})

    def lock(self) -> int:
        """Refuse a second writer; :class:`DataError` when there is one.  Close the descriptor to let go."""
        lock = locking.take_lock(self.folder)
        locking.remove_leftovers(self.folder)
        return lock

    def _info(self, game: str) -> ArrayInfo:
        return ArrayInfo.read(self.folder / game)

    def _lacks(self, info: ArrayInfo, piece: Piece) -> bool:
        return not info.shard_file(piece.first // info.shard_rows).is_file()

    def _create_array(self, game: str) -> None:
        unfinished = self.folder / (game + PARTIAL)
        group = zarr.create_group(unfinished, zarr_format=3, overwrite=True)
        row = (TOKENS_PER_FRAME,)
        schema.create_array(group, game, "uint16", (TOKENS_PER_CHUNK, *row), (schema.STEPS_PER_SHARD, *row))
        document = unfinished / game / "zarr.json"
        schema.write_document(document, schema.read_document(document, game))
        (unfinished / game).rename(self.folder / game)
        locking.remove_leftovers(self.folder)


def _pieces(store: EpisodeStore, game: str, shard_rows: int) -> Iterator[Piece]:
    """The shards of ``game`` that hold rows of an episode."""
    table = store.table(game)
    stops = table["offset"] + table["length"]
    for first in range(0, store.num_rows(game), shard_rows):
        inside = (table["offset"] < first + shard_rows) & (stops > first)
        if inside.any():
            yield Piece(game, first, int(min(stops[inside].max(), first + shard_rows)))


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
