"""Every action of the window with its keys: menus, buttons and the shortcut sheet are made from this table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from PyQt6.QtWidgets import QDialog, QDialogButtonBox, QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from jowa.viewer import theme


@dataclass(frozen=True)
class Shortcut:
    """One action."""

    name: str
    """What code calls it."""
    text: str
    """In menus, with & before its mnemonic."""
    keys: tuple[str, ...]
    menu: str
    checkable: bool = False
    game_keys: bool = False
    """Whether some of its keys are the game's while the person plays; the others still work then."""


GAME_KEYS = ("Space", "Left", "Right", "Up", "Down")
"""Of the joystick, while the person plays."""

SHORTCUTS = (
    Shortcut("open_agent", "&Open agent folder…", ("Ctrl+O",), "&File"),
    Shortcut("name_agent", "Agent by &name or hub id…", ("Ctrl+Shift+O",), "&File"),
    Shortcut("demo", "The &shipped agent", ("Ctrl+D",), "&File"),
    Shortcut("open_recording", "Open &recording or data set…", ("Ctrl+E",), "&File"),
    Shortcut("save_episode", "Save episode for &training…", ("Ctrl+S",), "&File"),
    Shortcut("export", "&Export this decision…", ("Ctrl+J",), "&File"),
    Shortcut("screenshot", "Screens&hot…", ("Ctrl+P",), "&File"),
    Shortcut("copy", "Cop&y picture", ("Ctrl+C",), "&File"),
    Shortcut("record", "Re&cord film…", ("Ctrl+R",), "&File", checkable=True),
    Shortcut("quit", "&Quit", ("Ctrl+Q",), "&File"),
    Shortcut("run", "&Play or pause", ("Space", "P"), "&Play", game_keys=True),
    Shortcut("step", "&Step", ("Right", "."), "&Play", game_keys=True),
    Shortcut("back", "Step &back", ("Left", ","), "&Play", game_keys=True),
    Shortcut("oldest", "&Oldest moment", ("Home",), "&Play"),
    Shortcut("newest", "&Newest moment", ("End",), "&Play"),
    Shortcut("next_changed", "Next &change by planning", ("Shift+Right",), "&Play"),
    Shortcut("last_changed", "Pre&vious change by planning", ("Shift+Left",), "&Play"),
    Shortcut("next_reward", "Next re&ward", ("Ctrl+Right",), "&Play"),
    Shortcut("last_reward", "Previous &reward", ("Ctrl+Left",), "&Play"),
    Shortcut("reset", "New &episode", ("R",), "&Play"),
    Shortcut("again", "Same episode &again", ("Shift+R",), "&Play"),
    Shortcut("faster", "&Faster", ("+", "="), "&Play"),
    Shortcut("slower", "S&lower", ("-",), "&Play"),
    Shortcut("field_speed", "Spee&d…", ("S",), "&Play"),
    Shortcut("field_game", "&Game…", ("Ctrl+G",), "&Play"),
    Shortcut("field_seed", "Seed of the ep&isode…", ("Shift+S",), "&Play"),
    Shortcut("field_sticky", "Stick&y actions…", ("K",), "&Play"),
    Shortcut("mode_play", "The agent &plays", ("F5",), "&Mode", checkable=True),
    Shortcut("mode_take_over", "I &take over", ("F6",), "&Mode", checkable=True),
    Shortcut("mode_dream", "&Dream from here", ("F7",), "&Mode", checkable=True),
    Shortcut("mode_replay", "&Replay a recording", ("F8",), "&Mode", checkable=True),
    Shortcut("dream", "&Into the dream and back", ("Z",), "&Mode"),
    Shortcut("person", "I play in the drea&m", ("M",), "&Mode", checkable=True),
    Shortcut("planner_none", "&Greedy", ("G",), "P&lanner", checkable=True),
    Shortcut("planner_beam", "&Beam search", ("B",), "P&lanner", checkable=True),
    Shortcut("planner_mcts", "Monte Carlo tree &search", ("T",), "P&lanner", checkable=True),
    Shortcut("wider", "&Wider", ("]",), "P&lanner"),
    Shortcut("narrower", "&Narrower", ("[",), "P&lanner"),
    Shortcut("deeper", "&Deeper", ("}",), "P&lanner"),
    Shortcut("shallower", "Sha&llower", ("{",), "P&lanner"),
    Shortcut("field_width", "Beam w&idth…", ("W",), "P&lanner"),
    Shortcut("field_horizon", "&Horizon…", ("H",), "P&lanner"),
    Shortcut("field_simulations", "Si&mulations…", ("N",), "P&lanner"),
    Shortcut("field_time", "&Time for a decision…", ("U",), "P&lanner"),
    Shortcut("field_context", "&Context…", ("C",), "P&lanner"),
    Shortcut("ends", "Respect predicted &ends", ("E",), "P&lanner", checkable=True),
    Shortcut("tab_plans", "&Plans", ("1",), "&View"),
    Shortcut("tab_tree", "Search &tree", ("2",), "&View"),
    Shortcut("tab_hindsight", "&Imagined and real", ("3",), "&View"),
    Shortcut("distributions", "Value &distributions", ("D",), "&View", checkable=True),
    Shortcut("square", "S&quare pixels", ("Q",), "&View", checkable=True),
    Shortcut("light", "Li&ght theme", ("L",), "&View", checkable=True),
    Shortcut("full_screen", "&Full screen", ("F11",), "&View", checkable=True),
    Shortcut("timeline", "Go to the time&line", ("4",), "&View"),
    Shortcut("controls", "Go to the &controls", ("F2",), "&View"),
    Shortcut("sheet", "&Keyboard shortcuts", ("F1", "?"), "&Help"),
)
MENUS = tuple(dict.fromkeys(shortcut.menu for shortcut in SHORTCUTS))
ELSEWHERE = (
    ("While you play", (("Arrow keys", "Move the stick"), ("Space or X", "Press the button"))),
    ("In plans, tree, timeline", (
        ("1, 2, 4 or Tab", "Go there"), ("Arrow keys", "Walk"), ("Page Up, Page Down", "Walk on"),
        ("Enter", "Pin a frame, or let go"), ("Esc", "Leave"),
    )),
    ("On buttons and fields", (
        ("Tab or Shift+Tab", "To the next, or back"), ("Space", "Press"), ("Up or Down", "Change"),
    )),
)  # fmt: skip
"""Keys that are no actions of the window, by where they work."""
COLUMNS = 3
Group = tuple[str, Sequence[tuple[str, str]]]
"""A heading, and keys with what they do."""


