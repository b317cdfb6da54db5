"""From terminals to episodes, the draw, and the pieces of work: pure functions of the settings and the source."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.data.dqn_replay.source import Checkpoint
from jowa.data.schema import STEPS_PER_SHARD
from jowa.errors import DataError
from jowa.games import get_game

MAX_PADDING = 3
"""Rows that Dopamine's buffer may put before an episode: a stack of 4 frames, less one."""

SUBSETS = ("mixed", "expert", "weak")


@dataclass(frozen=True)
class Log:
    """What the terminal file of one checkpoint says."""

    run: int
    number: int
    rows: int
    ends: NDArray[np.int64]
    """Rows at which an episode ended, ascending."""


@dataclass(frozen=True)
class Span:
    """Where one whole episode lies in the source."""

    run: int
    number: int
    """Checkpoint in which it begins."""
    first: int
    """Its first row there, padding included."""
    length: int
    """Rows, padding included."""
    last: int
    """Checkpoint in which it ends."""


@dataclass(frozen=True)
class Part:
    """A checkpoint that a piece reads."""

    number: int
    rows: int
    """Rows that the checkpoint has."""
    wanted: int
    """Rows that are needed of it, from its beginning."""
    whole: bool
    """Whether it must be read to the end, where its checksum is."""


@dataclass(frozen=True)
class Piece:
    """The drawn episodes that begin in one checkpoint, and the rows of the store that are theirs."""

    source: str
    game: str
    run: int
    parts: tuple[Part, ...]
    """The checkpoint itself, then those into which its last episode goes on."""
    first_row: int
    """Of the game's step arrays; begins a shard."""
    spans: tuple[tuple[int, int, int], ...]
    """(first row in the checkpoint, rows, place in the draw) of its episodes, ascending."""
    exact: bool
    """Whether episodes may be cut later, so that their rewards must be known one by one."""

    @property
    def number(self) -> int:
        """The checkpoint's number."""
        return self.parts[0].number

    @property
    def name(self) -> str:
        """Of its marker file."""
        return f"run{self.run}-ckpt{self.number:02d}"

    @property
    def frames(self) -> int:
        """Frames to be read for it."""
        return sum(part.rows if part.whole else part.wanted for part in self.parts)

    @property
    def planned_rows(self) -> int:
        """Rows of the store that it needs at most."""
        return sum(length for _, length, _ in self.spans)

    def checkpoint(self, part: Part) -> Checkpoint:
        """Where ``part`` lies."""
        return Checkpoint(self.source, self.game, self.run, part.number)

    def digest(self) -> str:
        """Differs between pieces that would write different things."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """What is to be imported of one game."""

    game: str
    drawn: tuple[Span, ...]
    """In the order of drawing."""
    pieces: tuple[Piece, ...]
    counts: dict[str, int]
    """What was found, and what was left out before the draw."""


@dataclass(frozen=True)
class Taken:
    """An episode that a piece has written."""

    draw: int
    """Its place in the draw."""
    offset: int
    """Its first row in the game's step arrays."""
    length: int
    first: int
    """Its first row in the checkpoint where it begins, behind padding."""
    score: float
    """Sum of its rewards."""
    rewards: tuple[tuple[int, float], ...]
    """(step, reward) where not zero, for an exact import."""


