"""Which weights decay, and how the learning rate moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from jowa.model import WorldActionModel
from jowa.tokenizer import Tokenizer
from jowa.train.config import OptimizerConfig
from jowa.train.optim import set_learning_rate, tokenizer_optimizer, world_optimizer


@pytest.fixture
def model(small_config: Any) -> WorldActionModel:
    return WorldActionModel(small_config().model)


def test_linear_weights_and_the_whole_q_head_decay_and_nothing_else(model: WorldActionModel) -> None:
    optimizer = world_optimizer(model, 1e-4, OptimizerConfig(weight_decay=0.01))
    assert type(optimizer) is torch.optim.AdamW
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    names = {id(p): name for name, p in model.named_parameters()}
    modules = dict(model.named_modules())
    for key, value in decay.items():
        module, _, kind = names[key].rpartition(".")
        is_linear_weight = isinstance(modules[module], nn.Linear) and kind == "weight"
        assert value == (0.01 if is_linear_weight or module.startswith("q_head") else 0.0), names[key]
    assert {names[key] for key in decay} == {n for n in names.values() if not n.startswith("q_target_head")}
    assert any("bias" in names[key] and value == 0.01 for key, value in decay.items()), "the Q head's biases decay"


def test_a_frozen_q_head_is_left_out(model: WorldActionModel) -> None:
    model.q_head.requires_grad_(False)
    optimizer = world_optimizer(model, 1e-4, OptimizerConfig())
    inside = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not inside & {id(p) for p in model.q_head.parameters()}


def test_the_tokenizer_has_adam_without_decay(small_config: Any) -> None:
    tokenizer = Tokenizer(small_config().tokenizer)
    optimizer = tokenizer_optimizer(tokenizer, 1e-4)
    assert type(optimizer) is torch.optim.Adam
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0]
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in tokenizer.parameters()}


def test_the_published_schedule_is_constant() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    published = OptimizerConfig(warmup_steps=0, final_fraction=1.0)
    rates = {set_learning_rate(optimizer, 5e-5, step, 1000, published) for step in range(0, 1000, 7)}
    assert rates == {5e-5} and optimizer.param_groups[0]["lr"] == 5e-5


def test_warm_up_then_cosine_decay() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    config = OptimizerConfig(warmup_steps=4, final_fraction=0.1)
    rates = [set_learning_rate(optimizer, 1.0, step, 100, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.25) and rates[1] == pytest.approx(0.5, rel=1e-3)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[50] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)
