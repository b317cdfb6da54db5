"""Verifying a store: read every byte that an episode depends on, and list all that is wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jowa.data import checks, schema
from jowa.data.arrays import ArrayInfo, Rows
from jowa.data.checks import Episodes, Finding
from jowa.data.lock import LOCK_NAME
from jowa.data.schema import EPISODE_ARRAYS, NUM_EPISODES, NUM_ROWS, STEP_ARRAYS
from jowa.data.tokens import TOKENS
from jowa.errors import DataError, UsageError
from jowa.files import PARTIAL
from jowa.games import get_game
from jowa.progress import steps_progress


@dataclass
class Report:
    """What :func:`verify` found."""

    path: Path
    findings: list[Finding] = field(default_factory=list)
    games: int = 0
    episodes: int = 0
    frames: int = 0
    """Frames that were read."""
    files: int = 0
    """Files that were read."""
    seconds: float = 0.0

    @property
    def damage(self) -> list[Finding]:
        """The findings that are not harmless."""
        return [finding for finding in self.findings if not finding.harmless]

    def describe(self) -> str:
        """One line for the user."""
        rate = self.frames / max(self.seconds, 1e-9)
        return (
            f"{self.path}: {self.games} games, {self.episodes:,} episodes, {self.frames:,} frames, {self.files:,} "
            f"files read in {self.seconds:.1f} s ({rate:,.0f} frames/s); "
            f"{len(self.damage) or 'nothing'} damaged, {len(self.findings) - len(self.damage)} notes"
        )


@dataclass(frozen=True)
class _Game:
    """One game's arrays, as far as they can be trusted."""

    name: str
    infos: dict[str, ArrayInfo]
    rows: int
    episodes: Episodes


def verify(path: Path, threads: int = 0, progress: bool = True) -> Report:
    """Check everything in the store at ``path``; goes on after damage.

    Raises :class:`DataError` only when there is no store at all.
    """
    report, began = Report(path), time.monotonic()
    version = _check_root(path, report)
    used = {path / "zarr.json"}
    games = [_check_game(path, name, version, report, used) for name in _game_folders(path, report)]
    jobs = [
        (game, name, shard)
        for game in games
        for name, info in game.infos.items()
        if name in STEP_ARRAYS
        for shard in _shards(game, info)
    ]
    frames = sum(_frames_in(game, shard) for game, name, shard in jobs if name == "frames")
    done = 0
    with (
        steps_progress(f"checking {path}", frames, "frames", shown=progress) as advance,
        ThreadPoolExecutor(threads or os.cpu_count()) as pool,
    ):
        # Frames first: the large files keep all threads busy, the small ones fill up the end.
        jobs.sort(key=lambda job: job[1] != "frames")
        for (game, name, shard), found in zip(jobs, pool.map(_check_shard, jobs), strict=True):
            report.findings += found
            used.add(game.infos[name].shard_file(shard))
            if name == "frames":
                done += _frames_in(game, shard)
                advance(done)
    report.findings += _check_tokens(path, games)
    report.findings += _extras(path, games, used)
    report.findings.sort(key=lambda finding: str(finding.file))
    report.frames, report.files, report.games = frames, len(used), len(games)
    report.seconds = time.monotonic() - began
    return report


def _check_root(path: Path, report: Report) -> int:
    """The store's schema version."""
    document = path / "zarr.json"
    if not path.is_dir() or not (document.exists() or any(path.glob("*/episode_length"))):
        schema.check_root(path)  # says what is missing
    try:
        attributes = schema.check_root(path)
    except DataError as error:
        report.findings.append(Finding(document, checks.reason(error, document)))
        sealed = (schema.CHECKSUM.encode() in file.read_bytes() for file in path.glob("*/zarr.json"))
        return schema.VERSION if any(sealed) else 1
    report.findings += _unfinished(path, attributes)
    return int(attributes["version"])


