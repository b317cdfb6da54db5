"""The same window without a display: filmed, or pictured in every state that the documentation shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from PyQt6.QtWidgets import QApplication

from jowa.errors import JowaError
from jowa.progress import steps_progress
from jowa.viewer import commands as told
from jowa.viewer.events import Failed, Moment
from jowa.viewer.keep import Film, picture_of, save_picture
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
        """Send, and let what follows be drawn."""
        self.window.session.send(*commands)
        self.wait(lambda moment: self.window.session.idle)
        self.wait()


def film(window: Window, path: Path, steps: int, per_second: float) -> None:
    """Write ``steps`` decisions as a film."""
    director, reel = Director(window), Film(path, per_second)
    try:
        director.wait()
        with steps_progress(f"filming {path.name}", steps, "decisions") as advance:
            for number in range(1, steps + 1):
                reel.add(picture_of(window))
                if number < steps:
                    director.step()
                moment = window.feed.latest
                advance(number, "" if moment is None else f"score {moment.score:g}")
    finally:
        reel.close()


def screenshots(window: Window, folder: Path, label: str, warm_up: int = 45) -> list[Path]:
    """Pictures of every part of the viewer, ``label`` (size, theme) in their names."""
    director, made = Director(window), []

    def take(name: str) -> None:
        QApplication.processEvents()
        made.append(folder / f"{name}-{label}.png")
        save_picture(window, made[-1])

    director.wait()
    director.step(warm_up)
    window.actions_["tab_plans"].trigger()
    take("play")
    director.tell(told.SetPlanner.to(name="beam", width=3))
    director.step(2)
    spots = window.plans.sheet.spots
    if spots:
        window.plans.sheet.pointed.emit(spots[-1])
    take("plans")
    window.plans.sheet.pointed.emit(None)
    director.tell(told.SetPlanner.to(name="mcts", simulations=60))
    director.step(2)
    window.actions_["tab_tree"].trigger()
    take("tree")
    window.actions_["distributions"].trigger()
    director.tell(told.AskDistributions())
    window.actions_["tab_hindsight"].trigger()
    take("critic")
    window.actions_["distributions"].trigger()
    director.tell(told.SetPlanner.to(name="beam", width=3), told.SetMode("dream"))
    director.step(3)
    window.actions_["tab_plans"].trigger()
    take("dream")
    director.tell(told.SetMode("play"))
    return made
