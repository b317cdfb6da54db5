"""The oracle of beam search: plain Python over NumPy arrays, one root at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from jowa.planner.beam_tree import Beam, Expansion, Kept, check_beam_arguments
from jowa.planner.tree_state import (
    BAD_Q,
    BAD_REWARD,
    NAN_VALUE,
    NO_LEGAL_ACTION,
    Arrays,
    Bool,
    Float,
    Int,
    check,
)


@dataclass
class _Node:
    """One evaluated state."""

    parent: int
    depth: int
    action: int
    page: int
    reward: float
    ended: bool
    value: float
    discounted_return: float
    score: float
    rank: int = -1


@dataclass
class _Child:
    """A proposal: what a slot of the level holds."""

    action: int
    page: int
    q: float


@dataclass
class _Root:
    """The search of one root."""

    width: int
    horizon: int
    failed: int = 0
    greedy: tuple[int, float] = (-1, float("nan"))
    nodes: list[_Node] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    children: dict[int, _Child] = field(default_factory=dict)
    pages: set[int] = field(default_factory=set)

    def path(self, index: int) -> list[_Node]:
        """The node's ancestors and itself, the root's child first."""
        path: list[_Node] = []
        while index >= 0:
            path.insert(0, self.nodes[index])
            index = self.nodes[index].parent
        return path


class ReferenceBeamTree:
    """:class:`jowa.planner.beam_tree.BeamTreeProtocol` where speed does not matter."""

    def __init__(
        self, widths: Int, horizons: Int, num_actions: int, gamma: float = 0.99, respect_ends: bool = True,
        td_lambda: float = 1.0,
    ) -> None:  # fmt: skip
        check_beam_arguments(widths, horizons, num_actions, gamma, td_lambda)
        self._widths, self._horizons = widths.tolist(), horizons.tolist()
        self.num_roots, self.num_actions = len(widths), num_actions
        self.width, self.horizon = int(widths.max()), int(horizons.max())
        self.pages_per_root = max(self._pages(w, h) for w, h in zip(self._widths, self._horizons, strict=True))
        self.gamma, self.td_lambda, self.respect_ends = gamma, td_lambda, respect_ends
        self.reset()

    def _pages(self, width: int, horizon: int) -> int:
        """Kept nodes' pages at every depth before the last level's parents, and one level of children."""
        if horizon == 0:
            return 0
        held = [min(width, self.num_actions**depth) for depth in range(horizon)]
        return sum(held[1:]) + held[-1] * min(width, self.num_actions)

    def reset(self) -> None:
        """See :meth:`BeamTreeProtocol.reset`."""
        self._roots = [_Root(w, h) for w, h in zip(self._widths, self._horizons, strict=True)]
        self._pending = False
        self._level = 0
        self._discount = 1.0

    @property
    def failed(self) -> Int:
        """See :attr:`BeamTreeProtocol.failed`."""
        return np.array([root.failed for root in self._roots], np.int64)

    def expand(self, q: Float, legal: Bool) -> Expansion:
        """See :meth:`BeamTreeProtocol.expand`."""
        if self._pending:
            raise RuntimeError("expand was called twice: call keep with the children's rewards, ends and values first")
        if self.finished():
            raise RuntimeError("the search is finished: read best() or beam(), or reset()")
        slots = self._slots()
        check("q", q, np.float32, (self.num_roots, slots, self.num_actions))
        check("legal", legal, np.bool_, (self.num_roots, self.num_actions))
        shape = (self.num_roots, slots * self.width)
        out = Expansion(
            np.tile(np.repeat(np.arange(slots), self.width), (self.num_roots, 1)),
            np.zeros(shape, np.int64),
            np.zeros(shape, np.bool_),
            np.full((*shape, max(self.horizon, 1)), -1, np.int32),
            np.full(shape, -1, np.int32),
        )
        for index, root in enumerate(self._roots):
            self._expand_root(root, index, q[index], legal[index], out)
        self._pending = True
        return out

    def _expand_root(self, root: _Root, index: int, q: Float, legal: Bool, out: Expansion) -> None:
        """Propose one root's children from ``q`` (M, A) and ``legal`` (A,), in its row of ``out``."""
        root.children = {}
        live = [slot for slot in range(self._slots()) if self._live(root, slot)]
        decide = self._level == 0 and not root.failed
        if not root.failed:
            scored = self.td_lambda < 1
            root.failed = next((f for slot in ([0] if decide else live) if (f := _fault(q[slot], legal, scored))), 0)
        if root.failed:
            return
        if decide:
            action = _ranked_legal_actions(q[0], legal)[0]
            root.greedy = action, float(q[0, action])
        for slot in live:
            path = root.path(root.kept[slot]) if self._level else []
            for place, action in enumerate(_ranked_legal_actions(q[slot], legal)[: root.width]):
                child = slot * self.width + place
                page = next(page for page in range(self.pages_per_root) if page not in root.pages)
                root.pages.add(page)
                root.children[child] = _Child(action, page, float(q[slot, action]))
                pages = [*(node.page for node in path), page]
                out.actions[index, child], out.valid[index, child] = action, True
                out.page_table[index, child, : len(pages)] = np.array(pages) + index * self.pages_per_root
                out.depths[index, child] = len(path)

    def keep(self, rewards: Float, ends: Bool, values: Float) -> Kept:
        """See :meth:`BeamTreeProtocol.keep`."""
        if not self._pending:
            raise RuntimeError("keep was called before expand: there are no children to keep")
        shape = (self.num_roots, self._slots() * self.width)
        check("rewards", rewards, np.float32, shape)
        check("ends", ends, np.bool_, shape)
        check("values", values, np.float32, shape)
        shape = (self.num_roots, self.width)
        kept = Kept(np.zeros(shape, np.int64), *(np.zeros(shape, np.bool_) for _ in range(3)))
        origins = [
            self._keep_root(root, rewards[index], ends[index], values[index]) for index, root in enumerate(self._roots)
        ]
        self._level += 1
        self._discount *= self.gamma * self.td_lambda
        self._pending = False
        for index, root in enumerate(self._roots):
            root.pages = set()
            for rank, (slot, carried) in enumerate(origins[index]):
                kept.slots[index, rank], kept.carried[index, rank], kept.valid[index, rank] = slot, carried, True
                if self._live(root, rank):
                    kept.alive[index, rank] = True
                    root.pages |= {node.page for node in root.path(root.kept[rank])}
        return kept

    def _keep_root(self, root: _Root, rewards: Float, ends: Bool, values: Float) -> list[tuple[int, bool]]:
        """Evaluate one root's children (arrays (C,)) and choose its next beam; (slot, carried) of each place."""
        if self._searching(root):
            for child in root.children:
                if not np.isfinite(rewards[child]):
                    root.failed = BAD_REWARD
                elif np.isnan(values[child]):
                    root.failed = NAN_VALUE
                if root.failed:
                    break
        if not self._searching(root):
            return [(slot, True) for slot in range(len(root.kept))]
        candidates = [(node, slot, True) for slot, node in enumerate(root.kept) if self._dead(root.nodes[node])]
        for child, proposal in root.children.items():
            reward, value = float(rewards[child]), float(values[child])
            candidates.append((len(root.nodes), child, False))
            root.nodes.append(self._evaluate(root, child, proposal, reward, bool(ends[child]), value))
        candidates.sort(key=lambda candidate: -root.nodes[candidate[0]].score)
        candidates = candidates[: root.width]
        root.kept = [node for node, _, _ in candidates]
        for rank, node in enumerate(root.kept):
            root.nodes[node].rank = rank
        return [(slot, carried) for _, slot, carried in candidates]

    def _evaluate(self, root: _Root, child: int, proposal: _Child, reward: float, ended: bool, value: float) -> _Node:
        """The node of a child, with its score."""
        parent = -1 if self._level == 0 else root.kept[child // self.width]
        past = root.nodes[parent].discounted_return if parent >= 0 else 0.0
        total = past + self._discount * ((1.0 - self.td_lambda) * proposal.q + self.td_lambda * reward)
        if self.td_lambda == 1:  # also where q is infinite
            total = past + self._discount * reward
        node = _Node(parent, self._level + 1, proposal.action, proposal.page, reward, ended, value, total, total)
        discount = self._discount * (self.gamma * self.td_lambda)
        if discount and not self._dead(node):  # a discount of 0 silences even an infinite value
            node.score = total + discount * value
        return node

    def finished(self) -> bool:
        """See :meth:`BeamTreeProtocol.finished`."""
        if self._level == 0 and not self._pending:
            return False
        return not any(self._live(root, slot) for root in self._roots for slot in range(self._slots()))

    def best(self) -> tuple[Int, Float]:
        """See :meth:`BeamTreeProtocol.best`."""
        answers = [
            (root.path(root.kept[0])[0].action, root.nodes[root.kept[0]].score) if root.kept else root.greedy
            for root in self._roots
        ]
        return np.array([a for a, _ in answers], np.int64), np.array([s for _, s in answers], np.float32)

    def beam(self) -> Beam:
        """See :meth:`BeamTreeProtocol.beam`."""
        shape = (self.num_roots, self.width)
        beam = Beam(np.zeros(shape, np.float32), np.full((*shape, self.horizon), -1), np.zeros(shape, np.bool_))
        for index, root in enumerate(self._roots):
            if not root.kept and root.greedy[0] >= 0:
                beam.scores[index, 0], beam.valid[index, 0] = root.greedy[1], True
                beam.actions[index, 0, :1] = root.greedy[0]
            for slot, node in enumerate(root.kept):
                beam.scores[index, slot], beam.valid[index, slot] = root.nodes[node].score, True
                actions = [step.action for step in root.path(node)]
                beam.actions[index, slot, : len(actions)] = actions
        return beam

    def nodes(self) -> Arrays:
        """See :meth:`BeamTreeProtocol.nodes`."""
        flat = [(index, node) for index, root in enumerate(self._roots) for node in root.nodes]
        offsets = np.cumsum([0, *(len(root.nodes) for root in self._roots)])
        parents = [node.parent if node.parent < 0 else offsets[index] + node.parent for index, node in flat]
        arrays: Arrays = {"root": np.array([index for index, _ in flat], np.int64)}
        arrays["parent"] = np.array(parents, np.int64)
        integers, floats = ("depth", "action", "rank"), ("reward", "value", "score")
        dtypes = {**dict.fromkeys(integers, np.int64), **dict.fromkeys(floats, np.float32), "ended": np.bool_}
        for name, dtype in dtypes.items():
            arrays[name] = np.array([getattr(node, name) for _, node in flat], dtype)
        return arrays

    def _slots(self) -> int:
        return 1 if self._level == 0 else self.width

    def _dead(self, node: _Node) -> bool:
        return self.respect_ends and node.ended

    def _searching(self, root: _Root) -> bool:
        return not root.failed and self._level < root.horizon

    def _live(self, root: _Root, slot: int) -> bool:
        if not self._searching(root) or self._level == 0:
            return self._searching(root)
        return slot < len(root.kept) and not self._dead(root.nodes[root.kept[slot]])


def _fault(q: Float, legal: Bool, scored: bool) -> int:
    """What keeps ``q`` (A,) and ``legal`` (A,) from being expanded, and from being ``scored``; 0: nothing."""
    if not legal.any():
        return NO_LEGAL_ACTION
    bad = ~np.isfinite(q[legal]) if scored else np.isnan(q[legal])
    return BAD_Q if bad.any() else 0


def _ranked_legal_actions(q: Float, legal: Bool) -> list[int]:
    """The legal actions by ``q`` (A,), best first, ties to the lowest; ``legal`` (A,)."""
    actions = np.flatnonzero(legal)
    return [int(action) for action in actions[np.argsort(-q[actions], kind="stable")]]
