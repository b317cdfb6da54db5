"""How well frames are guessed: tokens accepted, and passes through the model a frame, for each way of guessing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jowa.agent import Agent
from jowa.config import TOKENS_PER_FRAME
from jowa.draft.distill import Pairs
from jowa.planner.drafts import CopyDrafter, Drafter, LastChangeDrafter


@dataclass(frozen=True)
class Measured:
    """One way of guessing on one set of pairs."""

    accepted: float
    """Share of the 36 guesses that are right, each given that what stands before it is right."""
    passes: float
    """Mean passes a frame when a pass verifies all that is left: 1 where all is right, 37 token by token."""
    changed: float
    """Tokens that differ from the parent's frame, a frame."""


def measure(agent: Agent, pairs: Pairs) -> dict[str, Measured]:
    """Every drafter that ``agent`` has, on ``pairs``, which it meets in their order, a row at a time."""
    device = agent.device
    drafters: dict[str, Drafter] = {
        "copy": CopyDrafter(),
        "last-change": LastChangeDrafter(agent.model.config, device),
    }
    if agent.draft_head is not None:
        drafters["head"] = agent.draft_head
    changed = float((pairs.tokens != pairs.outcomes).float().sum(1).mean())
    return {name: _measure(drafter, pairs, changed) for name, drafter in drafters.items()}


def _measure(drafter: Drafter, pairs: Pairs, changed: float) -> Measured:
    wrong = []
    for row in range(len(pairs)):
        one = slice(row, row + 1)
        told = pairs.tokens[one, None], pairs.actions[one, None], pairs.tasks[one]
        guess = drafter.propose(*told).tokens
        outcome = pairs.outcomes[one, None]
        wrong.append((guess != outcome).flatten())
        drafter.learn(*told, torch.ones(1, 1, dtype=torch.bool, device=outcome.device), outcome)
    misses = torch.stack(wrong)
    return Measured(float(1 - misses.float().mean()), float(_passes(misses).mean()), changed)


def _passes(misses: Tensor) -> Tensor:
    """float (N,): passes of frames whose guesses miss as bool (N, 36) says.

    A pass ends at its first miss, which it mends; one that misses the last token needs another, for that token's Q.
    """
    assert misses.shape[1] == TOKENS_PER_FRAME
    return misses.sum(1).float() + 1
