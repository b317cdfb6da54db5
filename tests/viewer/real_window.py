"""Opens the viewer's window on the display at hand, drives it by keys, prints what was seen as JSON, closes it.

A script of its own, because Qt's platform is chosen once a process: ``python real_window.py AGENT SETTINGS``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from PyQt6.QtCore import Qt, QTimer
from PyQt6.QtGui import QGuiApplication, QKeySequence
from PyQt6.QtTest import QTest
from PyQt6.QtWidgets import QApplication, QPushButton

from jowa.viewer import start
from jowa.viewer.shortcuts import ShortcutSheet
from jowa.viewer.window import Window


def wait_for(window: Window) -> None:
    """Until the session has carried everything out and the window has drawn it."""
    for _ in range(1000):
        QTest.qWait(20)
        if window.session.idle:
            break
    QTest.qWait(50)


def drive(window: Window) -> None:
    QTest.qWaitForWindowExposed(window)
    window.activateWindow()
    wait_for(window)
    seen: dict[str, Any] = {"platform": QGuiApplication.platformName(), "active": window.isActiveWindow()}
    first = window.feed.latest.index
    for key in ("Right", "Right", "Left"):
        QTest.keySequence(window, QKeySequence(key))
        wait_for(window)
    seen["stepped"] = window.feed.latest.index - first
    for key in ("2", "2", "Right", "Return"):
        QTest.keySequence(QApplication.focusWidget() or window, QKeySequence(key))
        wait_for(window)
    seen["pinned"] = window.tree.large.pinned is not None and window.tree.large.isVisible()
    QTest.keySequence(window, QKeySequence("F1"))
    wait_for(window)
    sheets = [sheet for sheet in window.findChildren(ShortcutSheet) if sheet.isVisible()]
    seen["sheets"] = len(sheets)
    for sheet in sheets:
        QTest.mouseClick(sheet.findChildren(QPushButton)[0], Qt.MouseButton.LeftButton)
    QTest.mouseClick(window.controls.transport["run"], Qt.MouseButton.LeftButton)
    wait_for(window)
    seen["running"] = window.session.state.running
    screen, corner = window.screen(), window.geometry()
    assert screen is not None
    shot = screen.grabWindow(0, corner.x(), corner.y(), corner.width(), corner.height()).toImage()  # what a person sees
    seen["size"] = [shot.width(), shot.height()]
    seen["colours"] = len({shot.pixel(x, y) for x in range(0, shot.width(), 5) for y in range(0, shot.height(), 5)})
    print(json.dumps(seen), flush=True)
    window.close()


def main() -> None:
    opened = start.open_window

    def watched(*arguments: Any) -> Any:
        window = opened(*arguments)
        begun: list[object] = []

        def begin(moment: object) -> None:
            if not begun:
                QTimer.singleShot(0, lambda: drive(window))
            begun.append(moment)

        window.feed.moment.connect(begin)
        return window

    start.open_window = watched
    options = start.Options(agent=sys.argv[1], game="Pong", planner="beam", settings=Path(sys.argv[2]))
    start.leave(start.run(options))


if __name__ == "__main__":
    main()
