"""Very small rivals: settings with which a step takes milliseconds, and an agent whose tokenizer they read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SMALL = {
    "device": "cpu",
    "steps": 6,
    "batch_size": 4,
    "log_every": 1,
    "data.games": ("Pong", "Breakout"),
    "checkpoint.every": 2,
    "optimizer.warmup_steps": 2,
    "evaluation.episodes": 0,
}
SEQUENCE = {"model.layers": 1, "model.heads": 2, "model.width": 16, "model.dropout": 0.1}
CONV = {
    "model.channels": 4, "model.blocks": 1, "model.features": 16, "model.q_width": 8, "objective.target_every": 2,
    "objective.n_step": 2,
}  # fmt: skip


@pytest.fixture(scope="session")
def agent_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained agent, for its tokenizer.  Read only."""
    from jowa.agent import Agent
    from jowa.config import ModelConfig, TokenizerConfig
    from jowa.model import WorldActionModel
    from jowa.tokenizer import Tokenizer

    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(encoder="local", vocab_size=32, code_dim=8, channels=16))
    torch.nn.init.normal_(tokenizer.embedding.weight)  # so that frames have different tokens
    model = WorldActionModel(ModelConfig(layers=1, heads=2, width=16, q_width=8, q_ensemble=1, vocab_size=32))
    folder = tmp_path_factory.mktemp("agent") / "agent"
    Agent(tokenizer, model, {"Pong": 39}).save(folder)
    return folder


@pytest.fixture
def rival_config(sprite_store: Path, agent_folder: Path, tmp_path: Path, with_changes: Any) -> Callable[..., Any]:
    """The settings of a very small run in ``tmp_path / kind``; changes as ``{"steps": 3}``."""
    from jowa.baselines.start import default_config

    def make(kind: Any, changes: dict[str, Any] | None = None) -> Any:
        own = CONV if kind == "scaled-ql" else SEQUENCE | {"tokenizer_from": agent_folder}
        places = {"data.path": sprite_store, "out": tmp_path / kind}
        return with_changes(default_config(kind, None, None), SMALL | own | places | (changes or {}))

    return make
