"""Both planners on every engine where searches go wrong easily: ends, one legal action, ties, no budget, no pages."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from planner_cases import alone

import jowa.planner.mcts
from jowa.model import WorldActionModel
from jowa.planner import BeamPlanner, Context, MCTSPlanner, Plan, PlannerConfig
from jowa.planner.native_engine import NativeEngine, native_engine_available
from jowa.planner.torch_engine import TorchEngine
from jowa.planner.tree import make_mcts_tree

ENGINES = {"torch": TorchEngine} | ({"native": NativeEngine} if native_engine_available() else {})
CONFIGS = {
    "beam": PlannerConfig("beam", 3, 2, 0.9),
    "lambda": PlannerConfig("beam", 3, 2, 0.9, td_lambda=0.5),
    "mcts": PlannerConfig("mcts", 3, 2, 0.9, simulations=12, leaves=3),
    "gumbel": PlannerConfig("mcts", 3, 2, 0.9, simulations=12, leaves=3, gumbel=True),
}
every_planner = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
every_engine = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)


def plan_with(engine: type, model: WorldActionModel, config: PlannerConfig, context: Context) -> Plan:
    kind = MCTSPlanner if config.name == "mcts" else BeamPlanner
    return kind(model, config, engine=engine(model)).plan(context, keep_frames=True)


def changed(model: WorldActionModel, **biases: list[float]) -> WorldActionModel:
    """A copy whose named heads say the same whatever they see."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, bias in biases.items():
            last = getattr(other, name)[2]
            last.weight.zero_()
            last.bias.copy_(torch.tensor(bias))
    return other


def flat(model: WorldActionModel) -> WorldActionModel:
    """A critic to which all actions are worth the same, in a world without rewards and ends."""
    other = changed(model, reward_head=[0.0, 1.0, 0.0], end_head=[1.0, 0.0])
    with torch.no_grad():
        other.q_head.linear3.weight.zero_()
        other.q_head.linear3.bias.zero_()
    return other


@every_engine
@every_planner
def test_behind_an_end_nothing_is_imagined_and_nothing_earned(model, context, engine, config) -> None:
    ending = changed(model, reward_head=[0.0, 0.0, 9.0], end_head=[0.0, 9.0])
    plan = plan_with(engine, ending, config, context)
    assert len(plan.nodes["root"]) and plan.nodes["ended"].all() and (plan.nodes["depth"] == 1).all()
    assert (plan.nodes["reward"] == 1).all()
    if config.td_lambda == 1:  # else the critic's own Q of the action has its share
        np.testing.assert_array_equal(plan.nodes["score"], 1.0)
        np.testing.assert_array_equal(plan.scores, 1.0)
    assert context.legal.numpy()[np.arange(4), plan.actions].all()


@every_engine
@every_planner
def test_a_single_legal_action_is_taken_and_imagined_alone(model, context, engine, config) -> None:
    only = torch.tensor([6, 0, 17, 3])
    single = dataclasses.replace(context, legal=torch.nn.functional.one_hot(only, 18).bool())
    plan = plan_with(engine, model, config, single)
    assert plan.actions.tolist() == only.tolist() and not plan.failed
    np.testing.assert_array_equal(plan.nodes["action"], only.numpy()[plan.nodes["root"]])
    assert (np.bincount(plan.nodes["root"], minlength=4) >= 1).all()
    assert np.isneginf(plan.candidate_scores[:, 1:]).all() and np.isfinite(plan.candidate_scores[:, 0]).all()
    assert np.isfinite(plan.q).sum(1).tolist() == [1] * 4


