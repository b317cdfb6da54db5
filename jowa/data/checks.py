"""The single checks that :mod:`jowa.data.verify` and :mod:`jowa.data.merge` are made of: documents, table, shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from jowa.data import schema
from jowa.data.arrays import ArrayInfo, Damage, Rows, checksum
from jowa.data.schema import EPISODE_ARRAYS, STEP_ARRAYS, TABLE_CHUNK
from jowa.errors import DataError
from jowa.games import NUM_ACTIONS, get_game

SHOWN = 5
"""Ranges of steps or episodes that a line lists; of more it says how many."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one file, or (``harmless``) only worth a word."""

    file: Path
    what: str
    harmless: bool = False


@dataclass(frozen=True)
class Episodes:
    """Where the episodes of a game lie, as far as its table can be read."""

    ids: NDArray[np.int64]
    """int64 (n,): numbers of the episodes that are known."""
    first: NDArray[np.int64]
    """int64 (n,): their first rows, ascending."""
    stop: NDArray[np.int64]
    """int64 (n,): the rows behind their last ones."""
    complete: bool
    """Whether these are all."""

    def within(self, first: int, stop: int) -> NDArray[np.bool_]:
        """bool (n,): which of them have rows in [first, stop)."""
        return (self.first < stop) & (self.stop > first)

    def rows(self, first: int, stop: int) -> NDArray[np.bool_]:
        """bool (stop - first,): which of these rows belong to an episode."""
        covered = np.zeros(stop - first, np.bool_)
        for start, end in zip(*(ends[self.within(first, stop)] for ends in (self.first, self.stop)), strict=True):
            covered[max(start - first, 0) : end - first] = True
        return covered

    def before(self, row: int) -> Episodes:
        """Those that end at ``row`` or before."""
        chosen = self.stop <= row
        return Episodes(self.ids[chosen], self.first[chosen], self.stop[chosen], self.complete)

    def shards(self, shard_rows: int) -> set[int]:
        """The shards of ``shard_rows`` rows that hold any of them."""
        spans = zip((self.first // shard_rows).tolist(), (-(-self.stop // shard_rows)).tolist(), strict=True)
        return {shard for first, stop in spans for shard in range(first, stop)}


def reason(error: Exception, file: Path) -> str:
    """What ``error`` says about ``file``, without naming it once more."""
    return str(error).removeprefix(f"{file} ")


def check_array(folder: Path, name: str, sealed: bool) -> tuple[ArrayInfo | None, list[Finding]]:
    """The array ``name`` in ``folder``, as far as its document can be trusted, and what is wrong with that.

    ``sealed``: the document must have a checksum; one that is there must hold in any case.
    """
    file, findings = folder / "zarr.json", []
    try:
        document = schema.read_document(file, str(folder))
    except DataError as error:
        return None, [Finding(file, reason(error, file))]
    if sealed or schema.CHECKSUM in document.get("attributes", {}):
        try:
            schema.read_sealed(file, str(folder))
        except DataError as error:
            findings.append(Finding(file, reason(error, file)))
    try:
        info = _table_info(folder, document) if name in EPISODE_ARRAYS else ArrayInfo.read(folder, sealed=False)
        wanted = _differences(document, info, name, schema.VERSION if sealed else 1)
    except (DataError, LookupError, TypeError, ValueError):
        return None, findings or [Finding(file, "is not packed as docs/dataset.md says: restore it from a copy")]
    if wanted and not findings:
        findings.append(Finding(file, f"has {' and '.join(wanted)}: restore it from a copy"))
    return (None if wanted else info), findings


def _table_info(folder: Path, document: dict[str, Any]) -> ArrayInfo:
    """A column of the episode table: plain chunks, which are shards of one chunk without an index."""
    codecs = [codec["name"] for codec in document["codecs"]]
    (rows,), (chunk,) = document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"]
    if codecs != ["bytes", "zstd", "crc32c"] or document["codecs"][0].get("configuration", {}).get("endian") == "big":
        raise ValueError
    return ArrayInfo(folder, rows, (), np.dtype(document["data_type"]), chunk, chunk, "zstd", (), True)


def _differences(document: dict[str, Any], info: ArrayInfo, name: str, version: int) -> list[str]:
    """What a document says that its schema does not."""
    dtype, row = STEP_ARRAYS[name] if name in STEP_ARRAYS else (EPISODE_ARRAYS[name], ())
    shard = TABLE_CHUNK if name in EPISODE_ARRAYS else schema.STEPS_PER_SHARD if version > 1 else None
    grid, keys = document["chunk_grid"]["name"], document["chunk_key_encoding"]
    checks = [
        (f"{info.dtype.name} {info.row_shape}, not {dtype} {row}", (info.dtype.name, info.row_shape) == (dtype, row)),
        (f"{info.shard_rows} rows a file, not {shard}", shard in (None, info.shard_rows)),
        (f"{info.rows!r} rows", isinstance(info.rows, int) and info.rows >= 0),
        ("no checksums of chunks", info.checksum and info.codec != "none"),
        (f"the format {document['zarr_format']}", document["zarr_format"] == 3 and document["node_type"] == "array"),
        (f"the grid {grid!r}", grid == "regular"),
        (f"the keys {keys}", keys == {"name": "default", "configuration": {"separator": "/"}}),
    ]
    return [text for text, right in checks if not right]


def read_column(info: ArrayInfo, rows: int) -> tuple[NDArray[Any], NDArray[np.bool_], list[Finding]]:
    """A column of the episode table: its first ``rows`` values, which of them are known, what is wrong."""
    values, known, findings = np.zeros(rows, info.dtype), np.zeros(rows, np.bool_), []
    for chunk in range(-(-rows // info.chunk_rows)):
        file, first = info.shard_file(chunk), chunk * info.chunk_rows
        stop = min(rows, first + info.chunk_rows)
        try:
            values[first:stop] = _decode_table_chunk(file, info)[: stop - first]
            known[first:stop] = True
        except DataError as error:
            findings.append(Finding(file, f"{error}: episodes {first} to {stop - 1}"))
    return values, known, findings


def _decode_table_chunk(file: Path, info: ArrayInfo) -> NDArray[Any]:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise DataError("the file is missing") from None
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror})") from None
    if len(data) < 4 or checksum(data[:-4]) != data[-4:]:
        raise DataError("the file is empty" if not data else "its checksum is wrong")
    try:
        raw = np.frombuffer(Zstd().decode(data[:-4]), np.uint8)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"it cannot be decoded ({error})") from None
    if raw.nbytes != info.chunk_rows * info.dtype.itemsize or (info.dtype == np.bool_ and raw.max() > 1):
        raise DataError("its content is no chunk of this column")
    return raw.view(info.dtype)


def check_invariants(columns: dict[str, NDArray[Any]], counts: dict[str, Any]) -> list[str]:
    """What the columns of a whole episode table (offset, length, …) say against each other and the commit."""
    offsets, lengths = columns["offset"], columns["length"]
    ends, found = offsets + lengths, []
    late = np.append(np.int64(0), ends[:-1])
    policies = len(counts[schema.POLICIES])

    def complain(bad: NDArray[np.bool_], what: str) -> None:
        if bad.any():
            found.append(f"{what}: {listed('episode', [(int(k), int(k) + 1) for k in np.flatnonzero(bad)])}")

    complain(lengths < 1, "lengths below 1")
    complain(offsets < late, "steps that overlap the episode before")
    complain(ends > counts[schema.NUM_ROWS], f"steps behind row {counts[schema.NUM_ROWS]}, where the arrays end")
    complain(~np.isfinite(columns["score"]), "scores that are not finite")
    complain(columns["policy"] >= policies, f"policies that are none of the {policies} in {schema.POLICIES}")
    if not found and int(lengths.sum()) != counts[schema.NUM_STEPS]:
        found.append(f"lengths that sum to {lengths.sum()}, not to {counts[schema.NUM_STEPS]} as zarr.json says")
    return found


def check_shard(
    rows: Rows, game: str, shard: int, episodes: Episodes, values: Callable[[NDArray[Any]], NDArray[np.bool_]] | None
) -> list[Finding]:
    """All that is wrong with one file of a step array: each of its chunks is read and decoded.

    ``values``: which values of a scalar array are wrong; None for frames, which may be anything.
    """
    info, first = rows.info, shard * rows.info.shard_rows
    faults, wrong, row, stop = [], [], first, first + info.shard_rows
    while row < stop:
        end = stop if values is None else row + info.chunk_rows
        found = rows.check(row, end) if values is None else rows.read(row, end)
        if isinstance(found, Damage):
            faults.append(found)
            end = found.stop
        elif found is not None and values is not None:
            bad = np.flatnonzero(values(found))
            if len(bad):
                bad = bad[episodes.rows(row, end)[bad]]
            wrong += [(row + int(k), row + int(k) + 1) for k in bad]
        row = end
    findings = _describe_faults(faults, episodes)
    if wrong:
        name = info.folder.name
        what = f"{name} that are not legal in {game}" if name == "actions" else f"{name} outside [-1, 1]"
        findings.append(Finding(info.shard_file(shard), f"{what}: {_where(wrong, episodes)}"))
    return findings


def _describe_faults(faults: list[Damage], episodes: Episodes) -> list[Finding]:
    findings = []
    for why in dict.fromkeys(fault.reason for fault in faults):
        same = [fault for fault in faults if fault.reason == why]
        hit = [(fault.first, fault.stop) for fault in same if episodes.within(fault.first, fault.stop).any()]
        if hit:
            findings.append(Finding(same[0].file, f"{why}: {_where(hit, episodes)}"))
        elif "missing" in why or "never written" in why:
            continue  # nobody wrote what no episode needs
        else:
            spans = [(fault.first, fault.stop) for fault in same]
            what = f"{why}: {listed('step', spans)}, which belong to no episode"
            findings.append(Finding(same[0].file, what, harmless=episodes.complete))
    return findings


def _where(spans: list[tuple[int, int]], episodes: Episodes) -> str:
    hit = np.zeros(len(episodes.ids), np.bool_)
    for first, stop in spans:
        hit |= episodes.within(first, stop)
    return f"{listed('step', spans)}; {listed('episode', [(int(k), int(k) + 1) for k in episodes.ids[hit]])}"


def listed(thing: str, spans: list[tuple[int, int]]) -> str:
    """``steps 3 to 7, 12`` for half-open spans; neighbours are joined, and only the first few are shown."""
    joined: list[tuple[int, int]] = []
    for first, stop in spans:
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((first, stop))
    parts = [f"{first}" if stop == first + 1 else f"{first} to {stop - 1}" for first, stop in joined[:SHOWN]]
    more = f" and {len(joined) - SHOWN} more places" if len(joined) > SHOWN else ""
    single = len(joined) == 1 and joined[0][1] == joined[0][0] + 1
    return f"{thing}{'' if single else 's'} {', '.join(parts)}{more}"


def wrong_actions(game: str) -> Callable[[NDArray[Any]], NDArray[np.bool_]]:
    """Which actions are not legal in ``game``."""
    illegal = np.ones(256, np.bool_)
    illegal[:NUM_ACTIONS] = ~get_game(game).action_mask
    return lambda actions: illegal[actions]


def wrong_rewards(rewards: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rewards are outside [-1, 1] or not numbers."""
    return ~(np.abs(rewards) <= 1.0)


def value_check(game: str, name: str) -> Callable[[NDArray[Any]], NDArray[np.bool_]] | None:
    """What :func:`check_shard` needs for the step array ``name``."""
    return {"actions": wrong_actions(game), "rewards": wrong_rewards}.get(name)


def guess_counts(infos: dict[str, ArrayInfo]) -> dict[str, Any] | None:
    """All that a game's arrays have, for when the document that says what is committed cannot be read."""
    if not {"episode_length", "frames"} <= infos.keys():
        return None
    return {schema.NUM_EPISODES: infos["episode_length"].rows, schema.NUM_ROWS: infos["frames"].rows}
