"""A very small random agent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jowa.agent import Agent, Planning
from jowa.config import ModelConfig, TokenizerConfig
from jowa.model import WorldActionModel
from jowa.planner import PlannerConfig
from jowa.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def agent() -> Agent:
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig("local", vocab_size=20, code_dim=8, channels=16))
    model = WorldActionModel(
        ModelConfig(layers=2, heads=2, width=16, q_width=12, q_ensemble=2, vocab_size=20, context_steps=4)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(12)  # so that what is imagined depends on what was seen
    tasks = {"Pong": 39, "Breakout": 13}
    return Agent(tokenizer, model, tasks, planning=Planning(PlannerConfig("beam", 2, 2), context=2))


@pytest.fixture(scope="session")
def agent_folder(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diagnosed") / "agent"
    agent.save(folder)
    return folder
