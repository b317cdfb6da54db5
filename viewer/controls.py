"""The bar of controls: modes, transport and speed above; game, agent and planner below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

from PyQt6.QtCore import QSignalBlocker, Qt
from PyQt6.QtGui import QAction
from PyQt6.QtWidgets import (
    QAbstractButton,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from jowa.games import GAMES
from jowa.viewer import commands as told
from jowa.viewer import theme
from jowa.viewer.commands import MODES, REAL_TIME, Command
from jowa.viewer.events import State
from jowa.viewer.icons import icon

SPEEDS: tuple[tuple[str, float | None], ...] = (
    ("1 a second", 1.0), ("2 a second", 2.0), ("5 a second", 5.0), ("real time, 15", REAL_TIME), ("30 a second", 30.0),
    ("60 a second", 60.0), ("as fast as possible", None),
)  # fmt: skip
PLANNERS = (("none", "greedy"), ("beam", "beam search"), ("mcts", "MCTS"))
BY_TAB = Qt.FocusPolicy.TabFocus
"""Of buttons and lists: one that was clicked and kept the focus would take Space, which plays and pauses."""
MOST_NAME = 130
"""Pixels of an agent's name on its button; a longer one must not widen the window."""
TRANSPORT = ("oldest", "back", "run", "step", "newest", "reset")


