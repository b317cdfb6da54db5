"""The native Monte-Carlo search against its oracle, brute force and sequential halving, alone and in a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_cases import Pages, Toy, assert_same, draw_floats, draw_legal, needs_native

from jowa.planner.tree import (
    MCTSSettings,
    MCTSTreeProtocol,
    NativeMCTSTree,
    ReferenceMCTSTree,
    considered_visits,
    describe_fault,
    make_mcts_tree,
    native_available,
)

both = pytest.mark.parametrize("kind", [ReferenceMCTSTree, pytest.param(NativeMCTSTree, marks=needs_native)])
Paths = list[dict[int, tuple[int, ...]]]


def full(roots: int, value: int) -> Any:
    """int64 (R,)."""
    return np.full(roots, value, np.int64)


def agree(trees: list[MCTSTreeProtocol]) -> None:
    first = trees[0]
    for tree in trees[1:]:
        assert_same([tree.failed, tree.exhausted, tree.simulations()],
                    [first.failed, first.exhausted, first.simulations()])  # fmt: skip
        assert_same(tree.best(), first.best())
        assert_same(tree.root_children(), first.root_children())
        assert_same(tree.nodes(), first.nodes())


def one_round(trees: list[MCTSTreeProtocol], rng: np.random.Generator, leaves: Any, paths: Paths, pages: Pages,
              legal: Any, end_rate: float, nan: float) -> None:  # fmt: skip
    """Select and back up in all trees with the same numbers; ``paths[root][node]`` are actions from the context."""
    first = trees[0]
    actions = legal.shape[1]
    selection = first.select(leaves)
    for tree in trees[1:]:
        assert_same(tree.select(leaves), selection)
    agree(trees)
    own = selection.page_table[selection.valid, selection.depths[selection.valid]].tolist()
    assert len(set(own)) == len(own), "two leaves of a round share a page"
    for r, m in np.argwhere(selection.valid).tolist():
        path = (*paths[r][int(selection.parents[r, m])], int(selection.actions[r, m]))
        assert legal[r, path[-1]] and path not in paths[r].values()
        paths[r][int(selection.nodes[r, m])] = path
        pages.imagine(r, path, selection.page_table[r, m], int(selection.depths[r, m]), first.pages_per_root)
    shape = selection.valid.shape
    rewards, q = draw_floats(rng, shape), draw_floats(rng, (*shape, actions))
    q[np.broadcast_to(~legal[:, None], q.shape)] = np.nan
    faulty = rng.random(shape) < nan
    rewards[faulty & (rng.random(shape) < 0.5)] = np.inf
    q[faulty] = np.nan
    ends = rng.random(shape) < end_rate
    failed = first.failed
    for tree in trees:
        tree.backup(rewards, ends, q)
    agree(trees)
    for r in np.flatnonzero((first.failed > 0) & (failed == 0)).tolist():
        for m in np.flatnonzero(selection.valid[r]).tolist():
            del paths[r][int(selection.nodes[r, m])]


def advance(trees: list[MCTSTreeProtocol], rng: np.random.Generator, paths: Paths) -> None:
    """Re-root some of all trees at some child and follow with ``paths``."""
    first = trees[0]
    mask = rng.random(first.num_roots) < 0.7
    actions = np.where(rng.random(first.num_roots) < 0.8, first.best()[0], rng.integers(first.num_actions))
    gumbel = draw_floats(rng, (first.num_roots, first.num_actions)) if rng.random() < 0.5 else None
    kept = first.advance(mask, actions, gumbel)
    for tree in trees[1:]:
        assert_same([tree.advance(mask, actions, gumbel)], [kept])
        assert_same([tree.origins()], [first.origins()])
    assert not (kept & ~mask).any()
    agree(trees)
    for r, origins in enumerate(first.origins().tolist()):
        if paths[r]:
            paths[r] = {node: paths[r][origin] for node, origin in enumerate(origins) if origin >= 0}


@needs_native
@settings(deadline=None, max_examples=150)
@given(
    roots=st.integers(1, 3),
    capacity=st.integers(1, 20),
    actions=st.integers(1, 6),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    respect_ends=st.booleans(),
    gumbel=st.booleans(),
    end_rate=st.sampled_from([0.0, 0.3, 0.9]),
    nan=st.sampled_from([0.0, 0.0, 0.05]),
    seed=st.integers(0, 2**32 - 1),
)
def test_native_equals_the_oracle(roots, capacity, actions, gamma, respect_ends, gumbel, end_rate, nan, seed):
    rng = np.random.default_rng(seed)
    options = MCTSSettings(gamma, float(rng.choice([0.1, 1.0])), respect_ends=respect_ends, gumbel=gumbel)
    trees = [kind(roots, capacity, actions, options) for kind in (ReferenceMCTSTree, NativeMCTSTree)]
    agree(trees)
    legal, paths, pages = np.zeros((roots, actions), np.bool_), [{} for _ in range(roots)], Pages()
    for search in range(3):
        active = (rng.random(roots) < 0.7) | (search == 0)
        legal = np.where(active[:, None], draw_legal(rng, roots, actions), legal)
        legal[active & (rng.random(roots) < nan)] = False
        q = draw_floats(rng, (roots, actions))
        q[~legal | (rng.random(q.shape) < nan)] = np.nan
        priors = rng.dirichlet(np.ones(actions), roots).astype(np.float32) if rng.random() < 0.5 else None
        noise = draw_floats(rng, (roots, actions)) if rng.random() < 0.5 else None
        if noise is not None and nan:
            noise[0, 0] = np.nan
        budget = rng.integers(0, 20, roots) if gumbel or rng.random() < 0.5 else None
        considered = rng.integers(1, actions + 1, roots) if rng.random() < 0.5 else None
        depth = rng.integers(0, 5, roots)
        for tree in trees:
            tree.start(active, q, legal, depth, priors, noise, budget, considered)
        agree(trees)
        paths = [{0: ()} if active[r] else paths[r] for r in range(roots)]
        for _ in range(int(rng.integers(0, 3))):
            for _ in range(int(rng.integers(0, 5))):
                leaves = rng.integers(0, 5, roots)
                one_round(trees, rng, leaves, paths, pages, legal, end_rate, nan)
            advance(trees, rng, paths)


def play(toy: Toy, tree: MCTSTreeProtocol, starts: Any, legal: Any, depth: int, simulations: int,
         leaves: int = 1, **options: Any) -> None:  # fmt: skip
    """A whole search of ``simulations`` from ``starts`` int64 (R,)."""
    roots = len(starts)
    tree.start(np.ones(roots, np.bool_), toy.q[starts], legal, full(roots, depth), **options)
    states = np.zeros((roots, tree.capacity + 1), np.int64)
    states[:, 0] = starts
    while (left := np.where(tree.exhausted, 0, simulations - tree.simulations())).any():
        chosen = tree.select(np.clip(left, 0, leaves))
        reached = 3 * np.take_along_axis(states, chosen.parents.astype(np.int64), 1) + chosen.actions + 1
        reached = np.where(chosen.valid, reached, 0)
        for r, m in np.argwhere(chosen.valid).tolist():
            states[r, chosen.nodes[r, m]] = reached[r, m]
        tree.backup(toy.rewards[reached], toy.ends[reached], toy.q[reached])


@both
@pytest.mark.parametrize("end_rate", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_many_simulations_find_the_best_of_all_paths(kind, seed, end_rate):
    toy = Toy(seed, 3, end_rate)
    toy.values = toy.q.max(axis=1)
    score, path = toy.best_path(0, 3, 0.9)
    # Room for every state and one more; even priors, as this critic knows nothing and would delay the search.
    tree = kind(1, 40, 3, MCTSSettings(gamma=0.9, c_init=2.0, temperature=100.0))
    play(toy, tree, np.zeros(1, np.int64), np.ones((1, 3), np.bool_), 3, 4000)
    assert tree.best()[0].tolist() == [path[0]]
    assert tree.best()[1][0] == pytest.approx(score, abs=0.3)
    assert tree.simulations().tolist() == [4000]


@both
@pytest.mark.parametrize("gumbel", [False, True])
def test_a_root_alone_is_as_in_a_batch(kind, gumbel):
    toy, rng = Toy(5, 3, 0.2), np.random.default_rng(1)
    starts, legal = np.arange(6), draw_legal(rng, 6, 3)
    noise = draw_floats(rng, (6, 3))
    together = kind(6, 30, 3, MCTSSettings(gumbel=gumbel))
    play(toy, together, starts, legal, 4, 25, 3, gumbel=noise, budget=full(6, 25))
    for root in range(6):
        one = slice(root, root + 1)
        alone = kind(1, 30, 3, MCTSSettings(gumbel=gumbel))
        play(toy, alone, starts[one], legal[one], 4, 25, 3, gumbel=noise[one], budget=full(1, 25))
        mine = together.nodes()["root"] == root
        for name, values in alone.nodes().items():
            if name not in ("root", "parent", "page"):
                np.testing.assert_array_equal(values, together.nodes()[name][mine])
        np.testing.assert_array_equal(alone.best(), [answer[one] for answer in together.best()])


@needs_native
def test_any_number_of_threads_gives_the_same_trees():
    from jowa import _native

    toy, rng = Toy(5, 3, 0.2), np.random.default_rng(1)
    starts, legal = np.arange(300) % 7, draw_legal(rng, 300, 3)
    before, results = _native.num_threads(), []
    try:
        for threads in (1, 2, 5):
            _native.set_num_threads(threads)
            tree = NativeMCTSTree(300, 40, 3, MCTSSettings())
            play(toy, tree, starts, legal, 5, 30, 8)
            results.append({**tree.nodes(), "best": tree.best()[0]})
    finally:
        _native.set_num_threads(before)
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


@both
def test_leaves_of_a_round_differ_and_share_the_virtual_loss(kind):
    tree = kind(1, 10, 4, MCTSSettings(temperature=100.0))
    tree.start(np.ones(1, np.bool_), np.zeros((1, 4), np.float32), np.ones((1, 4), np.bool_), full(1, 2))
    chosen = tree.select(full(1, 4))
    assert chosen.actions.tolist() == [[0, 1, 2, 3]] and chosen.nodes.tolist() == [[1, 2, 3, 4]]
    assert chosen.depths.tolist() == [[0, 0, 0, 0]] and chosen.page_table[0, :, 0].tolist() == [0, 1, 2, 3]
    assert tree.best()[0].tolist() == [0] and not tree.nodes()["root"].size
    tree.backup(np.zeros((1, 4), np.float32), np.zeros((1, 4), np.bool_), np.zeros((1, 4, 4), np.float32))
    assert tree.simulations().tolist() == [4] and tree.root_children()["visits"].tolist() == [[1, 1, 1, 1]]
    chosen = tree.select(full(1, 2))
    assert chosen.parents.tolist() == [[1, 2]], "the second walk avoids the pending child"
    assert chosen.page_table.tolist() == [[[0, 4], [1, 5]]]


@both
def test_a_walk_into_a_pending_state_ends_the_round(kind):
    tree = kind(1, 10, 1, MCTSSettings())
    tree.start(np.ones(1, np.bool_), np.zeros((1, 1), np.float32), np.ones((1, 1), np.bool_), full(1, 4))
    assert tree.select(full(1, 3)).valid.tolist() == [[True, False, False]]


@both
def test_a_terminal_state_counts_at_once_and_needs_no_page(kind):
    tree = kind(1, 5, 1, MCTSSettings(gamma=0.5))
    tree.start(np.ones(1, np.bool_), np.ones((1, 1), np.float32), np.ones((1, 1), np.bool_), full(1, 4))
    tree.select(full(1, 1))
    tree.backup(np.ones((1, 1), np.float32), np.ones((1, 1), np.bool_), np.full((1, 1, 1), 9, np.float32))
    assert tree.nodes()["page"].tolist() == [-1] and tree.nodes()["value"].tolist() == [0.0]
    chosen = tree.select(full(1, 3))
    assert not chosen.valid.any() and tree.simulations().tolist() == [4]
    tree.backup(*(np.zeros((1, 3), dtype) for dtype in (np.float32, np.bool_)), np.zeros((1, 3, 1), np.float32))
    assert tree.root_children()["visits"].tolist() == [[4]] and tree.best()[1].tolist() == [1.0]
    assert not tree.advance(np.ones(1, np.bool_), np.zeros(1, np.int64))[0]


@both
def test_depth_budget_and_capacity_end_a_search(kind):
    toy, legal = Toy(0, 3, 0.0), np.ones((3, 3), np.bool_)
    tree = kind(3, 4, 3, MCTSSettings())
    tree.start(np.ones(3, np.bool_), toy.q[:3], legal, np.array([0, 3, 3]), budget=np.array([9, 2, 9]))
    assert tree.exhausted.tolist() == [True, False, False]
    assert tree.best()[0].tolist() == toy.q[:3].argmax(axis=1).tolist()
    for _ in range(20):
        chosen = tree.select(full(3, 2))
        shape = chosen.valid.shape
        tree.backup(np.zeros(shape, np.float32), np.zeros(shape, np.bool_), np.zeros((*shape, 3), np.float32))
    assert tree.exhausted.all() and tree.simulations().tolist() == [0, 2, 4]


@both
def test_a_fault_takes_its_root_out_and_leaves_the_others(kind):
    toy, legal = Toy(0, 3, 0.0), np.ones((6, 3), np.bool_)
    q, gumbel = toy.q[:6].copy(), np.zeros((6, 3), np.float32)
    q[1, 2], gumbel[2, 0] = np.inf, np.nan
    legal[3] = False
    tree = kind(6, 9, 3, MCTSSettings())
    tree.start(np.ones(6, np.bool_), q, legal, full(6, 3), gumbel=gumbel)
    assert tree.failed.tolist() == [0, 1, 5, 2, 0, 0] and "prior" in describe_fault(5)
    assert tree.best()[0][1:4].tolist() == [-1] * 3 and np.isnan(tree.best()[1][1:4]).all()

    def round_with(rewards: float, values: float) -> None:
        shape = tree.select(full(6, 2)).valid.shape
        given = [np.zeros(shape, np.float32), np.zeros(shape, np.bool_), np.zeros((*shape, 3), np.float32)]
        given[0][4, 0], given[2][5, 1, 0] = rewards, values
        tree.backup(*given)

    round_with(0.0, 0.0)
    before = [nodes["node"][np.isin(nodes["root"], (4, 5))] for nodes in (tree.nodes(),)]
    round_with(np.nan, np.inf)
    assert tree.failed.tolist() == [0, 1, 5, 2, 3, 1] and tree.exhausted[1:].all() and not tree.exhausted[0]
    after = [nodes["node"][np.isin(nodes["root"], (4, 5))] for nodes in (tree.nodes(),)]
    assert_same(after, before)
    assert tree.simulations().tolist() == [4, 0, 0, 0, 2, 2]
    tree.start(np.ones(6, np.bool_), toy.q[:6], np.ones((6, 3), np.bool_), full(6, 3))
    assert not tree.failed.any()


@both
def test_a_subtree_goes_on_where_it_was(kind):
    toy, legal = Toy(2, 3, 0.0), np.ones((1, 3), np.bool_)
    tree = kind(1, 30, 3, MCTSSettings())
    play(toy, tree, np.zeros(1, np.int64), legal, 6, 12)
    action = tree.best()[0]
    before = tree.nodes()
    assert tree.advance(np.ones(1, np.bool_), action).tolist() == [True]
    after, origins = tree.nodes(), tree.origins()[0]
    assert tree.simulations().tolist() == [0] and 0 < len(after["node"]) < len(before["node"])
    for name in ("depth", "action", "page", "visits", "reward", "value", "prior"):
        np.testing.assert_array_equal(after[name], before[name][origins[after["node"]] - 1])
    root_page = before["page"][origins[0] - 1]
    chosen = tree.select(full(1, 1))
    assert chosen.depths[0, 0] >= 1 and chosen.page_table[0, 0, 0] == root_page
    assert not set(chosen.page_table[0, 0, [chosen.depths[0, 0]]].tolist()) & set(after["page"].tolist())


def sequential_halving(considered: int, budget: int) -> list[int]:
    """Visits so far of the action that each simulation tries, by playing the halving out on a list of actions."""
    visits, alive, order = [0] * considered, list(range(considered)), []
    phases = max((considered - 1).bit_length(), 1)
    while len(order) < budget:
        for _ in range(max(1, budget // (phases * len(alive)))):
            for action in alive:
                order.append(visits[action])
                visits[action] += 1
        if considered > 1:
            alive = alive[: max(2, len(alive) // 2)]
    return order[:budget]


@given(st.integers(1, 20), st.integers(1, 120))
def test_the_schedule_is_sequential_halving(considered, budget):
    schedule = [considered_visits(considered, budget, index) for index in range(budget)]
    assert schedule == sequential_halving(considered, budget)


@both
@pytest.mark.parametrize(("c_visit", "c_scale"), [(0.0, 0.1), (50.0, 1.0)])
def test_a_gumbel_root_halves_by_noise_prior_and_value(kind, c_visit, c_scale):
    """One level, fixed values: the root's visits must be those of sequential halving over the same scores."""
    rng = np.random.default_rng(0)
    for considered, budget in ((4, 16), (6, 30), (1, 3), (8, 10)):
        q, gumbel = rng.normal(size=8).astype(np.float32), rng.gumbel(size=8).astype(np.float32)
        tree = kind(1, 16, 8, MCTSSettings(gumbel=True, gamma=1.0, c_visit=c_visit, c_scale=c_scale))
        tree.start(np.ones(1, np.bool_), q[None], np.ones((1, 8), np.bool_), full(1, 1), gumbel=gumbel[None],
                   budget=full(1, budget), considered=full(1, considered))  # fmt: skip
        while not tree.exhausted[0]:
            chosen = tree.select(full(1, 1))
            # Every value is what the critic said, so that Q never changes.
            tree.backup(q[chosen.actions], np.zeros((1, 1), np.bool_), np.zeros((1, 1, 8), np.float32))
        logits = gumbel.astype(np.float64) + np.log(tree.root_children()["priors"][0].astype(np.float64))
        scale = (q.astype(np.float64) - q.min()) / (float(q.max()) - float(q.min()))
        visits = np.zeros(8, np.int64)
        for count in sequential_halving(considered, budget):
            # Noise and prior choose whom to consider; values join in once each of those was tried.
            scores = logits + (c_visit + visits.max()) * c_scale * scale * (count > 0)
            scores[visits != count] = -np.inf
            visits[scores.argmax()] += 1
        assert tree.root_children()["visits"][0].tolist() == visits.tolist()
        scores = logits + (c_visit + visits.max()) * c_scale * scale
        assert tree.best()[0][0] == np.where(visits == visits.max(), scores, -np.inf).argmax()


