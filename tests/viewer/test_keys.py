"""The window by keyboard alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("PyQt6.QtWidgets")
pytest.importorskip("pyqtgraph")

from PyQt6.QtCore import Qt
from PyQt6.QtGui import QKeySequence
from PyQt6.QtWidgets import QApplication, QInputDialog, QLabel, QWidget
from pytestqt.qtbot import QtBot

from jowa.viewer import commands as told
from jowa.viewer import theme
from jowa.viewer.joystick import action_of
from jowa.viewer.shortcuts import ELSEWHERE, SHORTCUTS, ShortcutSheet, plain
from jowa.viewer.window import Window

Open = Callable[..., Window]
Settled = Callable[[Window], None]


KEYS = [
    ("Right", lambda w: w.feed.latest.index == 1),
    (".", lambda w: w.feed.latest.index == 1),
    ("B", lambda w: w.controls.planner.currentText() == "beam search"),
    ("T", lambda w: w.controls.planner.currentText() == "MCTS" and w.session.state.planner.name == "mcts"),
    ("G", lambda w: w.session.state.planner.name == "none" and not w.controls.horizon.isEnabled()),
    ("]", lambda w: w.controls.width_.value() == 3),
    ("[", lambda w: w.controls.width_.value() == 1),
    ("}", lambda w: w.controls.horizon.value() == 3),
    ("{", lambda w: w.controls.horizon.value() == 1),
    ("E", lambda w: not w.controls.ends.isChecked() and not w.session.state.planner.respect_ends),
    ("-", lambda w: w.session.state.speed == 5.0 and w.controls.speed.currentText() == "5 a second"),
    ("+", lambda w: w.session.state.speed == 30.0),
    ("R", lambda w: w.session.state.seed == 1 and w.feed.latest.episode == 2),
    ("Shift+R", lambda w: w.session.state.seed == 0 and w.feed.latest.episode == 2),
    ("F6", lambda w: w.session.state.mode == "take over" and w.controls.modes["take over"].isChecked()),
    ("F7", lambda w: w.session.state.mode == "dream" and w.game.heading.text() == "Dream"),
    ("Z", lambda w: w.session.state.mode == "dream"),
    ("2", lambda w: w.tabs.currentWidget() is w.tree),
    ("3", lambda w: w.tabs.currentWidget() is w.hindsight),
    ("D", lambda w: w.critic.found is not None and w.critic.found.index == 0),
    ("Q", lambda w: w.game.square_pixels),
    ("L", lambda w: theme.colours().name == "light"),
    ("F11", lambda w: w.isFullScreen() and w.actions_["full_screen"].isChecked()),
    ("Ctrl+C", lambda w: QApplication.clipboard().pixmap().size() == w.grab().size()),
    ("F1", lambda w: bool(w.findChildren(ShortcutSheet))),
    ("F2", lambda w: QApplication.focusWidget() is w.controls.modes["play"]),
    ("1", lambda w: QApplication.focusWidget() is w.plans.sheet),
    ("4", lambda w: QApplication.focusWidget() is w.timeline.strip),
]


@pytest.mark.parametrize(("key", "check"), KEYS, ids=[key for key, _ in KEYS])
def test_keys(open_window: Open, settled: Settled, qtbot: QtBot, key: str, check: Callable[[Window], bool]) -> None:
    window = open_window()
    qtbot.keySequence(window, QKeySequence(key))
    settled(window)
    qtbot.waitUntil(lambda: check(window), timeout=5000)


def test_every_action_has_its_own_keys_and_stands_in_the_sheet(open_window: Open) -> None:
    window = open_window(None)
    keys = [key.toString() for action in window.actions_.values() for key in action.shortcuts()]
    assert len(keys) == len(set(keys)) and all(action.shortcuts() for action in window.actions_.values())
    sheet = ShortcutSheet(window)
    words = {label.text() for label in sheet.findChildren(QLabel)}
    assert all(plain(shortcut.text) in words and " or ".join(shortcut.keys) in words for shortcut in SHORTCUTS)
    assert all({title, *(text for row in rows for text in row)} <= words for title, rows in ELSEWHERE)
    assert {shortcut.name for shortcut in SHORTCUTS} == set(window.actions_)
    for menu in {shortcut.menu for shortcut in SHORTCUTS}:
        letters = [s.text[s.text.index("&") + 1].lower() for s in SHORTCUTS if s.menu == menu]
        assert len(letters) == len(set(letters)), menu


def test_the_sheet_fits_a_small_screen(open_window: Open) -> None:
    hint = ShortcutSheet(open_window(None)).sizeHint()
    assert hint.width() <= 1200 and hint.height() <= 690


def test_tab_reaches_every_control(open_window: Open, qtbot: QtBot) -> None:
    window = open_window()
    window.activateWindow()
    window.controls.modes["play"].setFocus()
    reached: set[QWidget] = set()
    for _ in range(80):
        qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Tab)
        reached.add(QApplication.focusWidget())
    controls = window.controls
    wanted = [controls.speed, controls.game, controls.planner, controls.horizon, controls.time, controls.ends,
              controls.context, controls.seed, controls.sticky, controls.agent, controls.record, window.critic.toggle,
              window.plans.sheet, window.timeline.strip, *controls.transport.values(),
              *controls.modes.values()]  # fmt: skip
    assert not [widget.accessibleName() for widget in wanted if widget.isEnabled() and widget not in reached]


def test_the_person_plays_with_the_arrow_keys(open_window: Open, settled: Settled, qtbot: QtBot) -> None:
    window = open_window()
    qtbot.keyClick(window, Qt.Key.Key_F6)
    settled(window)
    window.activateWindow()
    qtbot.keyPress(window, Qt.Key.Key_Right)
    qtbot.keyPress(window, Qt.Key.Key_Space)
    settled(window)
    assert window.feed.latest.index == 0  # they are the game's keys now
    assert window.game.action.text() == "right fire" and "advice" in window.game.aside.text()
    qtbot.keyClick(window, Qt.Key.Key_Period)
    settled(window)
    qtbot.keyRelease(window, Qt.Key.Key_Right)
    qtbot.keyRelease(window, Qt.Key.Key_Space)
    window.session.send(told.Back())
    settled(window)
    assert window.feed.latest.taken == 11  # right and fire
    qtbot.keyClick(window, Qt.Key.Key_F5)
    settled(window)
    qtbot.keyClick(window, Qt.Key.Key_Left)
    settled(window)
    assert window.feed.latest.index == 0


def test_menus_keep_the_arrow_keys_while_the_person_plays(open_window: Open, settled: Settled, qtbot: QtBot) -> None:
    window = open_window()
    qtbot.keyClick(window, Qt.Key.Key_F6)
    settled(window)
    window.activateWindow()
    menu = window.actions_["run"].associatedObjects()[0]
    qtbot.keyPress(window, Qt.Key.Key_Left)
    menu.popup(window.mapToGlobal(window.rect().center()))
    qtbot.waitUntil(menu.isVisible)
    before = menu.activeAction()
    qtbot.keyClick(menu, Qt.Key.Key_Down)
    assert menu.activeAction() is not before and window._held == {Qt.Key.Key_Left}
    qtbot.keyRelease(menu, Qt.Key.Key_Left)
    assert not window._held
    menu.close()


def test_keys_become_the_nearest_legal_action() -> None:
    up, right, left, space = Qt.Key.Key_Up, Qt.Key.Key_Right, Qt.Key.Key_Left, Qt.Key.Key_Space
    assert action_of([up, right, space], range(18)) == 14
    assert action_of([up, right, space], (0, 1, 3, 4, 11, 12)) == 11
    assert action_of([left, right], range(18)) == 0
    assert action_of([up], (0, 1, 3)) == 0 and action_of([], range(18)) == 0


def test_keys_go_to_rewards_and_to_changes_by_planning(open_window: Open, settled: Settled, qtbot: QtBot) -> None:
    window = open_window()
    history = window.session._play.history
    for _ in range(9):
        qtbot.keyClick(window, Qt.Key.Key_Period)
    settled(window)
    for index in range(10):
        record = history.get(index)
        record.reward = {3: 1.0, 7: -1.0}.get(index, 0.0)
        record.thought = replace(record.thought, action=record.thought.greedy + (index in (2, 6)))
    for keys, index in (("Ctrl+Left", 7), ("Ctrl+Left", 3), ("Ctrl+Left", 3), ("Ctrl+Right", 7), ("Shift+Left", 6),
                        ("Shift+Left", 2), ("Shift+Right", 6), ("Shift+Right", 6)):  # fmt: skip
        qtbot.keySequence(window, QKeySequence(keys))
        settled(window)
        assert window.feed.latest.index == index, keys
    assert "change by planning" in window.status.currentMessage()


def test_modes_keep_the_episode(open_window: Open, settled: Settled, qtbot: QtBot) -> None:
    window = open_window()
    for _ in range(3):
        qtbot.keyClick(window, Qt.Key.Key_Right)
    settled(window)
    before = window.feed.latest
    for key in (Qt.Key.Key_F6, Qt.Key.Key_F7, Qt.Key.Key_Z, Qt.Key.Key_Z, Qt.Key.Key_F5):
        qtbot.keyClick(window, key)
        settled(window)
    after = window.feed.latest
    assert (after.mode, after.episode, after.step, after.score) == ("play", before.episode, before.step, before.score)
    assert np.array_equal(after.screen, before.screen)


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("width", 4, lambda state: state.planner.width),
        ("horizon", 1, lambda state: state.planner.horizon),
        ("simulations", 9, lambda state: state.planner.simulations),
        ("time", 30, lambda state: state.planner.milliseconds),
        ("context", 3, lambda state: state.context),
        ("seed", 7, lambda state: state.seed),
        ("sticky", 0.5, lambda state: state.sticky),
        ("speed", "5 a second", lambda state: f"{state.speed:.0f} a second"),
        ("game", "Freeway", lambda state: state.game),
    ],
)
def test_every_field_is_reached_by_menu_and_key(
    open_window: Open, settled: Settled, qtbot: QtBot, name: str, value: float | str, read: Callable[[object], object]
) -> None:
    window = open_window()
    if name == "simulations":
        window.session.send(told.SetPlanner.to(name="mcts"))
        settled(window)
    key = next(shortcut.keys[0] for shortcut in SHORTCUTS if shortcut.name == f"field_{name}")
    qtbot.keySequence(window, QKeySequence(key))
    dialog = next(found for found in window.findChildren(QInputDialog) if found.isVisible())
    if isinstance(value, str):
        dialog.setTextValue(value)
    elif isinstance(value, float):
        dialog.setDoubleValue(value)
    else:
        dialog.setIntValue(value)
    qtbot.keyClick(dialog, Qt.Key.Key_Return)
    settled(window)
    assert read(window.session.state) == value and window.dialog is None
    field = window.controls.fields[name]
    assert (field.currentText() if isinstance(value, str) else field.value()) == value


def test_what_the_planner_does_not_use_is_off_in_menus_too(open_window: Open, settled: Settled) -> None:
    window = open_window()
    for planner, off in (("beam", {"simulations"}), ("mcts", {"width"}), ("none", {"width", "simulations", "horizon",
                                                                                  "time"})):  # fmt: skip
        window.session.send(told.SetPlanner.to(name=planner))
        settled(window)
        names = ("width", "horizon", "simulations", "time", "context", "seed")
        assert {name for name in names if not window.actions_[f"field_{name}"].isEnabled()} == off


def test_space_plays_until_tab_leads_to_a_control(open_window: Open, settled: Settled, qtbot: QtBot) -> None:
    window = open_window()
    window.activateWindow()
    qtbot.waitUntil(lambda: QApplication.focusWidget() is window)
    qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Space)
    settled(window)
    assert window.session.state.running
    qtbot.keyClick(window, Qt.Key.Key_Tab)
    assert QApplication.focusWidget() is window.controls.modes["play"]
    qtbot.mouseClick(window, Qt.MouseButton.LeftButton, pos=window.rect().bottomLeft())
    assert QApplication.focusWidget() is window


def test_space_presses_the_button_that_tab_led_to(open_window: Open, settled: Settled, qtbot: QtBot) -> None:
    window = open_window()
    window.activateWindow()
    window.controls.transport["step"].setFocus()
    qtbot.keyClick(window.controls.transport["step"], Qt.Key.Key_Space)
    settled(window)
    assert window.feed.latest.index == 1 and not window.session.state.running
    window.controls.ends.setFocus()
    qtbot.keyClick(window.controls.ends, Qt.Key.Key_Space)
    settled(window)
    assert not window.session.state.planner.respect_ends
    qtbot.mouseClick(window.controls.transport["back"], Qt.MouseButton.LeftButton)
    assert QApplication.focusWidget() is window  # what was clicked does not take the keys
    qtbot.keyClick(window, Qt.Key.Key_Space)
    settled(window)
    assert window.session.state.running


def test_plans_are_walked_and_pinned_by_keys(open_window: Open, settled: Settled, qtbot: QtBot) -> None:
    window = open_window()
    window.session.send(told.SetPlanner.to(name="beam", width=3, horizon=2, respect_ends=False))
    settled(window)
    window.activateWindow()
    qtbot.keyClick(window, Qt.Key.Key_1)
    sheet, large = window.plans.sheet, window.plans.large
    assert QApplication.focusWidget() is sheet
    right, down = Qt.Key.Key_Right, Qt.Key.Key_Down
    for key, at in ((right, 0), (right, 1), (down, 3), (Qt.Key.Key_Left, 2), (Qt.Key.Key_Up, 0), (down, 2)):
        qtbot.keyClick(sheet, key)
        assert (sheet.at, large.node) == (at, sheet.spots[at].node)
    qtbot.keyClick(sheet, Qt.Key.Key_Return)
    assert large.pinned == sheet.spots[2].node and window.feed.latest.index == 0
    for _ in range(14):
        qtbot.keyClick(sheet, down)
    assert sheet.visibleRegion().boundingRect().contains(sheet.spots[sheet.at].place.toRect())
    qtbot.keyClick(sheet, Qt.Key.Key_Escape)
    qtbot.keyClick(window, right)
    settled(window)
    assert window.feed.latest.index == 1 and large.isHidden()


@pytest.mark.parametrize("planner", ["beam", "mcts"])
def test_the_tree_is_walked_and_pinned_by_keys(open_window: Open, settled: Settled, qtbot: QtBot, planner: str) -> None:
    window = open_window()
    window.session.send(told.SetPlanner.to(name=planner, width=3, horizon=2, simulations=20, respect_ends=False))
    settled(window)
    window.activateWindow()
    qtbot.keyClick(window, Qt.Key.Key_2)
    qtbot.keyClick(window, Qt.Key.Key_2)
    panel, graph, tree = window.tree, window.tree.graph, window.feed.latest.tree
    assert QApplication.focusWidget() is graph
    first, second = tree.paths[0].nodes[:2]
    reached = set()
    for key, node in ((Qt.Key.Key_Right, first), (Qt.Key.Key_Right, second), (Qt.Key.Key_Left, first)):
        qtbot.keyClick(graph, key)
        assert panel.at == node == panel.large.node
    for key in (Qt.Key.Key_Up, Qt.Key.Key_Down):
        for _ in range(len(tree.parent)):
            qtbot.keyClick(graph, key)
            reached.add(panel.at)
    assert reached == set(np.flatnonzero(tree.depth == 1).tolist())
    qtbot.keyClick(graph, Qt.Key.Key_Return)
    assert panel.large.pinned == panel.at and panel.large.isVisible()
    qtbot.keyClick(graph, Qt.Key.Key_Return)
    assert panel.large.pinned is None
    assert window.feed.latest.index == 0


def test_the_timeline_is_moved_by_keys(open_window: Open, settled: Settled, qtbot: QtBot) -> None:
    window = open_window()
    for _ in range(30):
        qtbot.keyClick(window, Qt.Key.Key_Period)
    settled(window)
    window.activateWindow()
    qtbot.keyClick(window, Qt.Key.Key_4)
    strip = window.timeline.strip
    left, right, up, down = Qt.Key.Key_Left, Qt.Key.Key_Right, Qt.Key.Key_PageUp, Qt.Key.Key_PageDown
    for keys, index in (([left], 29), ([left, left], 27), ([up], 7), ([right], 8), ([down, down], 30), ([right], 30)):
        for key in keys:
            qtbot.keyClick(strip, key)
        settled(window)
        assert window.feed.latest.index == index, keys
    assert window.feed.latest.newest == 30  # nothing was decided
