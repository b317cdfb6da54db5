"""A very small random agent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jowa.agent import Agent
from jowa.planner import PlannerConfig


@pytest.fixture(scope="session")
def agent(make_tiny_agent: Callable[..., Agent]) -> Agent:
    return make_tiny_agent(("Pong", "Breakout"), PlannerConfig("beam", 2, 2))


@pytest.fixture(scope="session")
def agent_folder(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diagnosed") / "agent"
    agent.save(folder)
    return folder
