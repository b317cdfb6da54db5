"""Both trees, native and in Python, where numbers are infinite or equal, and where pages run out before nodes do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from search_cases import needs_native

from jowa.planner.tree import (
    MCTSSettings,
    NativeBeamTree,
    NativeMCTSTree,
    ReferenceBeamTree,
    ReferenceMCTSTree,
    describe_fault,
)

beam_trees = pytest.mark.parametrize("kind", [ReferenceBeamTree, pytest.param(NativeBeamTree, marks=needs_native)])
mcts_trees = pytest.mark.parametrize("kind", [ReferenceMCTSTree, pytest.param(NativeMCTSTree, marks=needs_native)])


def full(roots: int, value: int) -> Any:
    """int64 (R,)."""
    return np.full(roots, value, np.int64)


def simulate(tree: Any, rounds: int, leaves: int = 1, reward: float = 0.0, q: float = 0.0) -> None:
    """Every imagined step is worth the same."""
    for _ in range(rounds):
        shape = tree.select(full(tree.num_roots, leaves)).valid.shape
        values = np.full((*shape, tree.num_actions), q, np.float32)
        tree.backup(np.full(shape, reward, np.float32), np.zeros(shape, np.bool_), values)


@beam_trees
def test_a_state_of_value_minus_infinity_is_the_last_choice(kind) -> None:
    """As V of a state is without a legal action; NaN is a fault, and so is a reward that is infinite."""
    tree = kind(full(4, 3), full(4, 1), 3, 0.9)
    tree.expand(np.zeros((4, 1, 3), np.float32), np.ones((4, 3), np.bool_))
    rewards, values = np.zeros((4, 3), np.float32), np.zeros((4, 3), np.float32)
    values[0], values[1, 0], values[2, 1], rewards[3, 2] = -np.inf, -np.inf, np.nan, -np.inf
    tree.keep(rewards, np.zeros((4, 3), np.bool_), values)
    assert tree.failed.tolist() == [0, 0, 4, 3] and "value" in describe_fault(4) and "reward" in describe_fault(3)
    actions, scores = tree.best()
    assert actions[:2].tolist() == [0, 1] and scores[:2].tolist() == [-np.inf, 0.0], "all alike: the lowest"
    assert tree.beam().scores[1].tolist() == [0.0, 0.0, -np.inf]


@mcts_trees
@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan])
def test_the_search_refuses_what_is_not_finite_where_it_is_legal(kind, value: float) -> None:
    q, legal = np.zeros((3, 3), np.float32), np.ones((3, 3), np.bool_)
    q[0, 1] = q[1, 1] = value
    legal[0, 1] = False
    tree = kind(3, 9, 3, MCTSSettings())
    tree.start(np.ones(3, np.bool_), q, legal, full(3, 3))
    assert tree.failed.tolist() == [0, 1, 0] and "q" in describe_fault(1)
    simulate(tree, 3)
    assert tree.simulations().tolist() == [3, 0, 3] and tree.best()[0].tolist() == [0, -1, 0]


@mcts_trees
def test_of_equal_actions_the_lowest_are_tried_first_and_taken(kind) -> None:
    legal = np.array([[0, 1, 0, 1, 1], [1, 1, 1, 1, 1]], np.bool_)
    tree = kind(2, 20, 5, MCTSSettings(gamma=1.0))
    tree.start(np.ones(2, np.bool_), np.zeros((2, 5), np.float32), legal, full(2, 1))
    simulate(tree, 4)
    assert tree.root_children()["visits"].tolist() == [[0, 2, 0, 1, 1], [1, 1, 1, 1, 0]]
    assert tree.best()[0].tolist() == [1, 0]


@mcts_trees
def test_a_single_legal_action_takes_every_simulation(kind) -> None:
    legal = np.zeros((1, 4), np.bool_)
    legal[0, 2] = True
    tree = kind(1, 5, 4, MCTSSettings(gamma=0.5))
    tree.start(np.ones(1, np.bool_), np.where(legal, 0, np.nan).astype(np.float32), legal, full(1, 3))
    assert not tree.failed.any(), "what the critic says of illegal actions does not count"
    simulate(tree, 5, reward=1.0)
    assert tree.nodes()["action"].tolist() == [2, 2, 2] and tree.simulations().tolist() == [5]
    assert tree.best()[0].tolist() == [2] and tree.root_children()["visits"].tolist() == [[0, 0, 5, 0]]


@mcts_trees
def test_ancestors_pages_are_taken_so_pages_run_out_before_nodes(kind) -> None:
    """A chain of four fills four pages; a step later the first is an ancestor's, and a fourth node finds none."""
    tree = kind(2, 4, 1, MCTSSettings())
    start = np.ones(2, np.bool_), np.zeros((2, 1), np.float32), np.ones((2, 1), np.bool_), full(2, 9)
    tree.start(*start)
    simulate(tree, 4)
    assert tree.exhausted.all()
    assert tree.advance(np.array([True, False]), full(2, 0)).tolist() == [True, False]
    nodes = tree.nodes()
    assert (nodes["root"] == 0).sum() == 3 < tree.capacity and sorted(nodes["page"][:3]) == [1, 2, 3]
    assert tree.exhausted.all(), "page 0 is the new root's own"
    simulate(tree, 2, leaves=3)
    assert tree.simulations()[0] == 0 and len(tree.nodes()["root"]) == len(nodes["root"])
    assert tree.best()[0].tolist() == [0, 0] and not tree.failed.any()
    tree.start(*start)
    assert not tree.exhausted.any(), "a new search has all pages again"
    simulate(tree, 4)
    assert tree.simulations().tolist() == [4, 4]


@mcts_trees
def test_a_budget_of_nothing_is_kept_to(kind) -> None:
    tree = kind(2, 5, 2, MCTSSettings())
    q = np.array([[0, 1], [1, 0]], np.float32)
    tree.start(np.ones(2, np.bool_), q, np.ones((2, 2), np.bool_), full(2, 3), budget=np.array([0, 3]))
    assert tree.exhausted.tolist() == [True, False]
    simulate(tree, 3)
    assert tree.simulations().tolist() == [0, 3] and tree.best()[0][0] == 1 and tree.best()[1][0] == 1.0
