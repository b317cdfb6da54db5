"""The person's keys as the console's actions."""

from __future__ import annotations

from collections.abc import Iterable

from PyQt6.QtCore import Qt

from jowa.games import ACTIONS

_STICK = {
    Qt.Key.Key_Up: "UP", Qt.Key.Key_Down: "DOWN", Qt.Key.Key_Left: "LEFT", Qt.Key.Key_Right: "RIGHT",
    Qt.Key.Key_Space: "FIRE", Qt.Key.Key_X: "FIRE",
}  # fmt: skip
KEYS = frozenset(_STICK)
"""Of the joystick."""


def action_of(held: Iterable[Qt.Key], legal: Iterable[int]) -> int:
    """The legal action (of 18) nearest to the keys that are held down; 0 where there is none.

    Of what is not legal together, the stick's sideways part counts most, then up and down, then the button.
    """
    parts = {_STICK[key] for key in held if key in _STICK}
    vertical = "" if {"UP", "DOWN"} <= parts else next((p for p in ("UP", "DOWN") if p in parts), "")
    horizontal = "" if {"LEFT", "RIGHT"} <= parts else next((p for p in ("LEFT", "RIGHT") if p in parts), "")
    fire = "FIRE" if "FIRE" in parts else ""
    names = {ACTIONS[action]: action for action in legal}
    tries = (
        vertical + horizontal + fire, vertical + horizontal, horizontal + fire, vertical + fire, horizontal, vertical,
        fire,
    )  # fmt: skip
    return next((names[name] for name in tries if name and name in names), 0)