def plain(text: str) -> str:
    """A menu's text without its mnemonic and dots."""
    return text.replace("&", "").rstrip("…")


class ShortcutSheet(QDialog):
    """All keys on one page."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Keyboard shortcuts")
        outer = QVBoxLayout(self)
        outer.setContentsMargins(*[2 * theme.MARGIN] * 4)
        outer.setSpacing(2 * theme.MARGIN)
        columns = QHBoxLayout()
        columns.setSpacing(8 * theme.UNIT)
        outer.addLayout(columns)
        groups: list[Group] = [
            (menu.replace("&", ""), [(" or ".join(s.keys), plain(s.text)) for s in SHORTCUTS if s.menu == menu])
            for menu in MENUS
        ]
        groups += ELSEWHERE
        for part in _evenly(groups):
            grid = QGridLayout()
            grid.setHorizontalSpacing(theme.MARGIN)
            grid.setVerticalSpacing(theme.UNIT // 2)
            column = QVBoxLayout()
            column.addLayout(grid)
            column.addStretch(1)
            columns.addLayout(column)
            for title, rows in part:
                _add_group(grid, title, rows)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        outer.addWidget(buttons)


def _evenly(groups: list[Group]) -> list[list[Group]]:
    """``groups`` in :data:`COLUMNS` columns, in their order, so that the longest is as short as can be."""

    def columns(cuts: tuple[int, ...]) -> list[list[Group]]:
        return [groups[first:stop] for first, stop in itertools.pairwise((0, *cuts, len(groups)))]

    every = map(columns, itertools.combinations(range(1, len(groups)), COLUMNS - 1))
    return min(every, key=lambda parts: max(sum(len(rows) + 2 for _, rows in part) for part in parts))


def _add_group(grid: QGridLayout, title: str, rows: Sequence[tuple[str, str]]) -> None:
    first = grid.rowCount()
    heading = QLabel(title)
    heading.setFont(theme.font(theme.TEXT + 1, bold=True))
    heading.setContentsMargins(0, 0 if first == 1 else theme.MARGIN, 0, theme.UNIT)
    grid.addWidget(heading, first, 0, 1, 2)
    for row, (keys, text) in enumerate(rows, first + 1):
        label = QLabel(keys)
        label.setProperty("role", "muted")
        grid.addWidget(label, row, 0)
        grid.addWidget(QLabel(text), row, 1)
