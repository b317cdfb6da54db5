"""Agents whose Q head has one output an action (the paper's ablation of C51): every engine reads it as Q itself."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from engine_cases import SMALL, TOLERANCE, build, draw_context

from jowa.planner import Imagination, PlannerConfig, make_planner
from jowa.planner.engine import Level
from jowa.planner.native_engine import NativeEngine, native_engine_available
from jowa.planner.torch_engine import TorchEngine

ENGINES = {"torch": TorchEngine} | ({"native": NativeEngine} if native_engine_available() else {})


@pytest.fixture
def model():
    return build(dataclasses.replace(SMALL, num_atoms=1))


@pytest.mark.parametrize("kind", ENGINES)
@torch.no_grad()
def test_q_is_what_the_head_says(model, kind) -> None:
    context, engine = draw_context(model, [2, 3]), ENGINES[kind](model)
    engine.reserve(2, 2)
    values = engine.encode(context)
    said = model(context.tokens, context.actions, context.tasks).q[..., 0]
    members = torch.stack([said[:, 0, 1], said[:, 1, 2]], dim=1)
    torch.testing.assert_close(values.q, members.mean(0), **TOLERANCE)
    torch.testing.assert_close(values.spread, members.std(0, correction=0), **TOLERANCE)
    assert values.q.abs().max() > 0.1
    actions, depths = torch.tensor([[3], [5]]), torch.zeros(2, 1, dtype=torch.int32)
    found = engine.imagine(Level(actions, torch.tensor([[[0]], [[1]]], dtype=torch.int32), depths))
    plain = Imagination(model)
    expected = plain.step(plain.encode(context), None, torch.zeros(2, 1, dtype=torch.int64), actions)
    assert torch.equal(found.tokens, expected.tokens)
    torch.testing.assert_close(found.q, expected.q, **TOLERANCE)


@pytest.mark.parametrize("kind", ENGINES)
@torch.no_grad()
def test_an_infinite_value_is_not_a_number(model, kind) -> None:
    model.q_head.linear3.bias[0, 4] = torch.inf
    engine = ENGINES[kind](model)
    engine.reserve(1, 1)
    found = engine.encode(draw_context(model, [1]))
    assert found.q[0].isnan().nonzero().flatten().tolist() == [4]


@pytest.mark.parametrize("name", ["none", "beam", "mcts"])
def test_planners_play_with_it(model, name) -> None:
    plan = make_planner(model, PlannerConfig(name, width=2, horizon=2)).plan(draw_context(model, [2, 3]))
    assert (plan.actions >= 0).all()
