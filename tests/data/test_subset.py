"""A part of a recording: exactly so many steps, no episode twice, the last one cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jowa.data.segments import SegmentIndex
from jowa.data.store import EpisodeStore
from jowa.data.subset import draw_transitions
from jowa.errors import DataError


@pytest.fixture
def store(sprite_store: Path) -> EpisodeStore:
    return EpisodeStore.open(sprite_store)  # Pong: episodes of 21, 13 and 15 steps


def rows(table) -> list[int]:
    """Every row of the step arrays that the table covers, as often as it does."""
    spans = zip(table["offset"].tolist(), table["length"].tolist(), strict=True)
    return [row for offset, length in spans for row in range(offset, offset + length)]


def test_exactly_so_many_steps_and_none_twice(store: EpisodeStore) -> None:
    drawn = set()
    for steps in range(1, 50):
        for seed in range(5):
            found = rows(draw_transitions(store, "Pong", steps, seed))
            # Drawing episodes with replacement repeats rows: in about half of these cases.
            assert len(found) == len(set(found)) == steps and set(found) <= set(rows(store.table("Pong")))
            drawn.add(tuple(found) if steps == 30 else ())
    assert len(drawn) > 2, "every seed drew the same"


def test_whole_episodes_but_the_last_which_then_did_not_end(store: EpisodeStore) -> None:
    whole = {int(o): (int(n), bool(t)) for o, n, t in zip(*(store.table("Pong")[k] for k in KEYS), strict=True)}
    for seed in range(10):
        table = draw_transitions(store, "Pong", 30, seed)
        cut = 0
        for offset, length, terminal in zip(*(table[k].tolist() for k in KEYS), strict=True):
            full, ended = whole[offset]
            cut += length < full
            assert length <= full and terminal == (ended and length == full)
        assert cut == 1, "no two of the three episodes have 30 steps"
        assert (np.diff(table["offset"]) > 0).all()


KEYS = ("offset", "length", "terminal")


def test_the_same_seed_draws_the_same(store: EpisodeStore) -> None:
    first, second = (draw_transitions(store, "Pong", 20, 3) for _ in range(2))
    assert all((first[name] == second[name]).all() for name in first)


def test_a_number_that_whole_episodes_reach_cuts_none(store: EpisodeStore) -> None:
    assert rows(draw_transitions(store, "Pong", 49, 0)) == rows(store.table("Pong"))
    assert draw_transitions(store, "Pong", 49, 0)["terminal"].tolist() == store.table("Pong")["terminal"].tolist()
    assert draw_transitions(store, "Pong", 0, 0) is store.table("Pong")


def test_too_few_are_refused(store: EpisodeStore) -> None:
    with pytest.raises(DataError, match=r"holds 49 agent steps of Pong, expected at least the 50 .*ask for fewer"):
        draw_transitions(store, "Pong", 50, 0)


def test_segments_stay_within_the_part(store: EpisodeStore) -> None:
    table = draw_transitions(store, "Pong", 30, 1)
    index = SegmentIndex(("Pong",), [table], 4, 1)
    windows = index.look_up(np.arange(len(index)))
    seen = {
        row for first, count in zip(windows.first, windows.count, strict=True) for row in range(first, first + count)
    }
    assert seen == set(rows(table)) and len(index) == 30