def choose_checkpoints(listed: Sequence[int], subset: str) -> list[int]:
    """The numbers of ``listed`` (ascending) that belong to ``subset``: all, the first or the last fifth of them."""
    share = -(-len(listed) // 5)
    return list({"mixed": listed, "weak": listed[:share], "expert": listed[-share:]}[subset])


def find_spans(logs: Sequence[Log]) -> tuple[list[Span], Counter[str]]:
    """The whole episodes of one run's ``logs`` (numbers ascending), and what could not be whole.

    A beginning is known in checkpoint 0, behind a terminal, and where the checkpoint before ended with one.
    """
    spans: list[Span] = []
    lost: Counter[str] = Counter()
    before: Log | None = None
    start: tuple[int, int] | None = None
    carried = 0

    def leave_open() -> None:
        if carried:
            lost["no_start" if start is None else "no_end"] += 1
            lost["lost_rows"] += carried

    for log in logs:
        if before is None or log.number != before.number + 1:
            leave_open()
            start, carried = ((0, 0) if log.number == 0 else None), 0
        at = 0
        for stop in (log.ends + 1).tolist():
            if start is None:
                lost["no_start"] += 1
                lost["lost_rows"] += carried + stop - at
            else:
                spans.append(Span(log.run, *start, carried + stop - at, log.number))
            start, at, carried = (log.number, stop), stop, 0
        if at == log.rows:
            start = (log.number + 1, 0)
        carried += log.rows - at
        before = log
    leave_open()
    return spans, lost


class TooFewTransitions(DataError):
    """The episodes that were drawn have too few, because some lie in damaged files."""

    def __init__(self, message: str, game: str, bad: set[tuple[int, int]]) -> None:
        super().__init__(message)
        self.game = game
        self.bad = bad
        """(run, number) of the checkpoints with a fault."""


def draw(
    spans: Sequence[Span], game: str, seed: int, fraction: float | None, transitions: int | None,
    avoid: Set[tuple[int, int]] = frozenset(),
) -> list[int]:  # fmt: skip
    """Indices into ``spans``, uniformly without replacement, in the order of drawing.

    Either ``fraction`` of them, at least one, or as many as have ``transitions`` steps whatever part of their first
    rows turns out to be padding (all, when that is not certain), passing over those that lie in checkpoints to
    ``avoid``.  Raises :class:`DataError` when they cannot have.
    """
    generator = np.random.default_rng(np.random.SeedSequence((seed, get_game(game).task_id)))
    order = generator.permutation(len(spans)).tolist()
    if not order:
        raise DataError(f"the chosen checkpoints of {game} hold no whole episode: choose more runs or another subset")
    if fraction is not None:
        return order[: max(1, round(fraction * len(order)))]
    wanted = transitions or 0
    order = [index for index in order if not _touches(spans[index], avoid)]
    most = sum(spans[index].length for index in order)
    if most < wanted:
        raise DataError(
            f"the chosen checkpoints of {game} hold {most} transitions in whole episodes: {wanted} are wanted; "
            "choose more runs or another subset"
        )
    certain = np.cumsum([max(spans[index].length - MAX_PADDING, 1) for index in order])
    return order[: int(np.searchsorted(certain, wanted)) + 1]


def make_plan(
    source: str,
    game: str,
    logs: Sequence[Log],
    crossing: str,
    seed: int,
    fraction: float | None,
    transitions: int | None,
    avoid: Set[tuple[int, int]] = frozenset(),
) -> Plan:
    """Find, draw and divide: ``logs`` are of all chosen runs, ascending by run and number.

    ``avoid``: (run, number) of checkpoints that an exact draw passes over.
    """
    spans: list[Span] = []
    counts: Counter[str] = Counter()
    for _, of_run in groupby(logs, lambda log: log.run):
        found, lost = find_spans(list(of_run))
        spans += found
        counts += lost
    counts["found"] = len(spans)
    if crossing == "drop":
        whole = [span for span in spans if span.number == span.last]
        counts["crossing_dropped"] = len(spans) - len(whole)
        spans = whole
    drawn = tuple(spans[index] for index in draw(spans, game, seed, fraction, transitions, avoid))
    counts["drawn"] = len(drawn)
    if avoid:
        counts["avoided"] = sum(_touches(span, avoid) for span in spans)
    rows = {(log.run, log.number): log.rows for log in logs}
    return Plan(game, drawn, _make_pieces(source, game, drawn, rows, transitions is not None), dict(counts))


def _make_pieces(
    source: str, game: str, drawn: Sequence[Span], rows: dict[tuple[int, int], int], exact: bool
) -> tuple[Piece, ...]:
    ordered = sorted(enumerate(drawn), key=lambda item: (item[1].run, item[1].number, item[1].first))
    own = {(span.run, span.number) for span in drawn}
    pieces, first_row = [], 0
    for (run, number), group in groupby(ordered, lambda item: (item[1].run, item[1].number)):
        members = list(group)
        crossing = members[-1][1]
        parts = [Part(number, rows[run, number], rows[run, number], True)]
        left = crossing.first + crossing.length - rows[run, number]
        for later in range(number + 1, crossing.last + 1):
            # What has a piece of its own is read to the end there; its head is enough here.
            wanted = min(left, rows[run, later])
            parts.append(Part(later, rows[run, later], wanted, (run, later) not in own))
            left -= wanted
        spans = tuple((span.first, span.length, place) for place, span in members)
        piece = Piece(source, game, run, tuple(parts), first_row, spans, exact)
        pieces.append(piece)
        first_row += -(-piece.planned_rows // STEPS_PER_SHARD) * STEPS_PER_SHARD
    return tuple(pieces)


def settle(
    plan: Plan, taken: Sequence[Taken], bad: set[tuple[int, int]], transitions: int | None
) -> tuple[list[Taken], dict[str, int]]:
    """The episodes to commit, ascending by offset, and the counts of the import.

    ``bad``: (run, number) of checkpoints with a fault; episodes that lie in one are left out.  With
    ``transitions`` the last of the draw is cut so that there are exactly so many; it is then not terminal.
    """
    order = sorted(taken, key=lambda item: item.draw)
    good = [item for item in order if not _touches(plan.drawn[item.draw], bad)]
    kept, steps = [], 0
    for item in good:
        if transitions is not None and steps + item.length > transitions:
            item = _cut(item, transitions - steps)
        if item.length:
            kept.append(item)
        steps += item.length
    if transitions is not None and steps < transitions:
        raise TooFewTransitions(
            f"{plan.game}: the drawn episodes have {steps} of {transitions} transitions without padding and without "
            f"the {len(plan.drawn) - len(good)} that lie in damaged files: choose more runs, or mend the files",
            plan.game, bad,
        )  # fmt: skip
    kept.sort(key=lambda item: item.offset)
    spans = [plan.drawn[item.draw] for item in kept]
    counts = plan.counts | {
        "episodes": len(kept),
        "transitions": steps,
        "padding_rows": sum(item.first - span.first for item, span in zip(kept, spans, strict=True)),
        "joined": sum(span.last > span.number for span in spans),
        "unreadable": len(plan.drawn) - len(good),
        "surplus": len(good) - len(kept),
    }
    return kept, counts


def terminal(plan: Plan, item: Taken) -> bool:
    """Whether ``item`` goes on to its terminal: it was not cut."""
    span = plan.drawn[item.draw]
    return item.first + item.length == span.first + span.length


def policy(plan: Plan, item: Taken) -> str:
    """Who played ``item``."""
    span = plan.drawn[item.draw]
    return f"dqn-replay/run{span.run}/ckpt{span.number:02d}"


def table(plan: Plan, items: Sequence[Taken]) -> dict[str, NDArray[Any]]:
    """The columns of the episode table; a logged episode has no seed, its place is the row where it began."""
    return {
        "offset": np.array([item.offset for item in items], np.int64),
        "length": np.array([item.length for item in items], np.int64),
        "terminal": np.array([terminal(plan, item) for item in items], np.bool_),
        "seed": np.array([item.first for item in items], np.uint64),
        "score": np.array([item.score for item in items], np.float64),
    }


def _touches(span: Span, bad: Set[tuple[int, int]]) -> bool:
    return any((span.run, number) in bad for number in range(span.number, span.last + 1))


def _cut(item: Taken, length: int) -> Taken:
    return replace(item, length=length, score=sum(reward for step, reward in item.rewards if step < length))