@needs_native
def test_pages_stay_flat_over_10_000_searches():
    toy = Toy(1, 3, 0.1)
    tree = NativeMCTSTree(4, 12, 3, MCTSSettings())
    legal, active, seen = np.ones((4, 3), np.bool_), np.ones(4, np.bool_), {}
    for step in range(10_000):
        states = np.random.default_rng(step % 50).integers(0, 3**7, (4, 4))
        tree.start(active, toy.q[states[:, 0]], legal, full(4, 3))
        tables = []
        for _ in range(3):
            tables.append(tree.select(full(4, 4)).page_table.tobytes())
            tree.backup(toy.rewards[states], toy.ends[states], toy.q[states])
            tree.advance(active & (step % 3 == 0), tree.best()[0])
        assert seen.setdefault((step % 50, step % 3 == 0), tables) == tables, "pages of a search before were not freed"


@both
def test_wrong_arguments_are_named(kind):
    for arguments, name in (((0, 1, 1), "num_roots"), ((1, 0, 1), "capacity"), ((1, 1, 0), "num_actions")):
        with pytest.raises(ValueError, match=name):
            kind(*arguments)
    for name, value in (("gamma", 2.0), ("temperature", 0.0), ("c_base", -1.0), ("c_init", np.nan)):
        with pytest.raises(ValueError, match=name):
            MCTSSettings(**{name: value})
    tree = kind(2, 3, 3)
    q, legal, active = np.zeros((2, 3), np.float32), np.ones((2, 3), np.bool_), np.ones(2, np.bool_)
    with pytest.raises(TypeError, match="q must be a NumPy array of float32, got dtype float64"):
        tree.start(active, q.astype(np.float64), legal, full(2, 1))
    with pytest.raises(ValueError, match=r"priors must have shape \(2, 3\), got \(3, 2\)"):
        tree.start(active, q, legal, full(2, 1), priors=q.T.copy())
    with pytest.raises(RuntimeError, match="before select"):
        tree.backup(q[:, :1], legal[:, :1], q[:, None])
    tree.start(active, q, legal, full(2, 1))
    with pytest.raises(TypeError, match="leaves must be a NumPy array of int64, got list"):
        tree.select([1, 1])
    tree.select(full(2, 1))
    with pytest.raises(RuntimeError, match="twice"):
        tree.select(full(2, 1))
    for call in (lambda: tree.start(active, q, legal, full(2, 1)), lambda: tree.advance(active, full(2, 0))):
        with pytest.raises(RuntimeError, match="midst of a round"):
            call()
    with pytest.raises(ValueError, match=r"rewards must have shape \(2, 1\), got \(2, 2\)"):
        tree.backup(q[:, :2], legal[:, :1], q[:, None])
    with pytest.raises(ValueError, match="budget"):
        kind(2, 3, 3, MCTSSettings(gumbel=True)).start(active, q, legal, full(2, 1))


def test_make_mcts_tree_picks_the_native_core_where_it_was_built():
    assert isinstance(make_mcts_tree(1, 2, 18), NativeMCTSTree if native_available() else ReferenceMCTSTree)
