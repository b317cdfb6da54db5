"""What the window opens, keeps and remembers: agents, films, pictures, settings."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PyQt6.QtWidgets")
pytest.importorskip("pyqtgraph")

from PIL import Image
from PyQt6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PyQt6.QtGui import QColor, QDragEnterEvent, QDropEvent
from PyQt6.QtWidgets import QApplication, QDialog, QInputDialog, QLabel, QProgressDialog, QPushButton
from pytestqt.qtbot import QtBot

from jowa import hub
from jowa.agent import Agent
from jowa.errors import UsageError
from jowa.viewer import commands as told
from jowa.viewer import keep, theme
from jowa.viewer.events import Failed
from jowa.viewer.files import FileDialogs
from jowa.viewer.keep import Film
from jowa.viewer.settings import begin_with, last_agent, open_settings, recalled
from jowa.viewer.window import Window

Open = Callable[..., Window]
Settled = Callable[[Window], None]


def test_settings_come_back(open_window: Open, settled: Settled, tmp_path: Path) -> None:
    window = open_window()
    window.session.send(told.SetPlanner.to(name="mcts", simulations=33, respect_ends=False), told.SetSpeed(None))
    window.session.send(told.SetContext(1), told.SetGame("Freeway"))
    settled(window)
    window.actions_["light"].trigger()
    window.actions_["square"].trigger()
    window.columns.setSizes([500, 420, 312])
    share = window.columns.sizes()[0] / sum(window.columns.sizes())
    window.close()
    again = open_window()
    settled(again)
    state = again.session.state
    assert (state.planner.name, state.planner.simulations, state.planner.respect_ends) == ("mcts", 33, False)
    assert (state.speed, state.context, state.game) == (None, 1, "Freeway")
    assert theme.colours().name == "light" and again.game.square_pixels
    assert again.controls.speed.currentText() == "as fast as possible"
    assert abs(again.columns.sizes()[0] / sum(again.columns.sizes()) - share) < 0.01


def test_damaged_settings_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no runs/demo, which comes last
    (tmp_path / "viewer.ini").write_text(
        "[session]\nspeed=quick\ncontext=-3\nagent=/nowhere\nseed=x\nsticky=7\n[planner]\nname=deep\nwidth=many\n"
    )
    settings = open_settings(tmp_path / "viewer.ini")
    assert recalled(settings) == [] and begin_with(settings) == {} and last_agent(settings) is None


def test_settings_never_replace_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # stands for a device: Qt would put a file in its place
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UsageError, match="is no file"):
            open_settings(place)
    assert (tmp_path / "pipe").is_fifo()


def test_a_broken_agent_gives_a_dialog_and_the_session_lives(
    open_window: Open, settled: Settled, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = open_window()
    monkeypatch.setattr(FileDialogs, "ask", lambda *_, **__: tmp_path)
    window.actions_["open_agent"].trigger()
    qtbot.waitUntil(lambda: window.dialog is not None)
    assert window.dialog.text() == "The agent cannot be used" and "jowa.train" in window.dialog.informativeText()
    window.feed.failed.emit(Failed("Another", "one"))
    assert len([d for d in window.findChildren(QDialog) if d.isVisible()]) == 1
    window.dialog.close()
    assert window.dialog is None
    qtbot.mouseClick(window.controls.transport["step"], Qt.MouseButton.LeftButton)
    settled(window)
    assert window.feed.latest.index == 1


def test_without_an_agent_it_says_what_to_do(open_window: Open, qtbot: QtBot, agent: Agent, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    window = open_window(None)
    assert window.pages.currentWidget() is window.empty
    assert not window.controls.transport["run"].isEnabled()
    words = " ".join(label.text() for label in window.empty.findChildren(QLabel))
    assert "python -m jowa.train" in words
    agent.save(tmp_path / "agent")
    monkeypatch.setattr(FileDialogs, "ask", lambda *_, **__: tmp_path / "agent")
    qtbot.mouseClick(window.empty.buttons["open_agent"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: window.pages.currentWidget() is window.columns, timeout=20_000)
    assert window.controls.agent.text() != "Open agent…"


def test_screenshot_export_and_film(
    open_window: Open, settled: Settled, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = open_window()
    for action, name in (("screenshot", "shot.png"), ("export", "decision.json"), ("record", "film.gif")):
        monkeypatch.setattr(FileDialogs, "ask", lambda *_, name=name, **__: tmp_path / name)
        window.actions_[action].trigger()
    assert window.controls.record.isChecked()
    window.session.send(told.Step())
    settled(window)
    window.actions_["record"].trigger()
    assert not window.controls.record.isChecked()
    qtbot.waitUntil(lambda: not window.files.finishing, timeout=60_000)
    for name in ("shot.png", "decision.png", "film.gif"):
        with Image.open(tmp_path / name) as saved:
            assert saved.size == (window.width(), window.height())
    assert (tmp_path / "decision.json").stat().st_size > 500


def record(window: Window, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileDialogs, "ask", lambda *_, **__: path)
    window.actions_["record"].trigger()


def test_an_open_window_is_filmed_as_mp4(
    open_window: Open, settled: Settled, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    av = pytest.importorskip("av")
    window = open_window()
    record(window, tmp_path / "film.mp4", monkeypatch)
    for _ in range(4):
        window.session.send(told.Step())
        settled(window)
        qtbot.wait(70)  # a picture's time
    record(window, tmp_path / "film.mp4", monkeypatch)
    qtbot.waitUntil(lambda: not window.files.finishing, timeout=60_000)
    assert window.status.currentMessage().startswith(f"Saved {tmp_path / 'film.mp4'}")
    with av.open(str(tmp_path / "film.mp4")) as film:
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(pictures) >= 4 and pictures[0].shape == (window.height() // 2 * 2, window.width() // 2 * 2, 3)
    assert np.ptp(pictures[-1].astype(int)) > 150  # neither blank nor black


@pytest.fixture
def slow_encoder(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An encoder that waits for this event before it goes on."""
    go_on = threading.Event()
    pictures = Film._pictures

    def slowly(self: Film) -> Iterator[np.ndarray]:
        for picture in pictures(self):
            yield picture
            while not go_on.is_set() and not self._abandoned.is_set():
                go_on.wait(0.01)

    monkeypatch.setattr(Film, "_pictures", slowly)
    return go_on


