"""``python -m jowa.viewer`` in a process of its own: films without a display, and a real window on one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PyQt6.QtWidgets")
pytest.importorskip("pyqtgraph")

from jowa.agent import Agent
from jowa.errors import UsageError
from jowa.viewer import start


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    left_out = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    kept = {key: value for key, value in os.environ.items() if key not in left_out}
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, timeout=240, check=False)


def viewer(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "jowa.viewer", *arguments], **environment)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems always have a display")
@pytest.mark.parametrize("display", [{}, {"DISPLAY": ":7931"}])
def test_no_display_gives_one_sentence_and_the_headless_hint(display: dict[str, str]) -> None:
    ended = viewer(**display)
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1 and "--headless --out clip.mp4" in ended.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems need no libraries for windows")
@pytest.mark.parametrize(
    ("said", "words"),
    [("could not connect to display :1", "no display"), ('Could not load the Qt platform plugin "xcb"', "apt install")],
)
def test_what_keeps_qt_from_opening_a_window_is_told(monkeypatch: pytest.MonkeyPatch, said: str, words: str) -> None:
    monkeypatch.setenv("DISPLAY", ":1")
    monkeypatch.delenv("QT_QPA_PLATFORM")
    failed = subprocess.CompletedProcess([], -6, "", f"qt.qpa.plugin: {said}\n")
    monkeypatch.setattr(start.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UsageError, match=f"{words}.*--headless"):
        start.check_display(False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_headless_renders_a_film(agent: Agent, tmp_path: Path, kind: str) -> None:
    from PIL import Image

    agent.save(tmp_path / "agent")
    out = tmp_path / f"clip.{kind}"
    folder = str(tmp_path / "agent")
    ended = viewer("--headless", "--agent", folder, "--out", str(out), "--steps", "5", "--size", "1280", "720")
    assert ended.returncode == 0, ended.stderr
    if kind == "gif":
        with Image.open(out) as film:
            assert film.n_frames >= 4 and film.size == (1280, 720)
    else:
        av = pytest.importorskip("av")
        with av.open(str(out)) as film:
            frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert len(frames) == 5 and frames[0].shape == (720, 1280, 3)
        assert np.abs(frames[0].astype(int) - frames[-1]).max() > 50


@pytest.mark.slow
def test_a_recording_is_filmed(agent: Agent, tmp_path: Path, sprite_store: Path) -> None:
    from PIL import Image

    agent.save(tmp_path / "agent")
    out = tmp_path / "clip.gif"
    named = ("--recording", str(sprite_store), "--game", "Breakout", "--episode", "1")
    ended = viewer("--headless", "--agent", str(tmp_path / "agent"), "--out", str(out), "--steps", "3", *named)
    assert ended.returncode == 0, ended.stderr
    with Image.open(out) as film:
        assert film.n_frames >= 2
    ended = viewer("--headless", "--agent", str(tmp_path / "agent"), "--out", str(out), "--recording", str(tmp_path))
    assert ended.returncode in (1, 2) and "recording cannot be opened" in ended.stderr


def test_a_film_of_an_unknown_kind_or_of_nobody_is_refused(tmp_path: Path) -> None:
    for arguments, words in (
        (["--headless", "--steps", "0"], "steps 0"),
        (["--game", "Tetris"], "unknown game"),
        (["--episode", "2"], "--recording"),
        (["--headless", "--agent", str(tmp_path), "--out", "clip.avi"], ".mp4 or .gif"),
        (["--headless", "--agent", str(tmp_path), "--out", str(tmp_path / "clip.gif")], "jowa.train"),
    ):
        ended = viewer(*arguments)
        assert ended.returncode in (1, 2) and words in ended.stderr, ended.stderr


@pytest.fixture
def display() -> Iterator[str]:
    """A display on which Qt can open windows: one of Xvfb, where nobody sees them, else the one at hand."""
    server, process = shutil.which("Xvfb"), None
    name = os.environ.get("DISPLAY", "")
    if server is not None:
        read, write = os.pipe()
        process = subprocess.Popen(
            [server, "-displayfd", str(write), "-screen", "0", "1600x1000x24", "-nolisten", "tcp"], pass_fds=[write],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(write)
        with os.fdopen(read) as told:
            name = f":{told.readline().strip()}"
    elif not name:
        pytest.skip("no Xvfb and no display: install Xvfb (on Debian: xvfb libxcb-cursor0 libxcb-icccm4 "
                    "libxcb-keysyms1) to test a real window")  # fmt: skip
    try:
        trial = "from PyQt6.QtGui import QGuiApplication; QGuiApplication([])"
        tried = run([sys.executable, "-c", trial], DISPLAY=name)
        if tried.returncode:
            pytest.skip(f"Qt cannot use the display {name}: {tried.stderr.strip().splitlines()[0]}")
        yield name
    finally:
        if process is not None:
            process.terminate()
            process.wait(20)


def test_a_real_window_on_a_display(agent: Agent, tmp_path: Path, display: str) -> None:
    agent.save(tmp_path / "agent")
    script = Path(__file__).with_name("real_window.py")
    ended = run([sys.executable, str(script), str(tmp_path / "agent"), str(tmp_path / "viewer.ini")], DISPLAY=display)
    assert ended.returncode == 0, ended.stderr
    seen = json.loads(ended.stdout)
    assert seen.pop("platform") in ("xcb", "wayland") and seen.pop("colours") > 20
    width, height = seen.pop("size")
    assert width >= 1000 and height >= 600
    assert seen == {"active": True, "stepped": 1, "pinned": True, "sheets": 1, "running": True}
    assert "game=Pong" in (tmp_path / "viewer.ini").read_text()  # it was closed, not killed
