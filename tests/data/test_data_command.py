"""``python -m jowa.data``: every verb as a user calls it, and mistakes in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jowa.data import info
from jowa.data.store import EpisodeStore


@pytest.fixture
def store(make_store, make_episode) -> Path:
    return make_store(Pong=[40, -9], Boxing=[5]).path


def test_all_verbs(tmp_path, store, command) -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("minari")
    listed = command("jowa.data", "info", store)
    assert listed.returncode == 0, listed.stderr
    rows = [line.split() for line in listed.stdout.splitlines()]
    assert rows[1][:2] == ["Boxing", "random"] and rows[2][0] == "Pong" and rows[2][7:9] == ["2", "49"]
    assert "schema jowa-episodes version 2, 3 episodes, 54 steps" in listed.stdout
    checked = command("jowa.data", "verify", store, "--threads", 2)
    assert checked.returncode == 0 and "3 episodes, 54 frames" in checked.stdout and "nothing damaged" in checked.stdout
    merged = command("jowa.data", "merge", store, "--out", "merged", "--games", "Pong", "--layout", "fast")
    assert merged.returncode == 0 and merged.stdout.splitlines()[-1].startswith("merged: 2 episodes, 49 steps")
    folder = command.scratch
    assert EpisodeStore.open(folder / "merged").games == ("Pong",)
    exported = command("jowa.data", "export", "merged", "pong-v0")
    assert exported.returncode == 0 and exported.stdout == "pong-v0: 2 episodes, 49 steps\n"
    imported = command("jowa.data", "import", "pong-v0", "imported")
    assert imported.returncode == 0 and imported.stdout.startswith("imported: Pong, 2 episodes, 49 steps")
    origin = command("jowa.data", "info", "imported").stdout
    assert "imported: Pong (path pong-v0, dataset pong-v0)" in origin
    assert "merged: Pong (layout fast, sources " in command("jowa.data", "info", "merged").stdout


def test_damage_is_listed_and_the_exit_code_says_so(store, command) -> None:
    (store / "Pong/actions/c/0").write_bytes(b"")
    (store / "Pong/frames/c/0/0/0").unlink()
    (store / ".notes").write_text("")
    done = command("jowa.data", "verify", store)
    assert done.returncode == 1
    assert done.stdout.splitlines()[:3] == [
        "note: .notes: belongs to nothing: move it away",
        "damaged: Pong/actions/c/0: the file is truncated: steps 0 to 16383; episodes 0 to 1",
        "damaged: Pong/frames/c/0/0/0: the file is missing: steps 0 to 16383; episodes 0 to 1",
    ]
    assert done.stderr.splitlines()[-1].startswith(f"error: {store}: 2 things are wrong: restore these files")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "{info, verify, merge, export, import}"),
        (["inof", "x"], 2, "inof"),
        (["info"], 2, "STR Folder of the data set"),
        (["info", "nowhere"], 1, "no data set at nowhere"),
        (["verify", "nowhere"], 1, "no data set at nowhere"),
        (["verify", "gs://bucket/store"], 2, "is remote: copy it into a folder first"),
        (["verify", "x", "--threads", "-1"], 2, "--threads -1: expected 0 or more"),
        (["merge", "nowhere", "--out", "new"], 1, "no data set at nowhere"),
        (["merge", "nowhere"], 2, "--out"),
        (["export", "nowhere", "x-v0"], 1, "no data set at nowhere"),
        (["import", "nowhere", "new"], 1, "nowhere is no Minari data set"),
    ],
)
def test_mistakes_are_one_line(command, arguments, code, message) -> None:
    done = command("jowa.data", *arguments)
    assert done.returncode == code and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")


def test_the_module_itself(store) -> None:
    done = subprocess.run([sys.executable, "-m", "jowa.data", "verify", store], capture_output=True, text=True)
    assert done.returncode == 0 and "nothing damaged" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="drops to another user")
def test_a_folder_that_may_not_be_written(tmp_path, store) -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("minari")
    program = (
        "import os, sys, h5py, minari\n"
        "from pathlib import Path\n"
        "from jowa.data import commands\n"
        "from jowa.errors import command\n"
        "if os.geteuid() == 0: os.setegid(65534); os.seteuid(65534)\n"
        "store, out = sys.argv[1:]\n"
        "export, merge = commands.Export(store, Path(out), 'Pong'), commands.Merge((store,), Path(out))\n"
        "verb = export if out.endswith('v0') else merge\n"
        "command(verb.run)()\n"
    )
    folders = [folder for folder in (tmp_path, *tmp_path.parents) if folder.stat().st_mode & 0o077 == 0]
    for folder in folders:  # pytest's folders are closed to others
        folder.chmod(0o755)
    tmp_path.chmod(0o555)
    try:
        for out in ("new", "pong-v0"):
            arguments = [sys.executable, "-c", program, str(store), str(tmp_path / out)]
            done = subprocess.run(arguments, capture_output=True, text=True)
            assert done.returncode == 1
            assert done.stderr.startswith("error: no permission to write at ") and done.stderr.count("\n") == 1
    finally:
        tmp_path.chmod(0o755)
        for folder in folders:
            folder.chmod(0o700)
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_listing(tmp_path, store, make_episode, make_store_of) -> None:
    _, rows = info.list_games(str(store))
    assert [(row.game, row.episodes, row.steps) for row in rows] == [("Boxing", 1, 5), ("Pong", 2, 49)]
    pong = rows[1]
    scores = [episode.score for episode in EpisodeStore.open(store).episodes("Pong")]
    assert pong.score == sum(scores) / 2 and pong.frames.chunk_rows == 16 and not pong.has_tokens
    assert pong.frame_bytes == (store / "Pong/frames/c/0/0/0").stat().st_size
    assert pong.total_bytes == sum(f.stat().st_size for f in (store / "Pong").rglob("*") if f.is_file())
    (store / "tokens/any/Pong/c/0").mkdir(parents=True)
    (store / "tokens/any/Pong/c/0/0").write_text("x")
    assert [row.has_tokens for row in info.list_games(str(store))[1]] == [False, True]


def test_listing_a_remote_store(tmp_path, store, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    _, here = info.list_games(str(store))
    _, there = info.list_games(f"file://{store}")
    assert [(r.game, r.episodes, r.frame_bytes, r.total_bytes) for r in here] == [
        (r.game, r.episodes, r.frame_bytes, r.total_bytes) for r in there
    ]


def test_long_names_are_shortened() -> None:
    assert info.shortened(("a", "b", "c")) == "a, b, c"
    assert info.shortened(("a", "b", "c", "d", "e")) == "a, b, c, 2 more"
    assert info.shortened(("agent:/home/me/agents/pong-of-tuesday",)) == "agent:/hom…ng-of-tuesday"
