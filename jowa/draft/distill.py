"""Training the draft head to say what the model would: on frames that the model itself imagined.

Letters: N pairs, n steps of context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.agent import Agent
from jowa.data.store import EpisodeStore
from jowa.data.subset import Table
from jowa.errors import DataError, UsageError
from jowa.games import get_game
from jowa.planner import Context, DraftHead
from jowa.planner.engine import Level

BATCH = 64
"""Moments imagined at once, and pairs in a training step."""
DEPTH = 2
"""Imagined steps from each moment: the second starts from an imagined frame, as in planning."""
RECORDED_ACTION = 0.5
"""Probability of taking the recorded action, and not a random legal one."""


@dataclass(frozen=True)
class Moments:
    """Recorded moments to imagine from, of one game."""

    game: str
    frames: NDArray[np.uint8]
    """(N, n, 84, 84), oldest first."""
    actions: NDArray[np.int64]
    """(N, n): the last is the one taken after the last frame."""

    @classmethod
    def draw(
        cls, store: EpisodeStore, game: str, episodes: Sequence[int], context: int, count: int,
        generator: np.random.Generator,
    ) -> Moments:  # fmt: skip
        """``count`` random moments of these episodes.  Raises :class:`DataError` if all are too short."""
        infos = [store.episode(game, index) for index in episodes]
        table = {name: np.array([getattr(info, name) for info in infos]) for name in ("offset", "length")}
        return cls.draw_from(store, game, table, context, count, generator)

    @classmethod
    def draw_from(
        cls, store: EpisodeStore, game: str, table: Table, context: int, count: int, generator: np.random.Generator
    ) -> Moments:
        """The same, of the episodes in ``table``, as far as its lengths say: of :func:`draw_transitions`, say."""
        offsets, lengths = (table[name][table["length"] >= context] for name in ("offset", "length"))
        if not len(offsets):
            chosen = len(table["length"])
            raise DataError(f"{game} has no episode of {context} steps among the {chosen} chosen: record more")
        weights = (lengths - context + 1).astype(np.float64)
        frames, actions = [], []
        for at in generator.choice(len(offsets), size=count, p=weights / weights.sum()):
            first = int(offsets[at]) + int(generator.integers(lengths[at] - context + 1))
            seen, taken, _ = store.read(game, first, first + context)
            frames.append(seen)
            actions.append(taken.astype(np.int64))
        return cls(game, np.stack(frames), np.stack(actions))


@dataclass(frozen=True)
class Pairs:
    """Frames, actions, and what the model imagined to follow."""

    tokens: Tensor
    """int64 (N, 36)."""
    actions: Tensor
    """int64 (N,)."""
    tasks: Tensor
    """int64 (N,)."""
    outcomes: Tensor
    """int64 (N, 36)."""

    def __len__(self) -> int:
        return len(self.actions)

    @classmethod
    def join(cls, parts: Sequence[Pairs]) -> Pairs:
        """All of ``parts``, one after the other."""
        return cls(*(torch.cat([getattr(part, name) for part in parts])
                     for name in ("tokens", "actions", "tasks", "outcomes")))  # fmt: skip


def recorded_pairs(agent: Agent, moments: Moments) -> Pairs:
    """What happened instead of what is imagined: the last of ``moments``' steps, of which there must be two.

    It shows what the tokenizer makes of the frames, whatever the model has learned.
    """
    tokens = [
        agent.encode(moments.frames[start : start + BATCH, -2:]) for start in range(0, len(moments.frames), BATCH)
    ]
    joined = torch.cat(tokens)
    tasks = torch.full((len(joined),), agent.task_id(moments.game), dtype=torch.int64, device=agent.device)
    return Pairs(joined[:, 0], torch.from_numpy(moments.actions[:, -2].copy()).to(agent.device), tasks, joined[:, 1])


def imagine_pairs(agent: Agent, moments: Moments, generator: np.random.Generator) -> Pairs:
    """Two imagined steps from each moment, greedily."""
    context_steps = agent.model.config.context_steps
    count, context = moments.actions.shape
    depth = min(DEPTH, context_steps - context)
    if depth < 1:
        raise UsageError(f"context is {context}: expected at most {context_steps - 1}, to leave a step to imagine")
    parts = []
    for start in range(0, count, BATCH):
        part = Moments(moments.game, moments.frames[start : start + BATCH], moments.actions[start : start + BATCH])
        with agent.engine.lock:
            parts += _imagine(agent, part, depth, generator)
    return Pairs.join(parts)


def _imagine(agent: Agent, moments: Moments, depth: int, generator: np.random.Generator) -> list[Pairs]:
    """One batch; one :class:`Pairs` for each step."""
    device, (count, context) = agent.device, moments.actions.shape
    tokens = agent.encode(moments.frames)
    tasks = torch.full((count,), agent.task_id(moments.game), dtype=torch.int64, device=device)
    legal = torch.from_numpy(get_game(moments.game).action_mask.copy()).to(device).expand(count, -1)
    lengths = torch.full((count,), context, dtype=torch.int64, device=device)
    engine = agent.engine
    engine.reserve(count, count * depth)
    engine.encode(Context(tokens, torch.from_numpy(moments.actions).to(device), lengths, tasks, legal))
    pages = torch.arange(count * depth, dtype=torch.int32, device=device).view(count, 1, depth)
    choices = np.array(get_game(moments.game).legal_actions)
    seen, pairs = tokens[:, -1], []
    for step in range(depth):
        actions = generator.choice(choices, size=count)
        if step == 0:
            actions = np.where(generator.random(count) < RECORDED_ACTION, moments.actions[:, -1], actions)
        taken = torch.from_numpy(actions).to(device)
        depths = torch.full((count, 1), step, dtype=torch.int32, device=device)
        found = engine.imagine(Level(taken[:, None], pages[..., : step + 1].contiguous(), depths))
        pairs.append(Pairs(seen, taken, tasks, found.tokens[:, 0].clone()))
        seen = pairs[-1].outcomes
    return pairs


def train_head(
    agent: Agent, pairs: Pairs, steps: int, seed: int = 0, rate: float = 2e-3,
    advance: Callable[[int, float], None] | None = None,
) -> DraftHead:  # fmt: skip
    """A draft head trained by cross-entropy on ``pairs`` for ``steps`` steps; ``advance`` is told (steps, loss)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = DraftHead(agent.model.config)
    head.to(agent.device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=max(steps, 2))
    for step in range(steps):
        chosen = torch.randint(len(pairs), (BATCH,), generator=generator).to(agent.device)
        logits = head(pairs.tokens[chosen], pairs.actions[chosen], pairs.tasks[chosen])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), pairs.outcomes[chosen].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if advance is not None and (step % 50 == 49 or step + 1 == steps):
            advance(step + 1, float(loss.detach()))
    return head.eval().requires_grad_(False)
