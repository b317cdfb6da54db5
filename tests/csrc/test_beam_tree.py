"""The native beam search against its oracle, against brute force, and one root against a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_cases import Pages, Toy, assert_same, draw_floats, draw_legal, needs_native

from jowa.planner.tree import (
    BeamTreeProtocol,
    NativeBeamTree,
    ReferenceBeamTree,
    describe_fault,
    make_beam_tree,
    native_available,
)

both = pytest.mark.parametrize("kind", [ReferenceBeamTree, pytest.param(NativeBeamTree, marks=needs_native)])


def sizes(*values: int) -> Any:
    """int64 (R,)."""
    return np.array(values, np.int64)


def poison(rng: np.random.Generator, arrays: list[Any], rate: float) -> None:
    """NaN in some places, of some roots."""
    for array in arrays:
        array[rng.random(array.shape) < rate * (rng.random(len(array)) < 0.3).reshape(-1, *[1] * (array.ndim - 1))] = (
            np.nan
        )


def search(trees: list[BeamTreeProtocol], rng: np.random.Generator, legal: Any, end_rate: float, nan: float) -> None:
    """One whole search of all trees with the same random numbers; they must agree at every step."""
    first, *others = trees
    roots, actions = legal.shape
    alive = np.ones((roots, 1), dtype=np.bool_)
    pages = Pages()
    paths: list[list[tuple[int, ...]]] = [[()] for _ in range(roots)]

    def agree() -> None:
        for tree in others:
            assert tree.finished() == first.finished()
            assert_same(tree.best(), first.best())
            assert_same(tree.beam(), first.beam())
            assert_same(tree.nodes(), first.nodes())
            assert_same([tree.failed], [first.failed])

    agree()
    while not first.finished():
        q = draw_floats(rng, (roots, alive.shape[1], actions), infinite=True)
        if len(paths[0]) > 1 or paths[0] != [()]:
            q[~alive] = np.nan
        q[np.broadcast_to(~legal[:, None], q.shape)] = np.nan
        poison(rng, [q], nan)
        expansion = first.expand(q, legal)
        for tree in others:
            assert_same(tree.expand(q, legal), expansion)
        agree()
        width = first.width
        children = [
            [(*paths[r][c // width], int(expansion.actions[r, c])) for c in range(expansion.valid.shape[1])]
            for r in range(roots)
        ]
        assert len(set(taken := expansion.page_table[expansion.valid, expansion.depths[expansion.valid]].tolist())) == (
            len(taken)
        )
        for r, c in np.argwhere(expansion.valid).tolist():
            table, depth = expansion.page_table[r, c], int(expansion.depths[r, c])
            pages.imagine(r, children[r][c], table, depth, first.pages_per_root)
        shape = expansion.valid.shape
        rewards, values = draw_floats(rng, shape), draw_floats(rng, shape, infinite=True)
        rewards[~expansion.valid] = values[~expansion.valid] = np.nan
        poison(rng, [rewards, values], nan)
        ends = rng.random(shape) < end_rate
        kept = first.keep(rewards, ends, values)
        for tree in others:
            assert_same(tree.keep(rewards, ends, values), kept)
        agree()
        alive = kept.alive
        paths = [
            [(paths if kept.carried[r, k] else children)[r][kept.slots[r, k]] for k in range(width)]
            if kept.valid[r].any() else [()] * width
            for r in range(roots)
        ]  # fmt: skip


@needs_native
@settings(deadline=None, max_examples=150)
@given(
    roots=st.integers(1, 4),
    width=st.integers(1, 5),
    horizon=st.integers(0, 4),
    actions=st.integers(1, 7),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    respect_ends=st.booleans(),
    td_lambda=st.sampled_from([1.0, 1.0, 0.25, 0.0]),
    end_rate=st.sampled_from([0.0, 0.3, 0.9]),
    nan=st.sampled_from([0.0, 0.0, 0.3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_native_equals_the_oracle(
    roots, width, horizon, actions, gamma, respect_ends, td_lambda, end_rate, nan, seed
):  # fmt: skip
    rng = np.random.default_rng(seed)
    widths, horizons = rng.integers(1, width + 1, roots), rng.integers(0, horizon + 1, roots)
    kinds = ReferenceBeamTree, NativeBeamTree
    trees = [kind(widths, horizons, actions, gamma, respect_ends, td_lambda) for kind in kinds]
    assert trees[0].pages_per_root == trees[1].pages_per_root
    for _ in range(2):  # the second search runs over used buffers
        legal = draw_legal(rng, roots, actions)
        legal[rng.random(roots) < nan / 4] = False
        search(trees, rng, legal, end_rate, nan)
        for tree in trees:
            tree.reset()


def plan(toy: Toy, tree: BeamTreeProtocol, starts: list[int], legal: Any) -> None:
    """Run a whole search from ``starts`` (R,)."""
    states = np.array(starts)[:, None]
    while not tree.finished():
        expansion = tree.expand(toy.q[states], legal)
        children = 3 * np.take_along_axis(states, expansion.parents, axis=1) + expansion.actions + 1
        kept = tree.keep(toy.rewards[children], toy.ends[children], toy.values[children])
        states = np.where(kept.alive, np.take_along_axis(children, kept.slots, axis=1), 0)


@both
@pytest.mark.parametrize("end_rate", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(4))
def test_full_width_finds_the_best_of_all_paths(kind, seed, end_rate):
    toy, horizon, width = Toy(seed, 3, end_rate), 3, 27
    tree = kind(sizes(width, width), sizes(horizon, horizon), 3, 0.9, True)
    plan(toy, tree, [0, 1], np.ones((2, 3), dtype=np.bool_))
    for root, start in enumerate((0, 1)):
        score, path = toy.best_path(start, horizon, 0.9)
        assert tree.best()[0][root] == path[0]
        assert tree.best()[1][root] == pytest.approx(score, rel=1e-6)
        assert tuple(tree.beam().actions[root, 0, : len(path)].tolist()) == path


@both
def test_roots_of_any_size_are_independent(kind):
    toy, rng = Toy(3, 3, 0.3), np.random.default_rng(0)
    starts, legal = [0, 1, 2, 3, 4], draw_legal(rng, 5, 3)
    widths, horizons = sizes(1, 4, 2, 3, 1), sizes(4, 2, 0, 3, 1)
    together = kind(widths, horizons, 3, 0.9, True)
    plan(toy, together, starts, legal)
    for root in range(5):
        alone = kind(widths[root : root + 1], horizons[root : root + 1], 3, 0.9, True)
        plan(toy, alone, starts[root : root + 1], legal[root : root + 1])
        mine = together.nodes()["root"] == root
        for name, values in alone.nodes().items():
            if name not in ("root", "parent"):
                np.testing.assert_array_equal(values, together.nodes()[name][mine])
        np.testing.assert_array_equal(alone.best(), [answer[root : root + 1] for answer in together.best()])
        width, horizon = widths[root], horizons[root]
        assert_same([alone.beam().actions[0]], [together.beam().actions[root, :width, :horizon]])
        assert not together.beam().valid[root, width:].any()


def one_level(tree: BeamTreeProtocol, rewards: Any, ends: Any, values: Any, actions: int) -> Any:
    """Expand with equal q and keep, given one root's values."""
    slots = 1 if not len(tree.nodes()["root"]) else tree.width
    expansion = tree.expand(np.zeros((1, slots, actions), np.float32), np.ones((1, actions), np.bool_))
    filled = [np.zeros(expansion.valid.shape, dtype) for dtype in (np.float32, np.bool_, np.float32)]
    for array, given_values in zip(filled, (rewards, ends, values), strict=True):
        array[0, : len(given_values)] = given_values
    return tree.keep(*filled)