def _unfinished(path: Path, attributes: dict[str, Any]) -> Iterator[Finding]:
    """Says so when a merge was interrupted: the store is whole, but smaller than it was meant to be."""
    for game, plan in attributes.get("merged", {}).items():
        wanted = sum(source["episodes"] for source in plan["sources"])
        try:
            there = schema.check_game(path, game)[NUM_EPISODES]
        except DataError:
            there = 0
        if there < wanted:
            what = f"the merge is not finished: {there} of {wanted} episodes of {game}; run the same command again"
            yield Finding(path / "zarr.json", what, harmless=True)


def _game_folders(path: Path, report: Report) -> list[str]:
    names = []
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and entry.name[0] != "." and not entry.name.endswith(PARTIAL) and entry.name != TOKENS:
            try:
                get_game(entry.name)
                names.append(entry.name)
            except UsageError:
                report.findings.append(Finding(entry, "is no game's group: move that folder away"))
    return names


def _check_game(path: Path, name: str, version: int, report: Report, used: set[Path]) -> _Game:
    folder, infos = path / name, {}
    document = folder / "zarr.json"
    # The commit first: what a writer appends meanwhile then lies behind it.
    used.add(document)
    counts: dict[str, Any] | None = None
    try:
        counts = schema.check_game(path, name, version)
        if version == 1 and schema.CHECKSUM in schema.read_document(document, name)["attributes"]:
            schema.read_sealed(document, name)
    except DataError as error:
        report.findings.append(Finding(document, checks.reason(error, document)))
    for array in (*STEP_ARRAYS, *EPISODE_ARRAYS):
        info, found = checks.check_array(folder / array, array, sealed=version > 1)
        report.findings += found
        used.add(folder / array / "zarr.json")
        if info is not None:
            infos[array] = info
        else:
            report.findings.append(Finding(folder / array, "was not checked: its zarr.json is damaged", harmless=True))
    assumed = counts or checks.guess_counts(infos)
    if assumed is None:
        return _Game(name, infos, 0, _episodes({}, {}, 0, 0))
    for array, info in infos.items():
        rows = assumed[NUM_EPISODES if array in EPISODE_ARRAYS else NUM_ROWS]
        if info.rows < rows:
            what = f"says that there are {info.rows} rows, {name}/zarr.json that there are {rows}"
            report.findings.append(Finding(info.folder / "zarr.json", what))
        elif info.rows > rows:
            what = f"has {info.rows - rows} rows that were never committed; the next writer removes them"
            report.findings.append(Finding(info.folder / "zarr.json", what, harmless=True))
    return _Game(name, infos, assumed[NUM_ROWS], _check_table(folder, infos, assumed, counts, report, used))


