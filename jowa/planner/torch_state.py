"""A level that a :class:`jowa.planner.torch_engine.TorchEngine` imagines: what is known, what was fed, what is guessed.

Letters: as in :mod:`jowa.planner.engine`; N = R M rows, B tokens that a pass feeds each row.  Static shapes throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jowa.config import TOKENS_PER_FRAME, TOKENS_PER_STEP
from jowa.planner.engine import Drafts, Imagined, Level, Sampling, Values, uniform

REWARD_DRAW, END_DRAW = TOKENS_PER_FRAME, TOKENS_PER_FRAME + 1


@dataclass
class PassState:
    """A level that is being imagined, flat: N rows."""

    level: Level
    sampling: Sampling | None
    depths: Tensor
    """int64 (N,)."""
    pages: Tensor
    """int64 (N,): each row's own page; idle rows share the one behind the last."""
    tokens: Tensor
    """int64 (N, 37): what is known, then guesses; -1: no guess.  Behind the last token stands nothing that counts."""
    known: Tensor
    """int64 (N,): tokens that are settled."""
    fed: Tensor
    """int64 (N,): tokens of the page whose keys and values are right; 37: done."""
    rewards: Tensor
    ends: Tensor
    q: Tensor
    spread: Tensor
    broken: Tensor
    """bool (N,): a head answered NaN or infinity."""
    block: int
    passes: Tensor
    """int64 (N,), as are the next three: see :class:`jowa.planner.engine.Counters`."""
    fed_in_all: Tensor
    guessed: Tensor
    accepted: Tensor

    @classmethod
    def begin(
        cls, level: Level, drafts: Drafts | None, sampling: Sampling | None, pages: int, block: int, actions: int
    ) -> PassState:
        """A level of which nothing is known yet."""
        device = level.actions.device
        depths = level.depths.reshape(-1).long()
        count = len(depths)

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(count, *shape, dtype=dtype, device=device)

        own = level.page_table.flatten(0, 1).gather(1, depths.clamp(min=0)[:, None])[:, 0].long()
        own = torch.where(depths >= 0, own, pages)
        tokens = zeros(TOKENS_PER_STEP) - 1
        if drafts is not None:
            tokens[:, :TOKENS_PER_FRAME] = drafts.tokens.reshape(-1, TOKENS_PER_FRAME)
        fed = torch.where(depths >= 0, 0, TOKENS_PER_STEP)
        q, spread = zeros(actions, dtype=torch.float32), zeros(actions, dtype=torch.float32)
        return cls(
            level, sampling, depths, own, tokens, zeros(), fed, zeros(dtype=torch.float32), zeros(dtype=torch.bool),
            q, spread, zeros(dtype=torch.bool), block, zeros(), zeros(), zeros(), zeros(),
        )  # fmt: skip

    def finished(self) -> Tensor:
        """bool (N,)."""
        return self.fed >= TOKENS_PER_STEP

    def choose(self, logits: Tensor, fed: Tensor) -> Tensor:
        """int64 (N, B): the token that follows each of those fed, of logits (N, B, V)."""
        if self.sampling is None:
            return logits.argmax(-1)
        draws = torch.stack([uniform(self.sampling.seeds.reshape(-1), i) for i in range(TOKENS_PER_STEP)], 1)
        probabilities = (logits.float() / self.sampling.temperature).softmax(-1)
        return draw(probabilities, draws.gather(1, fed))

    def note_outcome(self, reward_logits: Tensor, end_logits: Tensor, at_action: Tensor) -> None:
        """Keep the reward and end of the rows, bool (N,), whose action was fed; logits (N, 3) and (N, 2)."""
        if self.sampling is None:
            reward, end = reward_logits.argmax(-1), end_logits.argmax(-1)
        else:
            seeds = self.sampling.seeds.reshape(-1)
            reward = draw(reward_logits.float().softmax(-1), uniform(seeds, REWARD_DRAW))
            end = draw(end_logits.float().softmax(-1), uniform(seeds, END_DRAW))
        sound = reward_logits.isfinite().all(-1) & end_logits.isfinite().all(-1)
        self.broken = self.broken | (at_action & ~sound)
        self.rewards = torch.where(at_action, reward.float() - 1, self.rewards)
        self.ends = torch.where(at_action, end == 1, self.ends)

    def settle(self, fed: Tensor, chosen: Tensor, sound: Tensor, values: Values) -> None:
        """Compare the guesses with what was ``chosen`` int64 (N, B) after each token fed, at places ``fed`` (N, B).

        ``sound`` bool (N, B): whether the logits were finite there.
        """
        running = ~self.finished()
        last = torch.arange(self.block, device=fed.device) == self.block - 1
        held = self.tokens.gather(1, fed)
        settled = (fed < self.known[:, None]) | (fed >= TOKENS_PER_FRAME)
        # What follows the last token fed was not fed, so it needs no guess: the pass ends there at the latest.
        right = settled | (held == chosen)
        stop = (~right | last).int().argmax(1, keepdim=True)
        until = fed.gather(1, stop)[:, 0]
        learnt = (fed >= self.known[:, None]) & (fed <= until[:, None]) & running[:, None]
        self.tokens = self.tokens.scatter(1, fed, torch.where(learnt, chosen, held))
        self.broken = self.broken | (learnt & ~sound & (fed < TOKENS_PER_FRAME)).any(1)
        fresh = fed >= self.fed[:, None]
        guesses = fresh & (fed > self.known[:, None])
        self.guessed += (guesses & running[:, None]).sum(1)
        self.accepted += (guesses & running[:, None] & (fed <= until[:, None])).sum(1)
        self.fed_in_all += torch.where(running, self.block, 0)
        self.passes += running
        self.known = torch.where(
            running, torch.maximum(self.known, (until + 1).clamp(max=TOKENS_PER_FRAME)), self.known
        )
        self.fed = torch.where(running, until + 1, self.fed)
        done = (running & self.finished())[:, None]
        self.q, self.spread = torch.where(done, values.q, self.q), torch.where(done, values.spread, self.spread)

    def imagined(self, roots: int, rows: int) -> Imagined:
        """The outcome, idle rows silenced."""
        live = self.depths >= 0
        tokens = torch.where(live[:, None], self.tokens[:, :TOKENS_PER_FRAME], 0).view(roots, rows, TOKENS_PER_FRAME)
        # Copies, all of them: on a GPU the state is used again.
        kept = ((live & ~self.broken)[:, None], torch.where(self.broken & live, torch.nan, 0.0)[:, None])
        q, spread = (torch.where(kept[0], values, kept[1]).view(roots, rows, values.shape[-1])
                     for values in (self.q, self.spread))  # fmt: skip
        rewards = torch.where(live & ~self.broken, self.rewards, kept[1][:, 0])
        ends = self.ends & live
        return Imagined(tokens, rewards.view(roots, rows), ends.view(roots, rows), q, spread)


def draw(probabilities: Tensor, draws: Tensor) -> Tensor:
    """int64 (...): the lowest class whose cumulative probability (..., C) exceeds ``draws`` (...), at most the last
    one with any."""
    cumulative = probabilities.double().cumsum(-1)
    drawn = (cumulative <= draws[..., None]).sum(-1)
    # argmax of a boolean from the back: rounding may leave the sum below 1.
    last = probabilities.shape[-1] - 1 - (probabilities.flip(-1) > 0).int().argmax(-1)
    return torch.minimum(drawn, last)