def test_closing_waits_for_the_film_and_shows_how_far_it_is(
    open_window: Open, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow_encoder: threading.Event
) -> None:
    window = open_window()
    record(window, tmp_path / "film.gif", monkeypatch)
    window.files.film_now()
    window.close()
    assert window.isVisible() and window.files.finishing
    progress = next(dialog for dialog in window.findChildren(QProgressDialog) if dialog.isVisible())
    assert "film" in progress.labelText()
    qtbot.wait(50)
    assert not (tmp_path / "film.gif").exists()
    slow_encoder.set()
    qtbot.waitUntil(lambda: not window.isVisible(), timeout=60_000)
    assert (tmp_path / "film.gif").is_file() and [path.name for path in tmp_path.glob("*.gif*")] == ["film.gif"]


def test_a_film_can_be_left_out_on_closing(
    open_window: Open, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow_encoder: threading.Event
) -> None:
    window = open_window()
    record(window, tmp_path / "film.gif", monkeypatch)
    window.files.film_now()
    window.close()
    progress = next(dialog for dialog in window.findChildren(QProgressDialog) if dialog.isVisible())
    qtbot.mouseClick(progress.findChildren(QPushButton)[0], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not window.isVisible(), timeout=60_000)
    assert not slow_encoder.is_set() and not list(tmp_path.glob("*film.gif*"))


