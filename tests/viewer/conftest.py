from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

import jowa.hub
from jowa.agent import Agent, Planning
from jowa.planner import Plan, Planner, PlannerConfig
from jowa.viewer.commands import Command
from jowa.viewer.events import Event, Moment, State
from jowa.viewer.session import Session

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from jowa.viewer.window import Window

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
Kind = TypeVar("Kind", bound=Event)


@pytest.fixture(autouse=True)
def no_shipped_agent(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this installation came with."""
    monkeypatch.setattr(jowa.hub, "SHIPPED", tmp_path_factory.getbasetemp() / "shipped" / "nothing")


@pytest.fixture(scope="session")
def agent(make_tiny_agent: Callable[..., Agent]) -> Agent:
    return make_tiny_agent(("Pong", "Freeway"), PlannerConfig(), context_steps=5)


@dataclass(frozen=True)
class _Mark(Command):
    reached: threading.Event


class Driver:
    """A session, and what it told."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events: queue.Queue[Event] = queue.Queue()
        self.told: list[Event] = []
        session.subscribe(self.events.put)
        obey = session._obey
        session._obey = lambda command: command.reached.set() if isinstance(command, _Mark) else obey(command)

    def wait(self, kind: type[Kind], accept: Callable[[Kind], bool] = lambda event: True, timeout: float = 60) -> Kind:
        """The next event of this kind that is accepted."""
        deadline = time.monotonic() + timeout
        while True:
            event = self.events.get(timeout=max(deadline - time.monotonic(), 0.01))
            self.told.append(event)
            if isinstance(event, kind) and accept(event):
                return event

    def moment(self, *commands: Command) -> Moment:
        """The moment that is shown once ``commands`` were carried out."""
        self.session.send(*commands)
        self.settle()
        shown: Moment | None = None
        while not self.events.empty():
            self.told.append(self.events.get())
            if isinstance(self.told[-1], Moment):
                shown = self.told[-1]
        assert shown is not None
        return shown

    def settle(self) -> None:
        """Wait until every command sent so far was carried out."""
        mark = _Mark(threading.Event())
        self.session.send(mark)
        assert mark.reached.wait(60)

    def state(self, accept: Callable[[State], bool]) -> State:
        return self.session.state if accept(self.session.state) else self.wait(State, accept)


@pytest.fixture
def drive(agent: Agent) -> Iterator[Callable[..., Driver]]:
    """Makes sessions that have begun, and closes them."""
    made: list[Session] = []

    def make(game: str = "Pong", with_agent: bool = True, sticky: float = 0.25) -> Driver:
        session = Session(game, sticky=sticky)
        if with_agent:
            session.use(agent, "test agent")
        driver = Driver(session)
        made.append(session)
        session.start()
        if with_agent:
            driver.first = driver.wait(Moment)  # type: ignore[attr-defined]
        return driver

    yield make
    for session in made:
        assert session.close(10)


class SlowAgent(Agent):
    """Thinks for a while or as long as it may, really searching all the while, unless told to stop."""

    seconds = 0.6
    enough = False

    def planner(self, config: PlannerConfig) -> Planner:
        planner = super().planner(config)
        plan = planner.plan

        def slowly(*arguments: Any, **settings: Any) -> Plan:
            stop = time.monotonic() + min(self.seconds, (config.milliseconds or 1e9) / 1000)
            while (found := plan(*arguments, **settings)) and time.monotonic() < stop and not self.enough:
                pass
            return found

        planner.plan = slowly  # type: ignore[method-assign]
        return planner


@pytest.fixture
def slow_agent(agent: Agent) -> SlowAgent:
    """See :class:`SlowAgent`."""
    config = PlannerConfig("mcts", horizon=3, simulations=50, reuse=False)
    return SlowAgent(agent.tokenizer, agent.model, agent.tasks, planning=Planning(config, context=1))


@pytest.fixture
def open_window(qtbot: QtBot, agent: Agent, tmp_path: Path) -> Iterator[Callable[..., Window]]:
    """Makes windows whose settings lie in ``tmp_path``; waits for the first moment."""
    from jowa.viewer.settings import begin_with, open_settings, recalled
    from jowa.viewer.window import Window

    made: list[Window] = []

    def make(player: Agent | None = agent) -> Window:
        settings = open_settings(tmp_path / "viewer.ini")
        session = Session(**begin_with(settings))
        if player is not None:
            session.use(player, "somewhere/test-agent")
        window = Window(session, settings)
        made.append(window)
        qtbot.addWidget(window)
        session.send(*recalled(settings))
        window.show()
        session.start()
        if player is not None:
            qtbot.waitUntil(lambda: window.feed.latest is not None, timeout=60_000)
        return window

    yield make
    for window in made:
        window.files.abandon_films()
        qtbot.waitUntil(window.close, timeout=20_000)
        assert window.session.close(10)


@pytest.fixture
def settled(qtbot: QtBot) -> Callable[[Window], None]:
    """Waits until the session has carried everything out and the window has drawn it."""
    from PyQt6.QtWidgets import QApplication

    def wait(window: Window) -> None:
        qtbot.waitUntil(lambda: window.session.idle, timeout=60_000)
        for _ in range(3):
            QApplication.processEvents()

    return wait
