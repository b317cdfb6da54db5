"""Monte-Carlo tree search over a batch of trees: the contract, and the native core behind it.

Letters: R roots, N = capacity + 1 nodes of a root (node 0 is the root itself), A actions, M leaves of a round,
P = capacity pages of a root, J slots of a page table's row: the most levels below a context, at least 1.
Results for one root never depend on the other roots, and :class:`NativeMCTSTree` agrees with
:class:`jowa.planner.mcts_oracle.ReferenceMCTSTree` to the last bit.

The rules, in float64:

- Q(s, a) is r + gamma times the child's mean value once the child was visited, the critic's own Q before.  V of a
  state is its best legal Q, 0 after an end (``respect_ends``).
- Normalised Q is Q's place between the least and the greatest Q that was seen in the root's tree (of edges when they
  were backed up, and the critic's own of states that can be expanded), 0 to 1; 0.5 while all were the same.
- PUCT follows the greatest of normalised Q * n / (n + pending) [n = 0: normalised Q, 0 while pending]
  + prior * sqrt(N) / (1 + n + pending) * (log((N + c_base + 1) / c_base) + c_init), the lowest action on ties.  n and
  N count visits of child and parent; a state's own evaluation is a visit; N includes what is pending.
- A walk that ends in a terminal state (ended, or at the greatest depth) counts at once; one that meets a state whose
  evaluation is pending ends its root's round.
- A Gumbel root (Danihelka et al. 2022) tries actions by sequential halving: of the legal actions that were tried as
  often as the schedule says, pending ones included, the one of greatest gumbel + log prior + (c_visit + most visits)
  * c_scale * normalised Q.  See :func:`considered_visits`.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class MCTSSettings:
    """How Monte-Carlo tree search weighs."""

    gamma: float = 0.99
    """Discount a step."""
    temperature: float = 1.0
    """Priors are softmax(q / temperature) over legal actions."""
    c_init: float = 1.25
    c_base: float = 19652.0
    respect_ends: bool = True
    """After a predicted end the value is 0 and the state is terminal; off: ends are recorded and ignored."""
    gumbel: bool = False
    """Choose at the root by sequential halving with Gumbel noise."""
    c_visit: float = 50.0
    c_scale: float = 1.0

    def __post_init__(self) -> None:
        check_unit("gamma", self.gamma)
        for name in ("temperature", "c_base"):
            value = getattr(self, name)
            if not (value > 0.0 and np.isfinite(value)):
                raise ValueError(f"{name} must be positive, got {value!r}")
        for name in ("c_init", "c_visit", "c_scale"):
            value = getattr(self, name)
            if not (value >= 0.0 and np.isfinite(value)):
                raise ValueError(f"{name} must be at least 0, got {value!r}")


class Selection(NamedTuple):
    """The leaves to evaluate, each root's first ones of its row.  Where not valid: numbers that are safe to use."""

    nodes: Int32
    """int32 (R, M): the leaf's index among its root's nodes; 0 where not valid."""
    parents: Int32
    """int32 (R, M): its parent's, 0 being the root."""
    actions: Int
    """int64 (R, M): the action taken in the parent."""
    valid: Bool
    """bool (R, M)."""
    page_table: Int32
    """int32 (R, M, J): pages of the leaf's imagined ancestors, oldest first, then its own; -1 beyond."""
    depths: Int32
    """int32 (R, M): imagined ancestors of the leaf, so ``page_table[r, m, depths[r, m]]`` is its own; -1: idle."""