def _check_table(
    folder: Path, infos: dict[str, ArrayInfo], assumed: dict[str, Any], counts: dict[str, Any] | None,
    report: Report, used: set[Path],
) -> Episodes:  # fmt: skip
    """Read the episode table; where its parts are whole, they must not contradict each other."""
    total = assumed[NUM_EPISODES]
    columns, known = {}, {}
    for array in EPISODE_ARRAYS:
        if array in infos:
            name = array.removeprefix("episode_")
            columns[name], known[name], found = checks.read_column(infos[array], total)
            report.findings += found
            used.update(infos[array].shard_file(chunk) for chunk in range(-(-total // infos[array].chunk_rows)))
    report.episodes += total
    if counts and len(columns) == len(EPISODE_ARRAYS) and all(column.all() for column in known.values()):
        for what in checks.check_invariants(columns, counts):
            report.findings.append(Finding(folder, f"the episode table contradicts itself or zarr.json: {what}"))
    return _episodes(columns, known, total, assumed[NUM_ROWS])


def _episodes(columns: dict[str, Any], known: dict[str, Any], total: int, rows: int) -> Episodes:
    if not {"offset", "length"} <= columns.keys():
        nothing = np.empty(0, np.int64)
        return Episodes(nothing, nothing, nothing, complete=False)
    first, length = columns["offset"], columns["length"]
    sane = (first >= 0) & (length > 0) & (length <= rows) & (first <= rows - length)
    ids = np.flatnonzero(known["offset"] & known["length"] & sane)
    return Episodes(ids, first[ids], first[ids] + length[ids], complete=len(ids) == total)


def _shards(game: _Game, info: ArrayInfo) -> list[int]:
    """The files of an array to be read: those that hold episodes, and all others within the committed rows."""
    last = -(-game.rows // info.shard_rows)
    needed = game.episodes.shards(info.shard_rows)
    return sorted(needed | {shard for shard in range(last) if info.shard_file(shard).exists()})


def _frames_in(game: _Game, shard: int) -> int:
    rows = game.infos["frames"].shard_rows
    return int(game.episodes.rows(shard * rows, (shard + 1) * rows).sum())


def _check_shard(job: tuple[_Game, str, int]) -> list[Finding]:
    game, name, shard = job
    rows = Rows(game.infos[name])
    return checks.check_shard(rows, game.name, shard, game.episodes, checks.value_check(game.name, name))


def _check_tokens(path: Path, games: list[_Game]) -> Iterator[Finding]:
    """What is wrong with tokens that are there; those that are not can be made at any time."""
    for folder in sorted(entry for entry in (path / TOKENS).glob("*") if entry.is_dir()):
        documents = [folder / "zarr.json", *(folder / game.name / "zarr.json" for game in games)]
        for document in documents:
            if document.parent.exists():
                try:
                    schema.read_sealed(document, str(document.parent))
                except DataError as error:
                    yield Finding(document, checks.reason(error, document))
        for game in games:
            try:
                info = ArrayInfo.read(folder / game.name)
            except DataError:
                continue  # said already, or there are none
            known = game.episodes.before(info.rows)
            finished = _finished_tokens(folder, game)
            for shard in sorted(known.shards(info.shard_rows)):
                file = info.shard_file(shard)
                if file.exists():
                    yield from checks.check_shard(Rows(info), game.name, shard, known, None)
                elif shard in finished.shards(info.shard_rows):
                    yield Finding(
                        file, "is missing though these tokens are finished: run python -m jowa.tokenize again"
                    )


def _finished_tokens(folder: Path, game: _Game) -> Episodes:
    """The episodes whose tokens are said to be there."""
    try:
        extent = schema.read_sealed(folder / "zarr.json", str(folder))["attributes"]["games"][game.name]
        return game.episodes.before(extent["rows"] if extent["finished"] else 0)
    except (DataError, KeyError, TypeError):
        return game.episodes.before(0)


def _extras(path: Path, games: list[_Game], used: set[Path]) -> Iterator[Finding]:
    """Files that no episode needs: of a writer that was killed (harmless), or of unknown origin."""
    names = {game.name for game in games}
    for parent, folders, files in os.walk(path):
        place = Path(parent)
        if place == path:
            folders[:] = [name for name in folders if name in names or name.endswith(PARTIAL)]
        for name in list(folders):
            if name.endswith(PARTIAL):
                folders.remove(name)
                yield Finding(place / name, "is left over from a writer that was killed", harmless=True)
        for name in files:
            file = place / name
            if file in used or file == path / LOCK_NAME:
                continue
            if name.endswith(PARTIAL) or _is_behind(file, path, games):
                yield Finding(file, "is left over from a writer that was killed", harmless=True)
            else:
                yield Finding(file, "belongs to nothing: move it away", harmless=name.startswith("."))


def _is_behind(file: Path, path: Path, games: list[_Game]) -> bool:
    """Whether this may be a chunk behind all that is committed, or one of an array that could not be checked."""
    parts = file.relative_to(path).parts
    game = next((game for game in games if game.name == parts[0]), None)
    if game is None or len(parts) < 4 or parts[1] not in (*STEP_ARRAYS, *EPISODE_ARRAYS) or parts[2] != "c":
        return False
    info = game.infos.get(parts[1])
    return info is None or (parts[3].isdecimal() and file == info.shard_file(int(parts[3])))
