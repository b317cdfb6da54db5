"""What the window shows before there is an agent: what this is, and what to do."""

from __future__ import annotations

from collections.abc import Callable

from PyQt6.QtCore import Qt
from PyQt6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from jowa.viewer import theme

TRAIN = "python -m jowa.train"


class EmptyState(QWidget):
    """A short page in the middle."""

    def __init__(self, open_folder: Callable[[], None], load: Callable[[str], None]) -> None:
        super().__init__()
        outer = QVBoxLayout(self)
        outer.addStretch(2)
        title = QLabel("No agent yet")
        title.setFont(theme.font(theme.LARGE + 4, bold=True))
        self._text = QLabel(
            "Open the folder of a trained agent to watch it play and see the plans it weighs.\n"
            "Or train a small one first, which takes minutes:"
        )
        self._text.setProperty("role", "muted")
        self._command = QLabel(TRAIN)
        self._command.setFont(theme.font(theme.TEXT + 1, fixed=True))
        self._command.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        for label in (title, self._text, self._command):
            label.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            outer.addWidget(label)
        outer.addSpacing(2 * theme.MARGIN)
        self.folder = QPushButton("Open agent folder…")
        self.folder.clicked.connect(open_folder)
        self.demo = QPushButton("Open the demo agent")
        self.demo.setToolTip("The one that training left in runs/demo/agent")
        self.demo.clicked.connect(lambda: load("demo"))
        row = QHBoxLayout()
        row.setSpacing(theme.GAP)
        row.addStretch(1)
        row.addWidget(self.folder)
        row.addWidget(self.demo)
        row.addStretch(1)
        outer.addLayout(row)
        self._busy = QLabel("")
        self._busy.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        outer.addSpacing(theme.MARGIN)
        outer.addWidget(self._busy)
        outer.addStretch(3)

    def show_busy(self, what: str | None) -> None:
        """What is being waited for."""
        self._busy.setText(what or "")
        for button in (self.folder, self.demo):
            button.setEnabled(what is None)