def test_a_film_that_cannot_be_written_gives_a_dialog(
    open_window: Open, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = open_window()
    record(window, tmp_path / "film.avi", monkeypatch)
    qtbot.waitUntil(lambda: window.dialog is not None)
    assert ".mp4 or .gif" in window.dialog.informativeText() and not window.controls.record.isChecked()
    window.dialog.close()
    monkeypatch.setattr(keep, "_write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    record(window, tmp_path / "film.gif", monkeypatch)
    window.files.film_now()
    record(window, tmp_path / "film.gif", monkeypatch)
    qtbot.waitUntil(lambda: window.dialog is not None, timeout=20_000)
    assert window.dialog.text() == "The film was not written" and "disk is full" in window.dialog.informativeText()
    window.dialog.close()


def test_folders_are_dropped_on_the_window(
    open_window: Open, settled: Settled, qtbot: QtBot, agent: Agent, tmp_path: Path, sprite_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    window = open_window()
    agent.save(tmp_path / "agent")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()

    def drop(path: Path) -> bool:
        mime = QMimeData()
        mime.setUrls([QUrl.fromLocalFile(str(path))])
        enter = QDragEnterEvent(QPoint(9, 9), Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton,
                                Qt.KeyboardModifier.NoModifier)  # fmt: skip
        enter.ignore()
        QApplication.sendEvent(window, enter)
        window.dropEvent(QDropEvent(QPointF(9, 9), Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton,
                                    Qt.KeyboardModifier.NoModifier))  # fmt: skip
        settled(window)
        return enter.isAccepted()

    assert drop(tmp_path / "agent") and window.session.state.agent == str(tmp_path / "agent")
    monkeypatch.setattr(QInputDialog, "getItem", lambda *arguments: (arguments[3][1], True))
    assert drop(sprite_store) and window.session.state.mode == "replay"
    assert not drop(tmp_path / "file") and window.dialog is None
    assert drop(tmp_path / "empty")
    qtbot.waitUntil(lambda: window.dialog is not None)
    assert "jowa.train" in window.dialog.informativeText() and window.session.state.mode == "replay"


def test_pictures_in_256_colours_keep_the_grounds_exactly(open_window: Open) -> None:
    window = open_window()
    picture = keep.picture_of(window)
    small = np.asarray(keep.in_256_colours(Image.fromarray(picture)).convert("RGB"))
    ground = QColor(theme.colours().surface).getRgb()[:3]
    where = (picture == ground).all(2)
    assert where.mean() > 0.2 and (small[where] == ground).all()
    assert np.abs(small.astype(int) - picture).mean() < 1 and len(np.unique(small.reshape(-1, 3), axis=0)) <= 256


def test_gifs_keep_their_colours_as_long_as_they_fit() -> None:
    colours = keep._Palette()
    generator = np.random.default_rng(0)
    dark = generator.integers(0, 60, (64, 64, 1), np.uint8).repeat(3, axis=2)
    moved = np.roll(dark, 3, axis=0)
    bright = 255 - dark
    pages = [colours.of(picture) for picture in (dark, moved, bright)]
    assert np.array_equal(pages[0][1], pages[1][1]) and not np.array_equal(pages[1][1], pages[2][1])
    for picture, (indices, palette) in zip((dark, moved, bright), pages, strict=True):
        assert np.abs(palette[indices][..., 1:].astype(int) - picture).mean() < keep._Palette.FIT


@pytest.mark.parametrize("name", ["name_agent", "demo"])
def test_an_agent_is_opened_by_name_or_shipped(
    open_window: Open, qtbot: QtBot, agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    agent.save(tmp_path / "shipped")
    monkeypatch.setattr(hub, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(QInputDialog, "getText", lambda *_: (" demo ", True))
    monkeypatch.chdir(tmp_path)
    assert last_agent(open_settings(tmp_path / "viewer.ini")) == "demo"
    window = open_window(None)
    assert window.actions_["demo"].isEnabled() and window.empty.buttons["demo"].isVisible()
    window.actions_[name].trigger()
    qtbot.waitUntil(lambda: window.pages.currentWidget() is window.columns, timeout=60_000)
    assert window.session.state.agent == "demo" and window.controls.agent.text() == "demo"
    window.close()
    assert last_agent(open_settings(tmp_path / "viewer.ini")) == "demo"


def test_without_a_shipped_agent_nothing_offers_it(
    open_window: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "SHIPPED", tmp_path / "nothing")
    window = open_window(None)
    assert not window.actions_["demo"].isEnabled() and "demo" not in window.empty.buttons
    monkeypatch.chdir(tmp_path)
    assert last_agent(window.settings) is None


def test_a_hub_that_knows_no_such_agent_gives_a_dialog(
    open_window: Open, settled: Settled, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    window = open_window()
    monkeypatch.setattr(QInputDialog, "getText", lambda *_: ("owner/agent", True))
    window.actions_["name_agent"].trigger()
    qtbot.waitUntil(lambda: window.dialog is not None, timeout=20_000)
    assert "pip install" in window.dialog.informativeText()
    window.dialog.close()
    qtbot.mouseClick(window.controls.transport["step"], Qt.MouseButton.LeftButton)
    settled(window)
    assert window.feed.latest.index == 1 and window.session.state.agent == "somewhere/test-agent"
