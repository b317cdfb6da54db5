"""The oracle of Monte-Carlo tree search: a batch of :class:`jowa.planner.mcts_root.RootSearch`."""

from __future__ import annotations

import numpy as np

from jowa.planner.mcts_root import RootSearch
from jowa.planner.mcts_tree import (
    MCTSSettings,
    Selection,
    check_budget,
    check_mcts_arguments,
    empty_selection,
    greatest_depth,
)
from jowa.planner.tree_state import Arrays, Bool, Float, Int, Int32, check


class ReferenceMCTSTree:
    """:class:`jowa.planner.mcts_tree.MCTSTreeProtocol` where speed does not matter."""

    def __init__(self, num_roots: int, capacity: int, num_actions: int, settings: MCTSSettings | None = None) -> None:
        check_mcts_arguments(num_roots, capacity, num_actions)
        self.num_roots, self.capacity, self.num_actions = num_roots, capacity, num_actions
        self.settings = settings or MCTSSettings()
        self._trees = [RootSearch(capacity, self.settings) for _ in range(num_roots)]
        self._columns = 1
        self._selection: Selection | None = None

    @property
    def pages_per_root(self) -> int:
        """See :attr:`MCTSTreeProtocol.pages_per_root`."""
        return self.capacity

    @property
    def failed(self) -> Int:
        """See :attr:`MCTSTreeProtocol.failed`."""
        return np.array([tree.failed for tree in self._trees], np.int64)

    @property
    def exhausted(self) -> Bool:
        """See :attr:`MCTSTreeProtocol.exhausted`."""
        return np.array([tree.exhausted for tree in self._trees])

    def start(
        self,
        active: Bool,
        q: Float,
        legal: Bool,
        max_depth: Int,
        priors: Float | None = None,
        gumbel: Float | None = None,
        budget: Int | None = None,
        considered: Int | None = None,
    ) -> None:
        """See :meth:`MCTSTreeProtocol.start`."""
        if self._selection:
            raise RuntimeError("start was called in the midst of a round: call backup first")
        check_budget(self.settings, budget)
        check("active", active, np.bool_, (self.num_roots,))
        check("max_depth", max_depth, np.int64, (self.num_roots,))
        check("q", q, np.float32, (self.num_roots, self.num_actions))
        check("legal", legal, np.bool_, (self.num_roots, self.num_actions))
        for name, floats in {"priors": priors, "gumbel": gumbel}.items():
            if floats is not None:
                check(name, floats, np.float32, (self.num_roots, self.num_actions))
        for name, integers in {"budget": budget, "considered": considered}.items():
            if integers is not None:
                check(name, integers, np.int64, (self.num_roots,))
        for root in np.flatnonzero(active).tolist():
            self._trees[root].start(
                q[root], legal[root], int(max_depth[root]), None if priors is None else priors[root],
                None if gumbel is None else gumbel[root], -1 if budget is None else int(budget[root]),
                None if considered is None else int(considered[root]),
            )  # fmt: skip
        others = any(tree.nodes for tree, begun in zip(self._trees, active, strict=True) if not begun)
        self._columns = greatest_depth(max_depth, active, self._columns, others)

    def select(self, leaves: Int) -> Selection:
        """See :meth:`MCTSTreeProtocol.select`."""
        if self._selection:
            raise RuntimeError("select was called twice: call backup with the leaves' rewards, ends and q first")
        check("leaves", leaves, np.int64, (self.num_roots,))
        out = empty_selection((self.num_roots, max(int(leaves.max()), 1), self._columns))
        for array in (out.nodes, out.parents, out.actions, out.valid):
            array.fill(0)
        out.page_table.fill(-1)
        out.depths.fill(-1)
        for root, tree in enumerate(self._trees):
            tree.select(int(leaves[root]))
            index = {id(node): i for i, node in enumerate(tree.nodes)}
            for row, leaf in enumerate(tree.leaves):
                pages = [*tree.trail, *(node.page for node in reversed(leaf.path()[:-1]))]
                out.nodes[root, row], out.parents[root, row] = index[id(leaf)], index[id(leaf.parent)]
                out.actions[root, row], out.valid[root, row] = leaf.action, True
                out.page_table[root, row, : len(pages)] = np.array(pages) + root * self.capacity
                out.depths[root, row] = len(pages) - 1
        self._selection = out
        return out

    def backup(self, rewards: Float, ends: Bool, q: Float) -> None:
        """See :meth:`MCTSTreeProtocol.backup`."""
        if not self._selection:
            raise RuntimeError("backup was called before select: there are no leaves to evaluate")
        rows = self._selection.valid.shape
        check("rewards", rewards, np.float32, rows)
        check("ends", ends, np.bool_, rows)
        check("q", q, np.float32, (*rows, self.num_actions))
        for root, tree in enumerate(self._trees):
            tree.backup(rewards[root], ends[root], q[root])
        self._selection = None

    def simulations(self) -> Int:
        """See :meth:`MCTSTreeProtocol.simulations`."""
        return np.array([tree.simulations for tree in self._trees], np.int64)

    def best(self) -> tuple[Int, Float]:
        """See :meth:`MCTSTreeProtocol.best`."""
        answers = [tree.best() for tree in self._trees]
        return np.array([a for a, _ in answers], np.int64), np.array([q for _, q in answers], np.float32)

    def root_children(self) -> Arrays:
        """See :meth:`MCTSTreeProtocol.root_children`."""
        shape = (self.num_roots, self.num_actions)
        visits, q = np.zeros(shape, np.int64), np.full(shape, np.nan, np.float32)
        priors = np.zeros(shape, np.float32)
        for root, tree in enumerate(self._trees):
            if tree.nodes:
                priors[root] = tree.nodes[0].priors
                for action, child in tree.nodes[0].children.items():
                    visits[root, action] = child.visits
                    q[root, action] = tree.edge_q(tree.nodes[0], action) if child.visits else np.nan
        return {"visits": visits, "q": q, "priors": priors}

    def nodes(self) -> Arrays:
        """See :meth:`MCTSTreeProtocol.nodes`."""
        rows: dict[str, list[float]] = {name: [] for name in _NODE_DTYPES}
        for root, tree in enumerate(self._trees):
            offset, index = len(rows["root"]), {id(node): i for i, node in enumerate(tree.nodes)}
            for node in (node for node in tree.nodes if node.visits and node.parent):
                parent, mean = node.parent, node.value_sum / node.visits
                assert parent
                row = {
                    "root": root, "node": index[id(node)], "depth": node.depth, "action": node.action,
                    "parent": offset + index[id(parent)] - 1 if parent.parent else -1, "visits": node.visits,
                    "page": node.page + root * self.capacity if node.page >= 0 else -1, "reward": node.reward,
                    "value": mean, "score": node.reward + self.settings.gamma * mean, "ended": node.ended,
                    "prior": float(parent.priors[node.action]),
                }  # fmt: skip
                for name, value in row.items():
                    rows[name].append(value)
        return {name: np.array(rows[name], dtype) for name, dtype in _NODE_DTYPES.items()}

    def advance(self, mask: Bool, actions: Int, gumbel: Float | None = None) -> Bool:
        """See :meth:`MCTSTreeProtocol.advance`."""
        if self._selection:
            raise RuntimeError("advance was called in the midst of a round: call backup first")
        check("mask", mask, np.bool_, (self.num_roots,))
        check("actions", actions, np.int64, (self.num_roots,))
        if gumbel is not None:
            check("gumbel", gumbel, np.float32, (self.num_roots, self.num_actions))
        kept = np.zeros(self.num_roots, np.bool_)
        for root, tree in enumerate(self._trees):
            for index, node in enumerate(tree.nodes):
                node.origin = index
            if mask[root]:
                kept[root] = tree.advance(int(actions[root]), None if gumbel is None else gumbel[root])
        return kept

    def origins(self) -> Int32:
        """See :meth:`MCTSTreeProtocol.origins`."""
        out = np.full((self.num_roots, self.capacity + 1), -1, np.int32)
        for root, tree in enumerate(self._trees):
            out[root, : len(tree.nodes)] = [node.origin for node in tree.nodes]
        return out


_INTEGERS = ("root", "parent", "node", "depth", "action", "page", "visits")
_NODE_DTYPES: dict[str, type[np.generic]] = {
    **dict.fromkeys(_INTEGERS, np.int64), "reward": np.float32, "ended": np.bool_, "value": np.float32,
    "score": np.float32, "prior": np.float32,
}  # fmt: skip
