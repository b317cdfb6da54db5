"""One root of Monte-Carlo tree search in plain Python, one node an object: the oracle's search itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from jowa.planner.mcts_tree import MCTSSettings, considered_visits
from jowa.planner.tree_state import BAD_PRIOR, BAD_Q, BAD_REWARD, NO_LEGAL_ACTION, Bool, Float


@dataclass(eq=False)
class Node:
    """A state: the context's (depth 0) or an imagined one."""

    parent: Node | None
    action: int
    depth: int
    page: int
    reward: float = 0.0
    ended: bool = False
    value: float = 0.0
    visits: int = 0
    pending: int = 0
    value_sum: float = 0.0
    q: list[float] = field(default_factory=list)
    priors: list[np.float32] = field(default_factory=list)
    children: dict[int, Node] = field(default_factory=dict)
    origin: int = -1

    def path(self) -> list[Node]:
        """The node and its ancestors, the root last."""
        path, node = [self], self
        while node.parent:
            node = node.parent
            path.append(node)
        return path


class RootSearch:
    """The search of one root."""

    def __init__(self, capacity: int, settings: MCTSSettings) -> None:
        self.capacity, self.settings = capacity, settings
        self.nodes: list[Node] = []
        self.trail: list[int] = []
        self.leaves: list[Node] = []
        self.failed, self.exhausted, self.simulations = 0, True, 0
        self.free: set[int] = set(range(capacity))

    def start(
        self, q: Float, legal: Bool, max_depth: int, priors: Float | None, gumbel: Float | None, budget: int,
        considered: int | None,
    ) -> None:  # fmt: skip
        """Begin anew with ``q``, ``legal``, ``priors``, ``gumbel`` of shape (A,); a budget of -1 is none."""
        self.__init__(self.capacity, self.settings)  # type: ignore[misc]
        self.legal = np.flatnonzero(legal).tolist()
        self.max_depth, self.budget = max_depth, budget
        self.considered = len(self.legal) if considered is None else min(considered, len(self.legal))
        self.gumbel = [0.0] * len(q) if gumbel is None else gumbel.tolist()
        self.visits_before: dict[int, int] = {}
        self.low, self.high = math.inf, -math.inf
        if not self.legal:
            self.failed = NO_LEGAL_ACTION
        for action in reversed(self.legal):
            if not math.isfinite(self.gumbel[action]):
                self.failed = BAD_PRIOR
            if priors is not None and not (math.isfinite(priors[action]) and priors[action] >= 0):
                self.failed = BAD_PRIOR
            if not math.isfinite(q[action]):
                self.failed = BAD_Q
        if self.failed:
            return
        root = Node(None, -1, 0, -1, origin=0)
        self.nodes.append(root)
        self.open(root, q)
        if priors is not None:
            root.priors = [p if action in self.legal else np.float32(0) for action, p in enumerate(priors)]
        root.value = max(root.q[action] for action in self.legal)
        root.visits, root.value_sum = 1, root.value
        self.update_exhausted()

    def open(self, node: Node, q: Float) -> None:
        """Make ``node`` a state that can be expanded."""
        node.q = q.tolist()
        highest = max(node.q[action] for action in self.legal)
        weights = {a: math.exp((node.q[a] - highest) / self.settings.temperature) for a in self.legal}
        total = 0.0
        for weight in weights.values():
            total += weight
        node.priors = [np.float32(weights[a] / total if a in weights else 0.0) for a in range(len(node.q))]
        for action in self.legal:
            self.see(node.q[action])

    def see(self, q: float) -> None:
        """Widen the range of Q."""
        self.low, self.high = min(self.low, q), max(self.high, q)

    def update_exhausted(self) -> None:
        """Note whether the root can take another leaf."""
        self.exhausted = (
            bool(self.failed)
            or not self.nodes
            or self.nodes[0].depth >= self.max_depth
            or len(self.nodes) == self.capacity + 1
            or not self.free
            or 0 <= self.budget <= self.simulations
        )

    def terminal(self, node: Node) -> bool:
        """Whether ``node`` is never expanded."""
        return (self.settings.respect_ends and node.ended) or node.depth >= self.max_depth

    def edge_q(self, node: Node, action: int) -> float:
        """Q of taking ``action`` in ``node``."""
        child = node.children.get(action)
        if child is None or not child.visits:
            return node.q[action]
        return child.reward + self.settings.gamma * (child.value_sum / child.visits)

    def normalised(self, q: float) -> float:
        """``q``'s place in the range of all Q seen."""
        if not self.high > self.low:
            return 0.5
        return min(max((q - self.low) / (self.high - self.low), 0.0), 1.0)

    def puct(self, node: Node, action: int) -> float:
        """The score by which a walk goes on from ``node``."""
        s, child, total = self.settings, node.children.get(action), node.visits + node.pending
        n, pending = (child.visits, child.pending) if child else (0, 0)
        score = self.normalised(self.edge_q(node, action))
        if n:
            score = score * n / (n + pending)
        elif pending:
            score = 0.0
        weight = math.log((total + s.c_base + 1.0) / s.c_base) + s.c_init
        return score + float(node.priors[action]) * math.sqrt(total) / (1.0 + n + pending) * weight

    def gumbel_score(self, action: int, visits: int) -> float:
        """The score by which the Gumbel root chooses among actions that were tried ``visits`` times.

        Untried ones have all the same completed Q in the paper, so that noise and prior decide which are considered.
        """
        s, root = self.settings, self.nodes[0]
        most = max((child.visits for child in root.children.values()), default=0)
        prior = float(root.priors[action])
        log_prior = math.log(prior) if prior else -math.inf
        scale = (s.c_visit + most) * s.c_scale if visits else 0.0
        sigma = scale * self.normalised(self.edge_q(root, action))
        return self.gumbel[action] + log_prior + sigma

    def tried(self, action: int, with_pending: bool) -> int:
        """Visits of the root's child in this decision."""
        child = self.nodes[0].children.get(action)
        if child is None:
            return 0
        return child.visits - self.visits_before.get(action, 0) + (child.pending if with_pending else 0)

    def choose(self, node: Node) -> int:
        """The action that a walk takes from ``node``; max() takes the first, so ties go to the lowest."""
        if node.parent or not self.settings.gumbel:
            return max(self.legal, key=lambda action: self.puct(node, action))
        visits = considered_visits(self.considered, self.budget, self.simulations + len(self.leaves))
        open_actions = (a for a in self.legal if self.tried(a, True) == visits)
        return max(open_actions, key=lambda action: self.gumbel_score(action, visits))

    def select(self, wanted: int) -> None:
        """Walk up to ``wanted`` times; fills ``leaves``."""
        for _ in range(wanted):
            within = self.budget < 0 or self.simulations + len(self.leaves) < self.budget
            if self.exhausted or not within or not self.simulate():
                return

    def simulate(self) -> bool:
        """One walk down; False when it meets a state that is pending, or no room is left."""
        node = self.nodes[0]
        while True:
            action = self.choose(node)
            child = node.children.get(action)
            if child is None:
                return self.add_leaf(node, action)
            if not child.visits:
                return False
            if self.terminal(child):
                self.back_up(child)
                self.update_exhausted()
                return True
            node = child

    def add_leaf(self, parent: Node, action: int) -> bool:
        """Make a node that waits for its evaluation, if there is room."""
        if len(self.nodes) > self.capacity or not self.free:
            return False
        page = min(self.free)
        self.free.remove(page)
        leaf = parent.children[action] = Node(parent, action, parent.depth + 1, page, origin=len(self.nodes))
        self.nodes.append(leaf)
        self.leaves.append(leaf)
        for node in leaf.path():
            node.pending += 1
        return True

    def backup(self, rewards: Float, ends: Bool, q: Float) -> None:
        """Evaluate the leaves with ``rewards`` (M,), ``ends`` (M,), ``q`` (M, A)."""
        # Of several faults the first row's counts, and in it the reward's.
        for row in reversed(range(len(self.leaves))):
            if not math.isfinite(rewards[row]):
                self.failed = BAD_REWARD
            elif not np.isfinite(q[row][self.legal]).all():
                self.failed = BAD_Q
        for row, leaf in enumerate(self.leaves):
            for node in leaf.path():
                node.pending -= 1
            if self.failed:
                assert leaf.parent
                del leaf.parent.children[leaf.action]
                self.nodes.remove(leaf)
                self.free.add(leaf.page)
            else:
                self.evaluate(leaf, float(rewards[row]), bool(ends[row]), q[row])
        self.leaves = []
        if self.nodes:
            self.update_exhausted()

    def evaluate(self, leaf: Node, reward: float, ended: bool, q: Float) -> None:
        """Give a leaf what was imagined, and back it up."""
        leaf.reward, leaf.ended = reward, ended
        leaf.value = 0.0 if ended and self.settings.respect_ends else float(q[self.legal].max())
        if self.terminal(leaf):
            self.free.add(leaf.page)
            leaf.page = -1
        else:
            self.open(leaf, q)
        self.back_up(leaf)

    def back_up(self, node: Node) -> None:
        """Count a visit of ``node`` and of its ancestors, with the returns it brings."""
        value = node.value
        for step in node.path():
            step.visits += 1
            step.value_sum += value
            if step.parent:
                self.see(step.reward + self.settings.gamma * (step.value_sum / step.visits))
                value = step.reward + self.settings.gamma * value
        self.simulations += 1

    def best(self) -> tuple[int, float]:
        """The decision and its Q."""
        if not self.nodes:
            return -1, math.nan
        root = self.nodes[0]
        most = max(self.tried(action, False) for action in self.legal)
        if self.settings.gumbel and most:
            tried = (a for a in self.legal if self.tried(a, False) == most)
            action = max(tried, key=lambda a: self.gumbel_score(a, most))
        else:
            visits = {a: child.visits for a, child in root.children.items()}
            action = max(self.legal, key=lambda a: (visits.get(a, 0), self.edge_q(root, a)))
        return action, self.edge_q(root, action)

    def advance(self, action: int, gumbel: Float | None) -> bool:
        """Make a child the root, if it can be one."""
        child = self.nodes[0].children.get(action) if self.nodes and not self.failed else None
        if child is None or self.terminal(child):
            return False
        self.nodes = [node for node in self.nodes if child in node.path()]
        self.trail.append(child.page)
        child.parent, child.action = None, -1
        self.free = set(range(self.capacity)) - set(self.trail) - {node.page for node in self.nodes}
        self.simulations, self.low, self.high = 0, math.inf, -math.inf
        for node in self.nodes:
            for a in () if self.terminal(node) else self.legal:
                self.see(node.q[a])
                self.see(self.edge_q(node, a))
        self.gumbel = [0.0] * len(self.gumbel) if gumbel is None else gumbel.tolist()
        self.visits_before = {a: node.visits for a, node in child.children.items()}
        self.update_exhausted()
        return True
