"""The documented layout of an episode store (docs/dataset.md), as code: names, types, chunks, checks.

A store is one Zarr v3 hierarchy in a folder.  The root group says what it is; a child group per game
holds the steps of all its episodes, a table of its episodes, and in its attributes how much of both is
committed.  Replacing that one small document is what commits episodes.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from jowa.errors import DataError, UsageError, unknown_name
from jowa.files import PARTIAL, atomic_write_text
from jowa.games import NUM_ACTIONS, get_game
from jowa.types import Episode

SCHEMA = "jowa-episodes"
VERSION = 2
READABLE = (1, 2)
"""Versions that this program reads; it writes the last one only."""

STEPS_PER_SHARD = 16_384
"""Rows in one file of a step array: 1 to 5 MB of frames on disk."""
SCALARS_PER_CHUNK = 256
TABLE_CHUNK = 1024


@dataclass(frozen=True)
class Layout:
    """How the frames of a new store are packed; docs/dataset.md has the measurements behind the choice."""

    frames_per_chunk: int
    """Frames that are compressed, and so decoded, together; divides :data:`STEPS_PER_SHARD`."""
    codec: Literal["zstd", "lz4"]
    """Zstandard at level 1, or LZ4 in Blosc's container, which is larger and faster to read."""


LAYOUTS = {"default": Layout(16, "zstd"), "fast": Layout(4, "lz4")}


def get_layout(name: str) -> Layout:
    """The layout called ``name``; :class:`UsageError` if there is none."""
    if name not in LAYOUTS:
        raise unknown_name("layout", name, LAYOUTS)
    return LAYOUTS[name]


STEP_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "frames": ("uint8", (84, 84)),
    "actions": ("uint8", ()),
    "rewards": ("float32", ()),
}
"""Arrays with one row an agent step: dtype and the shape of a row."""

EPISODE_ARRAYS: dict[str, str] = {
    "episode_offset": "int64",
    "episode_length": "int64",
    "episode_terminal": "bool",
    "episode_seed": "uint64",
    "episode_score": "float64",
    "episode_policy": "uint16",
}
"""Arrays with one row an episode; ``episode_policy`` indexes the group's attribute ``policies``."""

NUM_EPISODES, NUM_STEPS, NUM_ROWS, POLICIES = "num_episodes", "num_steps", "num_rows", "policies"
CHECKSUM = "checksum"
"""Attribute of every document: CRC-32 of all the rest of it, as eight hexadecimal digits."""


def create_game_group(path: Path, game: str, layout: Layout) -> None:
    """A new, empty group for ``game`` in the store at ``path``; it appears whole or not at all."""
    unfinished = path / (get_game(game).name + PARTIAL)
    group = zarr.create_group(unfinished, zarr_format=3, overwrite=True)
    for name, (dtype, row) in STEP_ARRAYS.items():
        chunk = (layout.frames_per_chunk if row else SCALARS_PER_CHUNK, *row)
        create_array(group, name, dtype, chunk, (STEPS_PER_SHARD, *row), layout.codec)
    for name, dtype in EPISODE_ARRAYS.items():
        create_array(group, name, dtype, (TABLE_CHUNK,), None)
    group.update_attributes({NUM_EPISODES: 0, NUM_STEPS: 0, NUM_ROWS: 0, POLICIES: []})
    for document in unfinished.rglob("zarr.json"):
        write_document(document, read_document(document, str(path)))
    unfinished.rename(path / game)


def create_array(
    group: zarr.Group, name: str, dtype: str, chunk: tuple[int, ...], shard: tuple[int, ...] | None, codec: str = "zstd"
) -> None:
    """An empty array whose rows grow along the first axis, with the codecs of this schema."""
    compress: ZstdCodec | BloscCodec = ZstdCodec(level=1)
    if codec == "lz4":
        whole = int(np.prod(chunk, dtype=np.int64)) * np.dtype(dtype).itemsize
        compress = BloscCodec(typesize=1, cname="lz4", clevel=9, shuffle="noshuffle", blocksize=whole)
    compressors: list[ZstdCodec | BloscCodec | Crc32cCodec] = [compress, Crc32cCodec()]
    index_codecs: list[BytesCodec | Crc32cCodec] = [BytesCodec(), Crc32cCodec()]
    sharding = ShardingCodec(chunk_shape=chunk, codecs=[BytesCodec(), *compressors], index_codecs=index_codecs)
    group.create_array(
        name,
        shape=(0, *chunk[1:]),
        chunks=shard or chunk,
        dtype=dtype,
        serializer=sharding if shard else BytesCodec(),
        compressors=None if shard else compressors,
        filters=None,
        fill_value=np.zeros((), dtype).item(),
        # A chunk that is absent from disk must mean "lost", never "all zeros".
        config={"write_empty_chunks": True},
    )


def read_document(path: Path, what: str) -> dict[str, Any]:
    """The ``zarr.json`` at ``path`` as a dictionary; :class:`DataError` when missing or unreadable."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{what} has no {path.name} (looked for {path}): expected a jowa-episodes store") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged ({error}): restore it from a copy, or record this data set anew") from None
    if not isinstance(document, dict) or not isinstance(document.get("attributes", {}), dict):
        raise DataError(f"{path} is not a Zarr v3 document: restore it from a copy, or record this data set anew")
    return document


def checksum(document: dict[str, Any]) -> str:
    """The :data:`CHECKSUM` that belongs into ``document``."""
    attributes = {key: value for key, value in document.get("attributes", {}).items() if key != CHECKSUM}
    text = json.dumps(document | {"attributes": attributes}, sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}"


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Replace the ``zarr.json`` at ``path`` atomically; its checksum is set to the right one."""
    attributes = document.get("attributes", {}) | {CHECKSUM: checksum(document)}
    atomic_write_text(path, json.dumps(document | {"attributes": attributes}, indent=2) + "\n")


