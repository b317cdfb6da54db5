"""Verifying: every kind of damage to every kind of file is found, named, and does not hide the next one."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from jowa.data import schema
from jowa.data.schema import write_document
from jowa.data.store import EpisodeStore
from jowa.data.tokens import TokenStore, tokens_folder
from jowa.data.verify import verify
from jowa.errors import DataError


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_episode, make_store_of, make_old_store) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    episodes = [make_episode(game, n, k) for game in ("Pong", "Boxing") for k, n in enumerate((100, 40, 300))]
    make_store_of(folder / "new", episodes)
    make_store_of(folder / "fast", episodes, "fast")
    make_old_store(folder / "old", episodes)
    return folder


@pytest.fixture(params=["new", "fast", "old"])
def path(request, tmp_path, made) -> Path:
    """Stores of both layouts, and one of version 1."""
    return Path(shutil.copytree(made / request.param, tmp_path / "store"))


def damage(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in verify(path, progress=False).damage:
        found.setdefault(finding.file.relative_to(path).as_posix(), []).append(finding.what)
        assert "\n" not in finding.what
    return found


def notes(path: Path) -> dict[str, str]:
    report = verify(path, progress=False)
    assert not report.damage
    return {finding.file.relative_to(path).as_posix(): finding.what for finding in report.findings}


def test_a_whole_store(path) -> None:
    report = verify(path, progress=False)
    assert not report.findings
    assert (report.games, report.episodes, report.frames) == (2, 6, 880)
    files = [file for file in path.rglob("*") if file.is_file() and file.name != "writer.lock"]
    assert report.files == len(files)
    assert "2 games, 6 episodes, 880 frames" in report.describe() and "nothing damaged" in report.describe()


def test_a_flipped_byte_in_any_file_is_found_and_the_file_named(path) -> None:
    """Of documents: unless what they say is the same; version 1 did not protect them, so there only the data count."""
    chance, flips, ignored = random.Random(5), 0, 0
    old = schema.check_root(path)["version"] == 1
    for file in sorted(f for f in path.rglob("*") if f.is_file() and f.name != "writer.lock"):
        whole, is_document = file.read_bytes(), file.name == "zarr.json"
        if is_document and old:
            continue
        for place in chance.sample(range(len(whole)), 6 if old else 3):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << chance.randrange(8)
            file.write_bytes(flipped)
            flips += 1
            if is_document and same_meaning(whole, flipped):
                ignored += 1
                assert not damage(path)
            else:
                assert list(damage(path)) == [file.relative_to(path).as_posix()], (file, place)
        file.write_bytes(whole)
    assert flips > 100 and ignored < flips / 4


def same_meaning(whole: bytes, flipped: bytearray) -> bool:
    try:
        return json.loads(whole) == json.loads(bytes(flipped))
    except ValueError:
        return False


def test_every_version_but_the_right_one_is_damage(path) -> None:
    text = (path / "zarr.json").read_text()
    version = schema.check_root(path)["version"]
    for other in range(10):
        (path / "zarr.json").write_text(text.replace(f'"version": {version}', f'"version": {other}'))
        if other != version:
            assert "zarr.json" in damage(path), other


@pytest.mark.parametrize("how", ["removed", "emptied", "truncated"])
@pytest.mark.parametrize(
    "name",
    ["Pong/frames/c/0/0/0", "Pong/actions/c/0", "Pong/episode_length/c/0", "Pong/episode_score/c/0", "Pong/zarr.json",
     "Pong/rewards/zarr.json", "zarr.json"],
)  # fmt: skip
def test_lost_files(path, name, how) -> None:
    data = (path / name).read_bytes()
    if how == "removed":
        (path / name).unlink()
    else:
        (path / name).write_bytes(data[: len(data) // 2] if how == "truncated" else b"")
    assert list(damage(path)) == [name]


def test_episodes_are_named_as_training_names_them(path) -> None:
    flip(path / "Pong/frames/c/0/0/0", 10)
    (what,) = damage(path)["Pong/frames/c/0/0/0"]
    assert what.startswith("the checksum of a chunk is wrong: steps 0 to ") and what.endswith("; episode 0")
    with pytest.raises(DataError, match=r"Pong/frames/c/0/0/0 is damaged at steps 0 to \d+ of Pong \(episode 0\)"):
        EpisodeStore.open(path).read_episode("Pong", 0)
    (path / "Boxing/actions/c/0").unlink()
    assert damage(path)["Boxing/actions/c/0"][0].endswith("; episodes 0 to 2")


def flip(file: Path, *places: int) -> None:
    data = bytearray(file.read_bytes())
    for place in places:
        data[place] ^= 0x20
    file.write_bytes(data)


def test_all_damage_is_listed_at_once(path) -> None:
    names = ["Pong/frames/c/0/0/0", "Pong/rewards/c/0", "Pong/episode_seed/c/0", "Boxing/frames/c/0/0/0"]
    for name in names:
        flip(path / name, 7)
    (path / "Boxing/actions/zarr.json").write_text("{")
    (path / "Boxing/episode_policy/c/0").unlink()
    (path / "Pong/zarr.json").unlink()
    found = damage(path)
    assert sorted(found) == sorted([*names, "Boxing/actions/zarr.json", "Boxing/episode_policy/c/0", "Pong/zarr.json"])
    (path / "zarr.json").write_text("[]")
    assert sorted(damage(path)) == sorted([*found, "zarr.json"])


def test_many_damaged_chunks_are_one_line(tmp_path, make_episode, make_store_of) -> None:
    make_store_of(tmp_path, [make_episode("Pong", 160, k) for k in range(20)])
    file = tmp_path / "Pong/frames/c/0/0/0"
    index = np.frombuffer(file.read_bytes()[-(1024 * 16 + 4) : -4], "<u8").reshape(1024, 2)
    flip(file, *(int(index[chunk, 0]) for chunk in (3, 4, 50, 70, 90, 110, 130, 150)))
    (what,) = damage(tmp_path)[file.relative_to(tmp_path).as_posix()]
    assert what.startswith("the checksum of a chunk is wrong: steps 48 to 79, 800 to 815, ")
    assert what.endswith(" and 2 more places; episodes 0, 5, 7, 9, 11 and 2 more places")


@pytest.mark.parametrize(
    ("array", "values", "what"),
    [
        ("actions", {120: 2, 130: 77}, "actions that are not legal in Pong: steps 120, 130; episode 1"),
        ("rewards", {7: 1.5, 8: -3.0}, r"rewards outside \[-1, 1\]: steps 7 to 8; episode 0"),
        ("rewards", {439: np.nan}, r"rewards outside \[-1, 1\]: step 439; episode 2"),
    ],
)
def test_values_that_cannot_be(path, array, values, what) -> None:
    rows = zarr.open_array(path / "Pong" / array, mode="r+")
    for place, value in values.items():
        rows[place] = value
    (found,) = damage(path)[f"Pong/{array}/c/0"]
    assert re.fullmatch(what, found)


@pytest.mark.parametrize(
    ("column", "values", "what"),
    [
        ("offset", [0, 90, 140], "steps that overlap the episode before: episode 1"),
        ("offset", [0, 100, 141], "steps behind row 440, where the arrays end: episode 2"),
        ("length", [100, 0, 300], "lengths below 1: episode 1"),
        ("length", [100, 39, 300], "lengths that sum to 439, not to 440 as zarr.json says"),
        ("score", [0.0, np.nan, np.inf], "scores that are not finite: episodes 1 to 2"),
        ("policy", [0, 0, 3], "policies that are none of the 1 in policies: episode 2"),
    ],
)
def test_a_table_that_contradicts_itself(path, column, values, what) -> None:
    zarr.open_array(path / "Pong" / f"episode_{column}", mode="r+")[:] = np.array(values)
    assert f"the episode table contradicts itself or zarr.json: {what}" in damage(path)["Pong"]


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("frames", {"data_type": "int8"}, r"int8 \(84, 84\), not uint8 \(84, 84\)"),
        ("frames", {"shape": [440, 84, 80]}, "is not packed as"),
        ("actions", {"shape": [439]}, "says that there are 439 rows, Pong/zarr.json that there are 440"),
        ("episode_seed", {"shape": [2]}, "says that there are 2 rows, Pong/zarr.json that there are 3"),
        ("episode_seed", {"data_type": "int64"}, r"has int64 \(\), not uint64 \(\)"),
        ("rewards", {"chunk_key_encoding": {"name": "v2"}}, "has the keys"),
        ("rewards", {"codecs": []}, "is not packed as"),
    ],
)
def test_documents_of_another_layout(path, name, change, what) -> None:
    file = path / "Pong" / name / "zarr.json"
    document = json.loads(file.read_text()) | change
    if "checksum" in document["attributes"]:
        write_document(file, document)
    else:
        file.write_text(json.dumps(document))
    assert re.search(what, damage(path)[f"Pong/{name}/zarr.json"][0])


def test_files_that_belong_to_nothing(path) -> None:
    (path / "Pung").mkdir()
    (path / "Pong/frames/c/0/0/1").write_bytes(b"x")
    (path / "Pong/readme.txt").write_text("x")
    assert damage(path) == {
        "Pong/frames/c/0/0/1": ["belongs to nothing: move it away"],
        "Pong/readme.txt": ["belongs to nothing: move it away"],
        "Pung": ["is no game's group: move that folder away"],
    }


def test_what_a_killed_writer_left_is_no_damage(path) -> None:
    shutil.copytree(path / "Pong/frames/c/0", path / "Pong/frames/c/1")
    (path / "Boxing/episode_seed/c/1").write_bytes(b"half")
    (path / "Boxing/.zarr.json.abc.partial").write_text("{")
    (path / "Breakout.partial").mkdir()
    (path / ".DS_Store").write_text("")
    assert notes(path) == {
        ".DS_Store": "belongs to nothing: move it away",
        **dict.fromkeys(
            ["Boxing/.zarr.json.abc.partial", "Boxing/episode_seed/c/1", "Breakout.partial", "Pong/frames/c/1/0/0"],
            "is left over from a writer that was killed",
        ),
    }


def test_rows_that_were_not_committed_are_no_damage(tmp_path, made, make_episode, make_store_of) -> None:
    path = Path(shutil.copytree(made / "new", tmp_path / "store"))
    before = (path / "Pong/zarr.json").read_bytes()
    make_store_of(path, [make_episode("Pong", 64, 9)])
    (path / "Pong/zarr.json").write_bytes(before)  # as if killed just before the commit
    zarr.open_array(path / "Pong/actions", mode="r+")[470] = 2  # not legal in Pong
    found = notes(path)
    assert len(found) == 9 and all("that were never committed" in what for what in found.values())
    file = path / "Pong/frames/c/0/0/0"
    index = np.frombuffer(file.read_bytes()[-(1024 * 16 + 4) : -4], "<u8").reshape(1024, 2)
    flip(file, int(index[30, 0]))
    assert notes(path)["Pong/frames/c/0/0/0"] == (
        "the checksum of a chunk is wrong: steps 480 to 495, which belong to no episode"
    )


def test_tokens(tmp_path, made, make_episode, make_store_of) -> None:
    path = Path(shutil.copytree(made / "new", tmp_path / "store"))
    store = EpisodeStore.open(path)
    tokens = TokenStore.create(tokens_folder(store, "f" * 64), "f" * 64, 512)
    tokens.prepare(store, store.games)
    for piece in tokens.missing(store, store.games):
        tokens.write(store, piece, lambda frames: np.full((len(frames), 36), 7, np.uint16))
    tokens.finish(store, store.games)
    assert not notes(path)
    make_store_of(path, [make_episode("Pong", 64, 9)])  # which has no tokens yet
    assert not notes(path)
    base = f"tokens/{'f' * 16}"
    whole = {name: (path / base / name).read_bytes() for name in ("zarr.json", "Pong/zarr.json", "Boxing/c/0/0")}
    for name, data in whole.items():
        (path / base / name).write_bytes(data[:-30] + bytes([data[-30] ^ 1]) + data[-29:])
        assert list(damage(path)) == [f"{base}/{name}"]
        (path / base / name).write_bytes(data)
    lost = path / base / "Boxing/c/0/0"
    content = lost.read_bytes()
    lost.unlink()
    assert damage(path)[f"{base}/Boxing/c/0/0"][0].startswith("is missing though these tokens are finished: run")
    lost.write_bytes(content)
    flip(path / base / "Pong/c/0/0", 9)
    assert damage(path)[f"{base}/Pong/c/0/0"] == ["the checksum of a chunk is wrong: steps 0 to 63; episode 0"]


def test_no_store_at_all(tmp_path) -> None:
    with pytest.raises(DataError, match="no data set at"):
        verify(tmp_path / "nowhere", progress=False)
    with pytest.raises(DataError, match=r"has no zarr\.json"):
        verify(tmp_path, progress=False)


def test_verifying_writes_nothing(path, contents) -> None:
    (path / "Boxing/.zarr.json.abc.partial").write_text("{")
    before = contents(path)
    assert notes(path)
    assert contents(path) == before