@every_engine
@pytest.mark.parametrize("name", ["beam", "lambda", "mcts"])  # Gumbel noise breaks ties as it likes
def test_of_equal_actions_the_lowest_is_taken(model, context, engine, name) -> None:
    undiscounted = dataclasses.replace(CONFIGS[name], gamma=1.0)  # else what is imagined is worth less than Q
    plan = plan_with(engine, flat(model), undiscounted, context)
    legal = context.legal.numpy()
    assert (legal.sum(1) > 1).any() and plan.actions.tolist() == legal.argmax(1).tolist()
    for root in range(4):
        tried = plan.nodes["action"][(plan.nodes["root"] == root) & (plan.nodes["depth"] == 1)]
        assert set(tried) == set(np.flatnonzero(legal[root])[: len(set(tried))]), "and so are those that are tried"


@every_engine
@pytest.mark.parametrize(
    "config",
    [
        PlannerConfig("beam", 3, 0), PlannerConfig("beam", 3, 2, milliseconds=0.0), PlannerConfig("mcts", 3, 0),
        PlannerConfig("mcts", 3, 2, simulations=0), PlannerConfig("mcts", 3, 2, milliseconds=0.0),
        PlannerConfig("mcts", 3, 2, simulations=0, gumbel=True, reuse=False), PlannerConfig("none"),
    ],
)  # fmt: skip
def test_without_a_budget_nothing_is_imagined(model, context, engine, config) -> None:
    plan = plan_with(engine, model, config, context)
    assert len(plan.nodes["root"]) == 0 and len(plan.frames if plan.frames is not None else []) == 0
    if not config.gumbel:
        assert plan.actions.tolist() == plan.q.argmax(1).tolist()
    assert context.legal.numpy()[np.arange(4), plan.actions].all()


@every_engine
def test_a_root_without_budget_leaves_the_others_theirs(model, context, engine) -> None:
    config = CONFIGS["mcts"]
    mixed = [dataclasses.replace(config, simulations=0 if root == 1 else 12) for root in range(4)]
    planner = MCTSPlanner(model, config, engine=engine(model))
    plan, whole = planner.plan(context, configs=mixed), planner.plan(context)
    assert plan.actions[1] == plan.q[1].argmax() and not (plan.nodes["root"] == 1).any()
    assert plan.actions[[0, 2, 3]].tolist() == whole.actions[[0, 2, 3]].tolist()


@every_engine
@pytest.mark.parametrize("pages", [1, 3])
def test_a_search_whose_pages_are_exhausted_decides_by_what_it_has(
    model, context, engine, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terminal states give their pages back; here none ends, so that every page stays taken."""
    lasting, config = changed(model, end_head=[9.0, 0.0]), dataclasses.replace(CONFIGS["mcts"], horizon=1, reuse=False)
    monkeypatch.setattr(
        jowa.planner.mcts, "make_mcts_tree",
        lambda slots, capacity, actions, settings: make_mcts_tree(slots, pages, actions, settings),
    )  # fmt: skip
    plan = plan_with(engine, lasting, config, context)
    # The last root has one action and room for two steps: a path of two.
    assert np.bincount(plan.nodes["root"]).tolist() == [pages] * 3 + [min(pages, 2)]
    assert context.legal.numpy()[np.arange(4), plan.actions].all() and np.isfinite(plan.scores).all()
    for root in range(4):
        one = plan_with(engine, lasting, config, alone(context, root))
        assert one.actions[0] == plan.actions[root]


@every_engine
@every_planner
def test_no_roots_are_no_decisions(model, context, engine, config) -> None:
    none = Context(*(getattr(context, field.name)[:0] for field in dataclasses.fields(Context)))
    plan = plan_with(engine, model, config, none)
    assert plan.actions.shape == plan.scores.shape == (0,) and plan.q.shape == plan.spread.shape == (0, 18)
    assert plan.candidate_scores.shape == (0, 1) and plan.candidate_actions.shape == (0, 1, 0)
    assert plan.frames.shape == (0, 36) and not plan.failed
    some = plan_with(engine, model, config, context)
    assert {name: (values.dtype, 0) for name, values in some.nodes.items()} == {
        name: (values.dtype, len(values)) for name, values in plan.nodes.items()
    }
