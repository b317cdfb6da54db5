from __future__ import annotations

import numpy as np

from jowa.data.loader import SegmentLoader
from jowa.data.returns import observed_returns
from jowa.data.segments import SegmentIndex


def by_hand(rewards: np.ndarray, gamma: float) -> list[float]:
    return [sum(gamma**k * float(r) for k, r in enumerate(rewards[start:])) for start in range(len(rewards))]


def test_each_step_has_the_return_of_its_own_episode(make_store) -> None:
    store = make_store(Pong=[30, 7], Breakout=[12])
    index = SegmentIndex.build(store, length=4, stride=2)
    found = observed_returns(store, index, 0.9)
    for game, returns in zip(index.games, found, strict=True):
        for number, episode in enumerate(store.episodes(game)):
            rewards = store.read_episode(game, number).rewards
            own = returns[episode.offset : episode.offset + episode.length]
            assert np.abs(rewards).sum() > 0
            np.testing.assert_allclose(own, by_hand(rewards, 0.9), rtol=1e-5, atol=1e-6)


def test_what_was_not_drawn_does_not_count(make_store) -> None:
    """Fine-tuning on n transitions must not learn what happened after them."""
    store = make_store(Pong=[30])
    table = {key: value.copy() for key, value in store.table("Pong").items()}
    table["length"][0] = 10
    (returns,) = observed_returns(store, SegmentIndex(("Pong",), [table], 4, 2), 0.9)
    np.testing.assert_allclose(returns[:10], by_hand(store.read_episode("Pong", 0).rewards[:10], 0.9), rtol=1e-5)
    assert not returns[10:].any()


def test_batches_hold_them_and_zeros_in_padding(make_store) -> None:
    store = make_store(Pong=[9], Breakout=[6])
    index = SegmentIndex.build(store, length=4, stride=4)
    batch = SegmentLoader(store, index, gamma=0.9, threads=1).read(np.arange(len(index)))
    assert batch.returns is not None and batch.returns.dtype == np.float32
    assert not batch.returns[~batch.mask].any()
    windows = index.look_up(np.arange(len(index)))
    whole = observed_returns(store, index, 0.9)
    for row, (game, first, count) in enumerate(zip(windows.game, windows.first, windows.count, strict=True)):
        np.testing.assert_array_equal(batch.returns[row, :count], whole[game][first : first + count])
    assert SegmentLoader(store, index, threads=1).read(np.arange(2)).returns is None