class Controls(QWidget):
    """Sends commands, and shows the state as it is."""

    def __init__(self, send: Callable[[Command], None], actions: Mapping[str, QAction]) -> None:
        super().__init__()
        self._send, self._actions = send, actions
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(theme.GAP)
        self.fields: dict[str, QWidget] = {}
        """What the menus can ask for by name: lists and numbers."""
        for row in (self._first_row(), self._second_row()):
            row.setSpacing(theme.GAP)
            rows.addLayout(row)
        self.state = State()
        theme.changed.connect(self._restyle)
        self._restyle()

    def _restyle(self) -> None:
        for name, button in self.transport.items():
            button.setIcon(icon("pause" if name == "run" and self.state.running else name))

    def _first_row(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self.modes: dict[str, QPushButton] = {}
        segmented = QHBoxLayout()
        segmented.setSpacing(2)
        for mode, text in zip(MODES, ("&Play", "&Take over", "&Dream", "Repla&y"), strict=True):
            action = self._actions[f"mode_{mode.replace(' ', '_')}"]
            button = self.modes[mode] = QPushButton(text.replace("&", ""))
            button.setCheckable(True)
            button.setToolTip(_tip(action))
            button.setFocusPolicy(BY_TAB)
            button.clicked.connect(action.trigger)
            button.clicked.connect(self._show_mode)  # a click checks it, but only the session changes the mode
            segmented.addWidget(button)
        row.addLayout(segmented)
        row.addSpacing(theme.MARGIN)
        self.transport: dict[str, QToolButton] = {}
        for name in TRANSPORT:
            tool = self.transport[name] = QToolButton()
            tool.setAccessibleName(self._actions[name].text().replace("&", ""))
            tool.setToolTip(_tip(self._actions[name]))
            tool.setFixedWidth(48 if name == "run" else 34)
            tool.setFocusPolicy(BY_TAB)
            tool.clicked.connect(self._actions[name].trigger)
            row.addWidget(tool)
        row.addSpacing(theme.MARGIN)
        self.speed = self._combo("Speed", [text for text, _ in SPEEDS])
        self.speed.activated.connect(lambda index: self._send(told.SetSpeed(SPEEDS[index][1])))
        row.addWidget(self._labelled("speed", "Speed", self.speed))
        self.game = self._combo("Game", [game.name for game in GAMES])
        self.game.activated.connect(lambda index: self._send(told.SetGame(GAMES[index].name)))
        row.addWidget(self._labelled("game", "Game", self.game))
        row.addStretch(1)
        self.agent = QPushButton("Open agent…")
        self.agent.setFocusPolicy(BY_TAB)
        agents = QMenu(self.agent)
        agents.addActions([self._actions[name] for name in ("open_agent", "name_agent", "demo")])
        self.agent.setMenu(agents)
        row.addWidget(self.agent)
        self.record = QPushButton("● Record")
        self.record.setCheckable(True)
        self.record.setFocusPolicy(BY_TAB)
        self.record.setToolTip(_tip(self._actions["record"]))
        self.record.clicked.connect(self._actions["record"].trigger)
        row.addWidget(self.record)
        return row

    def _second_row(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self.planner = self._combo("Planner", [text for _, text in PLANNERS])
        self.planner.activated.connect(lambda index: self._send(told.SetPlanner.to(name=PLANNERS[index][0])))
        self.width_ = self._spin("Beam width: plans kept, and actions tried from each", 1, 18)
        self.width_.valueChanged.connect(lambda value: self._send(told.SetPlanner.to(width=value)))
        self.horizon = self._spin("Horizon: steps imagined ahead", 1, 31)
        self.horizon.valueChanged.connect(lambda value: self._send(told.SetPlanner.to(horizon=value)))
        self.simulations = self._spin("Simulations a decision (MCTS); auto: as a beam would imagine", 0, 10_000)
        self.simulations.setSpecialValueText("auto")
        self.simulations.setSingleStep(10)
        self.simulations.valueChanged.connect(lambda value: self._send(told.SetPlanner.to(simulations=value or None)))
        self.time = self._spin("Time for a decision; ∞: no limit", 0, 60_000)
        self.time.setSpecialValueText("∞")
        self.time.setSuffix(" ms")
        self.time.setFixedWidth(self.time.width() + 16)
        self.time.setSingleStep(10)
        self.time.valueChanged.connect(
            lambda value: self._send(told.SetPlanner.to(milliseconds=float(value) if value else None))
        )
        self.ends = QCheckBox("Ends")
        self.ends.setToolTip(_tip(self._actions["ends"]))
        self.ends.setFocusPolicy(BY_TAB)
        self.ends.clicked.connect(lambda on: self._send(told.SetPlanner.to(respect_ends=on)))
        self.context = self._spin("Context: steps of memory to plan from", 1, 32)
        self.context.valueChanged.connect(lambda value: self._send(told.SetContext(value)))
        self.seed = self._spin("Seed of the episode: changing it begins one", 0, 2**31 - 1)
        self.seed.valueChanged.connect(lambda value: self._send(told.Reset(value)))
        self.sticky = QDoubleSpinBox()
        self.sticky.setRange(0.0, 0.95)
        self.sticky.setSingleStep(0.05)
        self.sticky.setToolTip("Sticky actions: chance that the console repeats an action, from the next episode on")
        self.sticky.setKeyboardTracking(False)
        self.sticky.valueChanged.connect(lambda value: self._send(told.SetSticky(value)))
        for name, words, widget in (
            ("planner", "Planner", self.planner), ("width", "Width", self.width_), ("horizon", "Horizon", self.horizon),
            ("simulations", "Sims", self.simulations), ("time", "Time", self.time), ("ends", "", self.ends),
            ("context", "Context", self.context), ("seed", "Seed", self.seed), ("sticky", "Sticky", self.sticky),
        ):  # fmt: skip
            row.addWidget(self._labelled(name, words, widget))
        row.addStretch(1)
        return row

    def _labelled(self, name: str, words: str, widget: QWidget) -> QWidget:
        """Words before a field, both one widget, so that they move together."""
        if not words:
            return widget
        self.fields[name] = widget
        box = QWidget()
        line = QHBoxLayout(box)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(theme.UNIT)
        label = QLabel(words)
        label.setProperty("role", "muted")
        label.setBuddy(widget)
        line.addWidget(label)
        line.addWidget(widget)
        widget.setAccessibleName(words)
        return box

    def _combo(self, name: str, texts: list[str]) -> QComboBox:
        combo = QComboBox()
        combo.addItems(texts)
        combo.setToolTip(name)
        combo.setFocusPolicy(BY_TAB)
        combo.setMaxVisibleItems(24)
        return combo

    def _spin(self, tip: str, low: int, high: int) -> QSpinBox:
        spin = QSpinBox()
        spin.setRange(low, high)
        spin.setFixedWidth(spin.fontMetrics().horizontalAdvance(str(min(high, 99_999)) + "0000") + 26)
        spin.setToolTip(tip)
        spin.setKeyboardTracking(False)  # 12 is not first 1
        return spin

    def show_state(self, state: State) -> None:
        """Let every control show what is so, without sending it again."""
        self.state = state
        config = state.planner
        with ExitStack() as silent:
            for widget in (self.ends, *self.fields.values()):
                silent.enter_context(QSignalBlocker(widget))
            self._show_values(state)
        planning = config.name != "none"
        self.width_.setEnabled(config.name == "beam")
        self.simulations.setEnabled(config.name == "mcts")
        for widget in (self.horizon, self.time, self.ends):
            widget.setEnabled(planning)
        self._show_mode()
        run = self.transport["run"]
        run.setIcon(icon("pause" if state.running else "run"))
        run.setAccessibleName("Pause" if state.running else "Play")
        buttons: list[QAbstractButton] = [*self.transport.values(), *self.modes.values()]
        for button in buttons:
            button.setEnabled(state.agent is not None)
        for name, field in self.fields.items():
            if action := self._actions.get(f"field_{name}"):
                action.setEnabled(field.isEnabled())
        name = "Open agent…" if state.agent is None else agent_name(state.agent)
        shown = self.agent.fontMetrics().elidedText(name, Qt.TextElideMode.ElideMiddle, MOST_NAME)
        self.agent.setText(shown.replace("&", "&&"))
        self.agent.setToolTip(f"{state.agent or 'No agent'}: open another (Ctrl+O)")

    def _show_mode(self) -> None:
        for mode, button in self.modes.items():  # no QButtonGroup: Tab would lead to one of them only
            button.setChecked(mode == self.state.mode)

    def _show_values(self, state: State) -> None:
        config = state.planner
        self.speed.setCurrentIndex(speed_index(state.speed))
        self.game.setCurrentText(state.game)
        self.planner.setCurrentIndex([name for name, _ in PLANNERS].index(config.name))
        self.horizon.setMaximum(max(state.longest_context - 1, 1))
        self.context.setMaximum(max(state.longest_context, 1))
        for spin, value in (
            (self.width_, config.width), (self.horizon, config.horizon), (self.simulations, config.simulations or 0),
            (self.time, round(config.milliseconds or 0)), (self.context, state.context), (self.seed, state.seed),
        ):  # fmt: skip
            if spin.value() != value:  # or what is being typed would be lost
                spin.setValue(value)
        self.sticky.setValue(state.sticky)
        self.ends.setChecked(config.respect_ends)


def agent_name(source: str) -> str:
    """A short name for where an agent came from: the last parts that say something."""
    parts = [part for part in source.replace("\\", "/").split("/") if part not in ("", ".", "agent", "runs")]
    return "/".join(parts[-1:]) or source


def speed_index(speed: float | None) -> int:
    """The place in :data:`SPEEDS` nearest to ``speed``."""
    if speed is None:
        return len(SPEEDS) - 1
    return min(range(len(SPEEDS) - 1), key=lambda index: abs((SPEEDS[index][1] or 0) - speed))


def _tip(action: QAction) -> str:
    keys = " or ".join(key.toString() for key in action.shortcuts())
    return f"{action.text().replace('&', '').rstrip('…')} ({keys})"
