"""The same window without a display: filmed, or pictured in every state that the documentation shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from PyQt6.QtWidgets import QApplication, QWidget

from jowa.errors import JowaError
from jowa.progress import steps_progress
from jowa.viewer import commands as told
from jowa.viewer.events import Failed, Moment
from jowa.viewer.keep import Film, picture_of, save_picture
from jowa.viewer.session import Session
from jowa.viewer.shortcuts import ShortcutSheet
from jowa.viewer.window import Window

PATIENCE = 600.0
"""Seconds that one decision may take."""


class Director:
    """Drives a window from the outside, one moment after another."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self._failed: Failed | None = None
        window.feed.failed.connect(self._note)

    def _note(self, failed: Failed) -> None:
        self._failed = failed

    def wait(self, until: Callable[[Moment], bool] = lambda moment: True) -> Moment:
        """Let the window live until it shows such a moment.  Raises what the session could not do."""
        stop = time.monotonic() + PATIENCE
        while time.monotonic() < stop:
            QApplication.processEvents()
            if self._failed is not None:
                raise JowaError(f"{self._failed.title}: {self._failed.text}")
            latest = self.window.feed.latest
            if latest is not None and until(latest):
                QApplication.processEvents()
                return latest
            time.sleep(0.002)
        raise JowaError(f"no decision came within {PATIENCE:.0f} s: choose a smaller planner or a time limit")

    def step(self, count: int = 1) -> Moment:
        """Decide so many times."""
        for _ in range(count):
            before = self.wait()
            self.window.session.send(told.Step())
            self.wait(lambda moment, index=before.index: moment.index > index)  # type: ignore[misc]
        return self.wait()

    def tell(self, *commands: told.Command) -> None:
        """Send, and let what follows be drawn; nothing: what was sent before."""
        self.window.session.send(*commands)
        self.wait(lambda moment: self.window.session.idle)
        self.wait()


def film(window: Window, path: Path, steps: int, per_second: float) -> None:
    """Write ``steps`` decisions as a film."""
    director, reel = Director(window), Film(path, per_second)
    try:
        director.tell()
        with steps_progress(f"filming {path.name}", steps, "decisions") as advance:
            for number in range(1, steps + 1):
                reel.add(picture_of(window))
                if number < steps:
                    director.step()
                moment = window.feed.latest
                advance(number, "" if moment is None else f"score {moment.score:g}")
    except BaseException:
        if not reel.pictures:
            reel.abandon()  # or it would complain of nothing to write, instead of what went wrong
        raise
    finally:
        reel.close()


def screenshots(window: Window, folder: Path, label: str, warm_up: int = 45) -> list[Path]:
    """Pictures of every part of the viewer, ``label`` (size, theme) in their names."""
    director, made = Director(window), []

    def take(name: str, widget: QWidget = window) -> None:
        QApplication.processEvents()
        made.append(folder / f"{name}-{label}.png")
        save_picture(widget, made[-1], small=True)

    director.tell()
    director.step(warm_up)
    window.tabs.setCurrentWidget(window.plans)
    take("play")
    director.tell(told.SetPlanner.to(name="beam", width=3))
    director.step(2)
    best = window.plans.sheet.spots[0].path
    window.plans.sheet.point(len(best.nodes) - 1)
    take("plans")
    window.plans.sheet.point(None)
    director.tell(told.SetPlanner.to(name="mcts", simulations=60))
    director.step(2)
    window.tabs.setCurrentWidget(window.tree)
    take("tree")
    window.actions_["distributions"].trigger()
    director.tell(told.AskDistributions())
    window.tabs.setCurrentWidget(window.hindsight)
    take("critic")
    window.actions_["distributions"].trigger()
    director.tell(told.SetPlanner.to(name="beam", width=3), told.SetMode("dream"))
    director.step(3)
    window.tabs.setCurrentWidget(window.plans)
    take("dream")
    director.tell(told.SetMode("play"))
    sheet = ShortcutSheet(window)
    sheet.open()
    take("shortcuts", sheet)
    sheet.close()
    nobody = Window(Session(), window.settings)
    nobody.resize(window.size())
    nobody.show()
    take("empty", nobody)
    nobody.hide()  # closed, it would be what the settings remember
    return made
