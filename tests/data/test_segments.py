"""Which steps form a sample, and which samples a training step draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jowa.data.segments import SHUFFLED_OUTRIGHT, Permutation, SegmentIndex, SegmentSampler
from jowa.errors import DataError, UsageError

episodes = st.lists(st.tuples(st.integers(1, 70), st.booleans()), min_size=1, max_size=12)


@st.composite
def shapes(draw) -> tuple[int, int]:
    """Segment length and a stride up to it."""
    length = draw(st.integers(1, 12))
    return length, draw(st.integers(1, length))


@given(episodes, st.one_of(st.just((8, 4)), st.just((8, 1)), shapes()))
@settings(max_examples=200, deadline=None)
def test_windows_cover_every_transition_of_random_episodes(played, shape) -> None:
    """Against a plain loop over the definition, and the promises drawn from it."""
    length, stride = shape
    lengths = np.array([steps for steps, _ in played], np.int64)
    terminal = np.array([ended for _, ended in played])
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    table = {"offset": offsets, "length": lengths, "terminal": terminal}
    index = SegmentIndex(["Pong"], [table], length, stride)
    found = index.look_up(np.arange(len(index)))
    first, count, ends = found.first, found.count, found.ends_terminal

    expected = []
    for offset, steps, ended in zip(offsets, lengths, terminal, strict=True):
        for start in range(0, steps, stride):
            real = min(length, steps - start)
            expected.append((offset + start, real, bool(ended and start + real == steps)))
    assert list(zip(first.tolist(), count.tolist(), ends.tolist(), strict=True)) == expected

    # Every step of every episode is in a segment, and no segment crosses episodes.
    episode_of = np.repeat(np.arange(len(lengths)), lengths)
    steps_seen, pairs_seen = set(), set()
    for start, real in zip(first.tolist(), count.tolist(), strict=True):
        assert 1 <= real <= length and episode_of[start] == episode_of[start + real - 1]
        steps_seen.update(range(start, start + real))
        pairs_seen.update((t, t + 1) for t in range(start, start + real - 1))
    assert steps_seen == set(range(int(lengths.sum())))
    if stride < length:
        within = {(t, t + 1) for t in range(int(lengths.sum()) - 1) if episode_of[t] == episode_of[t + 1]}
        assert pairs_seen == within
    # Every terminal is the last real step of a segment that says so, and no cut-off is.
    last_steps = np.cumsum(lengths) - 1
    ending = {int(s + n - 1) for s, n, end in zip(first, count, ends, strict=True) if end}
    assert ending == {int(step) for step, ended in zip(last_steps, terminal, strict=True) if ended}


def test_index_of_a_store(make_store) -> None:
    store = make_store(Boxing=[3, -9], Pong=[8])
    index = SegmentIndex.build(store)
    assert index.games == ("Boxing", "Pong") and (index.length, index.stride) == (8, 4)
    assert len(index) == 6 and index.game_starts.tolist() == [0, 4, 6]
    found = index.look_up(np.arange(6))
    assert found.game.tolist() == [0, 0, 0, 0, 1, 1]
    assert found.first.tolist() == [0, 3, 7, 11, 0, 4]
    assert found.count.tolist() == [3, 8, 5, 1, 8, 4]
    assert found.ends_terminal.tolist() == [True, False, False, False, True, True]
    only = SegmentIndex.build(store, ["Pong"], length=4, stride=1)
    assert only.games == ("Pong",) and only.look_up(np.arange(8)).count.tolist() == [4, 4, 4, 4, 4, 3, 2, 1]


def test_index_checks_its_arguments(make_store) -> None:
    store = make_store(Pong=[8])
    with pytest.raises(UsageError, match="segments of 4 steps every 5"):
        SegmentIndex.build(store, length=4, stride=5)
    with pytest.raises(UsageError, match="segments of 0 steps"):
        SegmentIndex.build(store, length=0)
    with pytest.raises(UsageError, match="no games chosen"):
        SegmentIndex.build(store, [])
    with pytest.raises(DataError, match="has no episodes of Boxing"):
        SegmentIndex.build(store, ["Boxing"])


def make_index(*sizes: int) -> SegmentIndex:
    """An index of as many segments per game: one an episode."""
    names = ("Assault", "Boxing", "Breakout", "Freeway", "Pong")[: len(sizes)]
    tables = [
        {"offset": np.arange(size), "length": np.ones(size, np.int64), "terminal": np.zeros(size, np.bool_)}
        for size in sizes
    ]
    return SegmentIndex(names, tables, 8, 4)


def games_of(index: SegmentIndex, ids: np.ndarray) -> np.ndarray:
    return index.look_up(ids).game


@pytest.mark.parametrize("size", [1, 2, 1000, SHUFFLED_OUTRIGHT - 1, SHUFFLED_OUTRIGHT, SHUFFLED_OUTRIGHT + 1, 300_000])
def test_permutation_is_one(size) -> None:
    places = np.arange(size)
    values = Permutation(size, (3, 1))(places)
    assert np.array_equal(np.sort(values), places)
    assert np.array_equal(Permutation(size, (3, 1))(places[-1:]), values[-1:])
    if size > 100:
        assert (Permutation(size, (3, 2))(places) == values).mean() < 0.01


def test_permutation_of_many_looks_uniform() -> None:
    """Chi-square of where stretches of places land, and of how neighbours land relative to one another."""
    size, bins, keys = 100_000, 50, 20
    statistics = []
    for key in range(keys):
        permutation = Permutation(size, (key,))
        places = np.arange(7_000, 9_000)
        first, second = permutation(places), permutation(places + 1)
        landed = np.bincount(first * bins // size, minlength=bins)
        steps = np.bincount((second - first) % size * bins // size, minlength=bins)
        statistics += [((counts - 40) ** 2 / 40).sum() for counts in (landed, steps)]
    # 49 degrees of freedom: mean 49, standard deviation 9.9; the mean of 40 of them stays within 5 of its own.
    assert abs(np.mean(statistics) - 49) < 8 and max(statistics) < 110


def test_a_large_epoch_draws_every_segment_once() -> None:
    sampler = SegmentSampler(make_index(70_001), 1000, 4)
    drawn = np.concatenate([sampler.indices(step) for step in range(71)])
    assert np.array_equal(np.sort(drawn[:70_001]), np.arange(70_001))
    assert len(set(drawn[70_001:].tolist())) == len(drawn) - 70_001


@given(st.integers(1, 60), st.integers(1, 25), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_every_epoch_draws_every_segment_once(size, batch, seed) -> None:
    sampler = SegmentSampler(make_index(size), batch, seed)
    epochs = 3
    steps = -(-epochs * size // batch)
    drawn = np.concatenate([sampler.indices(step) for step in range(steps)])
    assert drawn.dtype == np.int64 and len(drawn) == steps * batch
    for epoch in range(epochs):
        assert sorted(drawn[epoch * size : (epoch + 1) * size].tolist()) == list(range(size))


def test_draws_are_a_pure_function_of_seed_and_step() -> None:
    index = make_index(100, 37)
    for balance in (False, True):
        first = SegmentSampler(index, 32, 5, balance_games=balance)
        in_order = [first.indices(step).tolist() for step in range(30)]
        other = SegmentSampler(index, 32, 5, balance_games=balance)
        for step in (29, 3, 17, 0, 29):
            assert other.indices(step).tolist() == in_order[step]
        assert SegmentSampler(index, 32, 6, balance_games=balance).indices(0).tolist() != in_order[0]
        assert in_order[0] != in_order[1]


@pytest.mark.parametrize("balance", [False, True])
def test_ranks_split_the_same_global_batch(balance) -> None:
    index = make_index(50, 90, 20)
    whole = SegmentSampler(index, 24, 1, balance_games=balance)
    for world in (1, 2, 3, 4, 8):
        parts = [SegmentSampler(index, 24, 1, rank, world, balance) for rank in range(world)]
        for step in (0, 7, 100):
            assert np.concatenate([part.indices(step) for part in parts]).tolist() == whole.indices(step).tolist()


def test_balanced_games_are_drawn_equally_often_and_wholly() -> None:
    index = make_index(10, 100, 0, 40)
    sampler = SegmentSampler(index, 30, 3, balance_games=True)
    drawn = np.concatenate([sampler.indices(step) for step in range(20)])
    assert np.bincount(games_of(index, drawn)).tolist() == [200, 200, 0, 200]
    for game, size in ((0, 10), (1, 100), (3, 40)):
        of_game = drawn[games_of(index, drawn) == game]
        assert set(of_game[:size].tolist()) == set(range(*index.game_starts[[game, game + 1]].tolist()))


def test_sampler_checks_its_arguments() -> None:
    with pytest.raises(UsageError, match="batch of 10 for rank 0 of 3"):
        SegmentSampler(make_index(5), 10, 0, 0, 3)
    with pytest.raises(UsageError, match="rank 2 of 2"):
        SegmentSampler(make_index(5), 10, 0, 2, 2)
    with pytest.raises(DataError, match="no segments"):
        SegmentSampler(make_index(0), 10, 0)