@both
def test_an_ended_node_is_carried_over_and_wins_ties(kind):
    tree = kind(sizes(2), sizes(3), 2, 1.0, True)
    kept = one_level(tree, [1.0, 0.0], [True, False], [9.0, 1.0], 2)  # V of the ended child does not count
    assert kept.slots.tolist() == [[0, 1]] and kept.alive.tolist() == [[False, True]]
    kept = one_level(tree, [0, 0, 1.0, 0.0], [], [0, 0, 0.0, 0.0], 2)  # child 2 scores 1.0 as well
    assert kept.slots.tolist() == [[0, 2]] and kept.carried.tolist() == [[True, False]]
    kept = one_level(tree, [], [], [0, 0, -5.0, -6.0], 2)
    assert kept.valid.all() and kept.carried.tolist() == [[True, False]] and not kept.alive.any()
    assert tree.finished()
    assert tree.best()[0].tolist() == [0] and tree.best()[1].tolist() == [1.0]
    assert tree.beam().actions.tolist() == [[[0, -1, -1], [1, 0, 0]]]
    nodes = tree.nodes()
    assert nodes["parent"].tolist() == [-1, -1, 1, 1, 2, 2]
    assert nodes["rank"].tolist() == [0, 1, 1, -1, 1, -1]


@both
def test_a_search_whose_nodes_have_all_ended_is_finished(kind):
    tree = kind(sizes(2), sizes(5), 2, 0.9, True)
    one_level(tree, [0.0, 1.0], [True, True], [], 2)
    assert tree.finished() and tree.best()[0].tolist() == [1]
    with pytest.raises(RuntimeError, match="finished"):
        tree.expand(np.zeros((1, 2, 2), np.float32), np.ones((1, 2), np.bool_))


