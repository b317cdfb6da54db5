"""Tokens beside frames: made shard by shard, once, by one tokenizer."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr

from jowa.data import schema
from jowa.data.arrays import ShardWriter
from jowa.data.loader import SegmentLoader
from jowa.data.segments import SegmentIndex
from jowa.data.store import EpisodeStore
from jowa.data.tokens import TOKENS, TokenStore, identity, kinds, tokens_folder
from jowa.data.writer import EpisodeWriter
from jowa.errors import DataError
from jowa.tokenizer.dataset import encode_missing

FINGERPRINT = "ab" * 32


def encode(frames: np.ndarray) -> np.ndarray:
    """Tokens that tell which frame they are of."""
    return frames[:, 20:26, 30:36].reshape(-1, 36).astype(np.uint16) * 8 + frames[:, :1, 0] % 8


def make(store: EpisodeStore, folder: Path | None = None, made=lambda done, total: None, encode=encode) -> TokenStore:
    tokens = TokenStore.create(folder or tokens_folder(store, FINGERPRINT), FINGERPRINT, 2048)
    encode_missing(tokens, store, store.games, encode, 0, 1, lambda: None, made)
    return tokens


@pytest.fixture
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(schema, "STEPS_PER_SHARD", 64)
    monkeypatch.setattr(schema, "SCALARS_PER_CHUNK", 64)


def test_tokens_are_those_of_the_frames(make_store, small_shards) -> None:
    store = make_store(Pong=[100, -130], Boxing=[30])
    tokens = make(store)
    assert kinds(store) == [FINGERPRINT[:16]] and tokens.covers(store, store.games)
    for game in store.games:
        expected = encode(store.read_frames(game, 0, store.num_rows(game)))
        array = zarr.open_array(store.path / TOKENS / FINGERPRINT[:16] / game, mode="r", zarr_format=3)
        assert array.dtype == np.uint16 and np.array_equal(array[:], expected)
        assert np.array_equal(tokens.rows(store, game).read(5, 29), expected[5:29])
    assert store.games == EpisodeStore.open(store.path).games, "tokens are no game"


def test_a_loader_reads_tokens_instead_of_frames(make_store, small_shards) -> None:
    store = make_store(Pong=[9, -150], Boxing=[6])
    index = SegmentIndex.build(store)
    ids = np.arange(len(index))[::-1]
    batch = SegmentLoader(store, index, frames=False, tokens=make(store)).read(ids)
    both = SegmentLoader(store, index, tokens=make(store)).read(ids)
    assert batch.frames is None and batch.tokens is not None and both.frames is not None and both.tokens is not None
    assert batch.tokens.shape == (len(ids), 8, 36) and batch.tokens.dtype == np.uint16
    assert np.array_equal(batch.tokens, both.tokens)
    assert np.array_equal(batch.tokens[batch.mask], encode(both.frames[both.mask]))
    assert not batch.tokens[~batch.mask].any()
    assert np.array_equal(batch.actions, both.actions) and np.array_equal(batch.rewards, both.rewards)


def test_only_what_is_missing_is_encoded(make_store, make_episode, small_shards, contents) -> None:
    store = make_store(Pong=[100, 130])  # four shards of 64 rows, the last with 38
    counts: list[int] = []
    make(store, made=lambda done, total: counts.append(total))
    assert counts == [230] * 4
    (store.path / TOKENS / FINGERPRINT[:16] / "Pong/c/2/0").unlink()
    counts.clear()
    make(store, made=lambda done, total: counts.append(total))
    assert counts == [64]
    counts.clear()
    with EpisodeWriter.open(store.path) as writer:
        writer.append(make_episode("Pong", 50, 7))
    grown = EpisodeStore.open(store.path)
    old = TokenStore.open(tokens_folder(store, FINGERPRINT), FINGERPRINT)
    with pytest.raises(DataError, match="holds the tokens of 230 rows of Pong, expected 280: finish them with"):
        SegmentLoader(grown, SegmentIndex.build(grown), tokens=old)
    make(grown, made=lambda done, total: counts.append(total))
    assert counts == [88] * 2, "the shard that grew, and the new one"
    anew = make(grown, store.path.parent / "anew")
    assert contents(anew.folder) == contents(tokens_folder(grown, FINGERPRINT))


def test_rows_of_no_episode_have_no_tokens(tmp_path, make_episode, small_shards) -> None:
    with EpisodeWriter.open(tmp_path) as writer:
        writer.append(make_episode("Pong", 20, 1))
        for name, array in writer.infos("Pong").items():
            block = ShardWriter(array, 128)
            block.write(getattr(make_episode("Pong", 30, 2), name))
            block.flush()
        columns = {"offset": [140], "length": [18], "terminal": [True], "seed": [2], "score": [0.0]}
        writer.commit("Pong", {key: np.array(value) for key, value in columns.items()}, ["random"], 158)
    store = EpisodeStore.open(tmp_path)
    tokens = make(store)
    assert sorted(file.parent.name for file in (tokens.folder / "Pong/c").rglob("0") if file.is_file()) == ["0", "2"]
    rows = tokens.rows(store, "Pong").read(128, 158)
    assert not rows[:12].any() and np.array_equal(rows[12:], encode(store.read_frames("Pong", 140, 158)))


def test_two_processes_share_the_shards(make_store, small_shards, contents) -> None:
    store = make_store(Pong=[300], Boxing=[70])
    folder, barrier, made = store.path.parent / "shared", threading.Barrier(2), [0, 0]
    tokens = TokenStore.create(folder, FINGERPRINT, 2048)

    def work(rank: int) -> None:
        made[rank] = encode_missing(
            tokens, store, store.games, encode, rank, 2, lambda: barrier.wait(30), lambda done, total: None
        )

    workers = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert sum(made) == 370 and min(made) > 0
    assert contents(folder) == contents(make(store, store.path.parent / "alone").folder)


def test_tokens_of_another_tokenizer_are_refused(make_store) -> None:
    store = make_store(Pong=[20])
    folder = make(store).folder
    with pytest.raises(DataError, match=r"were made by tokenizer abababab.*, expected those of cdcdcd.*make them anew"):
        TokenStore.open(folder, "cd" * 32)
    with pytest.raises(DataError, match=r"no tokens at .*nowhere: make them with python -m jowa.tokenize"):
        TokenStore.open(folder / "nowhere", FINGERPRINT)
    with pytest.raises(DataError, match="holds no jowa-tokens of version 1"):
        TokenStore.open(store.path, FINGERPRINT)
    document = folder / "zarr.json"
    document.write_text(document.read_text().replace("abab", "abac", 1))
    with pytest.raises(DataError, match="checksum is wrong"):
        TokenStore.open(folder, FINGERPRINT)


def test_damage_to_tokens_is_named(make_store) -> None:
    store = make_store(Pong=[20, 30])
    tokens = make(store)
    shard = tokens.folder / "Pong/c/0/0"
    data = bytearray(shard.read_bytes())
    data[9] ^= 64
    shard.write_bytes(bytes(data))
    loader = SegmentLoader(store, SegmentIndex.build(store), frames=False, tokens=tokens)
    with pytest.raises(
        DataError,
        match=r"tokens/.*/Pong/c/0/0 is damaged at steps 0 to 63 of Pong \(episodes .*delete the file and run",
    ):
        loader.read(np.arange(3))


def test_one_writer_of_tokens_at_a_time(make_store) -> None:
    tokens = make(make_store(Pong=[5]))
    held = tokens.lock()
    with pytest.raises(DataError, match="being written by another process"):
        tokens.lock()
    os.close(held)
    os.close(tokens.lock())


def test_a_full_disk_costs_nothing(make_store, small_shards, full_disk, contents) -> None:
    store = make_store(Pong=[200])
    whole = contents(make(store, store.path.parent / "whole").folder)
    for fails_at in range(1, 9):
        folder = store.path.parent / f"full{fails_at}"
        with full_disk(fails_at), pytest.raises(OSError, match="No space left"):
            make(store, folder)
        assert contents(make(store, folder).folder) == whole


@pytest.mark.slow
def test_kill_at_fifty_random_points(make_store, small_shards, killed, contents) -> None:
    """After a rerun the tokens are, byte for byte, those of a run that was never interrupted."""
    store = make_store(Pong=[100, 130], Boxing=[140])
    whole = contents(make(store, store.path.parent / "whole").folder)
    generator, deaths = np.random.default_rng(0), 0
    for point in range(50):
        folder = store.path.parent / f"killed{point}"
        number, when = int(generator.integers(1, 14)), str(generator.choice(["before", "after", "half"]))
        deaths += killed(lambda folder=folder: make(store, folder), number, when)
        tokens = TokenStore.create(folder, FINGERPRINT, 2048)
        held = tokens.lock()  # as the command does; clears away what was half done
        assert contents(make(store, folder).folder) == whole, (number, when)
        os.close(held)
    assert deaths == 50


def test_a_damaged_shard_is_mended_as_advised(make_store) -> None:
    store = make_store(Pong=[20, 30])
    tokens = make(store)
    whole = tokens.rows(store, "Pong").read(0, 50)
    (tokens.folder / "Pong/c/0/0").unlink()
    assert np.array_equal(make(store).rows(store, "Pong").read(0, 50), whole)


def test_tokens_of_another_recording_are_refused(make_store, tmp_path, make_episode) -> None:
    """As long, by the same tokenizer, and yet of other frames."""
    store = make_store(Pong=[20, 30])
    with EpisodeWriter.open(tmp_path / "other") as writer:
        for number, length in enumerate((20, 30)):
            writer.append(make_episode("Pong", length, number + 100))
    other, tokens = EpisodeStore.open(tmp_path / "other"), make(store)
    assert tokens.covers(store, ("Pong",)) and not tokens.covers(other, ("Pong",))
    with pytest.raises(DataError, match=r"are of another recording than .*other"):
        SegmentLoader(other, SegmentIndex.build(other), frames=False, tokens=tokens)
    with pytest.raises(DataError, match=r"holds tokens of another recording of Pong than .*other"):
        make(other, tokens.folder)


def test_a_folder_of_something_else_is_not_touched(make_store, tmp_path, contents) -> None:
    store, theirs = make_store(Pong=[5]), tmp_path / "theirs"
    (theirs / "sub" / "d.partial").mkdir(parents=True)
    (theirs / "movie.mkv.partial").write_text("half a film")
    (theirs / "sub" / "d.partial" / "data").write_text("mine")
    before = contents(theirs)
    with pytest.raises(DataError, match="theirs holds something else than tokens: choose another folder"):
        make(store, theirs)
    assert contents(theirs) == before


def test_writers_of_episodes_and_of_tokens_leave_one_another_alone(make_store, make_episode, small_shards) -> None:
    """The recorder starts and cleans up while a shard of tokens is half written."""
    store = make_store(Pong=[150])

    def encode_beside_a_recorder(frames: np.ndarray) -> np.ndarray:
        (store.path / TOKENS / FINGERPRINT[:16] / "Pong" / ".half.partial").write_text("half")
        with EpisodeWriter.open(store.path) as writer:
            writer.append(make_episode("Pong", 20, 9))
        assert (store.path / TOKENS / FINGERPRINT[:16] / "Pong" / ".half.partial").exists()
        return encode(frames)

    tokens = make(store, encode=encode_beside_a_recorder)
    assert np.array_equal(tokens.rows(store, "Pong").read(0, 150), encode(store.read_frames("Pong", 0, 150)))


def test_processes_that_see_the_data_set_grow_agree_or_say_so(make_store, make_episode, small_shards) -> None:
    store = make_store(Pong=[100])
    with EpisodeWriter.open(store.path) as writer:
        writer.append(make_episode("Pong", 90, 5))
    grown = EpisodeStore.open(store.path)
    folder = store.path.parent / "shared"
    tokens = TokenStore.create(folder, FINGERPRINT, 2048)
    tokens.prepare(store, ("Pong",))
    assert TokenStore.open(folder, FINGERPRINT).missing(grown, ("Pong",)) == tokens.missing(store, ("Pong",))
    make(store, folder)
    finished = make(grown, folder)
    assert np.array_equal(finished.rows(grown, "Pong").read(0, 190), encode(grown.read_frames("Pong", 0, 190)))
    with pytest.raises(DataError, match="grew while the processes started: run the same command again"):
        finished.missing(store, ("Pong",))


def test_precisions_do_not_mix(make_store) -> None:
    store = make_store(Pong=[5])
    half = identity(FINGERPRINT, "bfloat16")
    assert tokens_folder(store, half).name == FINGERPRINT[:16] + "-bfloat16" != make(store).folder.name
    with pytest.raises(DataError, match=r"made by tokenizer abababababababab, expected those of abab.*-bfloat16"):
        TokenStore.create(make(store).folder, half, 2048)
