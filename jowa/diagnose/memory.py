"""What an agent remembers of several games of one kind, as contexts for its planner."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from jowa.agent import Agent
from jowa.config import TOKENS_PER_FRAME
from jowa.dream.world import Start
from jowa.games import get_game
from jowa.planner import Context


@dataclass
class Memory:
    """The last steps of one game, oldest first; each action stands between two frames."""

    longest: int
    """Frames remembered at most."""
    tokens: deque[Tensor] = field(default_factory=deque)
    """Each int64 (36,)."""
    actions: deque[int] = field(default_factory=deque)

    def see(self, tokens: Tensor) -> None:
        """Remember a frame, int64 (36,)."""
        self.tokens.append(tokens)
        if len(self.tokens) > self.longest:
            self.tokens.popleft()
        while len(self.actions) >= len(self.tokens):
            self.actions.popleft()

    def took(self, action: int) -> None:
        """Remember what was done after the last frame."""
        self.actions.append(action)

    def copy(self) -> Memory:
        """One that goes its own way."""
        return Memory(self.longest, deque(self.tokens), deque(self.actions))


def remember(agent: Agent, starts: Sequence[Start], longest: int) -> list[Memory]:
    """Memories of recorded moments."""
    frames = [start.frames[-longest:] for start in starts]
    tokens = torch.split(agent.encode(np.concatenate(frames)), [len(part) for part in frames])
    return [
        Memory(longest, deque(seen), deque(start.actions[len(start.actions) + 1 - len(seen) :].tolist()))
        for seen, start in zip(tokens, starts, strict=True)
    ]


def context_of(agent: Agent, game: str, memories: Sequence[Memory]) -> Context:
    """What the planner is given for games of ``game``."""
    count, device = len(memories), agent.device
    longest = max(len(memory.tokens) for memory in memories)
    tokens = torch.zeros(count, longest, TOKENS_PER_FRAME, dtype=torch.int64, device=device)
    actions = torch.zeros(count, longest, dtype=torch.int64, device=device)
    for row, memory in enumerate(memories):
        tokens[row, : len(memory.tokens)] = torch.stack(tuple(memory.tokens))
        taken = list(memory.actions)[: len(memory.tokens) - 1]
        actions[row, : len(taken)] = torch.tensor(taken, dtype=torch.int64, device=device)
    lengths = torch.tensor([len(memory.tokens) for memory in memories], device=device)
    tasks = torch.full((count,), agent.task_id(game), dtype=torch.int64, device=device)
    legal = torch.from_numpy(get_game(game).action_mask.copy()).to(device)
    return Context(tokens, actions, lengths, tasks, legal.expand(count, -1))
