"""The documented layout of an episode store (docs/dataset.md), as code: names, types, chunks, checks.

A store is one Zarr v3 hierarchy in a folder.  The root group says what it is; a child group per game
holds the steps of all its episodes back to back, a table of its episodes, and in its attributes how
much of both is committed.  Replacing that one small document is what commits an episode.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from jowa.errors import DataError, UsageError
from jowa.games import NUM_ACTIONS, get_game
from jowa.types import Episode

SCHEMA = "jowa-episodes"
VERSION = 1

FRAMES_PER_CHUNK = 32
CHUNKS_PER_SHARD = 128
"""One shard holds 4096 frames: 0.2 to 1.1 MB of scripted play on disk."""
STEPS_PER_SHARD = FRAMES_PER_CHUNK * CHUNKS_PER_SHARD

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

PARTIAL = ".partial"
"""Ending of what is not finished yet; also what zarr-python gives its temporary files."""

NUM_EPISODES, NUM_STEPS, POLICIES = "num_episodes", "num_steps", "policies"


def create_game_group(root: zarr.Group, path: Path, game: str) -> zarr.Group:
    """A new, empty group for ``game`` in the store at ``path``; it appears whole or not at all."""
    unfinished = game + PARTIAL
    group = root.create_group(unfinished, overwrite=True)
    for name, (dtype, row) in STEP_ARRAYS.items():
        chunk = (FRAMES_PER_CHUNK if row else STEPS_PER_SHARD, *row)
        _create_array(group, name, dtype, chunk, (STEPS_PER_SHARD, *row))
    for name, dtype in EPISODE_ARRAYS.items():
        _create_array(group, name, dtype, (1024,), None)
    group.update_attributes({NUM_EPISODES: 0, NUM_STEPS: 0, POLICIES: []})
    (path / unfinished).rename(path / game)
    return zarr.open_group(path / game, mode="r+", zarr_format=3)


def _create_array(
    group: zarr.Group, name: str, dtype: str, chunk: tuple[int, ...], shard: tuple[int, ...] | None
) -> None:
    compressors: list[ZstdCodec | Crc32cCodec] = [ZstdCodec(level=1), Crc32cCodec()]
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


def check_root(path: Path) -> dict[str, Any]:
    """The root attributes of the store at ``path``.

    Raises :class:`DataError` when there is no store, or one of another schema or version.
    """
    if not path.is_dir():
        raise DataError(f"no data set at {path}: expected a folder; record one with python -m jowa.record")
    attributes: dict[str, Any] = read_document(path / "zarr.json", f"the data set {path}").get("attributes", {})
    if attributes.get("schema") != SCHEMA:
        raise DataError(f"{path} has schema {attributes.get('schema')!r}: expected {SCHEMA!r}; choose another folder")
    if attributes.get("version") != VERSION:
        raise DataError(
            f"{path} has schema version {attributes.get('version')!r}: this program reads version {VERSION}; "
            "use the matching release of jowa, or record the data set anew"
        )
    return attributes


def check_game(path: Path, game: str) -> dict[str, Any]:
    """The commit attributes of ``game``; :class:`DataError` when they are damaged."""
    document = path / game / "zarr.json"
    attributes: dict[str, Any] = read_document(document, f"game {game} of {path}").get("attributes", {})
    episodes, steps, policies = (attributes.get(key) for key in (NUM_EPISODES, NUM_STEPS, POLICIES))
    if not (isinstance(episodes, int) and isinstance(steps, int) and isinstance(policies, list)):
        raise DataError(f"{document} lacks {NUM_EPISODES}, {NUM_STEPS} or {POLICIES}: restore it from a copy")
    return attributes


def game_names(path: Path) -> list[str]:
    """The games that have a group in the store at ``path``, alphabetically; half-made ones do not count."""
    names = sorted(e.name for e in path.iterdir() if e.is_dir() and not e.name.endswith(PARTIAL))
    for name in names:
        if not (path / name / "zarr.json").is_file():
            raise DataError(f"{path / name} has no zarr.json: restore it from a copy, or move that folder away")
        try:
            get_game(name)
        except UsageError as error:
            raise DataError(f"{path / name} is no game's group ({error}): move that folder away") from None
    return names


def shard_file(path: Path, game: str, array: str, shard: int) -> Path:
    """Where shard (or plain chunk) number ``shard`` of an array lies."""
    trailing = len(STEP_ARRAYS[array][1]) if array in STEP_ARRAYS else 0
    return path.joinpath(game, array, "c", str(shard), *["0"] * trailing)


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
