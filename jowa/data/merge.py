"""Joining stores: blocks of episodes behind one another, each committed whole, resumable at any moment."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from jowa.data import checks, schema
from jowa.data.arrays import ArrayInfo, Rows, ShardWriter
from jowa.data.checks import Episodes
from jowa.data.lock import is_blank
from jowa.data.remote import is_remote
from jowa.data.schema import STEP_ARRAYS
from jowa.data.store import EpisodeStore
from jowa.data.tokens import TOKENS
from jowa.data.writer import EpisodeWriter
from jowa.errors import DataError, UsageError, unknown_name
from jowa.files import atomic_write
from jowa.games import get_game
from jowa.progress import steps_progress

MERGED = "merged"
"""Root attribute: for each game the layout and, in order, the sources that are meant to be in."""
Job = TypeVar("Job")

PIECE = 2048
"""Rows that are decoded and written together."""


@dataclass(frozen=True)
class Block:
    """The episodes of one game in one source."""

    source: EpisodeStore
    path: str
    """The source as the user named it."""
    game: str
    digest: str
    """SHA-256 of the episodes but for their frames."""
    origin: dict[str, Any]
    """What the source's root attributes say of the game: how it was recorded, imported, merged."""

    @property
    def episodes(self) -> int:
        """Committed episodes."""
        return self.source.num_episodes(self.game)

    @property
    def steps(self) -> int:
        """Committed agent steps."""
        return self.source.num_steps(self.game)

    def record(self) -> dict[str, Any]:
        """What the new store's attributes keep of it."""
        counts = {"episodes": self.episodes, "steps": self.steps}
        return {"path": self.path, "digest": self.digest, **counts, **self.origin}


@dataclass(frozen=True)
class Summary:
    """What a merge did."""

    out: Path
    blocks: tuple[Block, ...]
    reused: int
    """Blocks that were in the store before."""
    copied: int
    """Blocks whose files were copied as they are; the others' rows were packed anew."""

    def describe(self) -> list[str]:
        """Lines for the user: a line for each source and game, and the sums."""
        lines = [f"{b.path}: {b.game}, {b.episodes:,} episodes, {b.steps:,} steps" for b in self.blocks]
        episodes, steps = (sum(getattr(b, name) for b in self.blocks) for name in ("episodes", "steps"))
        made = len(self.blocks) - self.reused
        how = f"{self.reused} were there, {self.copied} copied, {made - self.copied} packed anew"
        tokens = list(dict.fromkeys(block.path for block in self.blocks if (block.source.path / TOKENS).exists()))
        if tokens:
            lines.append(
                f"tokens of {', '.join(tokens)} were not taken over: make them anew with python -m jowa.tokenize"
            )
        return [*lines, f"{self.out}: {episodes:,} episodes, {steps:,} steps in {len(self.blocks)} blocks ({how})"]


def merge(
    sources: Sequence[str], out: Path, layout: str = "default", games: Sequence[str] = (), progress: bool = True
) -> Summary:
    """Join the stores ``sources`` into a new one at ``out``, or go on with such a merge that was interrupted.

    Raises :class:`UsageError` when ``out`` holds something else, or the merge of something else;
    :class:`DataError` naming the file when a source is damaged; OSError when ``out`` cannot be written.
    What was committed before stays, and the same call goes on behind it.
    """
    schema.get_layout(layout)
    blocks = _plan(sources, out, games)
    plan: dict[str, Any] = {}
    for block in blocks:
        plan.setdefault(block.game, {"layout": layout, "sources": []})["sources"].append(block.record())
    _refuse_other_folders(out)
    try:
        with EpisodeWriter.open(out, layout) as writer:
            _agree_on_plan(writer, plan)
            waiting = _waiting(writer, blocks)
            total, copied = sum(block.steps for block in blocks), 0
            done = total - sum(block.steps for block in waiting)
            with steps_progress(f"merging into {out}", total, "steps", done, progress) as advance:
                for block in waiting:
                    copied += _append(writer, block, partial(_advance, advance, done))
                    done += block.steps
                    advance(done)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or error.filename is None:
            error.filename = str(out)
        raise
    return Summary(out, tuple(blocks), len(blocks) - len(waiting), copied)


def _advance(advance: Callable[..., None], before: int, rows: int) -> None:
    advance(before + rows)