@both
def test_ignoring_ends_expands_ended_nodes_and_counts_their_value(kind):
    tree = kind(sizes(2), sizes(2), 2, 0.5, False)
    kept = one_level(tree, [0.0, 0.0], [True, True], [2.0, 4.0], 2)
    assert kept.alive.all() and tree.best()[1].tolist() == [2.0] and tree.nodes()["ended"].all()


@both
def test_a_search_can_be_asked_at_any_time(kind):
    tree = kind(sizes(2, 2, 2), sizes(2, 0, 1), 3, 0.5, True)
    assert tree.best()[0].tolist() == [-1] * 3 and np.isnan(tree.best()[1]).all()
    q = np.array([[[1, 3, 2]], [[5, 4, 3]], [[0, 0, 1]]], np.float32)
    expansion = tree.expand(q, np.ones((3, 3), np.bool_))
    assert expansion.valid.tolist() == [[True, True], [False, False], [True, True]]
    assert tree.best()[0].tolist() == [1, 0, 2] and tree.best()[1].tolist() == [3.0, 5.0, 1.0]
    assert tree.beam().valid.tolist() == [[True, False]] * 3 and tree.beam().actions[1].tolist() == [[0, -1], [-1, -1]]
    zeros, ends = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.bool_)
    values = np.array([[0, 8], [9, 9], [4, 0]], np.float32)
    kept = tree.keep(zeros, ends, values)
    assert kept.alive.tolist() == [[True, True], [False, False], [False, False]]
    assert tree.best()[0].tolist() == [2, 0, 2] and tree.best()[1].tolist() == [4.0, 5.0, 2.0]
    expansion = tree.expand(np.zeros((3, 2, 3), np.float32), np.ones((3, 3), np.bool_))
    assert expansion.valid.any(axis=1).tolist() == [True, False, False]
    zeros, ends = np.zeros((3, 4), np.float32), np.zeros((3, 4), np.bool_)
    kept = tree.keep(zeros, ends, zeros)
    assert kept.slots[2].tolist() == [0, 1] and kept.carried[2].all(), "a finished root's beam stays"
    assert tree.finished() and tree.best()[1].tolist() == [0.0, 5.0, 2.0]


