"""The plan of an import: which episodes there are, the draw, the pieces."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from jowa.data.dqn_replay.plan import Log, Span, choose_checkpoints, draw, find_spans, make_plan
from jowa.data.schema import STEPS_PER_SHARD


def logs_of(terminals: list[list[int]], numbers: list[int], run: int = 1) -> list[Log]:
    return [
        Log(run, number, len(values), np.flatnonzero(values)) for number, values in zip(numbers, terminals, strict=True)
    ]


def plain_spans(terminals: list[list[int]], numbers: list[int]) -> tuple[list[Span], int]:
    """Row by row: the whole episodes, and how many rows belong to none."""
    spans, lost = [], 0
    start = None
    rows: list[tuple[int, int]] = []
    for place, (number, values) in enumerate(zip(numbers, terminals, strict=True)):
        if place == 0 or numbers[place - 1] != number - 1:
            lost += len(rows)
            rows, start = [], True if number == 0 else None
        for row, terminal in enumerate(values):
            rows.append((number, row))
            if terminal:
                if start is None:
                    lost += len(rows)
                else:
                    spans.append(Span(1, *rows[0], len(rows), number))
                rows, start = [], True
    return spans, lost + len(rows)


@given(
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=6),
    st.sets(st.integers(0, 8), min_size=6, max_size=6),
)
def test_spans_are_what_going_row_by_row_finds(terminals, numbers) -> None:
    chosen = sorted(numbers)[: len(terminals)]
    spans, lost = find_spans(logs_of(terminals, chosen))
    expected, rows_lost = plain_spans(terminals, chosen)
    assert spans == expected and lost["lost_rows"] == rows_lost
    assert (lost["no_start"] + lost["no_end"] > 0) == (rows_lost > 0)


def some_spans(count: int) -> list[Span]:
    return [Span(1, 0, 10 * index, 10, 0) for index in range(count)]


def test_the_draw_is_uniform_and_without_replacement() -> None:
    spans, seeds, share = some_spans(20), 2000, 0.25
    taken = np.zeros(20)
    first = np.zeros(20)
    for seed in range(seeds):
        drawn = draw(spans, "Pong", seed, share, None)
        assert len(drawn) == len(set(drawn)) == 5
        assert drawn == draw(spans, "Pong", seed, share, None)
        taken[drawn] += 1
        first[drawn[0]] += 1
    # Drawn too evenly would be as wrong as too unevenly: both tails.
    assert 1e-4 < chisquare(first).pvalue < 1 - 1e-4
    deviation = (taken - seeds * share) / np.sqrt(seeds * share * (1 - share))
    assert np.abs(deviation).max() < 4.5 and np.abs(deviation).max() > 0.5
    assert draw(spans, "Pong", 0, share, None) != draw(spans, "Boxing", 0, share, None)


def test_a_larger_share_contains_a_smaller_one() -> None:
    spans = some_spans(50)
    assert draw(spans, "Pong", 7, 0.5, None)[:5] == draw(spans, "Pong", 7, 0.1, None)
    assert len(draw(spans, "Pong", 7, 1.0, None)) == 50 and len(draw(spans, "Pong", 7, 0.001, None)) == 1
    whole = draw(spans, "Pong", 7, 1.0, None)
    # Of ten rows seven are certain to be no padding.
    assert draw(spans, "Pong", 7, None, 14) == whole[:2] and draw(spans, "Pong", 7, None, 15) == whole[:3]


@pytest.mark.parametrize(("count", "share"), [(1, 1), (5, 1), (6, 2), (50, 10), (51, 11)])
def test_subsets(count: int, share: int) -> None:
    listed = list(range(3, 3 + count))
    assert choose_checkpoints(listed, "mixed") == listed
    assert choose_checkpoints(listed, "weak") == listed[:share]
    assert choose_checkpoints(listed, "expert") == listed[-share:]


def test_pieces_have_blocks_of_their_own_and_read_no_more_than_needed() -> None:
    rows = STEPS_PER_SHARD
    ends = [np.array([9, rows - 1, rows + 9]), np.array([rows + 4]), np.array([4, 2 * rows - 1])]
    logs = [Log(1, number, 2 * rows, end) for number, end in enumerate(ends)]
    plan = make_plan("there", "Pong", logs, "join", 0, 1.0, None)
    # Four episodes begin in checkpoint 0, one in 1, one in 2; those of 0 and 1 go on into the next.
    assert [len(piece.spans) for piece in plan.pieces] == [4, 1, 1]
    assert [[part.number for part in piece.parts] for piece in plan.pieces] == [[0, 1], [1, 2], [2]]
    assert [piece.parts[-1].wanted for piece in plan.pieces] == [rows + 5, 5, 2 * rows]
    assert all(piece.first_row % rows == 0 for piece in plan.pieces)
    for piece, following in pairwise(plan.pieces):
        assert piece.first_row + piece.planned_rows <= following.first_row
    # A head is read to its checksum only when its checkpoint has no piece of its own.
    assert [[part.whole for part in piece.parts] for piece in plan.pieces] == [[True, False], [True, False], [True]]
    alone = [log if log.number else replace(log, ends=log.ends[:0]) for log in logs[:2]]
    (piece,) = make_plan("there", "Pong", alone, "join", 0, 1.0, None).pieces
    assert [part.whole for part in piece.parts] == [True, True] and piece.frames == 4 * rows


def test_the_plan_is_a_function_of_its_arguments() -> None:
    generator = np.random.default_rng(0)
    logs = [Log(run, number, 500, np.flatnonzero(generator.random(500) < 0.05)) for run in (1, 2) for number in (0, 1)]
    plan = make_plan("there", "Pong", logs, "join", 1, 0.3, None)
    assert plan == make_plan("there", "Pong", logs, "join", 1, 0.3, None)
    digests = {piece.digest() for piece in plan.pieces}
    others = [
        make_plan("elsewhere", "Pong", logs, "join", 1, 0.3, None),
        make_plan("there", "Pong", logs, "join", 2, 0.3, None),
    ]
    assert len(digests) == len(plan.pieces)
    assert all(digests.isdisjoint(piece.digest() for piece in other.pieces) for other in others)
