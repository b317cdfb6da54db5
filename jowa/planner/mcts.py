"""Monte Carlo tree search (PUCT) in imagination, for many roots at once.

Letters: R roots asked for, S slots (who they are), M leaves a round, N nodes a slot can hold, A actions, K candidates.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.config import TOKENS_PER_FRAME
from jowa.errors import UsageError
from jowa.model import WorldActionModel
from jowa.planner.captured import may_stay_on_device
from jowa.planner.device_mcts import MCTSOnDevice, Trees, settings_of
from jowa.planner.drafts import DraftHead
from jowa.planner.engine import Engine, Level
from jowa.planner.imagination import Context
from jowa.planner.plan import Plan, PlannerConfig, PlanningError, check_configs, empty_plan
from jowa.planner.rollout import Rollout
from jowa.planner.tree import Selection, describe_fault, make_mcts_tree

_FIELDS = ("tokens", "actions", "lengths", "tasks", "legal")


@dataclass
class _Known:
    """The context that a slot's tree began from, and the steps that came true since."""

    tokens: NDArray[np.int64]
    """(n, 36)."""
    actions: NDArray[np.int64]
    """(n - 1,)."""
    task: int
    legal: NDArray[np.bool_]
    config: PlannerConfig

    def grown(self, other: _Known) -> bool:
        """Whether ``other`` is this, one step later."""
        n = len(self.tokens)
        return (
            len(other.tokens) == n + 1
            and (other.task, other.config) == (self.task, self.config)
            and np.array_equal(other.legal, self.legal)
            and np.array_equal(other.tokens[:n], self.tokens)
            and np.array_equal(other.actions[: n - 1], self.actions)
        )


class _Search:
    """The trees of S slots, with what was imagined at each node; the root is node 0."""

    def __init__(self, slots: int, capacity: int, config: PlannerConfig, actions: int, device: torch.device) -> None:
        self.tree = make_mcts_tree(slots, capacity, actions, settings_of(config))
        self.slots, self.capacity = slots, capacity
        self.tokens = torch.zeros(slots, capacity + 1, TOKENS_PER_FRAME, dtype=torch.int64, device=device)
        self.q = torch.zeros(slots, capacity + 1, actions, device=device)
        self.spread = torch.zeros_like(self.q)
        self.known: dict[int, _Known] = {}

    def trees(self) -> Trees:
        """What was found so far."""
        actions, scores = self.tree.best()
        return Trees(
            actions, scores, self.tree.failed, self.tree.nodes(), self.tokens, self.q[:, 0], self.spread[:, 0]
        )  # fmt: skip

    def advance(self, nows: Mapping[int, _Known], gumbel: NDArray[np.float32]) -> set[int]:
        """Move the root of each slot to the child that was imagined as what then happened; the slots that have one.

        ``gumbel`` (S, A): the new noise.  What was imagined of the kept nodes moves with them.
        """
        nodes = self.tree.nodes()
        parents, flat = nodes["parent"], np.arange(len(nodes["root"]))
        actions = np.full(self.slots, -1, dtype=np.int64)
        budget = np.zeros(self.slots, dtype=np.int64)
        for slot, now in nows.items():
            actions[slot], budget[slot] = now.actions[-1], now.config.budget
        taken = flat[(parents < 0) & (nodes["action"] == actions[nodes["root"]])]
        seen = self.tokens[nodes["root"][taken], nodes["node"][taken]].cpu().numpy()
        frames = zip(nodes["root"][taken].tolist(), seen, strict=True)
        came_true = np.array([np.array_equal(frame, nows[slot].tokens[-1]) for slot, frame in frames], dtype=np.bool_)
        # Below whom a node stands: parents come before their children.
        top = flat.copy()
        for _ in range(int(nodes["depth"].max(initial=0))):
            top = np.where(parents[top] >= 0, parents[top], top)
        sizes = np.bincount(top, minlength=len(flat))[taken]
        # Beside the subtree the ancestors keep their pages.
        room = sizes + nodes["depth"][taken] + budget[nodes["root"][taken]] <= self.capacity
        mask = np.zeros(self.slots, dtype=np.bool_)
        mask[nodes["root"][taken[came_true & room]]] = True
        if not mask.any():
            return set()
        mask &= self.tree.advance(mask, actions, gumbel)
        moved = np.flatnonzero(mask)
        origins = torch.from_numpy(self.tree.origins()[moved].astype(np.int64)).to(self.tokens.device)
        rows = torch.from_numpy(moved).to(self.tokens.device)[:, None]
        for stored in (self.tokens, self.q, self.spread):
            stored[rows[:, 0]] = stored[rows, origins.clamp(min=0)]
        return set(moved.tolist())