class MCTSTreeProtocol(Protocol):
    """What a planner drives: ``start``; ``select``, imagine the leaves, ``backup``; then ``best``.

    A root that is given NaN, an infinite q or reward, a prior that is negative or not finite, or no legal action is
    marked in ``failed`` and takes no more leaves; its tree stays as it was before the round.  Wrong shapes or dtypes
    raise, and change nothing.

    Pages: root r owns the ids from r * P to (r + 1) * P.  Every leaf gets the lowest that is free; a terminal state's
    is free again after ``backup``.
    """

    num_roots: int
    capacity: int
    num_actions: int
    settings: MCTSSettings

    @property
    def pages_per_root(self) -> int:
        """P."""
        ...

    @property
    def failed(self) -> Int:
        """int64 (R,): 0, or why the root was taken out of the search (``describe_fault``)."""
        ...

    @property
    def exhausted(self) -> Bool:
        """bool (R,): the root takes no more leaves: not begun, failed, no depth, node or page left, budget spent."""
        ...

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
        """Begin anew for the ``active`` roots, bool (R,); the others stay as they are.

        ``q`` float32 (R, A), ``legal`` bool (R, A), which holds at every node; ``max_depth`` int64 (R,): levels that
        the model's context allows below the root, 0 for no search; ``priors`` float32 (R, A) of the root's actions,
        None for softmax(q / temperature); ``gumbel`` float32 (R, A), None for zeros; ``budget`` int64 (R,):
        simulations that are never exceeded, which Gumbel roots need; ``considered`` int64 (R,): actions that a Gumbel
        root tries at most, None for all.
        """

    def select(self, leaves: Int) -> Selection:
        """Walk down each root's tree up to ``leaves`` int64 (R,) times; M is the greatest of them, at least 1.

        The arrays of the answer are valid until the next ``select``.
        """
        ...

    def backup(self, rewards: Float, ends: Bool, q: Float) -> None:
        """Complete the round: float32 ``rewards`` (R, M), bool ``ends`` (R, M), float32 ``q`` (R, M, A)."""

    def simulations(self) -> Int:
        """int64 (R,): simulations completed since the decision began."""
        ...

    def best(self) -> tuple[Int, Float]:
        """int64 (R,) actions and float32 (R,) their Q: the most visits, then Q, then the lowest action.

        Without visits the greedy action.  A Gumbel root: among the actions with the most visits of this decision the
        one of greatest gumbel + log prior + weighted Q.  -1 and NaN for a root that has not begun or could not.
        """
        ...

    def root_children(self) -> Arrays:
        """(R, A) each: int64 ``visits``, float32 ``q`` (NaN where not visited), float32 ``priors``."""
        ...

    def nodes(self) -> Arrays:
        """Every evaluated state below the roots, as flat arrays: root by root, in order of creation.

        int64 ``root``, ``parent`` (an index into these arrays, -1 for the root itself), ``node`` (index among the
        root's nodes, as in :class:`Selection`), ``depth`` (imagined steps from the context), ``action``, ``page``
        (-1: freed), ``visits``; float32 ``reward``, ``value`` (mean over visits), ``score`` (Q of the edge to it),
        ``prior``; bool ``ended``.
        """
        ...

    def advance(self, mask: Bool, actions: Int, gumbel: Float | None = None) -> Bool:
        """Make the child by ``actions`` int64 (R,) the root where ``mask`` bool (R,); returns where that was possible.

        Its subtree keeps visits, values and pages; everything else is freed.  The contexts stay as they were encoded,
        so the root's page becomes an ancestor's in page tables, and depths count on.  Impossible, and nothing is
        changed, where the child was never visited, has ended or is at the greatest depth.  The next decision begins:
        simulations count from 0 against the same budget, priors are the node's own, ``gumbel`` float32 (R, A) is the
        new noise (None: zeros).
        """
        ...

    def origins(self) -> Int32:
        """int32 (R, N): the index that each node had before the last ``advance``; -1 beyond the nodes there are."""
        ...


