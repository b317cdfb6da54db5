"""Beam search over the real caches against a plain beam search that runs the whole model for every token."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from planner_cases import alone

from jowa.errors import NumericalError, UsageError
from jowa.model import WorldActionModel
from jowa.model.heads import expectation, q_distribution
from jowa.planner import BeamPlanner, Context, MCTSPlanner, PlannerConfig, PlanningError
from jowa.planner.native_engine import native_engine_available

GAMMA = 0.9


@dataclass
class Node:
    tokens: torch.Tensor
    actions: torch.Tensor
    path: list[int]
    gained: float
    ended: bool
    q: torch.Tensor
    score: float = 0.0


class Oracle:
    """One root; states are whole sequences, and nothing is kept between them."""

    def __init__(self, model: WorldActionModel, root: Context) -> None:
        self.model, self.task = model, root.tasks
        self.legal = root.legal[0].nonzero().flatten().tolist()
        self.root = Node(root.tokens[0], root.actions[0, :-1], [], 0.0, False, torch.empty(0))
        predicted = self.predict(self.root.tokens, torch.cat([self.root.actions, torch.tensor([0])]))
        self.root.q = self.q(predicted)

    @torch.no_grad()
    def predict(self, tokens: torch.Tensor, actions: torch.Tensor):
        return self.model(tokens[None], actions[None], self.task)

    def q(self, predicted) -> torch.Tensor:
        return expectation(q_distribution(predicted.q), self.model.config.v_min, self.model.config.v_max)[0, -1]

    def child(self, node: Node, action: int, depth: int, respect_ends: bool) -> Node:
        n = len(node.tokens)
        tokens = torch.cat([node.tokens, torch.zeros(1, 36, dtype=torch.int64)])
        actions = torch.cat([node.actions, torch.tensor([action])])
        padded = torch.cat([actions, torch.tensor([0])])
        for k in range(36):
            tokens[n, k] = self.predict(tokens, padded).frames[0, n * 36 + k - 1].argmax()
        predicted = self.predict(tokens, padded)
        reward = float(predicted.rewards[0, n - 1].argmax()) - 1
        ended = bool(predicted.ends[0, n - 1].argmax()) and respect_ends
        gained = node.gained + GAMMA**depth * reward
        child = Node(tokens, actions, [*node.path, action], gained, ended, self.q(predicted))
        value = 0.0 if ended else max(float(child.q[a]) for a in self.legal)
        child.score = gained + GAMMA ** (depth + 1) * value
        return child

    def search(
        self, width: int, horizon: int, respect_ends: bool, depth: int = 0, beam: list[Node] | None = None
    ) -> list[Node]:
        beam = [self.root] if beam is None else beam
        if depth == horizon:
            return beam
        found = [node for node in beam if node.ended]
        for node in beam:
            if not node.ended:
                best = sorted(self.legal, key=lambda action: -float(node.q[action]))[:width]
                found += [self.child(node, action, depth, respect_ends) for action in best]
        kept = sorted(found, key=lambda node: -node.score)[:width]
        return self.search(width, horizon, respect_ends, depth + 1, kept)


@pytest.mark.parametrize("respect_ends", [True, False])
@pytest.mark.parametrize(("width", "horizon"), [(1, 2), (3, 2)])
def test_equals_a_plain_beam_search(model, context, width: int, horizon: int, respect_ends: bool) -> None:
    config = PlannerConfig("beam", width, horizon, GAMMA, respect_ends)
    plan = BeamPlanner(model, config).plan(context)
    early = 0
    for root in range(4):
        beam = Oracle(model, alone(context, root)).search(width, horizon, respect_ends)
        early += sum(node.ended for node in beam)
        assert plan.actions[root] == beam[0].path[0]
        scores = [node.score for node in beam] + [-np.inf] * (width - len(beam))
        np.testing.assert_allclose(plan.candidate_scores[root], scores, rtol=1e-4, atol=1e-4)
        paths = [node.path + [-1] * (horizon - len(node.path)) for node in beam]
        assert plan.candidate_actions[root, : len(beam)].tolist() == paths
        assert (plan.candidate_actions[root, len(beam) :] == -1).all()
        assert plan.scores[root] == plan.candidate_scores[root, 0]
    if respect_ends and width == 3:
        assert early, "some plan ends, or this tests little"


@pytest.mark.parametrize("respect_ends", [True, False])
def test_roots_do_not_influence_one_another(model, context, respect_ends: bool) -> None:
    planner = BeamPlanner(model, PlannerConfig("beam", 4, 2, GAMMA, respect_ends))
    together = planner.plan(context)
    for root in range(4):
        plan = planner.plan(alone(context, root))
        assert plan.actions[0] == together.actions[root]
        np.testing.assert_array_equal(plan.candidate_actions[0], together.candidate_actions[root])
        np.testing.assert_allclose(plan.candidate_scores[0], together.candidate_scores[root], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(plan.q[0], together.q[root], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [PlannerConfig("beam", 3, 0), PlannerConfig("none", 3, 2)])
def test_without_a_horizon_it_is_greedy_in_q(model, context, config: PlannerConfig) -> None:
    plan = BeamPlanner(model, config).plan(context)
    legal = context.legal.numpy()
    assert np.isneginf(plan.q[~legal]).all() and np.isfinite(plan.q[legal]).all()
    assert plan.actions.tolist() == plan.q.argmax(1).tolist()
    np.testing.assert_array_equal(plan.scores, plan.q.max(1))
    np.testing.assert_array_equal(plan.candidate_scores[:, 0], plan.scores)
    assert np.isneginf(plan.candidate_scores[:, 1:]).all() and plan.frames is None
    for root in range(4):
        np.testing.assert_allclose(
            plan.q[root][legal[root]],
            Oracle(model, alone(context, root)).root.q.numpy()[legal[root]],
            rtol=1e-4,
            atol=1e-4,
        )


@pytest.mark.skipif(not native_engine_available(), reason="the native core was not built")
@pytest.mark.parametrize("kind", [BeamPlanner, MCTSPlanner])
def test_on_a_cpu_a_decision_does_not_depend_on_the_batch_to_the_last_bit(model, context, kind: type) -> None:
    """One root alone, in a batch, in a batch of others with other settings, with and without guesses."""
    name = "beam" if kind is BeamPlanner else "mcts"
    config = PlannerConfig(name, 3, 2, GAMMA, respect_ends=False, simulations=15)
    together = kind(model, config).plan(context, keep_frames=True)
    wider = [dataclasses.replace(config, width=1 + root, simulations=5 + 7 * root) for root in range(4)]
    for root in range(4):
        configs = [config if other == root else wider[other] for other in range(4)]
        mixed = kind(model, config).plan(context, keep_frames=True, configs=configs)
        plain = kind(model, dataclasses.replace(config, draft="off")).plan(alone(context, root), keep_frames=True)
        for plan, at in ((mixed, root), (plain, 0)):
            assert plan.actions[at] == together.actions[root] and plan.scores[at] == together.scores[root]
            np.testing.assert_array_equal(plan.q[at], together.q[root])
            mine, theirs = plan.nodes["root"] == at, together.nodes["root"] == root
            np.testing.assert_array_equal(plan.frames[mine], together.frames[theirs])
            for field in ("action", "reward", "value", "score", "depth"):
                np.testing.assert_array_equal(plan.nodes[field][mine], together.nodes[field][theirs])


def test_illegal_actions_are_never_imagined(model, context) -> None:
    plan = BeamPlanner(model, PlannerConfig("beam", 4, 2, GAMMA)).plan(context, keep_frames=True)
    legal = context.legal.numpy()
    assert legal[plan.nodes["root"], plan.nodes["action"]].all() and legal[np.arange(4), plan.actions].all()
    single = plan.nodes["root"] == 3
    assert plan.actions[3] == 6 and single.sum() <= 2 and np.isneginf(plan.candidate_scores[3, 1:]).all()
    assert plan.frames.shape == (len(plan.nodes["root"]), 36) and plan.frames.dtype == np.uint16


def test_frames_are_those_of_the_nodes(model, context) -> None:
    """Every node's frame, reward and end against the whole model run along its path."""
    plan = BeamPlanner(model, PlannerConfig("beam", 2, 2, GAMMA)).plan(context, keep_frames=True)
    nodes = plan.nodes
    for at in range(len(nodes["root"])):
        path = [at]
        while nodes["parent"][path[0]] >= 0:
            path.insert(0, int(nodes["parent"][path[0]]))
        oracle = Oracle(model, alone(context, int(nodes["root"][at])))
        node, gained = oracle.root, 0.0
        for depth, step in enumerate(path):
            node = oracle.child(node, int(nodes["action"][step]), depth, True)
            gained += GAMMA**depth * float(nodes["reward"][step])
        assert plan.frames[at].tolist() == node.tokens[-1].tolist()
        assert node.gained == pytest.approx(gained) and node.ended == nodes["ended"][at]


