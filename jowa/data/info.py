"""What a store holds, game by game, for reading: counts from the episode tables, sizes from the files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from jowa.data.arrays import ArrayInfo
from jowa.data.remote import is_remote, open_filesystem
from jowa.data.store import EpisodeStore
from jowa.data.tokens import TOKENS

NAMES_SHOWN = 3


@dataclass(frozen=True)
class GameInfo:
    """One row of the listing."""

    game: str
    episodes: int
    steps: int
    score: float
    """Mean of the episodes' raw scores."""
    policies: tuple[str, ...]
    frames: ArrayInfo
    frame_bytes: int
    """Bytes that all frames take on disk."""
    total_bytes: int
    has_tokens: bool


def list_games(path: str) -> tuple[EpisodeStore, list[GameInfo]]:
    """The store at ``path`` (a folder or an address) and what it holds.

    Raises :class:`DataError` when it is missing, empty, or its tables are damaged; shards are not looked into.
    """
    store = EpisodeStore.open(path)
    sizes = dict(_file_sizes(path))
    rows = []
    for game in store.games:
        inside = {name: size for name, size in sizes.items() if name.startswith(f"{game}/")}
        rows.append(
            GameInfo(
                game,
                store.num_episodes(game),
                store.num_steps(game),
                float(store.table(game)["score"].mean()),
                tuple(dict.fromkeys(info.policy for info in store.episodes(game))),
                store.rows(game, "frames").info,
                sum(size for name, size in inside.items() if name.startswith(f"{game}/frames/c/")),
                sum(inside.values()),
                any(name.startswith(f"{TOKENS}/") and f"/{game}/c/" in name for name in sizes),
            )
        )
    return store, rows


def _file_sizes(path: str) -> Iterator[tuple[str, int]]:
    """Every file below ``path``, relative to it, and its bytes."""
    if is_remote(path):
        filesystem, root = open_filesystem(path)
        for name, entry in filesystem.find(root, detail=True).items():
            yield os.path.relpath(name, root), int(entry["size"])
        return
    for parent, _, files in os.walk(path):
        for name in files:
            file = Path(parent) / name
            yield file.relative_to(path).as_posix(), file.stat().st_size


def table_of(rows: list[GameInfo]) -> Table:
    """The listing as a table for the terminal."""
    tokens = any(row.has_tokens for row in rows)
    table = Table("game", "policies", box=None, padding=(0, 2, 0, 0))
    table.add_column("layout", no_wrap=True)
    for name in ("episodes", "steps", "mean score", "bytes a frame", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    if tokens:
        table.add_column("tokens")
    for row in rows:
        table.add_row(
            row.game, shortened(row.policies), f"{row.frames.chunk_rows} a chunk, {packing(row.frames)}",
            f"{row.episodes:,}", f"{row.steps:,}", f"{row.score:,.1f}", f"{row.frame_bytes / row.steps:,.0f}",
            megabytes(row.total_bytes), *(["yes" if row.has_tokens else "no"] if tokens else []),
        )  # fmt: skip
    return table


def packing(frames: ArrayInfo) -> str:
    """How chunks are compressed, in a word or two."""
    settings = dict(frames.settings)
    return {"zstd": f"zstd {settings.get('level')}", "blosc": "LZ4", "none": "not compressed"}[frames.codec]


def shortened(names: tuple[str, ...]) -> str:
    """The first few of ``names``, long ones cut in the middle, and how many more there are."""
    shown = [name if len(name) <= 24 else f"{name[:10]}…{name[-13:]}" for name in names[:NAMES_SHOWN]]
    more = [f"{len(names) - NAMES_SHOWN} more"] if len(names) > NAMES_SHOWN else []
    return ", ".join([*shown, *more])


def megabytes(size: int) -> str:
    """``size`` bytes, for reading."""
    return f"{size / 1e6:,.1f} MB"


def origin(attributes: dict[str, Any]) -> list[str]:
    """Where the games came from: a line for each kind of origin that the root attributes tell of."""
    lines = []
    for kind, what in attributes.items():
        if isinstance(what, dict):
            lines.append(f"{kind}: " + "; ".join(f"{name} ({_brief(value)})" for name, value in what.items()))
        elif kind not in ("schema", "version"):
            lines.append(f"{kind}: {_brief(what)}")
    return lines


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        parts = [f"{key} {_brief(inner)}" for key, inner in value.items() if key != "digest"]
        return ", ".join(parts)
    if isinstance(value, list):
        paths = [str(item.get("path", "?")) if isinstance(item, dict) else str(item) for item in value]
        return shortened(tuple(paths))
    return str(value)