@both
def test_the_best_actions_are_those_of_greatest_q_with_ties_to_the_lowest(kind):
    """Zeros of both signs tie, infinities are numbers, and what is illegal may be NaN."""
    inf, nan = np.inf, np.nan
    q = np.array([[-0.0, 0.0, -inf, nan, 1e-45, -1e-45], [-inf, inf, inf, -inf, nan, 3e38], [-2, -1, -3, -1, nan, -2]])
    legal = ~np.isnan(q)
    tree = kind(np.full(3, 6), np.ones(3, np.int64), 6)
    found = tree.expand(q.astype(np.float32)[:, None], legal)
    ranked = [row[valid].tolist() for row, valid in zip(found.actions, found.valid, strict=True)]
    assert ranked == [[4, 0, 1, 5, 2], [1, 2, 5, 0, 3], [1, 3, 0, 5, 2]]


@both
@pytest.mark.parametrize("td_lambda", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("seed", range(4))
def test_lambda_returns_mix_q_into_every_step(kind, seed, td_lambda):
    """Over all paths, by the recursion L(s) = (1 - l) Q(s, a) + l (r + gamma L(s'))."""
    toy, horizon, gamma = Toy(seed, 3, 0.2), 3, 0.9

    def best(state: int, steps: int) -> float:
        if not steps:
            return float(toy.values[state])
        found = []
        for action in range(3):
            child = 3 * state + action + 1
            after = 0.0 if toy.ends[child] else best(child, steps - 1)
            imagined = float(toy.rewards[child]) + gamma * after
            found.append((1 - td_lambda) * float(toy.q[state, action]) + td_lambda * imagined)
        return max(found)

    tree = kind(sizes(27), sizes(horizon), 3, gamma, True, td_lambda)
    plan(toy, tree, [0], np.ones((1, 3), dtype=np.bool_))
    assert tree.best()[1][0] == pytest.approx(best(0, horizon), rel=1e-5)
    if td_lambda == 0:
        assert tree.best()[0][0] == toy.q[0].argmax()


@both
def test_an_infinite_q_that_is_scored_is_a_fault(kind):
    legal, q = np.ones((2, 2), np.bool_), np.zeros((2, 1, 2), np.float32)
    q[1, 0, 1] = -np.inf
    for td_lambda, failed in ((1.0, [0, 0]), (0.5, [0, 1])):
        tree = kind(sizes(2, 2), sizes(1, 1), 2, 0.9, True, td_lambda)
        tree.expand(q, legal)
        assert tree.failed.tolist() == failed
    legal[1, 1] = False
    tree.reset()
    tree.expand(q, legal)
    assert not tree.failed.any()


@both
def test_horizon_0_decides_in_one_expand(kind):
    tree = kind(sizes(2, 1), sizes(0, 0), 2, 0.9, True)
    assert tree.pages_per_root == 0 and not tree.finished()
    assert not tree.expand(np.array([[[1, 2]], [[3, 0]]], np.float32), np.ones((2, 2), np.bool_)).valid.any()
    assert tree.finished() and tree.best()[0].tolist() == [1, 0] and tree.best()[1].tolist() == [2.0, 3.0]
    assert tree.beam().actions.shape == (2, 2, 0) and tree.beam().scores.tolist() == [[2.0, 0.0], [3.0, 0.0]]


@both
def test_a_fault_takes_its_root_out_and_leaves_the_others(kind):
    tree = kind(sizes(2, 2, 2, 2), sizes(2, 2, 2, 2), 2, 0.9, True)
    legal, q = np.ones((4, 2), np.bool_), np.zeros((4, 1, 2), np.float32)
    q[1, 0, 1] = np.nan
    legal[2] = False
    expansion = tree.expand(q, legal)
    assert tree.failed.tolist() == [0, 1, 2, 0] and expansion.valid.any(axis=1).tolist() == [True, False, False, True]
    assert "q is NaN" in describe_fault(1) and "no action" in describe_fault(2)
    zeros, ends = np.zeros((4, 2), np.float32), np.zeros((4, 2), np.bool_)
    kept = tree.keep(zeros, ends, zeros)
    assert kept.alive.any(axis=1).tolist() == [True, False, False, True]
    assert tree.best()[0].tolist() == [0, -1, -1, 0]
    q = np.zeros((4, 2, 2), np.float32)
    legal[:] = True
    assert tree.expand(q, legal).valid.any(axis=1).tolist() == [True, False, False, True]
    zeros, ends = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.bool_)
    rewards, values = zeros.copy(), zeros.copy()
    rewards[0, 1], values[3, 3] = np.inf, np.nan
    before = tree.best()
    kept = tree.keep(rewards, ends, values)
    assert tree.failed.tolist() == [3, 1, 2, 4] and "reward" in describe_fault(3) and "value" in describe_fault(4)
    assert_same(tree.best(), before)
    assert kept.carried[0].all() and not kept.alive.any() and len(tree.nodes()["root"]) == 4
    tree.reset()
    assert not tree.failed.any()


