"""A store that lives elsewhere: fetched shard by shard, once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jowa.data.loader import SegmentLoader
from jowa.data.remote import remote_address
from jowa.data.segments import SegmentIndex
from jowa.data.store import EpisodeStore
from jowa.data.writer import EpisodeWriter
from jowa.errors import DataError, UsageError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def upload():
    """Puts a folder where ``memory://name`` points to; returns the paths of what is read from there later."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()

    def put(folder: Path, name: str) -> None:
        for file in folder.rglob("*"):
            if file.is_file() and file.name != "writer.lock":
                memory.pipe_file(f"/{name}/{file.relative_to(folder).as_posix()}", file.read_bytes())

    return put


@pytest.fixture
def fetched(monkeypatch) -> list[str]:
    seen: list[str] = []
    kind = type(fsspec.filesystem("memory"))
    original = kind.get_file

    def get_file(self, remote, local, **options):
        seen.append(remote)
        return original(self, remote, local, **options)

    monkeypatch.setattr(kind, "get_file", get_file)
    return seen


@pytest.fixture
def small_shards(monkeypatch) -> None:
    from jowa.data import schema, writer

    monkeypatch.setattr(schema, "STEPS_PER_SHARD", 64)
    monkeypatch.setattr(writer, "STEPS_PER_SHARD", 64)
    monkeypatch.setattr(schema, "SCALARS_PER_CHUNK", 64)


def test_a_remote_store_reads_like_a_local_one(
    make_store, small_shards, upload, fetched, tmp_path, assert_same_episode
) -> None:
    local = make_store(Pong=[100, -60], Boxing=[70])
    upload(local.path, "sets/mine")
    remote = EpisodeStore.open("memory://sets/mine", cache=tmp_path / "cache")
    assert remote.games == local.games and not any("/frames/c/" in path for path in fetched)
    assert_same_episode(remote.read_episode("Boxing", 0), local.read_episode("Boxing", 0))
    assert sum("/Boxing/frames/c/" in path for path in fetched) == 2 and not any(
        "/Pong/frames/c/" in p for p in fetched
    )
    index = SegmentIndex.build(remote)
    ids = np.arange(len(index))
    got, expected = SegmentLoader(remote, index).read(ids), SegmentLoader(local, index).read(ids)
    assert got.frames is not None and np.array_equal(got.frames, expected.frames)
    assert np.array_equal(got.actions, expected.actions) and np.array_equal(got.rewards, expected.rewards)
    shards = [path for path in fetched if "/c/" in path and "episode" not in path]
    assert len(shards) == len(set(shards)) == 3 * (2 + 3), "each shard of frames, actions and rewards, once"
    before = len(fetched)
    again = EpisodeStore.open("memory://sets/mine", cache=tmp_path / "cache")
    SegmentLoader(again, index).read(ids)
    assert not any("/c/" in path for path in fetched[before:]), "what was fetched before is there"


def test_a_remote_store_that_changed_is_fetched_anew(
    make_store, make_episode, small_shards, upload, fetched, tmp_path
) -> None:
    local = make_store(Pong=[100], Boxing=[20])
    upload(local.path, "changes")
    EpisodeStore.open("memory://changes", cache=tmp_path / "cache").read_episode("Pong", 0)
    with EpisodeWriter.open(local.path) as writer:
        writer.append(make_episode("Pong", 90, 5))
    upload(local.path, "changes")
    store = EpisodeStore.open("memory://changes", cache=tmp_path / "cache")
    assert store.num_episodes("Pong") == 2
    assert np.array_equal(store.read_frames("Pong", 0, 190), EpisodeStore.open(local.path).read_frames("Pong", 0, 190))
    # Another recording of the same lengths, and a game that is no longer there.
    memory = fsspec.filesystem("memory")
    memory.rm("/changes", recursive=True)
    with EpisodeWriter.open(tmp_path / "other") as writer:
        writer.append(make_episode("Pong", 100, 50))
        writer.append(make_episode("Pong", 90, 51))
    upload(tmp_path / "other", "changes")
    store = EpisodeStore.open("memory://changes", cache=tmp_path / "cache")
    assert store.games == ("Pong",)
    expected = EpisodeStore.open(tmp_path / "other").read_frames("Pong", 0, 190)
    assert np.array_equal(store.read_frames("Pong", 0, 190), expected)


