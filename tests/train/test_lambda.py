"""How a run's agent weighs what it imagines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jowa.agent import Agent
from jowa.errors import UsageError
from jowa.finetune.config import FinetuneConfig
from jowa.planner import PlannerConfig
from jowa.train.checks import check_config
from jowa.train.presets import get_train_preset
from jowa.train.start import td_lambda_of


def test_new_agents_have_the_presets(tmp_path: Path) -> None:
    tiny = get_train_preset("tiny")
    assert td_lambda_of(tiny) == 0.25 and td_lambda_of(get_train_preset("150M")) == 1
    assert td_lambda_of(replace(tiny, evaluation=replace(tiny.evaluation, td_lambda=0.0))) == 0
    with pytest.raises(UsageError, match=r"evaluation.td_lambda is 1.5, expected 0 to 1: set --evaluation.td-lambda"):
        check_config(replace(tiny, evaluation=replace(tiny.evaluation, td_lambda=1.5)))


def test_an_agent_that_is_trained_on_keeps_its_own(make_tiny_agent: Callable[..., Agent], tmp_path: Path) -> None:
    for share in (1.0, 0.5):
        make_tiny_agent(("Pong",), PlannerConfig(td_lambda=share)).save(tmp_path / str(share))
        assert td_lambda_of(FinetuneConfig(tmp_path / str(share), "Boxing", tmp_path).training()) == share