@both
def test_wrong_arguments_are_named(kind):
    right = {"widths": sizes(1), "horizons": sizes(1), "num_actions": 1, "gamma": 0.9, "td_lambda": 0.5}
    wrong = {"widths": sizes(0), "horizons": sizes(-1), "num_actions": 0, "gamma": np.nan, "td_lambda": 1.5}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            kind(**{**right, name: value}, respect_ends=True)
    with pytest.raises(TypeError, match="widths must be a NumPy array of int64, got list"):
        kind([1], sizes(1), 1)
    tree = kind(sizes(2, 2), sizes(1, 1), 3, 0.9, True)
    q, legal = np.zeros((2, 1, 3), np.float32), np.ones((2, 3), np.bool_)
    with pytest.raises(TypeError, match="q must be a NumPy array of float32, got dtype float64"):
        tree.expand(q.astype(np.float64), legal)
    with pytest.raises(TypeError, match="legal must be a NumPy array of bool, got list"):
        tree.expand(q, legal.tolist())
    with pytest.raises(TypeError, match="NumPy array"):
        tree.expand(0, legal)
    with pytest.raises(ValueError, match=r"q must have shape \(2, 1, 3\), got \(2, 3\)"):
        tree.expand(q[:, 0], legal)
    with pytest.raises(RuntimeError, match="before expand"):
        tree.keep(q, legal, q)
    tree.expand(q, legal)
    with pytest.raises(RuntimeError, match="twice"):
        tree.expand(q, legal)


@both
def test_strided_arrays_are_read_as_they_look(kind):
    tree = kind(sizes(2), sizes(1), 3, 0.9, True)
    q = np.array([[[0.0, 9.0, 1.0, 9.0, 2.0, 9.0]]], np.float32)[:, :, ::2]
    assert tree.expand(q, np.ones((1, 6), np.bool_)[:, ::2]).actions.tolist() == [[2, 1]]


@needs_native
def test_pages_stay_flat_over_10_000_searches():
    rng = np.random.default_rng(0)
    tree = NativeBeamTree(sizes(3, 2), sizes(4, 3), 5, 0.99, True)
    legal, seen = np.ones((2, 5), np.bool_), {}
    numbers = rng.normal(size=(64, 2, 9)).astype(np.float32)
    q = rng.normal(size=(64, 2, 3, 5)).astype(np.float32)
    for step in range(10_000):
        tree.reset()
        level = 0
        while not tree.finished():
            expansion = tree.expand(q[step % 64, :, : 3 if level else 1], legal)
            table = expansion.page_table.tobytes()
            assert seen.setdefault((step % 64, level), table) == table, "pages of a search before were not freed"
            given = numbers[(step + level) % 64, :, : expansion.valid.shape[1]]
            tree.keep(given, given > 1.5, given)
            level += 1
    assert tree.pages_per_root == 3 * 3 + 9 and max(np.frombuffer(t, np.int32).max() for t in seen.values()) < 36


def test_make_beam_tree_picks_the_native_core_where_it_was_built():
    tree = make_beam_tree(sizes(2), sizes(2), 18, 0.99)
    assert isinstance(tree, NativeBeamTree if native_available() else ReferenceBeamTree)