def read_sealed(path: Path, what: str) -> dict[str, Any]:
    """:func:`read_document`, and its checksum must hold."""
    document = read_document(path, what)
    if document.get("attributes", {}).get(CHECKSUM) != checksum(document):
        raise DataError(f"{path} is damaged (its checksum is wrong): restore it from a copy")
    return document


def set_rows(array: Path, rows: int) -> None:
    """Make the array in the folder ``array`` have ``rows`` rows.  Its files stay: what lies behind is overwritten."""
    document = read_document(array / "zarr.json", str(array))
    if document["shape"][0] != rows:
        write_document(array / "zarr.json", document | {"shape": [rows, *document["shape"][1:]]})


def check_root(path: Path) -> dict[str, Any]:
    """The root attributes of the store at ``path``.

    Raises :class:`DataError` when there is no store, or one of another schema or version.
    """
    if not path.is_dir():
        raise DataError(f"no data set at {path}: expected a folder; record one with python -m jowa.record")
    attributes: dict[str, Any] = read_document(path / "zarr.json", f"the data set {path}").get("attributes", {})
    if attributes.get("schema") != SCHEMA:
        raise DataError(f"{path} has schema {attributes.get('schema')!r}: expected {SCHEMA!r}; choose another folder")
    if attributes.get("version") not in READABLE:
        raise DataError(
            f"{path} has schema version {attributes.get('version')!r}: this program reads versions "
            f"{' and '.join(map(str, READABLE))}; use the matching release of jowa, or record the data set anew"
        )
    if attributes["version"] > 1 or CHECKSUM in attributes:  # a 2 may have become a 1
        read_sealed(path / "zarr.json", f"the data set {path}")
    return {key: value for key, value in attributes.items() if key != CHECKSUM}


def check_game(path: Path, game: str, version: int = VERSION) -> dict[str, Any]:
    """The commit attributes of ``game``; :class:`DataError` when they are damaged."""
    document, what = path / game / "zarr.json", f"game {game} of {path}"
    read = read_document if version == 1 else read_sealed
    attributes: dict[str, Any] = read(document, what).get("attributes", {})
    if version == 1:  # which had no rows between episodes
        attributes = attributes | {NUM_ROWS: attributes.get(NUM_STEPS)}
    numbers, policies = [attributes.get(key) for key in (NUM_EPISODES, NUM_STEPS, NUM_ROWS)], attributes.get(POLICIES)
    if not (all(isinstance(number, int) and number >= 0 for number in numbers) and isinstance(policies, list)):
        raise DataError(
            f"{document} lacks {NUM_EPISODES}, {NUM_STEPS}, {NUM_ROWS} or {POLICIES}: restore it from a copy"
        )
    return {key: attributes[key] for key in (NUM_EPISODES, NUM_STEPS, NUM_ROWS, POLICIES)}


def game_names(path: Path) -> list[str]:
    """The games that have a group in the store at ``path``, alphabetically; half-made ones do not count."""
    folders = (entry.name for entry in path.iterdir() if entry.is_dir())
    names = sorted(name for name in folders if not name.endswith(PARTIAL) and name[0] != "." and name != "tokens")
    for name in names:
        if not (path / name / "zarr.json").is_file():
            raise DataError(f"{path / name} has no zarr.json: restore it from a copy, or move that folder away")
        try:
            get_game(name)
        except UsageError as error:
            raise DataError(f"{path / name} is no game's group ({error}): move that folder away") from None
    return names


def shard_file(array: Path, shard: int, axes: int) -> Path:
    """Where shard (or plain chunk) number ``shard`` of an array with ``axes`` axes lies."""
    return array.joinpath("c", str(shard), *["0"] * (axes - 1))


def check_episode(episode: Episode) -> None:
    """Refuse what the schema cannot hold: a bad episode must never reach the disk."""
    get_game(episode.game)
    steps = len(episode.actions)
    for name, (dtype, row) in STEP_ARRAYS.items():
        array = getattr(episode, name)
        if array.dtype != np.dtype(dtype) or array.shape != (steps, *row) or steps == 0:
            raise DataError(
                f"an episode of {episode.game} has {name} {array.dtype} {array.shape}: expected {dtype} {(steps, *row)}"
                " with at least one step"
            )
    if not (np.abs(episode.rewards) <= 1.0).all():
        raise DataError(f"an episode of {episode.game} has rewards outside [-1, 1]: clip them before storing")
    if episode.actions.max() >= NUM_ACTIONS or not get_game(episode.game).action_mask[episode.actions].all():
        raise DataError(f"an episode of {episode.game} has actions that are illegal in it: map them to the full set")
    if not 0 <= episode.seed < 2**64 or not np.isfinite(episode.score):
        raise DataError(f"an episode of {episode.game} has seed {episode.seed}, score {episode.score}: not storable")
