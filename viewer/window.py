"""The window: panels around a session.  It sends commands and draws what the feed brings, and knows nothing else."""

from __future__ import annotations

from collections.abc import Callable

from PyQt6.QtCore import QEvent, QObject, QSettings, Qt, QTimer
from PyQt6.QtGui import QAction, QCloseEvent, QDragEnterEvent, QDropEvent, QKeyEvent, QKeySequence
from PyQt6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QComboBox,
    QLabel,
    QMainWindow,
    QMessageBox,
    QProgressDialog,
    QSplitter,
    QStackedWidget,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from jowa.games import get_game
from jowa.hub import DEMO
from jowa.viewer import commands as told
from jowa.viewer import theme
from jowa.viewer.agents import is_shipped
from jowa.viewer.ask import ask_for
from jowa.viewer.controls import SPEEDS, Controls, agent_name, speed_index
from jowa.viewer.empty import EmptyState
from jowa.viewer.events import Failed, Moment, Notice, State
from jowa.viewer.feed import Feed
from jowa.viewer.files import FileDialogs, folder_in
from jowa.viewer.joystick import KEYS, action_of
from jowa.viewer.panels.agent_view import AgentView
from jowa.viewer.panels.critic import CriticPanel
from jowa.viewer.panels.game import GamePanel
from jowa.viewer.panels.hindsight import HindsightPanel
from jowa.viewer.panels.plans import PlansPanel
from jowa.viewer.panels.timeline import Timeline
from jowa.viewer.panels.tree_graph import TreeGraph
from jowa.viewer.panels.value_curve import ValueCurve
from jowa.viewer.session import Session
from jowa.viewer.settings import remember
from jowa.viewer.shortcuts import GAME_KEYS, MENUS, SHORTCUTS, ShortcutSheet, plain

SIZE = (1280, 800)
PATIENCE = 1.0
"""Seconds that a decision may take before the window says that it is under way."""


