"""Damaged, foreign and unwritable data sets: one-line errors that name the thing; nothing written is harmed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jowa.data.schema import write_document
from jowa.data.store import EpisodeStore
from jowa.data.writer import EpisodeWriter
from jowa.errors import DataError, JowaError, describe_os_error


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name != "writer.lock"
    }


def fails_with(message: str, action) -> None:
    with pytest.raises(DataError, match=message) as caught:
        action()
    assert "\n" not in str(caught.value)


def edit(file: Path, change, seal: bool = True) -> None:
    """``seal``: with the checksum that belongs to what is written then."""
    document = json.loads(file.read_text())
    change(document["attributes"])
    if seal:
        write_document(file, document)
    else:
        file.write_text(json.dumps(document))


def test_missing_store(tmp_path) -> None:
    fails_with(
        r"no data set at .*/nowhere: expected a folder; record one", lambda: EpisodeStore.open(tmp_path / "nowhere")
    )


def test_folder_that_is_no_store(tmp_path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"sun")
    fails_with("has no zarr.json .* expected a jowa-episodes store", lambda: EpisodeStore.open(tmp_path))
    fails_with("has no zarr.json", lambda: EpisodeWriter.open(tmp_path))
    assert contents(tmp_path) == {"holiday.jpg": b"sun"}
    fails_with("is a file: choose a folder", lambda: EpisodeWriter.open(tmp_path / "holiday.jpg"))


def test_empty_store(tmp_path) -> None:
    EpisodeWriter.open(tmp_path).close()
    fails_with("holds no finished episode: record some with", lambda: EpisodeStore.open(tmp_path))


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("version", 3, r"schema version 3: this program reads versions 1 and 2; use the matching release"),
        ("version", None, r"schema version None"),
        ("schema", "someone-elses", r"schema 'someone-elses': expected 'jowa-episodes'; choose another folder"),
    ],
)
def test_other_schema(make_store, attribute, value, message) -> None:
    path = make_store(Pong=[10]).path
    edit(path / "zarr.json", lambda attributes: attributes.update({attribute: value}))
    before = contents(path)
    fails_with(message, lambda: EpisodeStore.open(path))
    fails_with(message, lambda: EpisodeWriter.open(path))
    assert contents(path) == before


def test_another_zarr_hierarchy_is_not_touched(tmp_path) -> None:
    import zarr

    zarr.create_group(tmp_path, zarr_format=3, attributes={"mine": 1})
    before = contents(tmp_path)
    fails_with("schema None: expected 'jowa-episodes'", lambda: EpisodeWriter.open(tmp_path))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["zarr.json", "Pong/zarr.json"])
def test_mangled_documents(make_store, name) -> None:
    path = make_store(Pong=[10]).path
    for text in ("", "{", "[]", '{"attributes": 3}', "\udcff"):
        (path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
        before = contents(path)
        fails_with(rf"{name} is (damaged \(.*\)|not a Zarr v3 document): restore", lambda: EpisodeStore.open(path))
        fails_with(name, lambda: EpisodeWriter.open(path))
        assert contents(path) == before


def test_lost_commit_attributes_do_not_cost_the_data(make_store) -> None:
    path = make_store(Pong=[10]).path
    edit(path / "Pong/zarr.json", lambda attributes: attributes.clear())
    before = contents(path)
    fails_with("Pong/zarr.json lacks num_episodes, num_steps, num_rows or policies", lambda: EpisodeStore.open(path))
    fails_with("Pong/zarr.json lacks", lambda: EpisodeWriter.open(path))
    assert contents(path) == before


def test_folder_of_an_unknown_game(make_store) -> None:
    path = make_store(Pong=[10]).path
    (path / "Pong").rename(path / "Pongo")
    fails_with("Pongo is no game's group .*did you mean Pong", lambda: EpisodeStore.open(path))
    (path / "Pongo").rename(path / "Pong")
    (path / "Boxing").mkdir()
    fails_with("Boxing has no zarr.json: restore", lambda: EpisodeStore.open(path))


def test_flipped_byte_in_a_chunk_names_file_and_episode(make_store, make_episode) -> None:
    store = make_store(Pong=[100, 200, 150])
    shard = store.path / "Pong/frames/c/0/0/0"
    data = bytearray(shard.read_bytes())
    # The index at the shard's end: 1024 pairs (offset, bytes) and a checksum.  Chunk 14 holds steps 224 to 240.
    index = np.frombuffer(bytes(data[-(1024 * 16 + 4) : -4]), "<u8").reshape(1024, 2)
    data[int(index[14, 0] + index[14, 1] // 2)] ^= 0x10
    shard.write_bytes(bytes(data))
    place = r"Pong/frames/c/0/0/0 is damaged at steps 224 to 239 of Pong \(episode 1\)"
    fails_with(place, lambda: store.read_episode("Pong", 1))
    fails_with(place, lambda: EpisodeStore.open(store.path).read_frames("Pong", 0, 450))
    for number, length in ((0, 100), (2, 150)):  # the others are still readable
        read = store.read_episode("Pong", number)
        assert np.array_equal(read.frames, make_episode("Pong", length, number).frames)


@pytest.mark.parametrize("array", ["frames", "actions", "rewards", "episode_length"])
@pytest.mark.parametrize("damage", ["truncated", "emptied", "removed", "flipped"])
def test_every_kind_of_damage_to_every_array_is_noticed(make_store, array, damage) -> None:
    store = make_store(Pong=[100, 50])
    file = next(f for f in (store.path / "Pong" / array / "c").rglob("*") if f.is_file())
    data = file.read_bytes()
    if damage == "removed":
        file.unlink()
    else:
        flipped = bytearray(data)
        flipped[2] ^= 0xFF
        file.write_bytes({"truncated": data[: len(data) // 2], "emptied": b"", "flipped": bytes(flipped)}[damage])

    def read_all() -> None:
        reopened = EpisodeStore.open(store.path)
        reopened.episodes("Pong")
        reopened.read("Pong", 0, 150)

    fails_with(rf"Pong/{array}/c/0.* is damaged at", read_all)


@pytest.mark.parametrize("name", ["", "Pong/", "Pong/frames/", "Pong/episode_seed/"])
def test_flipped_byte_in_a_document(make_store, name) -> None:
    """Whatever a flipped byte does to a document's text, no reader goes on with another meaning of it."""
    path = make_store(Pong=[10]).path
    name += "zarr.json"
    whole = (path / name).read_bytes()
    meaning = json.loads(whole)
    for place in range(0, len(whole), 3):
        flipped = bytearray(whole)
        flipped[place] ^= 0x04
        (path / name).write_bytes(bytes(flipped))
        try:
            same = json.loads(bytes(flipped)) == meaning
        except ValueError:
            same = False
        if not same:
            fails_with(r"zarr\.json|has schema", lambda: EpisodeStore.open(path).read_episode("Pong", 0))


