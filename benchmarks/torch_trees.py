"""What the native search trees are measured against: the same searches in batched tensor operations, as mctx does it.

All roots advance together, a masked step for each level of the walk; nothing loops over roots.  No pages are handed
out, and there is one leaf a round.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class TorchMCTS:
    """PUCT over R roots of A actions, N nodes each; float64 where the native tree has it."""

    def __init__(self, roots: int, nodes: int, q: Tensor, legal: Tensor, max_depth: int, gamma: float) -> None:
        actions = q.shape[1]
        self.rows = torch.arange(roots)
        self.legal, self.max_depth, self.gamma, self.count = legal, max_depth, gamma, 1
        self.children = torch.full((roots, nodes, actions), -1)
        self.parent, self.depth = torch.full((roots, nodes), -1), torch.zeros(roots, nodes, dtype=torch.long)
        self.visits, self.value_sum, self.reward, self.value = torch.zeros(4, roots, nodes, dtype=torch.float64)
        self.terminal = torch.zeros(roots, nodes, dtype=torch.bool)
        self.q, self.prior = torch.zeros(2, roots, nodes, actions, dtype=torch.float64)
        self.used = torch.ones(roots, dtype=torch.long)
        self.low, self.high = torch.full((roots,), math.inf).double(), torch.full((roots,), -math.inf).double()
        self.open(torch.zeros(roots, dtype=torch.long), q.double(), torch.ones(roots, dtype=torch.bool))
        self.visits[:, 0] = 1
        self.value_sum[:, 0] = q.double().masked_fill(~legal, -math.inf).amax(1)

    def open(self, node: Tensor, q: Tensor, where: Tensor) -> None:
        """Store ``q`` (R, A) and its priors at ``node`` (R,)."""
        masked = q.masked_fill(~self.legal, -math.inf)
        self.q[self.rows, node], self.prior[self.rows, node] = q, masked.softmax(1).float().double()
        self.low = torch.where(where, self.low.minimum(q.masked_fill(~self.legal, math.inf).amin(1)), self.low)
        self.high = torch.where(where, self.high.maximum(masked.amax(1)), self.high)

    def edges(self, node: Tensor) -> tuple[Tensor, Tensor]:
        """Q and visits (R, A) of the edges of ``node`` (R,)."""
        child = self.children[self.rows, node]
        at = child.clamp(min=0)
        visits = self.visits.gather(1, at) * (child >= 0)
        mean = self.value_sum.gather(1, at) / visits.clamp(min=1)
        q = torch.where(visits > 0, self.reward.gather(1, at) + self.gamma * mean, self.q[self.rows, node])
        return q, visits

    def choose(self, node: Tensor) -> Tensor:
        """The action (R,) that PUCT follows from ``node`` (R,)."""
        q, n = self.edges(node)
        spread = (self.high - self.low)[:, None]
        scaled = torch.where(spread > 0, ((q - self.low[:, None]) / spread).clamp(0, 1), 0.5)
        total = self.visits[self.rows, node][:, None]
        weight = ((total + 19652.0 + 1.0) / 19652.0).log() + 1.25
        scores = scaled + self.prior[self.rows, node] * total.sqrt() / (1 + n) * weight
        return scores.masked_fill(~self.legal, -math.inf).argmax(1)

    def simulate(self, reward: Tensor, ended: Tensor, q: Tensor) -> None:
        """One simulation of every root, whose leaf is imagined as ``reward`` (R,), ``ended`` (R,), ``q`` (R, A)."""
        rows, node = self.rows, torch.zeros_like(self.rows)
        walking, leaf, action = torch.ones_like(ended), torch.zeros_like(node), torch.zeros_like(node)
        parent = torch.zeros_like(node)
        for _ in range(self.max_depth):
            chosen = self.choose(node)
            child = self.children[rows, node, chosen]
            parent, action = torch.where(walking, node, parent), torch.where(walking, chosen, action)
            leaf = torch.where(walking, child, leaf)
            known = child >= 0
            walking = walking & known & ~self.terminal[rows, child.clamp(min=0)]
            if not walking.any():
                break
            node = torch.where(walking, child, node)
        self.add(leaf < 0, parent, action, reward, ended, q)
        leaf = torch.where(leaf < 0, self.used - 1, leaf)
        self.back_up(leaf)

    def add(self, new: Tensor, parent: Tensor, action: Tensor, reward: Tensor, ended: Tensor, q: Tensor) -> None:
        """Make the new leaves' nodes, where ``new`` (R,)."""
        rows, node = self.rows[new], self.used[new]
        self.children[rows, parent[new], action[new]] = node
        self.parent[rows, node] = parent[new]
        self.depth[rows, node] = self.depth[rows, parent[new]] + 1
        self.reward[rows, node] = reward[new].double()
        final = ended[new] | (self.depth[rows, node] >= self.max_depth)
        self.terminal[rows, node] = final
        best = q.double().masked_fill(~self.legal, -math.inf).amax(1)
        self.value[rows, node] = torch.where(ended, 0.0, best)[new]
        opened = new.clone()
        opened[rows] = ~final
        self.open(torch.where(new, self.used, torch.full_like(self.used, self.q.shape[1] - 1)), q.double(), opened)
        self.used = self.used + new

    def back_up(self, node: Tensor) -> None:
        """Count a visit of ``node`` (R,) and pass its return up."""
        value, rows = self.value[self.rows, node], self.rows
        alive = torch.ones_like(rows, dtype=torch.bool)
        while True:
            at = node.clamp(min=0)
            self.visits[rows, at] += alive
            self.value_sum[rows, at] += value * alive
            inner = alive & (self.parent[rows, at] >= 0)
            if not inner.any():
                return
            reward = self.reward[rows, at]
            q = reward + self.gamma * self.value_sum[rows, at] / self.visits[rows, at].clamp(min=1)
            self.low = torch.where(inner, self.low.minimum(q), self.low)
            self.high = torch.where(inner, self.high.maximum(q), self.high)
            value = torch.where(inner, reward + self.gamma * value, value)
            node, alive = torch.where(inner, self.parent[rows, at], node), inner

    def best(self) -> Tensor:
        """The action (R,) with the most visits, ties by Q."""
        q, n = self.edges(torch.zeros_like(self.rows))
        most = n.masked_fill(~self.legal, -1)
        return q.masked_fill((most < most.amax(1, keepdim=True)) | ~self.legal, -math.inf).argmax(1)