def _plan(sources: Sequence[str], out: Path, games: Sequence[str]) -> list[Block]:
    """The blocks of the new store in order: by source, then by game."""
    for name in games:
        get_game(name)
    if not sources:
        raise UsageError("no data sets to merge: name at least one, for example merge A B --out C")
    folders = [Path(source).resolve() for source in sources]
    for source, folder in zip(sources, folders, strict=True):
        if is_remote(source):
            raise UsageError(f"{source} is remote: copy it into a folder first, merge reads every byte of it")
        if folders.count(folder) > 1:
            raise UsageError(f"{source} is named twice: its episodes would be in the new data set twice")
        target = out.resolve()
        if folder == target or folder in target.parents or target in folder.parents:
            raise UsageError(f"{out} and {source} are, or contain, one another: choose another folder for --out")
    blocks: list[Block] = []
    for source in sources:
        store = EpisodeStore.open(source)
        for game in store.games:
            if not games or game in games:
                blocks.append(Block(store, source, game, _digest(store, game), _origin(store, game)))
    had = {block.game for block in blocks}
    for name in games:
        if name not in had:
            raise unknown_name("game in these data sets:", name, sorted({g for b in blocks for g in b.source.games}))
    seen: dict[tuple[str, str], Block] = {}
    for block in blocks:
        other = seen.setdefault((block.game, block.digest), block)
        if other is not block:
            raise UsageError(f"{other.path} and {block.path} hold the same episodes of {block.game}: name one only")
    _refuse_shared_episodes(blocks)
    return blocks


def _refuse_shared_episodes(blocks: Sequence[Block]) -> None:
    """A longer recording of what another source holds a part of would put that part into the new store twice."""
    holders: dict[tuple[Any, ...], Block] = {}
    for block in blocks:
        known = [
            (block.game, info.policy, info.seed, info.length, info.score, info.terminal)
            for info in block.source.episodes(block.game)
            if info.seed  # 0 where none is known
        ]
        shared = [holders[key] for key in known if key in holders]
        if shared:
            raise UsageError(
                f"{shared[0].path} and {block.path} share {len(shared)} episodes of {block.game} (same seed, policy, "
                "length and score): name the one that holds more, or choose --games"
            )
        holders |= dict.fromkeys(known, block)


def _digest(store: EpisodeStore, game: str) -> str:
    """SHA-256 of all about the episodes but their frames, whatever the layout: copies have the same."""
    found, table = hashlib.sha256(), store.table(game)
    for name in ("length", "terminal", "seed", "score"):
        found.update(np.ascontiguousarray(table[name]).tobytes())
    for info in store.episodes(game):
        found.update(info.policy.encode() + b"\0")
        for values in store.read_scalars(game, info.offset, info.offset + info.length):
            found.update(values.tobytes())
    return found.hexdigest()


def _origin(store: EpisodeStore, game: str) -> dict[str, Any]:
    told = {key: value[game] for key, value in store.attributes.items() if isinstance(value, dict) and game in value}
    return {"origin": told} if told else {}