class Window(QMainWindow):
    """The viewer's window; :meth:`close` ends its session."""

    def __init__(self, session: Session, settings: QSettings) -> None:
        super().__init__()
        self.setAcceptDrops(True)
        name = settings.value("window/theme", "dark")
        theme.apply(name if name in theme.THEMES else "dark")  # before there are widgets: they measure its type
        self.session, self.settings = session, settings
        self.feed = Feed(session)
        self.dialog: QMessageBox | None = None
        """The last message about something that failed."""
        self._farewell: QProgressDialog | None = None
        """Shown while the window waits to close."""
        self._held: set[Qt.Key] = set()
        status = self.statusBar()
        assert status is not None
        self.status = status
        self.actions_: dict[str, QAction] = {}
        self._make_actions()
        self.files = FileDialogs(self)
        self.controls = Controls(session.send, self.actions_)
        self._make_panels()
        self._layout()
        self.feed.state.connect(self._show_state)
        self.feed.moment.connect(self._show_moment)
        self.feed.failed.connect(self._show_failure)
        self.feed.notice.connect(lambda notice: self.status.showMessage(notice.text, 8000))
        application = QApplication.instance()
        assert application is not None
        application.installEventFilter(self)
        self.setWindowTitle("JOWA viewer")
        self._standing = ""
        self._clock = QTimer(self)
        self._clock.timeout.connect(self._show_standing)
        self._clock.start(250)
        self._restore()
        self._show_state(session.state)
        # The window itself has the keys until Tab leads to a control: Qt would give them to the first button, and the
        # first Space would press that instead of playing.  A click on anything that takes no keys gives them back.
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setFocus()

    # Making

    def _make_actions(self) -> None:
        bar = self.menuBar()
        assert bar is not None
        for title in MENUS:
            menu = bar.addMenu(title)
            assert menu is not None
            for shortcut in SHORTCUTS:
                if shortcut.menu == title:
                    action = self.actions_[shortcut.name] = QAction(shortcut.text, self)
                    action.setCheckable(shortcut.checkable)
                    action.setShortcuts([QKeySequence(key) for key in shortcut.keys])
                    action.triggered.connect(self._doer(shortcut.name))
                    menu.addAction(action)
        self.actions_["demo"].setEnabled(is_shipped())

    def _doer(self, name: str) -> Callable[[], object]:
        """What action ``name`` does."""
        send = self.session.send
        commands: dict[str, Callable[[], told.Command]] = {
            "run": lambda: told.Pause() if self.session.state.running else told.Run(),
            "step": told.Step, "back": told.Back, "demo": lambda: told.LoadAgent(DEMO),
            "oldest": lambda: told.Seek(0) if self.session.state.mode == "replay" else told.GoTo(0),
            "newest": lambda: told.Seek() if self.session.state.mode == "replay" else told.GoTo(),
            "next_changed": lambda: told.Find("changed"), "last_changed": lambda: told.Find("changed", False),
            "next_reward": lambda: told.Find("reward"), "last_reward": lambda: told.Find("reward", False),
            "reset": told.Reset, "again": lambda: told.Reset(self.session.state.seed),
            "mode_play": lambda: told.SetMode("play"), "mode_take_over": lambda: told.SetMode("take over"),
            "mode_dream": lambda: told.SetMode("dream"),
            "dream": told.Jump,
            "person": lambda: told.SetPerson(not self.session.state.person),
            "planner_none": lambda: told.SetPlanner.to(name="none"),
            "planner_beam": lambda: told.SetPlanner.to(name="beam"),
            "planner_mcts": lambda: told.SetPlanner.to(name="mcts"),
            "wider": lambda: told.Adjust("width", 1), "narrower": lambda: told.Adjust("width", -1),
            "deeper": lambda: told.Adjust("horizon", 1), "shallower": lambda: told.Adjust("horizon", -1),
            "ends": lambda: told.SetPlanner.to(respect_ends=not self.session.state.planner.respect_ends),
            "faster": lambda: self._speed(1), "slower": lambda: self._speed(-1),
        }  # fmt: skip
        if name in commands:
            return lambda: send(commands[name]())
        if name.startswith("tab_"):
            return lambda: self._turn_to(name)
        if name.startswith("field_"):
            title = plain(self.actions_[name].text())
            return lambda: ask_for(self.controls.fields[name.removeprefix("field_")], title, self)
        return {
            "mode_replay": self._replay,
            "distributions": lambda: self.critic.toggle.toggle(),
            "square": lambda: self.game.set_square_pixels(self.actions_["square"].isChecked()),
            "light": lambda: theme.apply("light" if self.actions_["light"].isChecked() else "dark"),
            "full_screen": lambda: self.setWindowState(self.windowState() ^ Qt.WindowState.WindowFullScreen),
            "timeline": lambda: self.timeline.strip.setFocus(Qt.FocusReason.ShortcutFocusReason),
            "controls": lambda: self.controls.modes["play"].setFocus(Qt.FocusReason.ShortcutFocusReason),
            "sheet": lambda: ShortcutSheet(self).open(),
            "quit": lambda: self.close(),
        }.get(name, lambda: self.files.do(name))

    def _speed(self, by: int) -> told.Command:
        index = min(max(speed_index(self.session.state.speed) + by, 0), len(SPEEDS) - 1)
        return told.SetSpeed(SPEEDS[index][1])

    def _replay(self) -> None:
        if self.session.state.mode != "replay":
            self.files.do("open_recording")
        self._show_state(self.session.state)  # a dialog that was cancelled changes no mode

    def _make_panels(self) -> None:
        self.game, self.agent_view = GamePanel(self.feed), AgentView(self.feed)
        self.plans, self.tree, self.hindsight = PlansPanel(self.feed), TreeGraph(self.feed), HindsightPanel(self.feed)
        self.critic, self.value = CriticPanel(self.feed), ValueCurve(self.feed)
        self.timeline = Timeline(self.feed)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.setStyleSheet("QTabBar { qproperty-drawBase: 0; }")
        for panel, name in ((self.plans, "Plans"), (self.tree, "Search tree"), (self.hindsight, "Imagined and real")):
            self.tabs.addTab(panel, name)
            panel.heading.hide()  # the tab says it
            panel.aside.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self.empty = EmptyState(self.actions_)

    def _layout(self) -> None:
        self.columns = QSplitter(Qt.Orientation.Horizontal)
        self.left, self.right = QSplitter(Qt.Orientation.Vertical), QSplitter(Qt.Orientation.Vertical)
        for splitter, panels, shares in (
            (self.left, (self.game, self.agent_view), (30, 15)), (self.right, (self.critic, self.value), (25, 14)),
        ):  # fmt: skip
            for number, (panel, share) in enumerate(zip(panels, shares, strict=True)):
                splitter.addWidget(panel)
                splitter.setStretchFactor(number, share)
        for number, (widget, share) in enumerate(((self.left, 11), (self.tabs, 13), (self.right, 10))):
            self.columns.addWidget(widget)
            self.columns.setStretchFactor(number, share)
        for splitter in (self.columns, self.left, self.right):
            splitter.setChildrenCollapsible(False)
            splitter.setHandleWidth(theme.GAP)
        self.columns.setSizes([420, 470, 370])
        self.left.setSizes([400, 190])
        self.right.setSizes([370, 220])
        self.pages = QStackedWidget()
        self.pages.addWidget(self.empty)
        self.pages.addWidget(self.columns)
        center = QWidget()
        rows = QVBoxLayout(center)
        rows.setContentsMargins(theme.MARGIN, theme.GAP, theme.MARGIN, 0)
        rows.setSpacing(theme.GAP)
        rows.addWidget(self.controls)
        rows.addWidget(self.pages, 1)
        rows.addWidget(self.timeline)
        self.setCentralWidget(center)
        self.standing = QLabel("")
        self.standing.setContentsMargins(0, 0, theme.MARGIN, 0)
        self.status.addPermanentWidget(self.standing)
        self.status.setSizeGripEnabled(False)
        self.resize(*SIZE)

    def _restore(self) -> None:
        """As it was left."""
        for name, splitter in (("columns", self.columns), ("left", self.left), ("right", self.right)):
            if saved := self.settings.value(f"window/{name}"):
                splitter.restoreState(saved)
        if saved := self.settings.value("window/geometry"):
            self.restoreGeometry(saved)
        self.actions_["light"].setChecked(theme.colours().name == "light")
        square = str(self.settings.value("window/square")).lower() == "true"
        self.actions_["square"].setChecked(square)
        self.game.set_square_pixels(square)

    def _turn_to(self, name: str) -> None:
        """Show a tab; asked for again, its frames get the arrow keys."""
        panel = {"tab_plans": self.plans, "tab_tree": self.tree, "tab_hindsight": self.hindsight}[name]
        walked = {self.plans: self.plans.sheet, self.tree: self.tree.graph}.get(panel)
        if walked is not None and self.tabs.currentWidget() is panel:
            walked.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.tabs.setCurrentWidget(panel)

    # Showing

    def _show_moment(self, moment: Moment) -> None:
        self.pages.setCurrentWidget(self.columns)
        self.files.film_now()

    def _show_state(self, state: State) -> None:
        self.controls.show_state(state)
        self.timeline.setVisible(state.agent is not None)
        for mode in told.MODES:
            self.actions_[f"mode_{mode.replace(' ', '_')}"].setChecked(state.mode == mode)
        for name in ("none", "beam", "mcts"):
            self.actions_[f"planner_{name}"].setChecked(state.planner.name == name)
        self.actions_["ends"].setChecked(state.planner.respect_ends)
        self.actions_["person"].setChecked(state.person)
        self.actions_["person"].setEnabled(state.mode == "dream")
        self.actions_["dream"].setEnabled(state.mode == "dream" or state.agent is not None)
        self._free_game_keys(state.person)
        if not state.person:
            self._held.clear()
        self.empty.show_busy(state.busy)
        keys = "arrow keys and Space"
        what = {
            "play": "the agent plays",
            "take over": f"you play: {keys}",
            "dream": f"you dream: {keys}" if state.person else "the agent dreams",
            "replay": state.recording or "",
        }[state.mode]
        parts = [state.busy or what, agent_name(state.agent)] if state.agent else [state.busy or "no agent yet"]
        self._standing = "  ·  ".join(filter(None, parts))
        self._show_standing()

    def _show_standing(self) -> None:
        """What goes on, and for how long what lets one wait has been under way."""
        seconds = self.session.working
        waiting = f"thinking for {seconds:.0f} s  ·  " if seconds > PATIENCE and not self.session.state.busy else ""
        if self.standing.text() != (text := waiting + self._standing):
            self.standing.setText(text)

    def _free_game_keys(self, person: bool) -> None:
        """While the person plays, the joystick's keys are the game's."""
        for shortcut in SHORTCUTS:
            if shortcut.game_keys:
                keys = [key for key in shortcut.keys if not (person and key in GAME_KEYS)]
                if len(self.actions_[shortcut.name].shortcuts()) != len(keys):
                    self.actions_[shortcut.name].setShortcuts([QKeySequence(key) for key in keys])

    def _show_failure(self, failed: Failed) -> None:
        self._show_state(self.session.state)
        if self.dialog is None:  # one at a time: what fails again and again must not bury the window
            self.dialog = QMessageBox(QMessageBox.Icon.Warning, failed.title, failed.title, parent=self)
            self.dialog.finished.connect(self._forget_dialog)
            self.dialog.setInformativeText(failed.text)
            self.dialog.open()
        else:
            self.dialog.setText(failed.title)
            self.dialog.setInformativeText(failed.text)

    def _forget_dialog(self) -> None:
        self.dialog = None

    def fail(self, title: str, text: str) -> None:
        """Show what went wrong in the window's own thread, after what is being done."""
        QTimer.singleShot(0, lambda: self._show_failure(Failed(title, text[:1].upper() + text[1:])))

    def notice(self, text: str) -> None:
        """A line in the status bar."""
        self.feed.notice.emit(Notice(text))

    # Keys and closing

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """While the person plays, the joystick's keys go to the game, whichever control has the focus.

        Otherwise Space presses the button or opens the list that Tab has led to, before it plays or pauses.
        """
        if event is None or not self.isActiveWindow():
            return False
        kind = event.type()
        if kind != QEvent.Type.KeyRelease and QApplication.activePopupWidget() is not None:
            return False  # in menus and lists keys are theirs, but what is let go there is let go
        if not self.session.state.person:
            pressed = kind == QEvent.Type.ShortcutOverride and isinstance(watched, QAbstractButton | QComboBox)
            if pressed and isinstance(event, QKeyEvent) and event.key() == Qt.Key.Key_Space:
                event.accept()
                return True
            return False
        if kind in (QEvent.Type.KeyPress, QEvent.Type.KeyRelease, QEvent.Type.ShortcutOverride):
            assert isinstance(event, QKeyEvent)
            key = Qt.Key(event.key()) if event.key() else None
            if key not in KEYS or event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier:
                return False
            if not event.isAutoRepeat() and kind != QEvent.Type.ShortcutOverride:
                (self._held.add if kind == QEvent.Type.KeyPress else self._held.discard)(key)
                game = get_game(self.session.state.game)
                self.session.send(told.Press(action_of(self._held, game.legal_actions)))
            event.accept()
            return True
        return False

    def changeEvent(self, event: QEvent | None) -> None:
        """Keys that are let go elsewhere count as let go."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.ActivationChange and self._held:
            self._held.clear()
            self.session.send(told.Press(0))
        if event is not None and event.type() == QEvent.Type.WindowStateChange:
            self.actions_["full_screen"].setChecked(self.isFullScreen())

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """A folder may be dropped: an agent, or a recording."""
        if event is not None and folder_in(event.mimeData()) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Open what was dropped."""
        folder = None if event is None else folder_in(event.mimeData())
        if folder is not None:
            self.files.open_dropped(folder)

    def _wait_for_films(self) -> None:
        """Close as soon as the films are written; the session may go on meanwhile, its moments are no longer filmed."""
        if self._farewell is not None:
            return
        most = self.files.finishing
        dialog = self._farewell = QProgressDialog("Finishing the film …", "Leave it out", 0, most, self)
        dialog.setWindowTitle("Closing")
        dialog.setMinimumDuration(0)
        dialog.setAutoReset(False)
        dialog.canceled.connect(self.files.abandon_films)
        self.files.progressed.connect(self._close_after_films)
        dialog.open()

    def _close_after_films(self, left: int) -> None:
        assert self._farewell is not None
        if left:
            self._farewell.setValue(max(self._farewell.maximum() - left, 0))
            return
        self.files.progressed.disconnect(self._close_after_films)
        self._farewell.close()
        self._farewell = None
        # After what tells of a film that was not written, if one was not: somebody should read that first.
        QTimer.singleShot(0, lambda: self.close() if self.dialog is None else None)

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """Finish the films, keep the settings, let the session go."""
        self.files.stop_film()
        if self.files.finishing and event is not None:
            self._wait_for_films()
            event.ignore()
            return
        for name, splitter in (("columns", self.columns), ("left", self.left), ("right", self.right)):
            self.settings.setValue(f"window/{name}", splitter.saveState())
        self.settings.setValue("window/geometry", self.saveGeometry())
        self.settings.setValue("window/theme", theme.colours().name)
        self.settings.setValue("window/square", self.game.square_pixels)
        remember(self.settings, self.session.state)
        self.settings.sync()
        application = QApplication.instance()
        if application is not None:
            application.removeEventFilter(self)
        self.session.close()
        super().closeEvent(event)