class MCTSPlanner:
    """Monte Carlo tree search, set up by :class:`PlannerConfig`; arguments as of :class:`BeamPlanner`."""

    def __init__(
        self,
        model: WorldActionModel,
        config: PlannerConfig,
        autocast: torch.dtype | None = None,
        engine: Engine | None = None,
        draft_head: DraftHead | None = None,
    ) -> None:
        self.config = config
        self.rollout = Rollout(model, config, autocast, engine, draft_head)
        self._search: _Search | None = None
        self._encoded = -1
        self._decisions: dict[int, int] = {}
        self._lengths: dict[int, int] = {}
        self._on_device = MCTSOnDevice(self.rollout) if may_stay_on_device(self.rollout) else None

    @torch.inference_mode()
    def plan(
        self,
        context: Context,
        keep_frames: bool = False,
        configs: Sequence[PlannerConfig] | None = None,
        slots: Sequence[int] | None = None,
    ) -> Plan:
        """See :class:`jowa.planner.plan.Planner`."""
        start = time.perf_counter()
        count = len(context.lengths)
        configs = [self.config] * count if configs is None else list(configs)
        check_configs(configs, self.config, context, self.rollout.context_steps)
        if not count:
            actions = self.rollout.num_actions
            return empty_plan(make_mcts_tree(1, 1, actions).nodes(), actions, keep_frames)
        who = list(range(count)) if slots is None else list(slots)
        stays = self._stays(context, configs, slots)
        with self.rollout.working():
            noise = self._gumbel(configs, who)
            trees = self._on_device.search(context, configs, noise) if self._on_device and stays else None
            rows = list(range(count)) if trees else who
            if trees is None:
                trees = self._on_host(context, configs, who, slots is None, noise, start)
        plan = _plan_of(trees, context, rows, keep_frames)
        if plan.failed:
            raise PlanningError(plan)
        return plan

    def _stays(self, context: Context, configs: Sequence[PlannerConfig], slots: Sequence[int] | None) -> bool:
        """Whether neither this decision nor the next wants anything of the host's trees.

        A tree may be used again where the context has grown, which it did not where it is as long as before.
        """
        if self._on_device is None:
            return False
        host = self.config.milliseconds is not None or any(config.root_noise for config in configs)
        if slots is None or not any(config.reuse for config in configs):
            return not host
        now = dict(zip(slots, context.lengths.tolist(), strict=True))
        same = all(self._lengths.get(slot) == length for slot, length in now.items())
        self._lengths.update(now)
        return same and not host

    def _on_host(
        self, context: Context, configs: Sequence[PlannerConfig], who: Sequence[int], strangers: bool,
        noise: NDArray[np.float32], start: float,
    ) -> Trees:  # fmt: skip
        """The trees on the host, which looks at every round's results; ``noise`` as of :meth:`_gumbel`."""
        search = self._prepare(configs, who, fresh=strangers)
        try:
            self._begin(search, context, configs, who, noise)
            self._simulate(search, context, configs, who, start)
        except BaseException:
            self._search = None  # its trees are in the midst of a round
            raise
        self._encoded = self.rollout.engine.encoded
        return search.trees()

    def _gumbel(self, configs: Sequence[PlannerConfig], who: Sequence[int]) -> NDArray[np.float32]:
        """(R, A): noise for the roots that ask for it, else 0."""
        noise = np.zeros((len(who), self.rollout.num_actions), dtype=np.float32)
        for row, (slot, config) in enumerate(zip(who, configs, strict=True)):
            if config.gumbel:
                noise[row] = self._generator(config, slot).gumbel(size=self.rollout.num_actions)
        return noise

    def _prepare(self, configs: Sequence[PlannerConfig], who: Sequence[int], fresh: bool) -> _Search:
        """Trees for these slots; the ones there are, unless they are too small or somebody else used the engine."""
        slots = max(who, default=-1) + 1
        # Room for the subtree that is kept from one decision to the next, which grows with each.
        kept = 2 if self.config.reuse else 0
        budget = max((config.budget for config in configs), default=0)
        capacity = max((1 + kept) * budget + kept * self.rollout.context_steps, 1)
        search = self._search
        if search is None or slots > search.slots or capacity > search.capacity:
            slots = max(slots, 0 if search is None else search.slots)
            try:
                search = _Search(slots, capacity, self.config, self.rollout.num_actions, self.rollout.device)
                self.rollout.reserve(slots, slots * search.tree.pages_per_root)
            except (MemoryError, torch.OutOfMemoryError) as error:
                raise UsageError(
                    f"there is no memory for {slots} trees of {capacity} nodes: lower --simulations, or play fewer "
                    "environments at once"
                ) from error
        if fresh or self.rollout.engine.encoded != self._encoded:
            search.known.clear()
        self._search = search
        return search

    def _begin(
        self, search: _Search, context: Context, configs: Sequence[PlannerConfig], who: Sequence[int],
        drawn: NDArray[np.float32],
    ) -> None:  # fmt: skip
        """Bring each root's tree to the present: the subtree of what came true, or the root alone."""
        host = Context(*(getattr(context, name).cpu() for name in _FIELDS))
        noise = np.zeros((search.slots, self.rollout.num_actions), dtype=np.float32)
        noise[list(who)] = drawn
        nows, again = {}, {}
        for row, (slot, config) in enumerate(zip(who, configs, strict=True)):
            length = int(host.lengths[row])
            now = nows[slot] = _Known(
                host.tokens[row, :length].numpy().copy(), host.actions[row, : length - 1].numpy().copy(),
                int(host.tasks[row]), host.legal[row].numpy().copy(), config,
            )  # fmt: skip
            known = search.known.get(slot)
            if known is not None and config.reuse and not config.root_noise and known.grown(now):
                again[slot] = now
        moved = search.advance(again, noise) if again else set()
        fresh = [row for row, slot in enumerate(who) if slot not in moved]
        search.known.update(nows)
        if fresh:
            self._start(search, context, host, configs, who, fresh, noise)

    def _start(
        self, search: _Search, context: Context, host: Context, configs: Sequence[PlannerConfig], who: Sequence[int],
        rows: list[int], noise: NDArray[np.float32],
    ) -> None:  # fmt: skip
        """Encode these rows of ``context`` into their slots and begin their trees anew."""
        device = self.rollout.device
        chosen, mine = [configs[row] for row in rows], [who[row] for row in rows]
        index, slots = torch.tensor(rows, device=device), torch.tensor(mine, device=device)
        part = Context(*(getattr(context, name)[index] for name in _FIELDS))
        values = self.rollout.encode(part, slots)
        search.tokens[slots, 0] = part.tokens[torch.arange(len(rows), device=device), part.lengths - 1]
        search.q[slots, 0], search.spread[slots, 0] = values.q, values.spread
        caution = torch.tensor([config.uncertainty for config in chosen], device=device)
        q = np.zeros((search.slots, self.rollout.num_actions), dtype=np.float32)
        q[mine] = (values.q - caution[:, None] * values.spread).cpu().numpy()
        active, legal = np.zeros(search.slots, dtype=np.bool_), np.ones(q.shape, dtype=np.bool_)
        active[mine], legal[mine] = True, host.legal[rows].numpy()
        depth, budget, considered = (np.ones(search.slots, dtype=np.int64) for _ in range(3))
        depth[mine] = self.rollout.context_steps - host.lengths[rows].numpy()
        budget[mine] = [config.budget for config in chosen]
        considered[mine] = [config.considered for config in chosen]
        gumbel = self.config.gumbel
        search.tree.start(
            active, q, legal, depth, self._noisy_priors(q, legal, mine, chosen), noise if gumbel else None,
            budget if gumbel else None, considered if gumbel else None,
        )  # fmt: skip

    def _noisy_priors(
        self, q: NDArray[np.float32], legal: NDArray[np.bool_], who: list[int], configs: list[PlannerConfig]
    ) -> NDArray[np.float32] | None:
        """Priors (S, A) with their share of Dirichlet noise; None where no root asks for any."""
        if not any(config.root_noise for config in configs):
            return None
        priors = np.zeros_like(q)
        for slot, config in zip(who, configs, strict=True):
            allowed = legal[slot]
            if np.isfinite(q[slot, allowed]).all() and allowed.any():  # else the tree refuses the root
                weights = np.exp((q[slot, allowed] - q[slot, allowed].max()).astype(np.float64) / config.temperature)
                noise = self._generator(config, slot).dirichlet(np.full(len(weights), config.dirichlet))
                mixed = (1 - config.root_noise) * weights / weights.sum() + config.root_noise * noise
                priors[slot, allowed] = mixed
        return priors

    def _generator(self, config: PlannerConfig, slot: int) -> np.random.Generator:
        """Anew for each slot's each decision, so that no slot's noise depends on the others."""
        decision = self._decisions[slot] = self._decisions.get(slot, -1) + 1
        return np.random.default_rng((config.seed, slot, decision))

    def _simulate(
        self, search: _Search, context: Context, configs: Sequence[PlannerConfig], who: Sequence[int], start: float
    ) -> None:
        """Rounds of selection, imagination and backup until every root has used its budget or its time."""
        tree, device = search.tree, self.rollout.device
        index = torch.tensor(list(who), device=device)
        tasks = torch.zeros(search.slots, dtype=torch.int64, device=device)
        caution = torch.zeros(search.slots, device=device)
        tasks[index] = context.tasks
        caution[index] = torch.tensor([config.uncertainty for config in configs], device=device)
        budgets, most = (np.zeros(search.slots, dtype=np.int64) for _ in range(2))
        deadlines = np.full(search.slots, np.inf)
        for slot, config in zip(who, configs, strict=True):
            budgets[slot], most[slot] = config.budget, config.leaves
            deadlines[slot] = start + (np.inf if config.milliseconds is None else config.milliseconds / 1000)
        while True:
            done = tree.simulations()
            left = np.where((time.perf_counter() < deadlines) & ~tree.exhausted, budgets - done, 0)
            leaves = np.minimum(left, most).clip(min=0)
            if not leaves.any():
                return
            self._expand(search, tree.select(leaves), tasks, caution)
            if np.array_equal(tree.simulations(), done):
                return

    def _expand(self, search: _Search, selection: Selection, tasks: Tensor, caution: Tensor) -> None:
        """Imagine the leaves of one round and back their values up."""
        device = self.rollout.device
        if not selection.valid.any():  # all walks ended at states that are known to their end
            shape = selection.valid.shape
            nothing = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.bool_)
            search.tree.backup(*nothing, np.zeros((*shape, self.rollout.num_actions), dtype=np.float32))
            return
        valid = torch.from_numpy(selection.valid).to(device)
        nodes = torch.from_numpy(selection.nodes.astype(np.int64)).to(device)
        parents = torch.from_numpy(selection.parents.astype(np.int64)).to(device)
        level = Level(*(torch.from_numpy(array).to(device)
                        for array in (selection.actions, selection.page_table, selection.depths)))  # fmt: skip
        frames = torch.take_along_dim(search.tokens, parents[..., None], 1)
        found = self.rollout.imagine(level, frames, tasks)
        rows, columns = valid.nonzero(as_tuple=True)
        at = nodes[rows, columns]
        for stored, news in ((search.tokens, found.tokens), (search.q, found.q), (search.spread, found.spread)):
            stored[rows, at] = news[rows, columns]
        cautious = found.q - caution[:, None, None] * found.spread
        search.tree.backup(found.rewards.cpu().numpy(), found.ends.cpu().numpy(), cautious.cpu().numpy())


