"""Guesses of an imagined frame, for the engine to verify many tokens in one pass.

Consecutive frames share most of their tokens, so already the parent's frame is a guess; what measures best is a small
network that looks at each token's neighbourhood.  A guess never changes what is imagined.

Letters: R roots, M rows a root, N = R M, K = 36 tokens a frame, V vocabulary, E embedding width, D hidden width.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from jowa.config import TOKENS_PER_FRAME, ModelConfig
from jowa.planner.engine import Drafts

GRID = 6
EMBEDDING, HIDDEN = 24, 128


class Drafter(Protocol):
    """Guesses frames, and may learn from what was then imagined."""

    def propose(self, tokens: Tensor, actions: Tensor, tasks: Tensor) -> Drafts:
        """Guesses of what follows the frames ``tokens`` int64 (R, M, 36) after ``actions`` int64 (R, M); tasks (R,)."""
        ...

    def learn(self, tokens: Tensor, actions: Tensor, tasks: Tensor, live: Tensor, outcome: Tensor) -> None:
        """Told the ``outcome`` int64 (R, M, 36) of rows that are ``live`` bool (R, M)."""
        ...


class CopyDrafter:
    """Nothing changes."""

    def propose(self, tokens: Tensor, actions: Tensor, tasks: Tensor) -> Drafts:
        """See :class:`Drafter`."""
        del actions, tasks
        return Drafts(tokens)

    def learn(self, tokens: Tensor, actions: Tensor, tasks: Tensor, live: Tensor, outcome: Tensor) -> None:
        """See :class:`Drafter`."""


class LastChangeDrafter:
    """What followed this token, at this place, in this game, the last time; at first the token itself."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        with torch.inference_mode(False):  # it is written to later, also outside of that mode
            kept = torch.arange(config.vocab_size, dtype=torch.int32, device=device)
            self._after = kept.repeat(config.num_tasks, TOKENS_PER_FRAME, 1)
        self._places = torch.arange(TOKENS_PER_FRAME, device=device)

    def propose(self, tokens: Tensor, actions: Tensor, tasks: Tensor) -> Drafts:
        """See :class:`Drafter`."""
        del actions
        return Drafts(self._after[tasks[:, None, None], self._places, tokens].long())

    def learn(self, tokens: Tensor, actions: Tensor, tasks: Tensor, live: Tensor, outcome: Tensor) -> None:
        """See :class:`Drafter`."""
        del actions
        # Idle rows, whose outcome is zeros, learn what is known already.
        known = self._after[tasks[:, None, None], self._places, tokens]
        news = torch.where(live[..., None], outcome.to(torch.int32), known)
        places = self._places.expand_as(tokens)
        self._after[tasks[:, None, None].expand_as(tokens), places, tokens] = news


class DraftHead(nn.Module):
    """A small network beside the model: each token's 3 x 3 neighbourhood, the action, the game, and the whole frame.

    It is trained to say what the model would (``python -m jowa.draft``), and serves as a :class:`Drafter`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vocab_size = config.vocab_size
        self.token_embedding = nn.Embedding(config.vocab_size + 1, EMBEDDING)  # the last stands beyond the border
        self.position_embedding = nn.Embedding(TOKENS_PER_FRAME, HIDDEN)
        self.action_embedding = nn.Embedding(config.num_actions, HIDDEN)
        self.task_embedding = nn.Embedding(config.num_tasks, HIDDEN)
        self.neighbours = nn.Linear(9 * EMBEDDING, HIDDEN)
        self.frame = nn.Linear(TOKENS_PER_FRAME * EMBEDDING, HIDDEN)
        self.hidden = nn.Linear(HIDDEN, HIDDEN)
        self.output = nn.Linear(HIDDEN, config.vocab_size)
        self.register_buffer("_around", _neighbourhoods(), persistent=False)

    def forward(self, tokens: Tensor, actions: Tensor, tasks: Tensor) -> Tensor:
        """Logits float (N, 36, V) of the frame after ``tokens`` int64 (N, 36); ``actions`` and ``tasks`` int64 (N,)."""
        padded = nn.functional.pad(tokens, (0, 1), value=self.vocab_size)
        embedded = self.token_embedding(padded)
        near = self.neighbours(embedded[:, self._around].flatten(2))
        wide = self.frame(embedded[:, :TOKENS_PER_FRAME].flatten(1))
        wide = wide + self.action_embedding(actions) + self.task_embedding(tasks)
        x = torch.relu(near + self.position_embedding.weight + wide[:, None])
        return self.output(x + torch.relu(self.hidden(x)))

    @torch.inference_mode()
    def propose(self, tokens: Tensor, actions: Tensor, tasks: Tensor) -> Drafts:
        """See :class:`Drafter`."""
        roots, rows = actions.shape
        logits = self(tokens.flatten(0, 1), actions.flatten(), tasks.repeat_interleave(rows)).float()
        best = logits.max(-1)
        sureness = (best.values - logits.logsumexp(-1)).exp()
        shape = (roots, rows, TOKENS_PER_FRAME)
        return Drafts(best.indices.view(shape), sureness.view(shape))

    def learn(self, tokens: Tensor, actions: Tensor, tasks: Tensor, live: Tensor, outcome: Tensor) -> None:
        """See :class:`Drafter`: it is trained elsewhere."""


def _neighbourhoods() -> Tensor:
    """int64 (36, 9): places of the 3 x 3 tokens around each, 36 beyond the border."""
    places = torch.full((GRID + 2, GRID + 2), TOKENS_PER_FRAME)
    places[1:-1, 1:-1] = torch.arange(TOKENS_PER_FRAME).view(GRID, GRID)
    windows = places.unfold(0, 3, 1).unfold(1, 3, 1)
    return windows.reshape(TOKENS_PER_FRAME, 9).contiguous()