def _refuse_other_folders(out: Path) -> None:
    """An existing folder must be a merge, or what is left of one that was killed at its very beginning."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a folder")
    if is_blank(out):
        return
    attributes = schema.check_root(out)
    begun = attributes.keys() == {"schema", "version"} and not schema.game_names(out)
    if MERGED not in attributes and not begun:
        raise UsageError(f"{out} holds a data set that was not made by merge: choose a new folder for --out")


def _agree_on_plan(writer: EpisodeWriter, plan: dict[str, Any]) -> None:
    """Note what is going to be merged, or make sure that the interrupted merge was of the same."""
    had = writer.attributes.get(MERGED)
    if had is None:
        writer.update_attributes({MERGED: plan})
        return
    for game in sorted(plan.keys() | had.keys()):
        old, new = had.get(game), plan.get(game)
        if old is None or new is None:
            change = f"{game} was {'not ' if old is None else ''}part of it"
        elif old["layout"] != new["layout"]:
            change = f"the layout of {game} was {old['layout']}, now {new['layout']}"
        elif [s["digest"] for s in old["sources"]] != [s["digest"] for s in new["sources"]]:
            paths = [", ".join(s["path"] for s in each["sources"]) for each in (old, new)]
            change = f"{game} came from {paths[0]}, now from {paths[1]}"
            if paths[0] == paths[1]:
                change = f"{game} in {paths[0]} has changed since"
        else:
            continue
        raise UsageError(f"{writer.path} is the merge of something else ({change}): choose a new folder for --out")


def _waiting(writer: EpisodeWriter, blocks: list[Block]) -> list[Block]:
    """The blocks that are not in the store yet; of each game its first ones are."""
    waiting, there = [], {block.game: writer.num_episodes(block.game) for block in blocks}
    for block in blocks:
        if there[block.game] >= block.episodes:
            there[block.game] -= block.episodes
        elif there[block.game]:
            raise DataError(f"{writer.path} has episodes of {block.game} that were not merged: choose a new folder")
        else:
            waiting.append(block)
    return waiting


def _append(writer: EpisodeWriter, block: Block, advance: Callable[[int], None]) -> bool:
    """Write and commit one block; whether its files were copied as they are."""
    writer.create(block.game)
    first, targets = writer.next_block(block.game), writer.infos(block.game)
    sources = {name: block.source.rows(block.game, name).info for name in STEP_ARRAYS}
    table = dict(block.source.table(block.game))
    same = all(replace(sources[name], folder=info.folder, rows=info.rows) == info for name, info in targets.items())
    if same:
        _copy_shards(block, sources, targets, first, advance)
        table["offset"] = table["offset"] + first
        rows = first + block.source.num_rows(block.game)
    else:
        _pack_rows(block, targets, first, advance)
        table["offset"] = first + np.cumsum(table["length"]) - table["length"]
        rows = first + block.steps
    policies = [info.policy for info in block.source.episodes(block.game)]
    del table["policy"]
    writer.commit(block.game, table, policies, rows)
    return same


def _copy_shards(
    block: Block, sources: dict[str, ArrayInfo], targets: dict[str, ArrayInfo], first: int,
    advance: Callable[[int], None],
) -> None:  # fmt: skip
    """Check every shard that holds an episode, then copy it; the block begins at a shard's first row."""
    table = block.source.table(block.game)
    starts = table["offset"]
    episodes = Episodes(np.arange(len(starts)), starts, starts + table["length"], complete=True)
    jobs = [
        (name, shard, info.shard_file(shard), targets[name].shard_file(first // info.shard_rows + shard))
        for name, info in sources.items()
        for shard in sorted(episodes.shards(info.shard_rows))
    ]

    def copy(job: tuple[str, int, Path, Path]) -> int:
        name, shard, source, target = job
        # A reader of its own, so that a merge of very many files does not keep them all mapped.
        rows, check = Rows(sources[name]), checks.value_check(block.game, name)
        for found in checks.check_shard(rows, block.game, shard, episodes, check):
            if not found.harmless:
                raise DataError(f"{found.file} is damaged ({found.what}): verify the data set, nothing of it was taken")
        content = source.read_bytes()
        atomic_write(target, lambda temporary: temporary.write_bytes(content))
        row = shard * rows.info.shard_rows
        return int(episodes.rows(row, row + rows.info.shard_rows).sum()) if name == "frames" else 0

    _in_threads(copy, jobs, advance)


def _pack_rows(block: Block, targets: dict[str, ArrayInfo], first: int, advance: Callable[[int], None]) -> None:
    """Decode the episodes and write them without the gaps between them; every new shard is a job of its own."""
    table, size = block.source.table(block.game), schema.STEPS_PER_SHARD
    offset, length = table["offset"], table["length"]
    packed = np.cumsum(length) - length

    def pack(shard: int) -> int:
        low, high = shard * size, min((shard + 1) * size, block.steps)
        writers = {name: ShardWriter(info, first + low) for name, info in targets.items()}
        for episode in np.flatnonzero((packed < high) & (packed + length > low)).tolist():
            begin = int(offset[episode] + max(low - packed[episode], 0))
            end = int(offset[episode] + min(high - packed[episode], length[episode]))
            for start in range(begin, end, PIECE):
                for name, rows in _read_legal(block, episode, start, min(start + PIECE, end)).items():
                    writers[name].write(rows)
        for writer in writers.values():
            writer.flush()
        return high - low

    _in_threads(pack, range(-(-block.steps // size)), advance)


def _read_legal(block: Block, episode: int, start: int, stop: int) -> dict[str, NDArray[Any]]:
    frames, actions, rewards = block.source.read(block.game, start, stop)
    if checks.wrong_actions(block.game)(actions).any() or checks.wrong_rewards(rewards).any():
        raise DataError(
            f"{block.source.path / block.game} is damaged (episode {episode} has actions or rewards that are not "
            f"legal, at steps {start} to {stop - 1}): verify the data set, nothing of it was taken"
        )
    return {"frames": frames, "actions": actions, "rewards": rewards}


def _in_threads(work: Callable[[Job], int], jobs: Iterable[Job], advance: Callable[[int], None]) -> None:
    """Do ``jobs`` side by side; each says how many steps it dealt with."""
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for steps in pool.map(work, jobs):
                done += steps
                advance(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