def test_each_root_may_have_its_own_settings(model, context) -> None:
    """Width, horizon and caution of each root, in one batch, give what each gives alone."""
    own = PlannerConfig("beam", 2, 2, GAMMA)
    configs = [
        dataclasses.replace(own, width=width, horizon=horizon, uncertainty=caution)
        for width, horizon, caution in ((1, 2, 0.0), (3, 1, 0.5), (2, 2, 2.0), (4, 0, 0.0))
    ]
    together = BeamPlanner(model, own).plan(context, configs=configs)
    for root, config in enumerate(configs):
        plan = BeamPlanner(model, config).plan(alone(context, root))
        assert plan.actions[0] == together.actions[root]
        count = plan.candidate_scores.shape[1]
        np.testing.assert_allclose(plan.candidate_scores[0], together.candidate_scores[root, :count], rtol=1e-4)
        assert (plan.candidate_actions[0] == together.candidate_actions[root, :count, : config.horizon]).all()


def test_caution_prefers_what_the_ensemble_agrees_on(model, context) -> None:
    greedy = BeamPlanner(model, PlannerConfig("none")).plan(context)
    careful = BeamPlanner(model, PlannerConfig("none", uncertainty=3.0)).plan(context)
    np.testing.assert_array_equal(careful.q, greedy.q)  # what the critic says stays what it says
    assert careful.actions.tolist() == (greedy.q - 3 * greedy.spread).argmax(1).tolist()
    assert careful.actions.tolist() != greedy.actions.tolist()


