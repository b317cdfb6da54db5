"""Beam search over a batch of trees: the contract, the NumPy oracle, and the native core behind it.

Letters: R roots, K beam width, H horizon, A actions, M kept slots of the level being expanded (1 at
the root level, K after), C child slots of that level (M * K; child c descends from slot c // K).
Shapes, order and errors are the same in :class:`ReferenceBeamTree` and :class:`NativeBeamTree`.
Results for one root never depend on the other roots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

try:
    from jowa import _native
except ImportError:
    _native = None  # type: ignore[assignment]

Float = NDArray[np.float32]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]


class Expansion(NamedTuple):
    """The children that a level proposes.  Where not valid: a parent and an action that are safe to gather with."""

    parents: Int
    """int64 (R, C): the kept slot that the child descends from, c // K."""
    actions: Int
    """int64 (R, C): best first within a parent; 0 where not valid."""
    valid: Bool
    """bool (R, C)."""


class Kept(NamedTuple):
    """The next beam, best slot first; valid slots come before the others."""

    slots: Int
    """int64 (R, K): an index into the C children, or into the previous K slots where carried; 0 where not valid."""
    carried: Bool
    """bool (R, K): an ended node that stays in the beam."""
    valid: Bool
    """bool (R, K)."""
    alive: Bool
    """bool (R, K): valid and not ended, so the next level expands it."""


class Beam(NamedTuple):
    """The kept nodes in rank order, each with its path of actions from the root."""

    scores: Float
    """float32 (R, K); 0 where not valid."""
    actions: Int
    """int64 (R, K, H), padded with -1."""
    valid: Bool
    """bool (R, K)."""


class SearchTree(Protocol):
    """What a planner drives: ``expand``, imagine the children, ``keep``; until ``finished``; then ``best``.

    The score of a node at depth h is the sum of gamma^i r_i over its path + gamma^h V, and V counts as 0
    after an end.  With ``respect_ends`` false, ends are recorded and otherwise ignored, as published.
    """

    def reset(self) -> None:
        """Back to the roots alone, reusing the buffers."""

    def expand(self, q: Float, legal: Bool) -> Expansion:
        """Propose the K best legal actions of every live slot, ties to the lowest action.

        ``q`` float32 (R, M, A), ``legal`` bool (R, A).  What dead slots hold is ignored.  NaN at a legal
        action, or no legal action, is a ValueError that names the root and leaves the tree unchanged.
        """

    def keep(self, rewards: Float, ends: Bool, values: Float) -> Kept:
        """Score the children and keep the K best of them and of the ended nodes that the beam holds.

        All (R, C): float32 rewards of the step, bool ends, float32 V of the imagined state.  Ties: carried
        nodes first, then the lower slot.  What slots that are not valid hold is ignored.  A reward that is
        not finite or a NaN value is a ValueError that names the root and leaves the tree unchanged.
        """

    def decide_greedy(self, q: Float, legal: Bool) -> None:
        """The whole search for horizon 0: ``q`` float32 (R, A), ``legal`` bool (R, A)."""

    def finished(self) -> bool:
        """True after H levels, or when no root has a live slot."""

    def best(self) -> tuple[Int, Float]:
        """int64 (R,) the first action on the path to the best kept node; float32 (R,) that node's score."""

    def beam(self) -> Beam:
        """The beam as it stands."""

    def nodes(self) -> dict[str, NDArray[Any]]:
        """Every node evaluated so far, as flat arrays: root by root, in order of evaluation.

        int64 ``root``, ``parent`` (an index into these arrays, -1 for the root itself), ``depth`` (from 1),
        ``action``, ``rank`` (place in the last beam that held it, -1: never kept); float32 ``reward``,
        ``value``, ``score``; bool ``ended``.
        """


@dataclass
class _Node:
    """One evaluated state."""

    parent: int
    depth: int
    action: int
    reward: float
    ended: bool
    value: float
    discounted_return: float
    score: float
    rank: int = -1


