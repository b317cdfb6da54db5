"""Rivals at play: many environments in one batch, each with a memory and a generator of its own."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.config import TOKENS_PER_FRAME
from jowa.errors import UsageError
from jowa.games import get_game
from jowa.rivals.config import Playing
from jowa.rivals.conv import HISTORY, ConvCritic, stack_frames
from jowa.rivals.sequence import RETURN_HIGH, RETURNS, SequencePolicy

if TYPE_CHECKING:
    from jowa.rivals.rival import Rival

RARE = 0.01
"""Returns whose chance is a smaller share of the most likely one's are not asked for."""


@dataclass
class _Memory:
    """The last steps of one slot; the newest has no action and no reward yet."""

    seen: deque[Tensor]
    """Frames uint8 (84, 84), or their tokens int64 (36,)."""
    actions: deque[int] = field(default_factory=deque)
    rewards: deque[int] = field(default_factory=deque)
    """Signs plus 1."""
    returns: deque[int] = field(default_factory=deque)
    """Return tokens; of the newest step 0 until it is drawn."""


class RivalPlayer:
    """Plays one slot of each game at once; slots never influence one another."""

    def __init__(
        self, rival: Rival, games: Sequence[str], generators: Sequence[np.random.Generator], playing: Playing
    ) -> None:
        """``games`` and ``generators``: one a slot.  Raises :class:`UsageError` for a memory it was not trained for."""
        self.rival, self.playing, self._generators = rival, playing, list(generators)
        model = rival.model
        steps = HISTORY if isinstance(model, ConvCritic) else playing.context
        if isinstance(model, SequencePolicy) and not 1 <= steps <= model.config.context_steps:
            raise UsageError(
                f"context is {steps}, expected 1 to {model.config.context_steps}, the steps that this {rival.kind} "
                "was made for"
            )
        self._memories = [_Memory(*(deque(maxlen=steps) for _ in range(4))) for _ in games]
        self._tasks = torch.tensor([rival.task_id(game) for game in games], device=rival.device)
        self._legal = torch.tensor(np.stack([get_game(game).action_mask for game in games]), device=rival.device)

    @torch.inference_mode()
    def decide(self, slots: Sequence[int], frames: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Legal actions int64 (n,) for ``slots``, which now see ``frames`` uint8 (n, 84, 84)."""
        rival = self.rival
        with torch.autocast(rival.device.type, dtype=rival.autocast, enabled=rival.autocast is not None):
            images = torch.from_numpy(frames).to(rival.device)
            seen = images if rival.tokenizer is None else rival.tokenizer.encode(images)
            for slot, one in zip(slots, seen, strict=True):
                self._memories[slot].seen.append(one)
                self._memories[slot].returns.append(0)
            if isinstance(rival.model, ConvCritic):
                return self._most_valued(rival.model, slots)
            return self._from_policy(rival.model, slots)

    def took(self, slots: Sequence[int], actions: NDArray[np.int64]) -> None:
        """Remember the actions that followed the last decision."""
        for slot, action in zip(slots, actions.tolist(), strict=True):
            self._memories[slot].actions.append(action)

    def earned(self, slots: Sequence[int], rewards: NDArray[np.float64]) -> None:
        """Remember what those actions earned, in game points."""
        for slot, sign in zip(slots, np.sign(rewards).astype(np.int64).tolist(), strict=True):
            self._memories[slot].rewards.append(sign + 1)

    def _most_valued(self, model: ConvCritic, slots: Sequence[int]) -> NDArray[np.int64]:
        stacks = torch.stack([self._stack(slot) for slot in slots])
        index = torch.tensor(list(slots), device=self._tasks.device)
        values = model.values(stacks, self._tasks[index])
        return values.masked_fill(~self._legal[index], -math.inf).argmax(-1).cpu().numpy()

    def _stack(self, slot: int) -> Tensor:
        seen = torch.stack(tuple(self._memories[slot].seen))
        return stack_frames(seen[None], torch.tensor([len(seen) - 1], device=seen.device))[0]

    def _from_policy(self, model: SequencePolicy, slots: Sequence[int]) -> NDArray[np.int64]:
        index = torch.tensor(list(slots), device=self._tasks.device)
        tasks, legal = self._tasks[index], self._legal[index]
        newest = torch.tensor([len(self._memories[slot].seen) - 1 for slot in slots], device=index.device)
        rows = torch.arange(len(index), device=index.device)
        if model.conditioned:
            logits = model(*self._remembered(slots, tasks)).returns[rows, newest].float()
            # What a short training left on returns that do not occur would be tilted into favour.
            rare = logits < logits.amax(-1, keepdim=True) + math.log(RARE)
            logits = logits.masked_fill(rare, -math.inf) + self.playing.kappa / RETURN_HIGH * torch.arange(
                RETURNS, device=logits.device
            )
            for slot, wanted in zip(slots, self._draw(logits, slots).tolist(), strict=True):
                self._memories[slot].returns[-1] = wanted
        logits = model(*self._remembered(slots, tasks)).actions[rows, newest].float().masked_fill(~legal, -math.inf)
        return logits.argmax(-1).cpu().numpy() if self.playing.choice == "likely" else self._draw(logits, slots)

    def _remembered(self, slots: Sequence[int], tasks: Tensor) -> tuple[Tensor, ...]:
        """What the model reads, right-padded: behind the newest frame nothing bears on its predictions."""
        memories = [self._memories[slot] for slot in slots]
        longest = max(len(memory.seen) for memory in memories)
        tokens = torch.zeros(len(slots), longest, TOKENS_PER_FRAME, dtype=torch.int64, device=tasks.device)
        actions, rewards, returns = (np.zeros((len(slots), longest), np.int64) for _ in range(3))
        for row, memory in enumerate(memories):
            steps = len(memory.seen)
            tokens[row, :steps] = torch.stack(tuple(memory.seen))
            past = steps - 1
            if past:  # older ones fell out with their frames
                actions[row, :past] = list(memory.actions)[-past:]
                rewards[row, :past] = list(memory.rewards)[-past:]
            returns[row, :steps] = list(memory.returns)
        numbers = (torch.from_numpy(values).to(tasks.device) for values in (actions, returns, rewards))
        acted, returned, rewarded = numbers
        return tokens, acted, tasks, returned, rewarded

    def _draw(self, logits: Tensor, slots: Sequence[int]) -> NDArray[np.int64]:
        """int64 (n,) drawn from ``logits`` float32 (n, classes), each by its slot's generator."""
        chances = logits.double().softmax(-1).cpu().numpy()
        picked = [
            self._generators[slot].choice(len(row), p=row / row.sum()) for slot, row in zip(slots, chances, strict=True)
        ]
        return np.array(picked, dtype=np.int64)