def test_td_lambda_leads_from_greedy_play_to_the_published_search(model, context) -> None:
    published = BeamPlanner(model, PlannerConfig("beam", 3, 2, GAMMA)).plan(context)
    plans = {
        share: BeamPlanner(model, PlannerConfig("beam", 3, 2, GAMMA, td_lambda=share)).plan(context)
        for share in (0.0, 0.5, 1.0)
    }
    assert plans[0.0].actions.tolist() == plans[0.0].q.argmax(1).tolist()
    np.testing.assert_allclose(plans[0.0].scores, plans[0.0].q.max(1), rtol=1e-6)
    np.testing.assert_array_equal(plans[1.0].candidate_scores, published.candidate_scores)
    assert not np.allclose(plans[0.5].scores, plans[0.0].scores)
    assert not np.allclose(plans[0.5].scores, plans[1.0].scores)


def test_without_time_the_greedy_action_is_taken(model, context) -> None:
    plan = BeamPlanner(model, PlannerConfig("beam", 3, 2, milliseconds=0.0)).plan(context)
    assert plan.actions.tolist() == plan.q.argmax(1).tolist()


def test_settings_that_cannot_share_a_batch(model, context) -> None:
    planner = BeamPlanner(model, PlannerConfig("beam", 1, 1))
    with pytest.raises(ValueError, match="each of 4 roots, got 1"):
        planner.plan(context, configs=[planner.config])
    with pytest.raises(ValueError, match="settings of root 2"):
        planner.plan(context, configs=[planner.config] * 2 + [PlannerConfig("beam", gamma=0.5)] + [planner.config])


def test_work_grows_as_stated(model, context) -> None:
    """K nodes at the first level, K^2 at the second."""
    everything = dataclasses.replace(context, legal=torch.ones(4, 18, dtype=torch.bool))
    plan = BeamPlanner(model, PlannerConfig("beam", 3, 2, respect_ends=False)).plan(everything)
    assert np.bincount(plan.nodes["root"]).tolist() == [3 + 9] * 4


def test_nan_weights_name_the_root(model, context) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.frame_task_embedding.weight[2] = torch.nan
    for horizon in (0, 2):
        healthy = BeamPlanner(model, PlannerConfig("beam", 2, horizon)).plan(context)
        with pytest.raises(PlanningError, match=r"root 2 could not be decided: .* NaN") as caught:
            BeamPlanner(broken, PlannerConfig("beam", 2, horizon)).plan(context)
        plan = caught.value.plan  # the others are decided
        assert list(plan.failed) == [2] and plan.actions[2] == -1
        assert plan.actions[[0, 1, 3]].tolist() == healthy.actions[[0, 1, 3]].tolist()


def test_nan_in_imagination_alone_names_the_root(model, context) -> None:
    """A root may look healthy until the model sees an action that no memory holds."""
    broken = copy.deepcopy(model)
    only = int(context.legal[3].nonzero()[0])
    with torch.no_grad():
        broken.action_embedding.weight[only] = torch.nan
    root = alone(context, 3)
    root.actions.fill_((only + 1) % 18)
    with pytest.raises(NumericalError, match="root 0 could not be decided: a reward is not finite"):
        BeamPlanner(broken, PlannerConfig("beam", 2, 2)).plan(root)


def test_context_and_horizon_must_fit(model, context) -> None:
    with pytest.raises(ValueError, match=r"3 steps and a horizon of 3 \(root 1\) exceed the model.s 5 steps"):
        BeamPlanner(model, PlannerConfig("beam", 1, 3)).plan(context)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"name": "baem"}, "unknown planner 'baem'"), ({"width": 0}, "width is 0"), ({"horizon": -1}, "horizon is -1")],
)
def test_mistakes_in_the_configuration(options, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PlannerConfig(**options)