def test_table_that_contradicts_itself(make_store) -> None:
    path = make_store(Pong=[100, 50]).path
    edit(path / "Pong/zarr.json", lambda attributes: attributes.update(num_steps=149), seal=False)
    fails_with("Pong/zarr.json is damaged .its checksum is wrong", lambda: EpisodeStore.open(path))
    edit(path / "Pong/zarr.json", lambda attributes: attributes.update(num_steps=149))
    fails_with(
        "episode table of Pong in .* contradicts Pong/zarr.json", lambda: EpisodeStore.open(path).episodes("Pong")
    )
    edit(path / "Pong/zarr.json", lambda attributes: attributes.update(num_steps=151, num_rows=151))
    fails_with(
        "frames holds 150 rows of uint8 .*: expected at least 151", lambda: EpisodeStore.open(path).read("Pong", 0, 10)
    )
    fails_with("truncated", lambda: EpisodeWriter.open(path))


def test_mangled_array_document(make_store) -> None:
    path = make_store(Pong=[10]).path
    (path / "Pong/frames/zarr.json").write_text("{}")
    fails_with("Pong/frames/zarr.json is damaged", lambda: EpisodeStore.open(path).read("Pong", 0, 1))
    fails_with("frames/zarr.json is damaged", lambda: EpisodeWriter.open(path))


@pytest.mark.parametrize("fails_at", [1, 3, 6, 12, 18, 19])
def test_disk_full_keeps_what_was_finished(make_store, make_episode, assert_same_episode, full_disk, fails_at) -> None:
    """The n-th write finds the disk full; then space is freed and the same writer goes on."""
    path = make_store(Pong=[60]).path
    with EpisodeWriter.open(path) as writer:
        with full_disk(fails_at), pytest.raises(OSError) as caught:
            writer.append(make_episode("Pong", 70, 9))
        assert "the disk is full" in describe_os_error(caught.value)
        store = EpisodeStore.open(path)
        assert store.num_episodes("Pong") == 1
        assert_same_episode(store.read_episode("Pong", 0), make_episode("Pong", 60, 0))
        assert writer.num_episodes("Pong") == 1
        writer.append(make_episode("Pong", 80, 1))
    store = EpisodeStore.open(path)
    assert [info.length for info in store.episodes("Pong")] == [60, 80]
    assert_same_episode(store.read_episode("Pong", 1), make_episode("Pong", 80, 1))


@pytest.mark.skipif(os.name != "posix", reason="drops to another user")
def test_no_write_permission(make_store) -> None:
    path = make_store(Pong=[10]).path
    before = contents(path)
    program = (
        "import os, sys\n"
        "from jowa.data.writer import EpisodeWriter\n"
        "if os.geteuid() == 0: os.setegid(65534); os.seteuid(65534)\n"
        "from jowa.errors import command\n"
        "command(lambda: EpisodeWriter.open(sys.argv[1]).close())()\n"
    )
    for folder in [path, *path.parents]:  # pytest's folders are closed to others
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o555)
    try:
        for target in (path, path.parent / "new"):
            done = subprocess.run([sys.executable, "-c", program, str(target)], capture_output=True, text=True)
            assert done.returncode == 1
            assert done.stderr.startswith("error: no permission to write at ") and done.stderr.count("\n") == 1
    finally:
        for folder in [path, *path.parents]:
            if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
                folder.chmod(0o755)
    assert contents(path) == before


def test_all_these_are_errors_for_users() -> None:
    assert issubclass(DataError, JowaError) and DataError.exit_code == 1
