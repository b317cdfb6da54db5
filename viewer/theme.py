"""Colours, spacing and type of the viewer, light and dark; one place for every number a designer would ask for."""

from __future__ import annotations

from dataclasses import dataclass

from PyQt6.QtCore import QObject, pyqtSignal
from PyQt6.QtGui import QColor, QFont, QFontDatabase, QPalette
from PyQt6.QtWidgets import QApplication

UNIT = 4
"""Every distance is a multiple of this many device-independent pixels."""
GAP, MARGIN, RADIUS = 2 * UNIT, 3 * UNIT, 6
TEXT, SMALL, LARGE = 10.0, 9.0, 17.0
"""Type sizes in points."""


@dataclass(frozen=True)
class Colours:
    """One theme; text on its ground has a contrast of at least 4.5 (tests compute it)."""

    name: str
    ground: str
    """Behind the panels."""
    surface: str
    """Of a panel."""
    raised: str
    """Of buttons and fields, and of what is hovered."""
    line: str
    text: str
    muted: str
    """Of labels and units."""
    plan: str
    """What the planner chose."""
    greedy: str
    """What the critic alone would choose."""
    gain: str
    loss: str
    dream: str

    def color(self, name: str, alpha: float = 1.0) -> QColor:
        """The colour called ``name``."""
        color = QColor(getattr(self, name))
        color.setAlphaF(alpha)
        return color


DARK = Colours(
    "dark", ground="#101418", surface="#181e24", raised="#242c35", line="#33404c", text="#e8edf2", muted="#9caab8",
    plan="#4cc2ff", greedy="#f2b84b", gain="#5fd38d", loss="#ff7b7b", dream="#b79bff",
)  # fmt: skip
LIGHT = Colours(
    "light", ground="#eceff3", surface="#ffffff", raised="#f3f6f9", line="#c9d2dc", text="#17202a", muted="#55636f",
    plan="#0067b8", greedy="#8a5a00", gain="#12703c", loss="#b3261e", dream="#6541b8",
)  # fmt: skip
THEMES = {theme.name: theme for theme in (DARK, LIGHT)}


class _Current(QObject):
    """Which theme is on; panels repaint when it changes."""

    changed = pyqtSignal()

    def __init__(self) -> None:
        super().__init__()
        self.colours = DARK


_current = _Current()
changed = _current.changed


def colours() -> Colours:
    """The theme in use."""
    return _current.colours


def font(size: float = TEXT, bold: bool = False, fixed: bool = False) -> QFont:
    """The system's own font at ``size`` points; ``fixed``: with digits that stand below one another."""
    kind = QFontDatabase.SystemFont.FixedFont if fixed else QFontDatabase.SystemFont.GeneralFont
    chosen = QFontDatabase.systemFont(kind)
    chosen.setPointSizeF(size)
    chosen.setBold(bold)
    return chosen


def apply(name: str) -> None:
    """Put theme ``name`` on the whole application."""
    application = QApplication.instance()
    assert isinstance(application, QApplication)
    theme = _current.colours = THEMES[name]
    application.setStyle("Fusion")
    application.setPalette(_palette(theme))
    application.setFont(font())
    application.setStyleSheet(_sheet(theme))
    _current.changed.emit()


def _palette(theme: Colours) -> QPalette:
    roles = {
        QPalette.ColorRole.Window: "ground", QPalette.ColorRole.Base: "raised", QPalette.ColorRole.Button: "raised",
        QPalette.ColorRole.AlternateBase: "surface", QPalette.ColorRole.ToolTipBase: "surface",
        QPalette.ColorRole.WindowText: "text", QPalette.ColorRole.Text: "text", QPalette.ColorRole.ButtonText: "text",
        QPalette.ColorRole.ToolTipText: "text", QPalette.ColorRole.PlaceholderText: "muted",
        QPalette.ColorRole.Highlight: "plan", QPalette.ColorRole.HighlightedText: "ground",
        QPalette.ColorRole.Link: "plan",
    }  # fmt: skip
    palette = QPalette()
    for role, colour in roles.items():
        palette.setColor(role, theme.color(colour))
        if role in (QPalette.ColorRole.WindowText, QPalette.ColorRole.Text, QPalette.ColorRole.ButtonText):
            palette.setColor(QPalette.ColorGroup.Disabled, role, theme.color("muted", 0.6))
    return palette


def _sheet(theme: Colours) -> str:
    return f"""
    QFrame[panel="true"] {{ background: {theme.surface}; border: 1px solid {theme.line}; border-radius: {RADIUS}px; }}
    QLabel {{ background: transparent; }}
    QLabel[role="title"] {{ color: {theme.muted}; font-weight: 600; }}
    QLabel[role="muted"] {{ color: {theme.muted}; }}
    QLabel[role="command"] {{ background: {theme.surface}; border: 1px solid {theme.line}; border-radius: 4px;
        padding: 6px 12px; }}
    QPushButton, QToolButton {{ background: {theme.raised}; border: 1px solid {theme.line}; border-radius: 4px;
        padding: 3px 9px; min-height: 18px; }}
    QPushButton:hover, QToolButton:hover {{ border-color: {theme.plan}; }}
    QPushButton:focus, QToolButton:focus {{
        border: 1px solid {theme.plan}; }}
    QPushButton:checked, QToolButton:checked {{ background: {theme.plan}; color: {theme.ground};
        border-color: {theme.plan}; }}
    QPushButton:disabled, QToolButton:disabled {{ color: {theme.muted}; background: {theme.ground}; }}
    QComboBox, QAbstractSpinBox {{ min-height: 24px; }}
    QTabWidget::pane {{ border: 0; }}
    QTabBar::tab {{ background: transparent; color: {theme.muted}; padding: 5px 12px; border: 0;
        border-bottom: 2px solid transparent; }}
    QTabBar::tab:selected {{ color: {theme.text}; border-bottom-color: {theme.plan}; }}
    QTabBar::tab:focus {{ color: {theme.plan}; }}
    QScrollArea, QScrollArea > QWidget > QWidget {{ background: transparent; border: 0; }}
    QScrollBar:vertical {{ background: transparent; width: 10px; margin: 0; }}
    QScrollBar:horizontal {{ background: transparent; height: 10px; margin: 0; }}
    QScrollBar::handle {{ background: {theme.line}; border-radius: 4px; min-height: 24px; min-width: 24px; }}
    QScrollBar::add-line, QScrollBar::sub-line {{ width: 0; height: 0; }}
    QMenuBar, QMenu {{ background: {theme.surface}; color: {theme.text}; }}
    QMenuBar::item {{ padding: 4px 9px; background: transparent; }}
    QMenuBar::item:selected, QMenu::item:selected {{ background: {theme.plan}; color: {theme.ground}; }}
    QMenu {{ border: 1px solid {theme.line}; padding: 4px; }}
    QMenu::item {{ padding: 4px 24px; }}
    QMenu::item:disabled {{ color: {theme.muted}; }}
    QMenu::separator {{ height: 1px; background: {theme.line}; margin: 4px 8px; }}
    QToolTip {{ background: {theme.surface}; color: {theme.text}; border: 1px solid {theme.line}; padding: 4px; }}
    QStatusBar {{ background: {theme.ground}; color: {theme.muted}; }}
    QStatusBar::item {{ border: 0; }}
    QSplitter::handle {{ background: transparent; }}
    """