def considered_visits(considered: int, budget: int, index: int) -> int:
    """How often an action must have been tried for simulation ``index`` of ``budget`` to choose it: sequential halving.

    Of m actions considered, each phase goes on with the better half of the last, k of them, for
    max(1, budget // (ceil(log2 m) * k)) rounds of one simulation each; k never falls below 2, so what is left of the
    budget goes to the best two.  One action: as often as there were simulations.
    """
    if considered <= 1:
        return index
    phases = (considered - 1).bit_length()
    begun, visits, k = 0, 0, considered
    while True:
        rounds = max(1, budget // (phases * k))
        if index < begun + rounds * k:
            return visits + (index - begun) // k
        begun, visits, k = begun + rounds * k, visits + rounds, max(2, k // 2)


def check_mcts_arguments(num_roots: int, capacity: int, num_actions: int) -> None:
    """Raise a ValueError that names the argument of a Monte-Carlo tree that is wrong."""
    for name, value in {"num_roots": num_roots, "capacity": capacity, "num_actions": num_actions}.items():
        check_at_least(name, value, 1)


def check_budget(settings: MCTSSettings, budget: object) -> None:
    """Raise a ValueError where a Gumbel root's schedule has no budget."""
    if settings.gumbel and budget is None:
        raise ValueError("budget is missing: the schedule of a Gumbel root needs the number of simulations")


def greatest_depth(max_depth: Int, active: Bool, before: int, others: bool) -> int:
    """J after a start: ``before`` counts where ``others`` go on."""
    wanted = int(max_depth[active].max(initial=1))
    return max(wanted, before) if others else wanted


class NativeMCTSTree:
    """:class:`MCTSTreeProtocol` in C++ (csrc/mcts.h), on all threads, without the interpreter's lock."""

    def __init__(self, num_roots: int, capacity: int, num_actions: int, settings: MCTSSettings | None = None) -> None:
        require_native()
        check_mcts_arguments(num_roots, capacity, num_actions)
        self.num_roots, self.capacity, self.num_actions = num_roots, capacity, num_actions
        self.settings = settings or MCTSSettings()
        self._tree = native_mcts(num_roots, capacity, num_actions, self.settings, cuda=False)
        self._state = np.zeros(self._tree.state_bytes, np.uint8)
        self._tree.attach(self._state.ctypes.data)
        self._arrays = views(self._tree, self._state)
        self._columns = 1
        self._selection: Selection | None = None
        self._addresses: tuple[int, ...] = ()
        self._tree.reset()

    @property
    def pages_per_root(self) -> int:
        """See :attr:`MCTSTreeProtocol.pages_per_root`."""
        return self.capacity

    @property
    def failed(self) -> Int:
        """See :attr:`MCTSTreeProtocol.failed`."""
        return self._arrays["failed"].astype(np.int64)

    @property
    def exhausted(self) -> Bool:
        """See :attr:`MCTSTreeProtocol.exhausted`."""
        return self._arrays["exhausted"].copy()

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
        check_budget(self.settings, budget)
        for argument in (active, q, legal, max_depth, priors, gumbel, budget, considered):
            array_argument(argument)
        self._tree.start(active, q, legal, max_depth, priors, gumbel, budget, considered)
        others = bool((self._arrays["count"][~active] > 0).any())
        self._columns = greatest_depth(max_depth, active, self._columns, others)

    def select(self, leaves: Int) -> Selection:
        """See :meth:`MCTSTreeProtocol.select`."""
        check("leaves", leaves, np.int64, (self.num_roots,))
        shape = (self.num_roots, max(int(leaves.max()), 1), self._columns)
        if self._selection is None or self._selection.page_table.shape != shape:
            self._selection = empty_selection(shape)
            self._addresses = addresses(self._selection)
        self._tree.select(leaves, shape[1], shape[2], *self._addresses)
        return self._selection

    def backup(self, rewards: Float, ends: Bool, q: Float) -> None:
        """See :meth:`MCTSTreeProtocol.backup`."""
        self._tree.backup(array_argument(rewards), array_argument(ends), array_argument(q))

    def simulations(self) -> Int:
        """See :meth:`MCTSTreeProtocol.simulations`."""
        return self._arrays["simulations"].copy()

    def best(self) -> tuple[Int, Float]:
        """See :meth:`MCTSTreeProtocol.best`."""
        answer = np.empty(self.num_roots, np.int64), np.empty(self.num_roots, np.float32)
        self._tree.best(*addresses(answer))
        return answer

    def root_children(self) -> Arrays:
        """See :meth:`MCTSTreeProtocol.root_children`."""
        return root_children_of(self._arrays, self.settings.gamma)

    def nodes(self) -> Arrays:
        """See :meth:`MCTSTreeProtocol.nodes`."""
        return mcts_nodes_of(self._arrays, self.settings.gamma)

    def advance(self, mask: Bool, actions: Int, gumbel: Float | None = None) -> Bool:
        """See :meth:`MCTSTreeProtocol.advance`."""
        kept = np.empty(self.num_roots, np.bool_)
        self._tree.advance(array_argument(mask), array_argument(actions), array_argument(gumbel), kept.ctypes.data)
        return kept

    def origins(self) -> Int32:
        """See :meth:`MCTSTreeProtocol.origins`."""
        used = np.arange(self.capacity + 1) < self._arrays["count"][:, None]
        return np.where(used, self._arrays["origin"], np.int32(-1))


def native_mcts(num_roots: int, capacity: int, num_actions: int, settings: MCTSSettings, cuda: bool) -> native.MCTSTree:
    """The native batch of trees, which still lacks its state."""
    s = settings
    return native.MCTSTree(
        num_roots, capacity, num_actions, s.gamma, s.temperature, s.c_init, s.c_base, s.respect_ends, s.gumbel,
        s.c_visit, s.c_scale, cuda,
    )  # fmt: skip


def empty_selection(shape: tuple[int, int, int]) -> Selection:
    """Room for a round of ``shape`` (R, M, J)."""
    rows = shape[:2]
    return Selection(
        nodes=np.empty(rows, np.int32),
        parents=np.empty(rows, np.int32),
        actions=np.empty(rows, np.int64),
        valid=np.empty(rows, np.bool_),
        page_table=np.empty(shape, np.int32),
        depths=np.empty(rows, np.int32),
    )


def root_children_of(arrays: Arrays, gamma: float) -> Arrays:
    """:meth:`MCTSTreeProtocol.root_children`, read from the state's arrays."""
    begun = arrays["count"] > 0
    children = np.where(begun[:, None], arrays["children"][:, 0], -1)
    child = np.maximum(children, 0)
    visits = np.where(children >= 0, np.take_along_axis(arrays["visits"], child, 1), 0).astype(np.int64)
    total, reward = (np.take_along_axis(arrays[name], child, 1) for name in ("value_sum", "reward"))
    q = reward.astype(np.float64) + gamma * (total / np.maximum(visits, 1))
    q = np.where(visits > 0, q, np.nan).astype(np.float32)
    return {"visits": visits, "q": q, "priors": np.where(begun[:, None], arrays["prior"][:, 0], np.float32(0))}


def mcts_nodes_of(arrays: Arrays, gamma: float) -> Arrays:
    """:meth:`MCTSTreeProtocol.nodes`, read from the state's arrays."""
    names = ("depth", "action", "page", "visits", "reward", "ended", "value_sum")
    evaluated = np.maximum(arrays["count"] - arrays["leaves"], 0)
    nodes = flat_nodes(arrays, evaluated, 1, names)
    root, node, pages = nodes["root"], nodes["node"], arrays["page_used"].shape[1]
    nodes["page"] = np.where(nodes["page"] < 0, -1, nodes["page"] + root * pages)
    mean = nodes.pop("value_sum") / nodes["visits"]
    nodes["value"] = mean.astype(np.float32)
    nodes["score"] = (nodes["reward"].astype(np.float64) + gamma * mean).astype(np.float32)
    nodes["prior"] = arrays["prior"][root, arrays["parent"][root, node], nodes["action"]]
    return nodes
