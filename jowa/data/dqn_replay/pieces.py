"""The work on one checkpoint: its terminals first, later the drawn episodes that begin in it.  Runs in any process."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jowa.data.arrays import ArrayInfo, ShardWriter
from jowa.data.dqn_replay.plan import MAX_PADDING, Log, Part, Piece, Taken
from jowa.data.dqn_replay.source import BadFile, Checkpoint, Fault, Stream, read_array
from jowa.data.schema import STEPS_PER_SHARD
from jowa.errors import DataError
from jowa.files import atomic_write_text
from jowa.games import get_game


@dataclass(frozen=True)
class Job:
    """A piece and where its results go."""

    piece: Piece
    infos: dict[str, ArrayInfo]
    """The game's step arrays."""
    marker: Path
    """Written when the piece is done."""


@dataclass(frozen=True)
class Outcome:
    """What became of a piece."""

    digest: str
    """Of the piece."""
    taken: tuple[Taken, ...]
    faults: tuple[Fault, ...] = ()


def scan(checkpoint: Checkpoint) -> Log | Fault:
    """What the terminals say, or what is wrong with their file."""
    try:
        values = read_array(checkpoint, "terminal")
        if values.max() > 1:
            raise BadFile(checkpoint, "terminal", f"holds the value {values.max()}: expected 0 and 1")
    except BadFile as bad:
        return bad.fault
    return Log(checkpoint.run, checkpoint.number, len(values), np.flatnonzero(values).astype(np.int64))


def import_piece(job: Job) -> Outcome:
    """Write the episodes of ``job`` into their block of rows, and its marker unless a file had a fault.

    A fault of the checkpoint itself leaves nothing; one of a checkpoint that its last episode goes on into, all
    but that episode.  Raises :class:`DataError` where the data set cannot be seen.
    """
    for info in job.infos.values():
        if not (info.folder / "zarr.json").is_file():  # writing would work, onto a disk of this machine's own
            raise DataError(
                f"the worker on {socket.gethostname()} does not see {info.folder}: put --out on a file system that all "
                "workers share under the same path"
            )
    try:
        outcome = _Import(job).run()
    except BadFile as bad:
        remove_block(job)
        return Outcome(job.piece.digest(), (), (bad.fault,))
    if not outcome.faults:
        atomic_write_text(job.marker, json.dumps(asdict(outcome)) + "\n")
    return outcome


def finished(job: Job) -> Outcome | None:
    """What the marker of ``job`` says, or None when there is none or it is of another plan."""
    try:
        values = json.loads(job.marker.read_text(encoding="utf-8"))
        taken = tuple(
            Taken(**item | {"rewards": tuple((step, reward) for step, reward in item["rewards"])})
            for item in values["taken"]
        )
        outcome = Outcome(values["digest"], taken)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return outcome if outcome.digest == job.piece.digest() else None


class _Import:
    """One run of :func:`import_piece`: frames stream through, rows are counted from the checkpoint's first."""

    def __init__(self, job: Job) -> None:
        self.piece = job.piece
        self.legal = np.array(get_game(job.piece.game).legal_actions, np.uint8)
        self.writers = {name: ShardWriter(info, job.piece.first_row) for name, info in job.infos.items()}
        self.offset = job.piece.first_row
        self.spans = list(job.piece.spans)
        self.taken: list[Taken] = []
        self.padding = 0
        """Rows of the episode at hand that were left out."""

    def run(self) -> Outcome:
        own, *later = self.piece.parts
        self.actions, self.rewards = self._scalars(own)
        faults: list[Fault] = []
        try:
            heads = [(part, *self._scalars(part)) for part in later]
        except BadFile as bad:
            faults.append(bad.fault)
            heads, self.spans = [], self.spans[:-1]
        for part, actions, rewards in heads:
            self.actions = np.concatenate([self.actions, actions[: part.wanted]])
            self.rewards = np.concatenate([self.rewards, rewards[: part.wanted]])
        self._take_part(own, 0)
        first = own.rows
        try:
            for part, *_ in heads:
                self._take_part(part, first)
                first += part.rows
        except BadFile as bad:  # rows that are there of the episode that goes on into it will be named by nobody
            faults.append(bad.fault)
        for writer in self.writers.values():
            writer.flush()
        return Outcome(self.piece.digest(), tuple(self.taken), tuple(faults))

    def _scalars(self, part: Part) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Actions of the full set, and rewards, of a whole checkpoint."""
        checkpoint = self.piece.checkpoint(part)
        actions, rewards = (read_array(checkpoint, kind, part.rows) for kind in ("action", "reward"))
        if actions.min() < 0 or actions.max() >= len(self.legal):
            raise BadFile(
                checkpoint, "action",
                f"holds actions from {actions.min()} to {actions.max()}: expected 0 to {len(self.legal) - 1}, "
                f"the minimal set of {self.piece.game}",
            )  # fmt: skip
        if not (np.abs(rewards) <= 1.0).all():
            raise BadFile(checkpoint, "reward", "holds rewards that are not finite or outside [-1, 1]")
        return self.legal[actions], rewards

    def _take_part(self, part: Part, first: int) -> None:
        for at, frames in self._frames(part):
            self._take(first + at, frames)

    def _frames(self, part: Part) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The frames of a checkpoint in blocks, as far as they are wanted and at least as far as they must be read."""
        with Stream(self.piece.checkpoint(part), "observation", part.rows) as stream:
            for at, frames in stream.blocks():
                if at < part.wanted:
                    yield at, frames[: part.wanted - at]
                if at + len(frames) >= part.wanted and not part.whole:
                    return

    def _take(self, at: int, frames: NDArray[np.uint8]) -> None:
        """Write what the drawn episodes need of ``frames``, rows ``at`` and following."""
        end = at + len(frames)
        while self.spans and self.spans[0][0] < end:
            first, length, draw = self.spans[0]
            start, stop = max(first, at), min(first + length, end)
            while start < stop and self._is_padding(start, frames[start - at]):
                self.padding += 1
                start += 1
            if start < stop:
                self.writers["frames"].write(frames[start - at : stop - at])
                self.writers["actions"].write(self.actions[start:stop])
                self.writers["rewards"].write(self.rewards[start:stop])
            if first + length > end:
                return
            self._finish(first + self.padding, length - self.padding, draw)

    def _is_padding(self, row: int, frame: NDArray[np.uint8]) -> bool:
        first, length, _ = self.spans[0]
        leading = row - first == self.padding < min(MAX_PADDING, length - 1)
        return leading and self.actions[row] == 0 and self.rewards[row] == 0 and not frame.any()

    def _finish(self, first: int, length: int, draw: int) -> None:
        rewards = self.rewards[first : first + length]
        steps = np.flatnonzero(rewards).tolist() if self.piece.exact else []
        earned = tuple((step, float(rewards[step])) for step in steps)
        self.taken.append(Taken(draw, self.offset, length, first, float(rewards.sum(dtype=np.float64)), earned))
        self.offset += length
        self.padding = 0
        self.spans.pop(0)


def remove_block(job: Job) -> None:
    """Delete what was written of a piece that has nothing to give."""
    first = job.piece.first_row // STEPS_PER_SHARD
    for info in job.infos.values():
        for shard in range(first, first + -(-job.piece.planned_rows // STEPS_PER_SHARD)):
            info.shard_file(shard).unlink(missing_ok=True)
