"""What the window shows before there is an agent: what this is, and what to do."""

from __future__ import annotations

from collections.abc import Mapping

from PyQt6.QtCore import Qt
from PyQt6.QtGui import QAction
from PyQt6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from jowa.viewer import theme
from jowa.viewer.agents import is_shipped

TRAIN = "python -m jowa.train"


class EmptyState(QWidget):
    """A short page in the middle."""

    def __init__(self, actions: Mapping[str, QAction]) -> None:
        super().__init__()
        outer = QVBoxLayout(self)
        outer.setSpacing(theme.GAP)
        outer.addStretch(2)
        self._add(outer, "Watch an agent think", theme.font(theme.LARGE + 4, bold=True))
        self._add(outer, "Agents play real Atari games here and show the plans that they weigh. Open one to begin:")
        outer.addSpacing(theme.MARGIN)
        row = QHBoxLayout()
        row.setSpacing(theme.GAP)
        row.addStretch(1)
        self.buttons: dict[str, QPushButton] = {}
        texts = {"demo": "Play with the shipped agent"} if is_shipped() else {}
        for name, text in (texts | {"open_agent": "Open a folder…", "name_agent": "Name or hub id…"}).items():
            button = self.buttons[name] = QPushButton(text)
            button.setToolTip(actions[name].shortcut().toString())
            button.clicked.connect(actions[name].trigger)
            row.addWidget(button)
        row.addStretch(1)
        outer.addLayout(row)
        outer.addSpacing(2 * theme.MARGIN)
        self._add(outer, "None yet? Train a small one, which takes minutes, then open runs/demo/agent:")
        command = self._add(outer, TRAIN, theme.font(theme.TEXT + 1, fixed=True))
        command.setProperty("role", "command")
        command.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        outer.addSpacing(theme.MARGIN)
        self._busy = self._add(outer, "")
        outer.addStretch(3)

    def _add(self, outer: QVBoxLayout, text: str, font: object = None) -> QLabel:
        label = QLabel(text)
        label.setFont(theme.font() if font is None else font)  # type: ignore[arg-type]
        if font is None:
            label.setProperty("role", "muted")
        outer.addWidget(label, alignment=Qt.AlignmentFlag.AlignHCenter)
        return label

    def show_busy(self, what: str | None) -> None:
        """What is being waited for."""
        self._busy.setText(what or "")
        for button in self.buttons.values():
            button.setEnabled(what is None)