class TorchBeam:
    """Beam search of width K over R roots."""

    def __init__(self, roots: int, width: int, gamma: float) -> None:
        self.width, self.gamma, self.level = width, gamma, 0
        self.returns, self.alive = torch.zeros(roots, 1, dtype=torch.float64), torch.ones(roots, 1, dtype=torch.bool)
        self.scores, self.first = torch.zeros(roots, 1, dtype=torch.float64), torch.zeros(roots, 1, dtype=torch.long)

    def expand(self, q: Tensor, legal: Tensor) -> tuple[Tensor, Tensor]:
        """Actions and which of them are valid, (R, M * K), by ``q`` (R, M, A)."""
        masked = q.masked_fill(~legal[:, None] | ~self.alive[:, :, None], -math.inf)
        best, self.actions = masked.topk(self.width, dim=2)
        self.valid = (best > -math.inf).flatten(1)
        return self.actions.flatten(1), self.valid

    def keep(self, rewards: Tensor, ends: Tensor, values: Tensor) -> None:
        """Score the children, (R, M * K) each, and keep the best of them and of what has ended."""
        discount = self.gamma**self.level
        returns = self.returns.repeat_interleave(self.width, 1) + discount * rewards.double()
        scores = returns + torch.where(ends, 0.0, discount * self.gamma * values.double())
        first = self.actions.flatten(1) if self.level == 0 else self.first.repeat_interleave(self.width, 1)
        carried = self.scores.masked_fill(self.alive, -math.inf)
        every = torch.cat([carried, scores.masked_fill(~self.valid, -math.inf)], 1)
        self.scores, chosen = every.topk(self.width, dim=1)
        self.returns = torch.cat([self.returns, returns], 1).gather(1, chosen)
        self.first = torch.cat([self.first, first], 1).gather(1, chosen)
        self.alive = torch.cat([torch.zeros_like(self.alive), ~ends & self.valid], 1).gather(1, chosen)
        self.level += 1
