"""What the viewer remembers between starts, in an ini file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from PyQt6.QtCore import QSettings

from jowa.errors import UsageError
from jowa.planner import PlannerConfig
from jowa.viewer import commands as told
from jowa.viewer.agents import default_agent, may_be_there
from jowa.viewer.commands import Command
from jowa.viewer.events import State

KEPT_PLANNER = ("name", "width", "horizon", "simulations", "milliseconds", "respect_ends")
"""Planner settings that have a control."""
_NONE = "none"


def open_settings(path: Path | None = None) -> QSettings:
    """The ini file at ``path``, or the user's own.

    Raises :class:`UsageError` where something else than a file stands: Qt replaces what it finds, even a device.
    """
    if path is not None:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is no file: expected the name of an ini file to keep settings in")
        return QSettings(str(path), QSettings.Format.IniFormat)
    return QSettings(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "jowa", "viewer")


def remember(settings: QSettings, state: State) -> None:
    """Keep what the session was set to."""
    settings.setValue("session/speed", _NONE if state.speed is None else state.speed)
    settings.setValue("session/context", state.context)
    settings.setValue("session/sticky", state.sticky)
    settings.setValue("session/seed", state.seed)
    settings.setValue("session/game", state.game)
    if state.agent is not None:
        folder = Path(state.agent)
        settings.setValue("session/agent", str(folder.absolute()) if folder.exists() else state.agent)
        for name in KEPT_PLANNER:
            value = getattr(state.planner, name)
            settings.setValue(f"planner/{name}", _NONE if value is None else value)


def last_agent(settings: QSettings) -> str | None:
    """The agent to begin with: the last one if it is still there, else the one that is at hand, else none."""
    last = settings.value("session/agent")
    return last if isinstance(last, str) and may_be_there(last) else default_agent()


def recalled(settings: QSettings) -> list[Command]:
    """What to tell a new session.  Entries that make no sense are left out."""
    found: list[Command] = []
    speed = settings.value("session/speed")
    if speed == _NONE:
        found.append(told.SetSpeed(None))
    elif (number := _number(speed)) is not None and number > 0:
        found.append(told.SetSpeed(number))
    if (number := _number(settings.value("session/context"))) is not None and number >= 1:
        found.append(told.SetContext(int(number)))
    changes: dict[str, object] = {}
    kinds = {field.name: str(field.type) for field in fields(PlannerConfig)}
    for name in KEPT_PLANNER:
        value = settings.value(f"planner/{name}")
        if value is None:
            continue
        if name == "name":
            if value in ("none", "beam", "mcts"):
                changes[name] = value
        elif name == "respect_ends":
            changes[name] = str(value).lower() == "true"
        elif value == _NONE:
            if "None" in kinds[name]:
                changes[name] = None
        elif (number := _number(value)) is not None and number >= 1:
            changes[name] = number if name == "milliseconds" else int(number)
    if changes:
        found.append(told.SetPlanner(tuple(changes.items())))
    return found


def begin_with(settings: QSettings) -> dict[str, float | int | str]:
    """Game, seed and sticky actions as they were last: keywords of a session."""
    found: dict[str, float | int | str] = {}
    game = settings.value("session/game")
    if isinstance(game, str):
        found["game"] = game
    if (seed := _number(settings.value("session/seed"))) is not None and 0 <= seed < 2**31:
        found["seed"] = int(seed)
    if (sticky := _number(settings.value("session/sticky"))) is not None and 0 <= sticky < 1:
        found["sticky"] = sticky
    return found


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
