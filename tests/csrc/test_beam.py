"""The native beam search against its oracle, against brute force, and one root against a batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jowa.planner.tree import NativeBeamTree, ReferenceBeamTree, SearchTree, make_tree, native_available

needs_native = pytest.mark.skipif(not native_available(), reason="the native core was not built")
both = pytest.mark.parametrize("kind", [ReferenceBeamTree, pytest.param(NativeBeamTree, marks=needs_native)])

TIED = np.array([-np.inf, -1.0, 0.0, 0.5, 0.5, 2.0], dtype=np.float32)
"""Few distinct values, so that ties and the worst value are common."""
Draw = Callable[[tuple[int, ...]], Any]


def draw_floats(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """float32 numbers, half of them from :data:`TIED`."""
    continuous = rng.normal(size=shape).astype(np.float32)
    return np.where(rng.random(shape) < 0.5, rng.choice(TIED, size=shape), continuous)


def draw_legal(rng: np.random.Generator, roots: int, actions: int) -> Any:
    """bool (R, A) with at least one legal action a root, often very few."""
    legal = rng.random((roots, actions)) < rng.uniform(0.1, 1.0)
    legal[np.arange(roots), rng.integers(actions, size=roots)] = True
    return legal


def assert_same(left: Any, right: Any) -> None:
    """Equal arrays, types included, through tuples and dictionaries."""
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        left, right = list(left.values()), [right[key] for key in left]
    for a, b in zip(left, right, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@needs_native
@settings(deadline=None, max_examples=150)
@given(
    roots=st.integers(1, 3),
    width=st.integers(1, 5),
    horizon=st.integers(0, 4),
    actions=st.integers(1, 7),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    respect_ends=st.booleans(),
    end_rate=st.sampled_from([0.0, 0.3, 0.9]),
    seed=st.integers(0, 2**32 - 1),
)
def test_native_equals_the_oracle(roots, width, horizon, actions, gamma, respect_ends, end_rate, seed):
    rng = np.random.default_rng(seed)
    native = NativeBeamTree(roots, width, horizon, actions, gamma, respect_ends)
    oracle = ReferenceBeamTree(roots, width, horizon, actions, gamma, respect_ends)
    legal = draw_legal(rng, roots, actions)
    for _ in range(2):  # the second search runs over used buffers
        if horizon == 0:
            q = np.where(legal, draw_floats(rng, (roots, actions)), np.float32(np.nan))
            native.decide_greedy(q, legal)
            oracle.decide_greedy(q, legal)
        alive = np.ones((roots, 1), dtype=np.bool_)
        while not oracle.finished():
            assert not native.finished()
            q = draw_floats(rng, (roots, alive.shape[1], actions))
            q[~alive] = np.nan
            q[np.broadcast_to(~legal[:, None], q.shape)] = np.nan
            expansion = oracle.expand(q, legal)
            assert_same(native.expand(q, legal), expansion)
            shape = expansion.valid.shape
            rewards = np.nan_to_num(draw_floats(rng, shape), neginf=-1.0)
            values = draw_floats(rng, shape)
            rewards[~expansion.valid] = values[~expansion.valid] = np.nan
            ends = rng.random(shape) < end_rate
            kept = oracle.keep(rewards, ends, values)
            assert_same(native.keep(rewards, ends, values), kept)
            assert_same(native.best(), oracle.best())
            assert_same(native.beam(), oracle.beam())
            alive = kept.alive
        assert native.finished()
        assert_same(native.best(), oracle.best())
        assert_same(native.beam(), oracle.beam())
        assert_same(native.nodes(), oracle.nodes())
        native.reset()
        oracle.reset()


class Toy:
    """A deterministic world on the integers: action a leads from s to 3 s + a + 1; everything is a table of s."""

    def __init__(self, seed: int, actions: int, end_rate: float) -> None:
        rng = np.random.default_rng(seed)
        states = 3**7
        self.actions = actions
        self.rewards = rng.normal(size=states).astype(np.float32)
        self.values = rng.normal(size=states).astype(np.float32)
        self.q = rng.normal(size=(states, actions)).astype(np.float32)
        self.ends = rng.random(states) < end_rate

    def search(self, tree: SearchTree, starts: list[int], width: int, legal: Any) -> None:
        """Run a whole search from ``starts`` (R,)."""
        states = np.array(starts)[:, None]
        while not tree.finished():
            parents, actions, _ = tree.expand(self.q[states], legal)
            children = 3 * np.take_along_axis(states, parents, axis=1) + actions + 1
            kept = tree.keep(self.rewards[children], self.ends[children], self.values[children])
            states = np.take_along_axis(children, kept.slots, axis=1)
            states[kept.carried] = 0  # an ended node's state is never looked at again

    def best_path(self, start: int, horizon: int, gamma: float) -> tuple[float, tuple[int, ...]]:
        """The best score over all paths, by trying each."""
        results = []
        for path in itertools.product(range(self.actions), repeat=horizon):
            state, total, taken = start, 0.0, 0
            for action in path:
                state = 3 * state + action + 1
                total += gamma**taken * float(self.rewards[state])
                taken += 1
                if self.ends[state]:
                    break
            else:
                total += gamma**horizon * float(self.values[state])
            results.append((total, path[:taken]))
        return max(results)


@both
@pytest.mark.parametrize("end_rate", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(4))
def test_full_width_finds_the_best_of_all_paths(kind, seed, end_rate):
    toy, horizon, width = Toy(seed, 3, end_rate), 3, 27
    tree = kind(1, width, horizon, 3, 0.9, True)
    toy.search(tree, [0], width, np.ones((1, 3), dtype=np.bool_))
    score, path = toy.best_path(0, horizon, 0.9)
    action, found = tree.best()
    assert action[0] == path[0]
    assert found[0] == pytest.approx(score, rel=1e-6)
    assert [a for a in tree.beam().actions[0, 0].tolist() if a >= 0] == list(path)


@both
def test_roots_are_independent(kind):
    toy, starts = Toy(5, 3, 0.3), [0, 1, 2, 3, 4]
    legal = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1]], dtype=np.bool_)
    together = kind(5, 2, 3, 3, 0.9, True)
    toy.search(together, starts, 2, legal)
    order = [3, 0, 4, 2, 1]
    permuted = kind(5, 2, 3, 3, 0.9, True)
    toy.search(permuted, [starts[i] for i in order], 2, legal[order])
    assert_same(permuted.beam(), [field[order] for field in together.beam()])
    for root, start in enumerate(starts):
        alone = kind(1, 2, 3, 3, 0.9, True)
        toy.search(alone, [start], 2, legal[root : root + 1])
        assert_same(alone.beam(), [field[root : root + 1] for field in together.beam()])


def one_level(tree: SearchTree, rewards: list[float], ends: list[bool], values: list[float], actions: int) -> Any:
    """Expand with equal Q (so actions come in order) and keep, for one root."""
    slots = 1 if not len(tree.nodes()["root"]) else len(tree.beam().valid[0])
    expansion = tree.expand(np.zeros((1, slots, actions), np.float32), np.ones((1, actions), np.bool_))
    shape = expansion.valid.shape
    filled = [np.zeros(shape, dtype) for dtype in (np.float32, np.bool_, np.float32)]
    for array, given_values in zip(filled, (rewards, ends, values), strict=True):
        array[0, : len(given_values)] = given_values
    return tree.keep(*filled)


@both
def test_an_ended_node_is_carried_over_and_wins_ties(kind):
    tree = kind(1, 2, 3, 2, 1.0, True)
    kept = one_level(tree, [1.0, 0.0], [True, False], [9.0, 1.0], 2)  # V of the ended child does not count
    assert kept.slots.tolist() == [[0, 1]] and kept.alive.tolist() == [[False, True]]
    kept = one_level(tree, [0, 0, 1.0, 0.0], [], [0, 0, 0.0, 0.0], 2)  # child 2 scores 1.0 as well
    assert kept.slots.tolist() == [[0, 2]] and kept.carried.tolist() == [[True, False]]
    kept = one_level(tree, [], [], [0, 0, -5.0, -6.0], 2)
    assert kept.valid.all() and kept.carried.tolist() == [[True, False]]
    assert tree.finished()
    assert tree.best()[0].tolist() == [0] and tree.best()[1].tolist() == [1.0]
    assert tree.beam().actions.tolist() == [[[0, -1, -1], [1, 0, 0]]]
    nodes = tree.nodes()
    assert nodes["parent"].tolist() == [-1, -1, 1, 1, 2, 2]
    assert nodes["rank"].tolist() == [0, 1, 1, -1, 1, -1]


@both
def test_a_search_whose_nodes_have_all_ended_is_finished(kind):
    tree = kind(1, 2, 5, 2, 0.9, True)
    one_level(tree, [0.0, 1.0], [True, True], [], 2)
    assert tree.finished() and tree.best()[0].tolist() == [1]
    with pytest.raises(RuntimeError, match="finished"):
        tree.expand(np.zeros((1, 2, 2), np.float32), np.ones((1, 2), np.bool_))


@both
def test_ignoring_ends_expands_ended_nodes_and_counts_their_value(kind):
    tree = kind(1, 2, 2, 2, 0.5, False)
    kept = one_level(tree, [0.0, 0.0], [True, True], [2.0, 4.0], 2)
    assert kept.alive.all() and tree.best()[1].tolist() == [2.0] and tree.nodes()["ended"].all()


@both
def test_a_fault_names_its_root_and_leaves_the_tree_unchanged(kind):
    tree = kind(3, 2, 2, 2, 0.9, True)
    legal, q = np.ones((3, 2), np.bool_), np.zeros((3, 1, 2), np.float32)
    bad = q.copy()
    bad[1, 0, 1] = np.nan
    with pytest.raises(ValueError, match=r"q of root 1 is NaN"):
        tree.expand(bad, legal)
    none = legal.copy()
    none[2] = False
    with pytest.raises(ValueError, match=r"legal of root 2"):
        tree.expand(q, none)
    tree.expand(q, legal)
    zeros, ends = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.bool_)
    for name, position in (("rewards", 0), ("values", 2)):
        arrays = [zeros.copy(), ends, zeros.copy()]
        arrays[position][2, 1] = np.nan
        with pytest.raises(ValueError, match=f"{name} of root 2"):
            tree.keep(*arrays)
        assert not len(tree.nodes()["root"])
    assert tree.keep(zeros, ends, zeros).valid.all()


@both
def test_wrong_arguments_are_named(kind):
    names = ("num_roots", "width", "horizon", "num_actions", "gamma")
    for name, wrong in zip(names, (0, 0, -1, 0, np.nan), strict=True):
        values = {**dict.fromkeys(names, 1), name: wrong}
        with pytest.raises(ValueError, match=name):
            kind(**values, respect_ends=True)
    tree = kind(2, 2, 1, 3, 0.9, True)
    q, legal = np.zeros((2, 1, 3), np.float32), np.ones((2, 3), np.bool_)
    with pytest.raises(TypeError, match="q must be a NumPy array of float32, got dtype float64"):
        tree.expand(q.astype(np.float64), legal)
    with pytest.raises(TypeError, match="legal must be a NumPy array of bool, got list"):
        tree.expand(q, legal.tolist())
    with pytest.raises(ValueError, match=r"q must have shape \(2, 1, 3\), got \(2, 3\)"):
        tree.expand(q[:, 0], legal)
    with pytest.raises(RuntimeError, match="before expand"):
        tree.keep(q, legal, q)
    with pytest.raises(RuntimeError, match="nothing was decided"):
        tree.best()
    with pytest.raises(RuntimeError, match="horizon 0"):
        tree.decide_greedy(q[:, 0], legal)
    tree.expand(q, legal)
    with pytest.raises(RuntimeError, match="twice"):
        tree.expand(q, legal)


@both
def test_strided_arrays_are_read_as_they_look(kind):
    tree = kind(1, 2, 1, 3, 0.9, True)
    q = np.array([[[0.0, 9.0, 1.0, 9.0, 2.0, 9.0]]], np.float32)[:, :, ::2]
    assert tree.expand(q, np.ones((1, 6), np.bool_)[:, ::2]).actions.tolist() == [[2, 1]]


def test_make_tree_picks_the_native_core_where_it_was_built():
    assert isinstance(make_tree(1, 2, 2, 18, 0.99), NativeBeamTree if native_available() else ReferenceBeamTree)
