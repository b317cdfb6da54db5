"""A whole Monte Carlo decision on one device against the planner that asks the host at every round, and the oracle."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from planner_cases import SMALL, alone, on, ragged_context, vivid_model

from jowa.model import WorldActionModel
from jowa.planner import Context, MCTSPlanner, Plan, PlannerConfig, PlanningError
from jowa.planner.device_mcts import DeviceMCTS
from jowa.planner.mcts_oracle import ReferenceMCTSTree
from jowa.planner.rollout import Rollout
from jowa.planner.torch_engine import TorchEngine
from jowa.planner.tree import native_available
from jowa.planner.tree_state import native

pytestmark = pytest.mark.skipif(not native_available(), reason="the native core was not built")

no_gpu = pytest.mark.skipif(
    not (native and native.cuda_available_in_build and torch.cuda.is_available()), reason="needs CUDA, and a build with"
)
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])])
CONFIG = PlannerConfig("mcts", 3, 2, 0.9, simulations=5, leaves=2)
GUMBEL = {"gumbel": True, "considered": 4}


@pytest.fixture(scope="module")
def model() -> WorldActionModel:
    """One layer will do: what the trees are told matters here, and the engine has tests of its own."""
    return vivid_model(dataclasses.replace(SMALL, layers=1))


def planner_of(model: WorldActionModel, config: PlannerConfig) -> MCTSPlanner:
    return MCTSPlanner(model, config, engine=TorchEngine(model))


@pytest.fixture
def staying(monkeypatch: pytest.MonkeyPatch) -> Callable[[WorldActionModel, PlannerConfig], MCTSPlanner]:
    """Makes planners that do on a CPU what they do on a GPU."""

    def make(model: WorldActionModel, config: PlannerConfig) -> MCTSPlanner:
        with monkeypatch.context() as patched:
            patched.setattr("jowa.planner.mcts.may_stay_on_device", lambda rollout: True)
            return planner_of(model, config)

    return make


def assert_same_plan(plan: Plan, expected: Plan) -> None:
    """Equal decisions, visits and frames, close values."""
    assert plan.actions.tolist() == expected.actions.tolist() and plan.failed == expected.failed
    for name in ("root", "parent", "node", "depth", "action", "visits", "ended"):
        np.testing.assert_array_equal(plan.nodes[name], expected.nodes[name], err_msg=name)
    np.testing.assert_array_equal(plan.candidate_actions, expected.candidate_actions)
    if expected.frames is not None:
        np.testing.assert_array_equal(plan.frames, expected.frames)
    for name in ("scores", "candidate_scores", "q", "spread"):
        np.testing.assert_allclose(getattr(plan, name), getattr(expected, name), rtol=1e-4, atol=1e-4, err_msg=name)


def searched_here(planner: MCTSPlanner) -> int:
    """Shapes for which a decision was prepared on the device."""
    assert planner._on_device is not None
    return len(planner._on_device.searches)


@devices
@pytest.mark.parametrize("options", [{}, GUMBEL], ids=["puct", "gumbel"])
def test_it_decides_as_the_host_and_the_oracle_do(
    model, device: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Budgets, leaves and caution of each root; one has no budget, one a single action; on a GPU the graph."""
    model, context = copy.deepcopy(model).to(device), on(ragged_context(), device)
    own = dataclasses.replace(CONFIG, **options)  # type: ignore[arg-type]
    each = ((6, 3, 0.0, 4), (5, 2, 0.5, 3), (0, 1, 0.0, 9), (6, 4, 1.0, 2))
    configs = [
        dataclasses.replace(own, simulations=budget, leaves=leaves, uncertainty=caution, considered=considered)
        for budget, leaves, caution, considered in each
    ]
    expected = planner_of(model, own).plan(context, keep_frames=True, configs=configs)
    monkeypatch.setattr("jowa.planner.mcts.make_mcts_tree", ReferenceMCTSTree)
    assert_same_plan(planner_of(model, own).plan(context, keep_frames=True, configs=configs), expected)

    search = DeviceMCTS(Rollout(model, own, engine=TorchEngine(model)), configs, steps=4, rounds=5)
    noise = planner_of(model, own)._gumbel(configs, range(4))
    legal = context.legal.cpu().numpy()
    for _ in range(1 if device == "cpu" else 3):  # on a GPU the second is a replay
        decision = search.decide(context, noise)
        assert bool(decision.complete) and bool(decision.spent)
        found = search.trees(decision)
        assert found.actions.tolist() == expected.actions.tolist()
        for name in ("root", "parent", "action", "depth", "visits"):
            np.testing.assert_array_equal(found.nodes[name], expected.nodes[name], err_msg=name)
        frames = found.tokens.cpu().numpy()[found.nodes["root"], found.nodes["node"]]
        np.testing.assert_array_equal(frames, expected.frames)
        np.testing.assert_allclose(found.q.cpu().numpy()[legal], expected.q[legal], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("draft", ["off", "copy"])
@pytest.mark.parametrize("options", [{}, GUMBEL], ids=["puct", "gumbel"])
def test_the_planner_may_stay_on_the_device(model, context, staying, draft: str, options: dict[str, object]) -> None:
    """From the second decision of one shape on, also when guesses fail or rounds do not suffice."""
    config = dataclasses.replace(CONFIG, draft=draft, **options)
    plain, planner = planner_of(model, config), staying(model, config)
    for decision in range(3):
        assert_same_plan(planner.plan(context, keep_frames=True), plain.plan(context, keep_frames=True))
        assert bool(searched_here(planner)) == (decision > 0)
    assert planner.rollout.engine.encoded > 3, "who shares the engine sees that it was used"


@devices
def test_too_few_passes_or_rounds_are_noticed(model, device: str) -> None:
    model, context = copy.deepcopy(model).to(device), on(ragged_context(), device)
    config, noise = dataclasses.replace(CONFIG, draft="copy"), np.zeros((4, 18), dtype=np.float32)
    rollout = Rollout(model, config, engine=TorchEngine(model))
    hasty = DeviceMCTS(rollout, [config] * 4, steps=3, rounds=1, passes=2).decide(context, noise)
    assert not bool(hasty.complete)
    brief = DeviceMCTS(rollout, [config] * 4, steps=3, rounds=2).decide(context, noise)
    assert bool(brief.complete) and not bool(brief.spent)


def test_rounds_that_suffice_are_remembered(model, context, staying) -> None:
    """A single action makes every walk of a round but the first meet what is pending."""
    single = dataclasses.replace(context, legal=torch.zeros_like(context.legal))
    single.legal[:, 3] = True
    config = dataclasses.replace(CONFIG, simulations=6, leaves=3, respect_ends=False, draft="off")
    planner = staying(model, config)
    expected = planner.plan(single)
    assert_same_plan(planner.plan(single), expected)
    assert planner._on_device is not None
    (rounds,) = planner._on_device._rounds.values()
    assert rounds > 3, "the rounds sufficed at once, and this tests nothing"
    kept = searched_here(planner)
    assert_same_plan(planner.plan(single), expected)
    assert searched_here(planner) == kept and list(planner._on_device._rounds.values()) == [rounds]


@pytest.mark.parametrize("options", [{"milliseconds": 1e6}, {"root_noise": 0.5}, {}], ids=["time", "noise", "long"])
def test_what_needs_the_host_goes_there(
    model, context, staying, options: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not options:
        monkeypatch.setattr("jowa.planner.device_mcts.MOST_PASSES", 10)
    config = dataclasses.replace(CONFIG, **options)
    planner, plain = staying(model, config), planner_of(model, config)
    one = alone(context, 2)
    for _ in range(2):
        assert_same_plan(planner.plan(one), plain.plan(one))
    assert not searched_here(planner)


def test_trees_that_may_be_used_again_stay_on_the_host(model, context, staying) -> None:
    """While a context grows they may; one that is as long as before slid, or begins anew."""
    config = dataclasses.replace(CONFIG, respect_ends=False)
    planner, plain = staying(model, config), planner_of(model, config)
    one = alone(context, 0)
    first = planner.plan(one, keep_frames=True, slots=[4])
    plain.plan(one, slots=[4])
    child = np.flatnonzero((first.nodes["parent"] < 0) & (first.nodes["action"] == first.actions[0]))[0]
    came = torch.from_numpy(first.frames[child].astype(np.int64))[None, None]
    later = Context(
        torch.cat([one.tokens, came], 1), torch.tensor([[int(first.actions[0]), 0]]), one.lengths + 1, one.tasks,
        one.legal,
    )  # fmt: skip
    encoded = planner.rollout.engine.encoded
    assert_same_plan(planner.plan(later, keep_frames=True, slots=[4]), plain.plan(later, keep_frames=True, slots=[4]))
    assert planner.rollout.engine.encoded == encoded and not searched_here(planner), "the tree was not used again"
    slid = dataclasses.replace(later, tokens=later.tokens.flip(1))
    for _ in range(2):  # a shape must come twice
        assert_same_plan(planner.plan(slid, keep_frames=True, slots=[4]), plain.plan(slid, keep_frames=True, slots=[4]))
    assert searched_here(planner)
    grown = alone(context, 1)
    assert_same_plan(planner.plan(grown, keep_frames=True, slots=[4]), plain.plan(grown, keep_frames=True, slots=[4]))


def test_nan_names_the_root_and_leaves_the_others(model, context, staying) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.frame_task_embedding.weight[2] = torch.nan
    healthy, planner = planner_of(model, CONFIG).plan(context), staying(broken, CONFIG)
    for _ in range(2):
        with pytest.raises(PlanningError, match="root 2 could not be decided") as caught:
            planner.plan(context)
        plan = caught.value.plan
        assert list(plan.failed) == [2] and plan.actions[2] == -1
        assert plan.actions[[0, 1, 3]].tolist() == healthy.actions[[0, 1, 3]].tolist()
    assert searched_here(planner)


def test_a_shape_that_does_not_come_twice_is_not_captured(model, context, staying) -> None:
    planner = staying(model, CONFIG)
    for _ in range(2):
        assert len(planner.plan(alone(context, 2)).actions) == 1
        assert len(planner.plan(alone(context, 0), configs=[dataclasses.replace(CONFIG, leaves=1)]).actions) == 1
    assert not searched_here(planner)