def _plan_of(trees: Trees, context: Context, who: Sequence[int], keep_frames: bool) -> Plan:
    """What the trees ``who`` decided, row by row."""
    failed = {row: describe_fault(int(trees.failed[slot])) for row, slot in enumerate(who) if trees.failed[slot]}
    every = trees.nodes
    row_of = np.full(len(trees.failed), -1)
    row_of[list(who)] = np.arange(len(who))
    asked = row_of[every["root"]] >= 0
    order = np.flatnonzero(asked)[np.argsort(row_of[every["root"][asked]], kind="stable")]
    place = np.full(len(asked) + 1, -1)  # the entry behind the last is for the parent -1
    place[order] = np.arange(len(order))
    nodes = {name: values[order] for name, values in every.items()}
    slots = nodes["root"]
    nodes["parent"], nodes["root"] = place[nodes["parent"]], row_of[slots]
    frames = None
    if keep_frames:
        at = torch.from_numpy(nodes["node"])
        frames = trees.tokens[torch.from_numpy(slots), at].cpu().numpy().astype(np.uint16)
    legal = context.legal.cpu().numpy()
    q, spread = (stored[list(who)].cpu().numpy() for stored in (trees.q, trees.spread))
    chosen = np.array([-1 if row in failed else trees.actions[slot] for row, slot in enumerate(who)], dtype=np.int64)
    return Plan(
        chosen, trees.scores[list(who)], np.where(legal, q, -np.inf).astype(np.float32), spread,
        *_candidates(nodes, chosen), nodes, frames, failed,
    )  # fmt: skip


