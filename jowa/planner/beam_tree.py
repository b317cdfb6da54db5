"""Beam search over a batch of trees: the contract, and the native core behind it.

Letters: R roots, K the widest beam, H the farthest horizon, A actions, M kept slots of the level being expanded (1 at
the root level, K after), C child slots of that level (M * K; child c descends from slot c // K), P pages of a root,
J = max(H, 1) slots of a page table's row.
Results for one root never depend on the other roots, and :class:`NativeBeamTree` agrees with
:class:`jowa.planner.beam_oracle.ReferenceBeamTree` to the last bit.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from jowa.planner.tree_state import (
    Arrays,
    Bool,
    Float,
    Int,
    Int32,
    addresses,
    array_argument,
    check,
    check_at_least,
    check_unit,
    flat_nodes,
    native,
    require_native,
    views,
)


class Expansion(NamedTuple):
    """The children that a level proposes.  Where not valid: a parent and an action that are safe to gather with."""

    parents: Int
    """int64 (R, C): the kept slot that the child descends from, c // K."""
    actions: Int
    """int64 (R, C): best first within a parent; 0 where not valid."""
    valid: Bool
    """bool (R, C)."""
    page_table: Int32
    """int32 (R, C, J): pages of the child's imagined ancestors, the root's child first, then its own; -1 beyond."""
    depths: Int32
    """int32 (R, C): imagined ancestors of the child, so ``page_table[r, c, depths[r, c]]`` is its own; -1: idle."""


class Kept(NamedTuple):
    """The next beam, best slot first; valid slots come before the others."""

    slots: Int
    """int64 (R, K): an index into the C children, or into the previous K slots where carried; 0 where not valid."""
    carried: Bool
    """bool (R, K): a node that stays in the beam: it has ended, or its root's search has."""
    valid: Bool
    """bool (R, K)."""
    alive: Bool
    """bool (R, K): the next level expands it: valid, not ended, its root not failed and not at its horizon."""


class Beam(NamedTuple):
    """The kept nodes in rank order, each with its path of actions from the root.

    A root that has kept nothing yet (horizon 0 never does) shows its greedy action, with its Q as the score.
    """

    scores: Float
    """float32 (R, K); 0 where not valid."""
    actions: Int
    """int64 (R, K, H), padded with -1."""
    valid: Bool
    """bool (R, K)."""


class BeamTreeProtocol(Protocol):
    """What a planner drives: ``expand``, imagine the children, ``keep``; until ``finished``; then ``best``.

    The score of a node at depth h is the sum of gamma^i r_i over its path + gamma^h V, and V counts as 0
    after an end.  With ``td_lambda`` l below 1 it is the lambda-return of the path (Sutton & Barto, section 12.1): the
    same sum with gamma * l for gamma and (1 - l) q + l r for r, q being that by which the step was proposed.
    With ``respect_ends`` false, ends are recorded and otherwise ignored, as published.

    A root may be narrower or nearer its horizon than others: it leaves slots invalid, and at its horizon its beam
    stays as it is.  Horizon 0 decides greedily by the q of the first ``expand``.

    A root that is given NaN, a reward that is not finite, with ``td_lambda`` below 1 an infinite q, or no legal action
    is marked in ``failed`` and taken out of the search, its tree as it was before; the others go on.  Wrong shapes or
    dtypes raise, and change nothing.

    Pages: root r owns the ids from r * P to (r + 1) * P.  Every proposed child gets the lowest that is free;
    after ``keep`` only those that a node alive descends from (itself included) stay taken.
    """

    num_roots: int
    width: int
    horizon: int
    num_actions: int
    pages_per_root: int
    """P: the least with which the widest and deepest root can never run out."""

    @property
    def failed(self) -> Int:
        """int64 (R,): 0, or why the root was taken out of the search (``describe_fault``)."""
        ...

    def reset(self) -> None:
        """Back to the roots alone, reusing the buffers."""

    def expand(self, q: Float, legal: Bool) -> Expansion:
        """Propose the best legal actions of every live slot, as many as the root is wide, ties to the lowest action.

        ``q`` float32 (R, M, A), ``legal`` bool (R, A).  What dead slots and illegal actions hold is ignored.
        The arrays of the answer are valid until the next ``expand``.
        """
        ...

    def keep(self, rewards: Float, ends: Bool, values: Float) -> Kept:
        """Score the children and keep the best of them and of the ended nodes that the beam holds.

        All (R, C): float32 rewards of the step, bool ends, float32 V of the imagined state.  Ties: carried nodes
        first, then the lower slot.  What slots that are not valid hold is ignored.  The arrays of the answer are
        valid until the next ``keep``.
        """
        ...

    def finished(self) -> bool:
        """True when no slot of any root is left to expand; never before the first ``expand``."""
        ...

    def best(self) -> tuple[Int, Float]:
        """int64 (R,) the first action on the path to the best kept node; float32 (R,) that node's score.

        Answers at any time: before the first ``keep`` the greedy action and its Q; -1 and NaN for a root of which
        nothing is known (nothing was expanded, or the root failed then).
        """
        ...

    def beam(self) -> Beam:
        """The beam as it stands."""
        ...

    def nodes(self) -> Arrays:
        """Every node evaluated so far, as flat arrays: root by root, in order of evaluation.

        int64 ``root``, ``parent`` (an index into these arrays, -1 for the root itself), ``depth`` (from 1),
        ``action``, ``rank`` (place in the last beam that held it, -1: never kept); float32 ``reward``,
        ``value``, ``score``; bool ``ended``.
        """
        ...


