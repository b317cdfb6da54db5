"""Monte Carlo tree search over the real caches: every node against the whole model, and what the options promise."""

from __future__ import annotations

import copy
import dataclasses
import threading
import time

import numpy as np
import pytest
import torch
from planner_cases import alone

from jowa.errors import UsageError
from jowa.model import WorldActionModel
from jowa.model.heads import expectation, q_distribution
from jowa.planner import BeamPlanner, Context, MCTSPlanner, PlannerConfig, PlanningError, make_engine
from jowa.planner.native_engine import NativeEngine, native_engine_available
from jowa.planner.torch_engine import TorchEngine

needs_native = pytest.mark.skipif(not native_engine_available(), reason="the native core was not built")
GAMMA = 0.9
CONFIG = PlannerConfig("mcts", 3, 2, GAMMA, simulations=12, leaves=3)


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
def test_a_tree_is_used_again_as_long_as_what_was_imagined_comes_true(model, context, options: dict) -> None:
    """Four decisions in a row, of which the context has room for all: one encoding, and subtrees that are right."""
    config = dataclasses.replace(CONFIG, horizon=1, respect_ends=False, simulations=30, **options)
    planner = MCTSPlanner(model, config)
    now, kept = alone(context, 0), 0
    for decision in range(4):
        before = planner.rollout.engine.counters.frames
        encoded = planner.rollout.engine.encoded
        plan = planner.plan(now, keep_frames=True, slots=[2])
        nodes = plan.nodes
        assert (planner.rollout.engine.encoded > encoded) == (decision == 0), "the context was encoded again"
        imagined = planner.rollout.engine.counters.frames - before
        assert len(nodes["root"]) == kept + imagined, "nodes of the last decision are kept, and no others"
        for at in range(0, len(nodes["root"]), 5):
            frame, reward, _, _ = imagine(model, now, nodes["action"][path_to(nodes, at)].tolist())[-1]
            assert plan.frames[at].tolist() == frame.tolist() and nodes["reward"][at] == reward
        fresh = MCTSPlanner(model, dataclasses.replace(config, reuse=False)).plan(now, slots=[0])
        np.testing.assert_allclose(plan.q, fresh.q, rtol=1e-4, atol=1e-4)
        child = int(np.flatnonzero((nodes["parent"] < 0) & (nodes["action"] == plan.actions[0]))[0])
        kept = sum(path_to(nodes, at)[0] == child for at in range(len(nodes["root"]))) - 1
        now = came_true(now, plan, 0)
    assert kept == 0, "the last root stands at the end of the model's context"


def test_trees_of_many_slots_go_on_together(model, context) -> None:
    """Some of what was imagined comes true and some does not; each slot decides as it does alone."""
    config = dataclasses.replace(CONFIG, respect_ends=False, simulations=15)
    slots = [3, 0, 2, 1]
    planner = MCTSPlanner(model, config)
    first = planner.plan(context, keep_frames=True, slots=slots)
    later = [came_true(context, first, root) for root in (0, 2)]
    later[1].tokens[0, -1, 7] = (later[1].tokens[0, -1, 7] + 1) % 20
    length = max(int(one.lengths[0]) for one in later)

    def padded(one: Context) -> Context:
        more = length - int(one.lengths[0])
        tokens = torch.nn.functional.pad(one.tokens, (0, 0, 0, more))
        return dataclasses.replace(one, tokens=tokens, actions=torch.nn.functional.pad(one.actions, (0, more)))

    wide = [padded(one) for one in later]
    both = Context(*(torch.cat([getattr(one, f.name) for one in wide]) for f in dataclasses.fields(Context)))
    together = planner.plan(both, keep_frames=True, slots=[3, 2])
    for row, root in enumerate((0, 2)):
        single = MCTSPlanner(model, config)
        single.plan(alone(context, root), keep_frames=True, slots=[slots[root]])
        plan = single.plan(later[row], keep_frames=True, slots=[slots[root]])
        mine = together.nodes["root"] == row
        np.testing.assert_array_equal(plan.nodes["visits"], together.nodes["visits"][mine])
        np.testing.assert_array_equal(plan.frames, together.frames[mine])
        assert plan.actions[0] == together.actions[row]


def test_an_interrupted_search_leaves_the_planner_usable(model, context, monkeypatch: pytest.MonkeyPatch) -> None:
    planner = MCTSPlanner(model, CONFIG)
    expected = planner.plan(context)
    imagine_level = planner.rollout.imagine

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(planner.rollout, "imagine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        planner.plan(context)
    monkeypatch.setattr(planner.rollout, "imagine", imagine_level)
    assert planner.plan(context).actions.tolist() == expected.actions.tolist()


@pytest.mark.parametrize("kind", [BeamPlanner, MCTSPlanner])
@pytest.mark.parametrize("head", ["frame_head", "reward_head", "end_head"])
@pytest.mark.parametrize("make", [TorchEngine, pytest.param(NativeEngine, marks=needs_native)])
def test_nan_of_any_head_names_the_root(model, context, kind: type, head: str, make: type) -> None:
    """One weight of one class, which the most likely class would hide."""
    broken = copy.deepcopy(model)
    with torch.no_grad():
        getattr(broken, head)[2].bias[1] = torch.nan
    config = dataclasses.replace(CONFIG, name="beam" if kind is BeamPlanner else "mcts")
    with pytest.raises(PlanningError, match=r"root 0 .*could not be decided") as caught:
        kind(broken, config, engine=make(broken)).plan(context)
    assert sorted(caught.value.plan.failed) == [0, 1, 2, 3]


def test_players_of_one_engine_may_play_in_several_threads(model, context) -> None:
    engine = make_engine(model)
    planners = [BeamPlanner(model, PlannerConfig("beam", 3, 2, GAMMA), engine=engine) for _ in range(2)]
    planners.append(MCTSPlanner(model, CONFIG, engine=engine))
    parts = [alone(context, root) for root in range(3)]
    expected = [planner.plan(part).scores[0] for planner, part in zip(planners, parts, strict=True)]
    wrong: list[object] = []

    def play(planner, part, score) -> None:
        for _ in range(30):
            found = planner.plan(part).scores[0]
            if found != score:
                wrong.append((found, score))

    threads = [threading.Thread(target=play, args=job) for job in zip(planners, parts, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_time_alone_may_limit_a_search() -> None:
    assert PlannerConfig("mcts", 2, 2, milliseconds=5.0).budget > PlannerConfig("mcts", 2, 2).budget
    assert PlannerConfig("mcts", 2, 2, milliseconds=5.0, simulations=7).budget == 7


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
    config = dataclasses.replace(CONFIG, leaves=1, milliseconds=150.0)
    one = alone(context, 0)
    planner = MCTSPlanner(model, dataclasses.replace(config, simulations=5000))
    planner.plan(one)  # buffers are made
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
        ({"uncertainty": np.inf}, "finite"), ({"temperature": np.inf}, "finite"),
        ({"simulations": 10**6}, "at most 10000"), ({"td_lambda": 1.5}, "td_lambda is 1.5, expected a number between"),
    ],
)  # fmt: skip
def test_impossible_settings_are_named(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PlannerConfig("mcts", **options)
