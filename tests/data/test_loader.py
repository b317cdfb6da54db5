"""Batches from memory against the plain oracle through Zarr."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from jowa.data.loader import InMemoryEpisodes, read_segment
from jowa.data.segments import SegmentIndex
from jowa.errors import DataError, UsageError
from jowa.games import get_game
from jowa.types import Segments


def assert_same(batch: Segments, row: int, oracle: Segments) -> None:
    for field in fields(Segments):
        got, expected = getattr(batch, field.name)[row], getattr(oracle, field.name)[0]
        assert got.dtype == expected.dtype and np.array_equal(got, expected), field.name


@pytest.mark.parametrize(("length", "stride"), [(8, 4), (8, 1), (5, 5), (1, 1)])
def test_memory_and_oracle_agree_on_every_segment(make_store, length, stride) -> None:
    store = make_store(Boxing=[3, -9, 8, 1], Pong=[17, -33, 4])
    index = SegmentIndex.build(store, length=length, stride=stride)
    memory = InMemoryEpisodes.load(store)
    ids = np.random.default_rng(0).permutation(len(index))
    batch = memory.gather(index, ids)
    for row, segment in enumerate(ids):
        assert_same(batch, row, read_segment(store, index, int(segment)))


def test_a_batch_is_what_the_episodes_say(make_store, make_episode) -> None:
    store = make_store(Boxing=[10, -6])
    index = SegmentIndex.build(store)
    batch = InMemoryEpisodes.load(store).gather(index, np.array([2, 4, 2]))  # starts at 8 of ten, at 4 of six
    ended, cut = make_episode("Boxing", 10, 0), make_episode("Boxing", 6, 1, terminal=False)
    assert batch.frames.shape == (3, 8, 84, 84) and batch.frames.dtype == np.uint8
    assert batch.mask.tolist() == [[True] * 2 + [False] * 6] * 3
    assert np.array_equal(batch.frames[0, :2], ended.frames[8:]) and np.array_equal(batch.frames[1, :2], cut.frames[4:])
    assert batch.actions[0].tolist() == ended.actions[8:].tolist() + [0] * 6
    assert batch.rewards[1].tolist() == cut.rewards[4:].tolist() + [0.0] * 6
    assert batch.ends.tolist() == [[False, True] + [False] * 6, [False] * 8, [False, True] + [False] * 6]
    assert not batch.frames[:, 2:].any() and not batch.actions[:, 2:].any() and not batch.rewards[:, 2:].any()
    assert batch.tasks.tolist() == [12] * 3 and batch.tasks.dtype == np.int64
    assert batch.legal.shape == (3, 18) and batch.legal.all()
    assert np.array_equal(batch.frames[0], batch.frames[2])


def test_borrowed_task_keeps_the_games_own_actions(make_store) -> None:
    store = make_store(Pong=[9], Boxing=[9])
    tasks = {"Pong": 37}
    index = SegmentIndex.build(store)
    memory = InMemoryEpisodes.load(store, tasks=tasks)
    batch = memory.gather(index, np.arange(len(index)))
    of_pong = index.game == index.games.index("Pong")
    assert set(batch.tasks[of_pong]) == {37} and set(batch.tasks[~of_pong]) == {12}
    assert (batch.legal[of_pong] == get_game("Pong").action_mask).all() and batch.legal[~of_pong].all()
    for row in range(len(index)):
        assert_same(batch, row, read_segment(store, index, row, tasks))


def test_tokens_instead_of_frames(make_store) -> None:
    store = make_store(Pong=[9, -5], Boxing=[6])
    index = SegmentIndex.build(store)
    generator = np.random.default_rng(1)
    tokens = {g: generator.integers(1, 65535, (store.num_steps(g), 36), dtype=np.uint16) for g in store.games}
    with_pixels = InMemoryEpisodes.load(store)
    without_pixels = InMemoryEpisodes.load(store, frames=False)
    ids = np.arange(len(index))[::-1]
    batch, expected = without_pixels.gather(index, ids, tokens), with_pixels.gather(index, ids)
    assert batch.frames.shape == (len(ids), 8, 36) and batch.frames.dtype == np.int64
    for row, segment in enumerate(ids):
        first, count = index.first[segment], index.count[segment]
        assert np.array_equal(
            batch.frames[row, :count], tokens[index.games[index.game[segment]]][first : first + count]
        )
        assert not batch.frames[row, count:].any()
    for field in fields(Segments):
        if field.name != "frames":
            assert np.array_equal(getattr(batch, field.name), getattr(expected, field.name))
    with pytest.raises(UsageError, match=r"was not loaded: its frames \(or tokens\)"):
        without_pixels.gather(index, ids)


def test_loading_names_what_is_damaged(make_store) -> None:
    store = make_store(Pong=[9], Boxing=[6])
    (store.path / "Pong/actions/c/0").unlink()
    InMemoryEpisodes.load(store, ["Boxing"])
    with pytest.raises(DataError, match=r"Pong/actions/c/0 is damaged .*missing"):
        InMemoryEpisodes.load(store)


def test_index_of_another_store_is_noticed_by_the_oracle(make_store) -> None:
    store = make_store(Pong=[5, 5])
    index = SegmentIndex.build(store)
    index.count[0] = 8
    with pytest.raises(DataError, match="crosses episodes"):
        read_segment(store, index, 0)
