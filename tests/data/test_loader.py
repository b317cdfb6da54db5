"""Batches from the native core against the plain oracle through zarr-python."""

from __future__ import annotations

import sys
import threading
from dataclasses import fields

import numpy as np
import pytest

from jowa.data.arrays import ShardWriter
from jowa.data.loader import Prefetcher, SegmentLoader, read_segment
from jowa.data.segments import SegmentIndex
from jowa.data.store import EpisodeStore
from jowa.data.writer import EpisodeWriter
from jowa.errors import DataError, JowaError, UsageError
from jowa.games import get_game
from jowa.types import Segments


def assert_same(batch: Segments, row: int, oracle: Segments) -> None:
    for field in fields(Segments):
        got, expected = getattr(batch, field.name), getattr(oracle, field.name)
        if expected is None:
            assert got is None, field.name
            continue
        assert got.dtype == expected.dtype and np.array_equal(got[row], expected[0]), field.name


@pytest.mark.parametrize(("length", "stride"), [(8, 4), (8, 1), (5, 5), (1, 1), (40, 40)])
@pytest.mark.parametrize("threads", [1, 3])
def test_loader_and_oracle_agree_on_every_segment(make_store, length, stride, threads) -> None:
    store = make_store(Boxing=[3, -9, 8, 1], Pong=[17, -33, 4])
    index = SegmentIndex.build(store, length=length, stride=stride)
    ids = np.random.default_rng(0).permutation(len(index))
    batch = SegmentLoader(store, index, threads=threads).read(ids)
    plain = EpisodeStore.open(store.path, native=False)
    for row, segment in enumerate(ids):
        assert_same(batch, row, read_segment(plain, index, int(segment)))


@pytest.mark.parametrize("layout", ["default", "fast"])
def test_segments_across_chunks_and_shards(tmp_path, make_episode, layout, monkeypatch) -> None:
    from jowa.data import schema

    monkeypatch.setattr(schema, "STEPS_PER_SHARD", 64)
    monkeypatch.setattr(schema, "SCALARS_PER_CHUNK", 16)
    with EpisodeWriter.open(tmp_path / "s", layout) as writer:
        for number, length in enumerate((150, 1, 90)):
            writer.append(make_episode("Pong", length, number))
    store, plain = EpisodeStore.open(tmp_path / "s"), EpisodeStore.open(tmp_path / "s", native=False)
    index = SegmentIndex.build(store, length=70, stride=1)
    batch = SegmentLoader(store, index, threads=2).read(np.arange(len(index)))
    for row in range(0, len(index), 7):
        assert_same(batch, row, read_segment(plain, index, row))


def test_a_batch_is_what_the_episodes_say(make_store, make_episode) -> None:
    store = make_store(Boxing=[10, -6])
    index = SegmentIndex.build(store)
    batch = SegmentLoader(store, index).read(np.array([2, 4, 2]))  # starts at 8 of ten, at 4 of six
    ended, cut = make_episode("Boxing", 10, 0), make_episode("Boxing", 6, 1, terminal=False)
    assert batch.frames is not None and batch.tokens is None
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


def test_padding_is_zero_in_memory_that_was_used_before(make_store) -> None:
    store = make_store(Boxing=[3, 9])
    index = SegmentIndex.build(store)
    batch = SegmentLoader(store, index).read(np.arange(len(index)), lambda shape, dtype: np.full(shape, 77, dtype))
    assert batch.frames is not None
    assert not batch.frames[~batch.mask].any() and not batch.rewards[~batch.mask].any()
    assert not batch.actions[~batch.mask].any()


def test_borrowed_task_keeps_the_games_own_actions(make_store) -> None:
    store = make_store(Pong=[9], Boxing=[9])
    tasks = {"Pong": 37}
    index = SegmentIndex.build(store)
    batch = SegmentLoader(store, index, tasks).read(np.arange(len(index)))
    of_pong = index.look_up(np.arange(len(index))).game == index.games.index("Pong")
    assert set(batch.tasks[of_pong]) == {37} and set(batch.tasks[~of_pong]) == {12}
    assert (batch.legal[of_pong] == get_game("Pong").action_mask).all() and batch.legal[~of_pong].all()
    for row in range(len(index)):
        assert_same(batch, row, read_segment(store, index, row, tasks))