def check_beam_arguments(widths: Int, horizons: Int, num_actions: int, gamma: float, td_lambda: float) -> None:
    """Raise a TypeError or ValueError that names the argument of a beam tree that is wrong."""
    roots = len(widths) if isinstance(widths, np.ndarray) and widths.ndim == 1 else 1
    check_at_least("num_roots", roots, 1)
    check("widths", widths, np.int64, (roots,))
    check("horizons", horizons, np.int64, (roots,))
    check_at_least("widths", int(widths.min()), 1)
    check_at_least("horizons", int(horizons.min()), 0)
    check_at_least("num_actions", num_actions, 1)
    check_unit("gamma", gamma)
    check_unit("td_lambda", td_lambda)


class NativeBeamTree:
    """:class:`BeamTreeProtocol` in C++ (csrc/beam_search.h), on all threads, without the interpreter's lock."""

    def __init__(
        self, widths: Int, horizons: Int, num_actions: int, gamma: float = 0.99, respect_ends: bool = True,
        td_lambda: float = 1.0,
    ) -> None:  # fmt: skip
        require_native()
        check_beam_arguments(widths, horizons, num_actions, gamma, td_lambda)
        self._tree = native.BeamTree(
            widths.tolist(), horizons.tolist(), num_actions, gamma, td_lambda, respect_ends, False
        )
        self.num_roots, self.num_actions = len(widths), num_actions
        self.width, self.horizon = int(widths.max()), int(horizons.max())
        self.pages_per_root = self._tree.pages_per_root
        self._state = np.zeros(self._tree.state_bytes, np.uint8)
        self._tree.attach(self._state.ctypes.data)
        self._arrays = views(self._tree, self._state)
        self._arrays["widths"][:], self._arrays["horizons"][:] = widths, horizons
        levels = [_empty_expansion(self.num_roots, slots * self.width, self.horizon) for slots in (1, self.width)]
        self._expansions = [(level, addresses(level)) for level in levels]
        self._kept = Kept(*(np.empty((self.num_roots, self.width), dtype) for dtype in (np.int64, bool, bool, bool)))
        self._kept_addresses = addresses(self._kept)
        self.finished = self._tree.finished
        self.reset()

    def reset(self) -> None:
        """See :meth:`BeamTreeProtocol.reset`."""
        self._tree.reset()

    @property
    def failed(self) -> Int:
        """See :attr:`BeamTreeProtocol.failed`."""
        return self._arrays["failed"].astype(np.int64)

    def expand(self, q: Float, legal: Bool) -> Expansion:
        """See :meth:`BeamTreeProtocol.expand`."""
        if not self._tree.pending() and self._tree.finished():
            raise RuntimeError("the search is finished: read best() or beam(), or reset()")
        expansion, where = self._expansions[self._tree.level > 0]
        self._tree.expand(array_argument(q), array_argument(legal), *where)
        return expansion

    def keep(self, rewards: Float, ends: Bool, values: Float) -> Kept:
        """See :meth:`BeamTreeProtocol.keep`."""
        self._tree.keep(array_argument(rewards), array_argument(ends), array_argument(values), *self._kept_addresses)
        return self._kept

    def best(self) -> tuple[Int, Float]:
        """See :meth:`BeamTreeProtocol.best`."""
        answer = np.empty(self.num_roots, np.int64), np.empty(self.num_roots, np.float32)
        self._tree.best(*addresses(answer))
        return answer

    def beam(self) -> Beam:
        """See :meth:`BeamTreeProtocol.beam`."""
        return beam_of(self._arrays, self.horizon)

    def nodes(self) -> Arrays:
        """See :meth:`BeamTreeProtocol.nodes`."""
        return beam_nodes_of(self._arrays)


def _empty_expansion(roots: int, children: int, horizon: int) -> Expansion:
    """Room for a level of ``children`` slots."""
    rows = (roots, children)
    return Expansion(
        parents=np.empty(rows, np.int64),
        actions=np.empty(rows, np.int64),
        valid=np.empty(rows, np.bool_),
        page_table=np.empty((*rows, max(horizon, 1)), np.int32),
        depths=np.empty(rows, np.int32),
    )


def beam_of(arrays: Arrays, horizon: int) -> Beam:
    """:meth:`BeamTreeProtocol.beam`, read from the state's arrays."""
    roots, width = arrays["kept"].shape
    beam = Beam(
        np.zeros((roots, width), np.float32), np.full((roots, width, horizon), -1), np.zeros((roots, width), np.bool_)
    )
    kept_count, greedy = arrays["kept_count"], arrays["greedy_action"]
    greedily = (kept_count == 0) & (greedy >= 0)
    beam.scores[greedily, 0], beam.valid[greedily, 0] = arrays["greedy_score"][greedily], True
    if horizon:
        beam.actions[greedily, 0, 0] = greedy[greedily]
    for root, slot in np.argwhere(np.arange(width) < kept_count[:, None]).tolist():
        node = arrays["kept"][root, slot]
        beam.scores[root, slot], beam.valid[root, slot] = arrays["score"][root, node], True
        while node >= 0:
            beam.actions[root, slot, arrays["depth"][root, node] - 1] = arrays["action"][root, node]
            node = arrays["parent"][root, node]
    return beam


def beam_nodes_of(arrays: Arrays) -> Arrays:
    """:meth:`BeamTreeProtocol.nodes`, read from the state's arrays."""
    names = ("depth", "action", "rank", "reward", "value", "score", "ended")
    nodes = flat_nodes(arrays, arrays["count"], 0, names)
    nodes["score"] = nodes["score"].astype(np.float32)
    return nodes