class ReferenceBeamTree:
    """The oracle: :class:`SearchTree` in plain Python over NumPy arrays, one root at a time."""

    def __init__(
        self, num_roots: int, width: int, horizon: int, num_actions: int, gamma: float, respect_ends: bool
    ) -> None:
        least = {"num_roots": (num_roots, 1), "width": (width, 1), "horizon": (horizon, 0)}
        for name, (value, minimum) in {**least, "num_actions": (num_actions, 1)}.items():
            if value < minimum:
                raise ValueError(f"{name} must be at least {minimum}, got {value}")
        if not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma must lie in [0, 1], got {gamma!r}")
        self.num_roots, self.width, self.horizon, self.num_actions = num_roots, width, horizon, num_actions
        self.gamma, self.respect_ends = gamma, respect_ends
        self.reset()

    def reset(self) -> None:
        """See :meth:`SearchTree.reset`."""
        self._nodes: list[list[_Node]] = [[] for _ in range(self.num_roots)]
        self._kept: list[list[int]] = [[] for _ in range(self.num_roots)]
        self._pending: Expansion | None = None
        self._greedy: tuple[Int, Float] | None = None
        self._level = 0
        self._discount = 1.0

    def expand(self, q: Float, legal: Bool) -> Expansion:
        """See :meth:`SearchTree.expand`."""
        if self._pending is not None:
            raise RuntimeError("expand was called twice: call keep with the children's rewards, ends and values first")
        if self.finished():
            raise RuntimeError("the search is finished: read best() or beam(), or reset()")
        slots = 1 if self._level == 0 else self.width
        _check("q", q, np.float32, (self.num_roots, slots, self.num_actions))
        _check("legal", legal, np.bool_, (self.num_roots, self.num_actions))
        parents = np.tile(np.repeat(np.arange(slots), self.width), (self.num_roots, 1))
        actions = np.zeros((self.num_roots, slots * self.width), dtype=np.int64)
        valid = np.zeros_like(actions, dtype=np.bool_)
        for root in range(self.num_roots):
            for slot in range(slots):
                if self._live(root, slot):
                    chosen = _ranked_legal_actions(q[root, slot], legal[root], root)[: self.width]
                    first = slot * self.width
                    actions[root, first : first + len(chosen)] = chosen
                    valid[root, first : first + len(chosen)] = True
        self._pending = Expansion(parents, actions.copy(), valid.copy())  # the caller may write into its arrays
        return Expansion(parents, actions, valid)

    def keep(self, rewards: Float, ends: Bool, values: Float) -> Kept:
        """See :meth:`SearchTree.keep`."""
        if self._pending is None:
            raise RuntimeError("keep was called before expand: there are no children to keep")
        valid = self._pending.valid
        _check("rewards", rewards, np.float32, valid.shape)
        _check("ends", ends, np.bool_, valid.shape)
        _check("values", values, np.float32, valid.shape)
        for root in range(self.num_roots):
            if not np.isfinite(rewards[root][valid[root]]).all():
                raise ValueError(f"rewards of root {root} are not finite in a valid slot; the tree is unchanged")
            if np.isnan(values[root][valid[root]]).any():
                raise ValueError(f"values of root {root} are NaN in a valid slot; the tree is unchanged")
        shape = (self.num_roots, self.width)
        kept = Kept(np.zeros(shape, np.int64), *(np.zeros(shape, np.bool_) for _ in range(3)))
        for root in range(self.num_roots):
            self._keep_root(root, rewards[root], ends[root], values[root], kept)
        self._level += 1
        self._discount *= self.gamma
        self._pending = None
        return kept

    def _keep_root(self, root: int, rewards: Float, ends: Bool, values: Float, out: Kept) -> None:
        """Evaluate one root's children (arrays (C,)), choose its next beam and write its row of ``out``."""
        assert self._pending is not None
        nodes, held = self._nodes[root], self._kept[root]
        candidates = [(node, slot, True) for slot, node in enumerate(held) if self._dead(nodes[node])]
        for child in np.flatnonzero(self._pending.valid[root]).tolist():
            parent = -1 if self._level == 0 else held[child // self.width]
            action = int(self._pending.actions[root, child])
            reward, ended, value = float(rewards[child]), bool(ends[child]), float(values[child])
            past = nodes[parent].discounted_return if parent >= 0 else 0.0
            total = past + self._discount * reward
            node = _Node(parent, self._level + 1, action, reward, ended, value, total, total)
            discount = self._discount * self.gamma
            if discount and not self._dead(node):  # a discount of 0 silences even an infinite value
                node.score = total + discount * value
            candidates.append((len(nodes), child, False))
            nodes.append(node)
        candidates.sort(key=lambda candidate: -nodes[candidate[0]].score)
        self._kept[root] = []
        for rank, (node_index, slot, carried) in enumerate(candidates[: self.width]):
            nodes[node_index].rank = rank
            self._kept[root].append(node_index)
            out.slots[root, rank], out.carried[root, rank] = slot, carried
            out.valid[root, rank], out.alive[root, rank] = True, not self._dead(nodes[node_index])

    def decide_greedy(self, q: Float, legal: Bool) -> None:
        """See :meth:`SearchTree.decide_greedy`."""
        if self.horizon:
            raise RuntimeError("decide_greedy is for horizon 0: use expand and keep")
        _check("q", q, np.float32, (self.num_roots, self.num_actions))
        _check("legal", legal, np.bool_, (self.num_roots, self.num_actions))
        best = [_ranked_legal_actions(q[root], legal[root], root)[0] for root in range(self.num_roots)]
        action = np.array(best, dtype=np.int64)
        self._greedy = action, q[np.arange(self.num_roots), action]

    def finished(self) -> bool:
        """See :meth:`SearchTree.finished`."""
        slots = 1 if self._level == 0 else self.width
        live = (self._live(root, slot) for root in range(self.num_roots) for slot in range(slots))
        return self._level >= self.horizon or not any(live)

    def best(self) -> tuple[Int, Float]:
        """See :meth:`SearchTree.best`."""
        if self._greedy is not None:
            return self._greedy[0].copy(), self._greedy[1].copy()
        beam = self.beam()
        return beam.actions[:, 0, 0].copy(), beam.scores[:, 0].copy()

    def beam(self) -> Beam:
        """See :meth:`SearchTree.beam`."""
        shape = (self.num_roots, self.width)
        beam = Beam(np.zeros(shape, np.float32), np.full((*shape, self.horizon), -1), np.zeros(shape, np.bool_))
        if self._greedy is not None:
            beam.scores[:, 0], beam.valid[:, 0] = self._greedy[1], True
        elif self._level == 0:
            raise RuntimeError("nothing was decided yet: call expand and keep (or decide_greedy for horizon 0) first")
        for root in range(self.num_roots):
            for slot, index in enumerate(self._kept[root]):
                beam.scores[root, slot], beam.valid[root, slot] = self._nodes[root][index].score, True
                while index >= 0:
                    node = self._nodes[root][index]
                    beam.actions[root, slot, node.depth - 1] = node.action
                    index = node.parent
        return beam

    def nodes(self) -> dict[str, NDArray[Any]]:
        """See :meth:`SearchTree.nodes`."""
        flat = [(root, node) for root, nodes in enumerate(self._nodes) for node in nodes]
        offsets = np.cumsum([0, *(len(nodes) for nodes in self._nodes)])
        parents = [node.parent if node.parent < 0 else offsets[root] + node.parent for root, node in flat]
        arrays = {"root": np.array([root for root, _ in flat], np.int64), "parent": np.array(parents, np.int64)}
        dtypes = {"depth": np.int64, "action": np.int64, "reward": np.float32, "ended": np.bool_}
        for name, dtype in {**dtypes, "value": np.float32, "score": np.float32, "rank": np.int64}.items():
            arrays[name] = np.array([getattr(node, name) for _, node in flat], dtype)
        return arrays

    def _dead(self, node: _Node) -> bool:
        return self.respect_ends and node.ended

    def _live(self, root: int, slot: int) -> bool:
        if self._level == 0:
            return True
        return slot < len(self._kept[root]) and not self._dead(self._nodes[root][self._kept[root][slot]])


class NativeBeamTree:
    """:class:`SearchTree` in C++ (csrc/beam.cpp), without the interpreter's lock while it works."""

    def __init__(
        self, num_roots: int, width: int, horizon: int, num_actions: int, gamma: float, respect_ends: bool
    ) -> None:
        if _native is None:
            raise RuntimeError("jowa was installed without its native core: run pip install -e . in the checkout")
        self._tree = _native.BeamTree(num_roots, width, horizon, num_actions, gamma, respect_ends)
        self.reset, self.decide_greedy, self.finished = self._tree.reset, self._tree.decide_greedy, self._tree.finished
        self.best, self.nodes = self._tree.best, self._tree.nodes

    def expand(self, q: Float, legal: Bool) -> Expansion:
        """See :meth:`SearchTree.expand`."""
        return Expansion(*self._tree.expand(q, legal))

    def keep(self, rewards: Float, ends: Bool, values: Float) -> Kept:
        """See :meth:`SearchTree.keep`."""
        return Kept(*self._tree.keep(rewards, ends, values))

    def beam(self) -> Beam:
        """See :meth:`SearchTree.beam`."""
        return Beam(*self._tree.beam())


def native_available() -> bool:
    """True when the native core was built and imports."""
    return _native is not None


def make_tree(
    num_roots: int, width: int, horizon: int, num_actions: int, gamma: float, respect_ends: bool = True
) -> SearchTree:
    """A batch of ``num_roots`` beam searches: native where it was built, the oracle elsewhere."""
    kind = NativeBeamTree if native_available() else ReferenceBeamTree
    return kind(num_roots, width, horizon, num_actions, gamma, respect_ends)


def _check(name: str, array: object, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Raise a TypeError or ValueError that names the argument unless dtype and shape are exactly these."""
    expected = np.dtype(dtype).name
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array of {expected}, got {type(array).__name__}")
    if array.dtype != expected:
        raise TypeError(f"{name} must be a NumPy array of {expected}, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")


def _ranked_legal_actions(q: Float, legal: Bool, root: int) -> list[int]:
    """The legal actions by ``q`` (A,), best first, ties to the lowest; ``legal`` (A,)."""
    actions = np.flatnonzero(legal)
    if not actions.size:
        raise ValueError(f"legal of root {root} allows no action; the tree is unchanged")
    if np.isnan(q[actions]).any():
        raise ValueError(f"q of root {root} is NaN for a legal action; the tree is unchanged")
    return [int(action) for action in actions[np.argsort(-q[actions], kind="stable")]]