def test_blocks_that_begin_at_shard_borders(tmp_path, make_episode, assert_same_episode) -> None:
    """What an importer does: rows behind a gap, written before they are committed."""
    first, second = make_episode("Pong", 20, 1), make_episode("Pong", 30, 2)
    with EpisodeWriter.open(tmp_path / "s") as writer:
        writer.append(first)
        start = writer.next_block("Pong")
        assert start == 16_384
        for name, info in writer.infos("Pong").items():
            block = ShardWriter(info, start)
            block.write(getattr(second, name)[:7])
            block.write(getattr(second, name)[7:])
            block.flush()
        columns = {"offset": [start], "length": [30], "terminal": [True], "seed": [2], "score": [second.score]}
        writer.commit("Pong", {key: np.array(value) for key, value in columns.items()}, ["random"], start + 30)
        writer.append(make_episode("Pong", 5, 3))  # right behind the block
    store, plain = EpisodeStore.open(tmp_path / "s"), EpisodeStore.open(tmp_path / "s", native=False)
    assert [info.offset for info in store.episodes("Pong")] == [0, start, start + 30]
    assert (store.num_steps("Pong"), store.num_rows("Pong")) == (55, start + 35)
    for number, episode in enumerate((first, second, make_episode("Pong", 5, 3))):
        assert_same_episode(store.read_episode("Pong", number), episode)
        assert_same_episode(plain.read_episode("Pong", number), episode)
    index = SegmentIndex.build(store)
    batch = SegmentLoader(store, index).read(np.arange(len(index)))
    for row in range(len(index)):
        assert_same(batch, row, read_segment(plain, index, row))


def test_reading_names_the_file_and_the_episode(make_store) -> None:
    store = make_store(Pong=[9, 40], Boxing=[6])
    shard = store.path / "Pong/actions/c/0"
    shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
    index = SegmentIndex.build(store)
    loader = SegmentLoader(store, index)
    of_boxing = np.flatnonzero(index.look_up(np.arange(len(index))).game == 0)
    loader.read(of_boxing)
    with pytest.raises(DataError, match=r"Pong/actions/c/0 is damaged at steps 0 to 255 of Pong \(episodes 0 to 1\)"):
        loader.read(np.arange(len(index)))
    with pytest.raises(UsageError, match="segments 0 to 99: there are"):
        loader.read(np.array([0, 99]))


def test_index_of_another_store_is_noticed_by_the_oracle(make_store) -> None:
    store = make_store(Pong=[5, 5])
    table = store.table("Pong") | {"offset": np.array([0]), "length": np.array([8]), "terminal": np.array([True])}
    with pytest.raises(DataError, match="crosses episodes"):
        read_segment(store, SegmentIndex(["Pong"], [table], 8, 4), 0)


def test_prefetcher_keeps_order_and_serves_any_number() -> None:
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return number * number

    with Prefetcher(make, 5, ahead=2) as ahead:
        assert [ahead.get(number) for number in (5, 6, 100, 7, 3, 8)] == [25, 36, 10_000, 49, 9, 64]
        assert threading.active_count() > 1
    assert {5, 6, 7, 8, 100, 3} <= set(made) and max(set(made) - {100}) <= 11, "no more than asked for is made ahead"
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())


def test_prefetcher_passes_errors_on() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise DataError("damaged")
        return number

    with Prefetcher(make, 0) as ahead:
        assert [ahead.get(0), ahead.get(1)] == [0, 1]
        with pytest.raises(DataError, match="damaged"):
            ahead.get(2)


def test_a_prefetcher_whose_thread_died_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jowa.data.loader._LOOK_EVERY", 0.01)

    def die_after_two(self: Prefetcher[int], number: int) -> None:
        for made in range(number, number + 2):
            self._ready.put((made, made * made))

    monkeypatch.setattr(Prefetcher, "_run", die_after_two)
    with Prefetcher(lambda number: number, 3) as ahead:
        assert [ahead.get(3), ahead.get(4)] == [9, 16], "what it had made is there"
        with pytest.raises(DataError, match=r"thread that reads ahead died .*run the same command again"):
            ahead.get(5)


def test_without_the_native_core(make_store, make_episode, assert_same_episode, monkeypatch) -> None:
    store = make_store(Pong=[9])
    monkeypatch.setitem(sys.modules, "jowa._native", None)
    monkeypatch.delattr("jowa._native", raising=False)
    with pytest.raises(JowaError, match=r"native core is missing .*: build it with pip install -e"):
        EpisodeStore.open(store.path).read_episode("Pong", 0)
    plain = EpisodeStore.open(store.path, native=False)
    assert_same_episode(plain.read_episode("Pong", 0), make_episode("Pong", 9, 0))