def _candidates(
    nodes: dict[str, NDArray[np.generic]], chosen: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(R, K) scores and (R, K, H) actions: below each of the root's actions, the most visited path.

    The action ``chosen`` (R,) stands first; the others follow by visits, then Q, then the lowest action.
    """
    roots, parents, visits, scores, taken = (np.asarray(nodes[name]) for name in
                                             ("root", "parent", "visits", "score", "action"))  # fmt: skip
    ranked = np.lexsort((taken, -scores, -visits, parents, roots))
    best_child = np.full(len(roots) + 1, -1)
    backwards = ranked[::-1]
    best_child[parents[backwards]] = backwards  # the best of a family is written last
    best_child[-1] = -1
    first = ranked[parents[ranked] < 0]
    first = first[np.lexsort((taken[first] != chosen[roots[first]], roots[first]))]
    counts = np.bincount(roots[first].astype(np.int64), minlength=len(chosen))
    rank = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    width, depth = max(counts.max(initial=0), 1), 1 + max(np.asarray(nodes["depth"]).max(initial=1), 1)
    best = np.full((len(chosen), width), -np.inf, dtype=np.float32)
    paths = np.full((len(chosen), width, depth), -1, dtype=np.int64)
    best[roots[first], rank] = scores[first]
    node = first
    for step in range(depth):
        paths[roots[first], rank, step] = np.where(node >= 0, taken[node], -1)
        node = np.where(node >= 0, best_child[node], -1)
    return best, paths