def test_an_interrupted_refresh_is_begun_anew(make_store, make_episode, upload, tmp_path, full_disk) -> None:
    local = make_store(Pong=[10])
    upload(local.path, "grows")
    EpisodeStore.open("memory://grows", cache=tmp_path / "cache")
    with EpisodeWriter.open(local.path) as writer:
        writer.append(make_episode("Pong", 12, 5))
    upload(local.path, "grows")
    for fails_at in (1, 3, 9, 12):
        with full_disk(fails_at), pytest.raises(DataError, match="could not be read"):
            EpisodeStore.open("memory://grows", cache=tmp_path / "cache")
    store = EpisodeStore.open("memory://grows", cache=tmp_path / "cache")
    assert [info.length for info in store.episodes("Pong")] == [10, 12]


def test_a_store_that_never_stands_still_is_refused(make_store, upload, tmp_path, monkeypatch) -> None:
    """A commit between the documents and the table would mix two states."""
    upload(make_store(Pong=[10]).path, "busy")
    kind, count = type(fsspec.filesystem("memory")), 0
    original = kind.cat_file

    def changing(self, path, *arguments, **options):
        nonlocal count
        count += path.endswith("Pong/zarr.json")
        return original(self, path, *arguments, **options) + b" " * count * path.endswith("Pong/zarr.json")

    monkeypatch.setattr(kind, "cat_file", changing)
    with pytest.raises(DataError, match="changes faster than it can be read: try again"):
        EpisodeStore.open("memory://busy", cache=tmp_path / "cache")


def test_a_path_made_of_an_address_is_one(make_store, upload, tmp_path, monkeypatch) -> None:
    upload(make_store(Pong=[10]).path, "sets/mine")
    store = EpisodeStore.open(Path("memory://sets/mine"), cache=tmp_path / "cache")
    assert store.num_steps("Pong") == 10
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="memory://sets/new is an address: data sets are written to folders"):
        EpisodeWriter.open(Path("memory://sets/new"))
    (tmp_path / "c:").mkdir()
    (tmp_path / "c:" / "x").mkdir()
    assert remote_address("c:/x") is None and remote_address(Path("data/x")) is None
    assert remote_address("file:/tmp/nowhere/x") == "file:///tmp/nowhere/x"


def test_remote_mistakes_are_plain(make_store, upload, tmp_path, monkeypatch) -> None:
    with pytest.raises(DataError, match="no data set at memory://nowhere"):
        EpisodeStore.open("memory://nowhere", cache=tmp_path)
    with pytest.raises(
        UsageError, match=r"nosuch://x cannot be opened .*: pip install gcsfs .* or s3fs .*, or check the address"
    ):
        EpisodeStore.open("nosuch://x", cache=tmp_path)
    store = make_store(Pong=[20])
    (store.path / "Pong/frames/c/0/0/0").unlink()
    upload(store.path, "holes")
    with pytest.raises(DataError, match=r"frames/c/0/0/0 is damaged at steps .*\(episode 0\): the file is missing"):
        EpisodeStore.open("memory://holes", cache=tmp_path / "cache").read_episode("Pong", 0)

    def fails(self, *_: object, **__: object) -> None:
        raise OSError("the network is down")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "get_file", fails)
    with pytest.raises(DataError, match=r"could not be (fetched|read) \(the network is down\): check the connection"):
        EpisodeStore.open("memory://holes", cache=tmp_path / "other")
