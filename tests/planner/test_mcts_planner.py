"""Monte Carlo tree search over the real caches: every node against the whole model, and what the options promise."""

from __future__ import annotations

import copy
import dataclasses
import time

import numpy as np
import pytest
import torch

from jowa.config import ModelConfig
from jowa.errors import UsageError
from jowa.model import WorldActionModel
from jowa.model.heads import expectation, q_distribution
from jowa.planner import Context, MCTSPlanner, PlannerConfig, PlanningError

SMALL = ModelConfig(layers=2, heads=2, width=16, q_width=12, q_ensemble=2, vocab_size=20, context_steps=5, num_tasks=4)
GAMMA = 0.9
CONFIG = PlannerConfig("mcts", 3, 2, GAMMA, simulations=12, leaves=3)


@pytest.fixture(scope="module")
def model() -> WorldActionModel:
    torch.manual_seed(0)
    model = WorldActionModel(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(15)
    return model.eval()


@pytest.fixture(scope="module")
def context() -> Context:
    """Four roots of different lengths, tasks and legal actions; the last has a single one."""
    generator = torch.Generator().manual_seed(5)
    legal = torch.rand(4, 18, generator=generator) < 0.4
    legal[3] = False
    legal[:, 6] = True
    return Context(
        torch.randint(20, (4, 3, 36), generator=generator),
        torch.randint(18, (4, 3), generator=generator),
        torch.tensor([1, 3, 2, 3]),
        torch.arange(4),
        legal,
    )


def alone(context: Context, root: int) -> Context:
    length, one = int(context.lengths[root]), slice(root, root + 1)
    return Context(
        context.tokens[one, :length],
        context.actions[one, :length],
        context.lengths[one],
        context.tasks[one],
        context.legal[one],
    )


@torch.no_grad()
def imagine(model: WorldActionModel, root: Context, actions: list[int]):
    """Frames, rewards, ends and Q of the steps that ``actions`` lead through, the whole model run for each token."""
    tokens, taken, found = root.tokens[0], root.actions[0, :-1], []
    for action in actions:
        n = len(tokens)
        tokens = torch.cat([tokens, torch.zeros(1, 36, dtype=torch.int64)])
        taken = torch.cat([taken, torch.tensor([action])])
        padded = torch.cat([taken, torch.tensor([0])])[None]
        for k in range(36):
            tokens[n, k] = model(tokens[None], padded, root.tasks).frames[0, n * 36 + k - 1].argmax()
        said = model(tokens[None], padded, root.tasks)
        q = expectation(q_distribution(said.q), model.config.v_min, model.config.v_max)[0, -1]
        reward, end = float(said.rewards[0, n - 1].argmax()) - 1, bool(said.ends[0, n - 1].argmax())
        found.append((tokens[n], reward, end, q))
    return found


def path_to(nodes: dict, at: int) -> list[int]:
    path = []
    while at >= 0:
        path.insert(0, at)
        at = int(nodes["parent"][at])
    return path


def test_every_node_is_what_the_whole_model_imagines(model, context) -> None:
    """At every depth: the frame, reward, end and, of a state seen once, its value."""
    plan = MCTSPlanner(model, dataclasses.replace(CONFIG, simulations=20)).plan(context, keep_frames=True)
    nodes, legal = plan.nodes, context.legal.numpy()
    assert plan.frames.shape == (len(nodes["root"]), 36)
    assert len(set(nodes["depth"].tolist())) >= 2, "the trees are flat, and this tests little"
    assert legal[nodes["root"], nodes["action"]].all() and legal[np.arange(4), plan.actions].all()
    for at in range(len(nodes["root"])):
        path, root = path_to(nodes, at), int(nodes["root"][at])
        tokens, reward, end, q = imagine(model, alone(context, root), nodes["action"][path].tolist())[-1]
        assert plan.frames[at].tolist() == tokens.tolist()
        assert nodes["reward"][at] == reward and nodes["ended"][at] == end
        if nodes["visits"][at] == 1:
            value = 0.0 if end else float(q[context.legal[root]].max())
            assert nodes["value"][at] == pytest.approx(value, rel=1e-4, abs=1e-4)


def test_simulations_are_counted(model, context) -> None:
    plan = MCTSPlanner(model, CONFIG).plan(context, keep_frames=True)
    first = plan.nodes["parent"] < 0
    assert np.bincount(plan.nodes["root"][first], plan.nodes["visits"][first]).tolist() == [12] * 4


def test_default_budget_is_that_of_beam_search() -> None:
    assert PlannerConfig("mcts", 4, 2).budget == 4 + 16 and PlannerConfig("mcts", 4, 0).budget == 0
    assert PlannerConfig("mcts", 3, 4).budget == 3 + 3 * 9


@pytest.mark.parametrize("budget", [{"simulations": 0}, {"horizon": 0}, {"milliseconds": 0.0}])
def test_without_a_budget_it_is_greedy_in_q(model, context, budget: dict) -> None:
    plan = MCTSPlanner(model, PlannerConfig("mcts", 3, 2, **budget)).plan(context) if "horizon" not in budget else (
        MCTSPlanner(model, PlannerConfig("mcts", 3, **budget)).plan(context))  # fmt: skip
    assert plan.actions.tolist() == plan.q.argmax(1).tolist()
    np.testing.assert_array_equal(plan.scores, plan.q.max(1))
    assert len(plan.nodes["root"]) == 0 and np.isneginf(plan.candidate_scores).all()


@pytest.mark.parametrize("options", [{}, {"root_noise": 0.5}, {"gumbel": True, "considered": 4}, {"uncertainty": 1.0}])
def test_roots_do_not_influence_one_another_and_a_seed_decides(model, context, options: dict) -> None:
    config = dataclasses.replace(CONFIG, **options)
    together = MCTSPlanner(model, config).plan(context, keep_frames=True, slots=[7, 2, 5, 0])
    again = MCTSPlanner(model, config).plan(context, keep_frames=True, slots=[7, 2, 5, 0])
    np.testing.assert_array_equal(together.candidate_scores, again.candidate_scores)
    for root, slot in enumerate([7, 2, 5, 0]):
        plan = MCTSPlanner(model, config).plan(alone(context, root), keep_frames=True, slots=[slot])
        mine = together.nodes["root"] == root
        assert plan.actions[0] == together.actions[root]
        np.testing.assert_array_equal(plan.nodes["action"], together.nodes["action"][mine])
        np.testing.assert_array_equal(plan.nodes["visits"], together.nodes["visits"][mine])
        np.testing.assert_array_equal(plan.frames, together.frames[mine])


def test_noise_changes_with_the_seed_and_the_decision(model, context) -> None:
    config = dataclasses.replace(CONFIG, root_noise=1.0)
    planner = MCTSPlanner(model, config)
    first, second = planner.plan(context), planner.plan(context)
    other = MCTSPlanner(model, dataclasses.replace(config, seed=1)).plan(context)
    visits = [plan.nodes["visits"].tolist() for plan in (first, second, other)]
    assert visits[0] != visits[1] and visits[0] != visits[2]


def test_each_root_may_have_its_own_budget(model, context) -> None:
    configs = [dataclasses.replace(CONFIG, simulations=n, leaves=k) for n, k in ((0, 1), (5, 2), (12, 3), (7, 1))]
    together = MCTSPlanner(model, CONFIG).plan(context, configs=configs)
    for root, config in enumerate(configs):
        plan = MCTSPlanner(model, config).plan(alone(context, root))
        assert plan.actions[0] == together.actions[root]
        mine = together.nodes["root"] == root
        np.testing.assert_array_equal(plan.nodes["visits"], together.nodes["visits"][mine])


def test_candidates_are_the_most_visited_paths(model, context) -> None:
    plan = MCTSPlanner(model, CONFIG).plan(context)
    nodes = plan.nodes
    for root in range(4):
        first = np.flatnonzero((nodes["root"] == root) & (nodes["parent"] < 0))
        count = len(first)
        assert plan.candidate_actions[root, 0, 0] == plan.actions[root]
        assert sorted(plan.candidate_actions[root, :count, 0]) == sorted(nodes["action"][first])
        assert (plan.candidate_actions[root, count:] == -1).all()
        assert np.isneginf(plan.candidate_scores[root, count:]).all()
        for row in range(count):
            at = int(first[nodes["action"][first] == plan.candidate_actions[root, row, 0]][0])
            assert plan.candidate_scores[root, row] == nodes["score"][at]
            for action in plan.candidate_actions[root, row, 1:]:
                below = np.flatnonzero(nodes["parent"] == at)
                if not len(below):
                    assert action == -1
                    break
                best = below[np.lexsort((nodes["action"][below], -nodes["score"][below], -nodes["visits"][below]))][0]
                assert action == nodes["action"][best]
                at = int(best)


def came_true(context: Context, plan, root: int) -> Context:
    """The context of ``root`` one step later, had everything gone as was imagined of the action taken."""
    one = alone(context, root)
    at = np.flatnonzero(
        (plan.nodes["root"] == root) & (plan.nodes["parent"] < 0) & (plan.nodes["action"] == plan.actions[root])
    )[0]
    frame = torch.from_numpy(plan.frames[at].astype(np.int64))[None, None]
    return dataclasses.replace(
        one,
        tokens=torch.cat([one.tokens, frame], 1),
        actions=torch.cat([one.actions[:, :-1], torch.tensor([[int(plan.actions[root]), 0]])], 1),
        lengths=one.lengths + 1,
    )


@pytest.mark.parametrize("options", [{}, {"gumbel": True, "considered": 4}])
def test_the_tree_is_used_again_when_what_was_imagined_came_true(model, context, options: dict) -> None:
    config = dataclasses.replace(CONFIG, respect_ends=False, **options)
    planner = MCTSPlanner(model, config)
    first = planner.plan(context, keep_frames=True, slots=[0, 1, 2, 3])
    before = planner.rollout.engine.counters.frames
    later = came_true(context, first, 0)
    second = planner.plan(later, keep_frames=True, slots=[0])
    nodes = second.nodes
    held = nodes["visits"].sum() - 0
    assert nodes["visits"][nodes["parent"] < 0].sum() > 12, "visits of the last decision are kept"
    assert planner.rollout.engine.counters.frames - before <= 12 < held
    for at in range(len(nodes["root"])):
        frame, reward, _, _ = imagine(model, later, nodes["action"][path_to(nodes, at)].tolist())[-1]
        assert second.frames[at].tolist() == frame.tolist() and nodes["reward"][at] == reward
    fresh = MCTSPlanner(model, dataclasses.replace(config, reuse=False)).plan(later, slots=[0])
    np.testing.assert_allclose(second.q, fresh.q, rtol=1e-4, atol=1e-4)


def test_a_tree_is_not_used_again_for_anything_else(model, context) -> None:
    """Another frame, task or legal actions, a stranger, or an engine that somebody else used."""
    one = alone(context, 0)
    fresh = MCTSPlanner(model, CONFIG).plan(one, slots=[0]).nodes["visits"].sum()
    for change in ("frame", "task", "legal", "slot", "stranger", "engine"):
        planner = MCTSPlanner(model, dataclasses.replace(CONFIG, respect_ends=False))
        first = planner.plan(context, keep_frames=True, slots=[0, 1, 2, 3])
        later, slots = came_true(context, first, 0), [0]
        if change == "frame":
            later.tokens[0, -1, 5] = (later.tokens[0, -1, 5] + 1) % 20
        elif change == "task":
            later.tasks[0] = 3
        elif change == "legal":
            later = dataclasses.replace(later, legal=torch.ones_like(later.legal))
        elif change == "slot":
            slots = [3]
        elif change == "engine":
            planner.rollout.engine.encode(one)
        plan = planner.plan(later, slots=None if change == "stranger" else slots)
        assert plan.nodes["visits"][plan.nodes["parent"] < 0].sum() == 12, change
    assert fresh >= 12


def test_time_ends_a_search(model, context) -> None:
    config = dataclasses.replace(CONFIG, simulations=1_000_000, leaves=1, milliseconds=150.0)
    one = alone(context, 0)
    planner = MCTSPlanner(model, dataclasses.replace(config, simulations=2000))
    planner.plan(one, configs=[dataclasses.replace(config, simulations=2000, milliseconds=1.0)])  # buffers are made
    start = time.perf_counter()
    plan = planner.plan(one)
    assert time.perf_counter() - start < 1.0
    assert plan.nodes["visits"].sum() > 0 and context.legal[0, plan.actions[0]]


def test_nan_weights_name_the_root_and_leave_the_others(model, context) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.frame_task_embedding.weight[2] = torch.nan
    healthy = MCTSPlanner(model, CONFIG).plan(context)
    with pytest.raises(PlanningError, match="root 2 could not be decided") as caught:
        MCTSPlanner(broken, CONFIG).plan(context)
    plan = caught.value.plan
    assert list(plan.failed) == [2] and plan.actions[[0, 1, 3]].tolist() == healthy.actions[[0, 1, 3]].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"simulations": -1}, "simulations is -1"), ({"leaves": 0}, "leaves is 0"),
        ({"temperature": 0.0}, "temperature"),
        ({"root_noise": 1.5}, "root_noise"), ({"dirichlet": 0.0}, "dirichlet"), ({"draft": "guess"}, "unknown draft"),
        ({"uncertainty": -1.0}, "uncertainty"), ({"milliseconds": -1.0}, "milliseconds"),
    ],
)  # fmt: skip
def test_impossible_settings_are_named(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PlannerConfig("mcts", **options)
