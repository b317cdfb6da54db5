from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import torch

from jowa.agent import Agent, Planning
from jowa.config import ModelConfig, TokenizerConfig
from jowa.model import WorldActionModel
from jowa.planner import Plan, Planner, PlannerConfig
from jowa.tokenizer import Tokenizer
from jowa.viewer.commands import Command
from jowa.viewer.events import Event, Moment, State
from jowa.viewer.session import Session

Kind = TypeVar("Kind", bound=Event)


@pytest.fixture(scope="session")
def agent() -> Agent:
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig("local", vocab_size=20, code_dim=8, channels=16))
    model = WorldActionModel(
        ModelConfig(layers=2, heads=2, width=16, q_width=12, q_ensemble=2, vocab_size=20, context_steps=5)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(12)  # so that what is imagined depends on what was seen
    return Agent(tokenizer, model, {"Pong": 39, "Freeway": 23}, planning=Planning(PlannerConfig(), context=2))


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

    def wait(self, kind: type[Kind], accept: Callable[[Kind], bool] = lambda event: True, timeout: float = 20) -> Kind:
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
        assert mark.reached.wait(20)

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
    """Thinks for a while or as long as it may, really searching all the while."""

    seconds = 0.6

    def planner(self, config: PlannerConfig) -> Planner:
        planner = super().planner(config)
        plan = planner.plan

        def slowly(*arguments: Any, **settings: Any) -> Plan:
            stop = time.monotonic() + min(self.seconds, (config.milliseconds or 1e9) / 1000)
            while (found := plan(*arguments, **settings)) and time.monotonic() < stop:
                pass
            return found

        planner.plan = slowly  # type: ignore[method-assign]
        return planner


@pytest.fixture
def slow_agent(agent: Agent) -> SlowAgent:
    """See :class:`SlowAgent`."""
    config = PlannerConfig("mcts", horizon=3, simulations=50, reuse=False)
    return SlowAgent(agent.tokenizer, agent.model, agent.tasks, planning=Planning(config, context=1))
