"""The world model against what really followed, k steps ahead under the recorded actions.

Letters: n or N moments, K steps, T = 36 tokens a frame.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from jowa.agent import Agent
from jowa.config import TOKENS_PER_FRAME
from jowa.diagnose.estimates import Estimate, Floats, Numbers, Resampler
from jowa.diagnose.moments import Followed
from jowa.dream.world import Dreams, Start

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Rolled:
    """What was imagined after n moments."""

    tokens: NDArray[np.int64]
    """(n, K, 36)."""
    frames: NDArray[np.uint8]
    """(n, K, 84, 84)."""
    rewards: NDArray[np.float32]
    """(n, K): -1, 0 or 1."""
    ends: Bools
    """(n, K)."""


class World(Protocol):
    """Somebody who imagines, and who says what frames look like to him."""

    def imagine(self, starts: Sequence[Start], actions: NDArray[np.int64]) -> Rolled:
        """Take ``actions`` int64 (n, K) after ``starts``."""
        ...

    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Tokens int64 (..., 36) of frames (..., 84, 84)."""
        ...

    def decode(self, tokens: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Frames (..., 84, 84) of tokens (..., 36)."""
        ...


class AgentsWorld:
    """The agent's own world model: the most likely of everything, from the last ``context`` frames."""

    def __init__(self, agent: Agent, game: str, context: int) -> None:
        self.agent, self.game, self.context = agent, game, context

    @torch.inference_mode()
    def imagine(self, starts: Sequence[Start], actions: NDArray[np.int64]) -> Rolled:
        """See :class:`World`; after a predicted end it dreams on, as a recorded game went on."""
        count, steps = actions.shape
        dreams = Dreams(self.agent, self.game, count, self.context, sample=False, temperature=1.0)
        for index, start in enumerate(starts):
            dreams.begin(index, start)
        everyone, nothing = range(count), np.zeros(count, np.int64)
        tokens, outcomes = [], []
        for step in range(steps):
            outcomes.append(dreams.step(everyone, np.ascontiguousarray(actions[:, step]), nothing))
            tokens.append(np.stack([dreams.tokens(index) for index in everyone]))
        frames, rewards, ends = (np.stack(column, 1) for column in zip(*outcomes, strict=True))
        return Rolled(np.stack(tokens, 1), frames, rewards, ends)

    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.int64]:
        """See :class:`World`."""
        return np.asarray(self.agent.encode(frames).cpu().numpy(), dtype=np.int64)

    @torch.inference_mode()
    def decode(self, tokens: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See :class:`World`."""
        pixels = self.agent.tokenizer.decode(torch.from_numpy(tokens).to(self.agent.device))
        return np.asarray((pixels * 255).round().byte().cpu().numpy(), dtype=np.uint8)


@dataclass(frozen=True)
class Scored:
    """Counts for every moment and step, (N, K); where nothing happened, 0 and False."""

    seen: Bools
    """A real frame to compare with."""
    tokens_right: NDArray[np.int64]
    changed: NDArray[np.int64]
    """Tokens that differ from those of the real frame that was seen last."""
    changed_right: NDArray[np.int64]
    moving: NDArray[np.int64]
    """Pixels that differ from those of that frame."""
    error: Floats
    """Sum of |imagined - real| over the moving pixels, grey levels."""
    error_copied: Floats
    """The same of the frame that was seen last."""
    error_tokenizer: Floats
    """The same of the real frame, encoded and decoded: what perfect tokens would get."""
    happened: Bools
    """A real reward to compare with."""
    reward: NDArray[np.int64]
    """The sign of the real one."""
    reward_said: NDArray[np.int64]
    end: Bools
    end_said: Bools

    @classmethod
    def join(cls, parts: Sequence[Scored]) -> Scored:
        """All of ``parts``, one after the other."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def score(world: World, followed: Followed) -> Scored:
    """Let ``world`` imagine and compare."""
    rolled = world.imagine(followed.starts, followed.actions)
    last = np.stack([start.frames[-1] for start in followed.starts])
    before = world.encode(last)[:, None]
    truth = world.encode(followed.frames)
    seen, happened = followed.seen, followed.happened
    right = (rolled.tokens == truth) & seen[..., None]
    changed = (truth != before) & seen[..., None]
    moving = (followed.frames != last[:, None]) & seen[..., None, None]

    def error(frames: NDArray[np.uint8]) -> Floats:
        difference = np.abs(frames.astype(np.int16) - followed.frames) * moving
        return difference.sum((2, 3)).astype(np.float64)

    return Scored(
        seen, right.sum(-1), changed.sum(-1), (right & changed).sum(-1), moving.sum((2, 3)), error(rolled.frames),
        error(np.broadcast_to(last[:, None], followed.frames.shape)), error(world.decode(truth)), happened,
        np.sign(followed.rewards).astype(np.int64) * happened, rolled.rewards.astype(np.int64) * happened,
        followed.ends & happened, rolled.ends & happened,
    )  # fmt: skip


@dataclass(frozen=True)
class StepFigures:
    """How good the imagination of k steps ahead is.  ``copy``: a world in which nothing ever happens."""

    k: int
    tokens: Estimate
    """Share of tokens right."""
    tokens_copy: Estimate
    changed_tokens: Estimate
    """Share right of the tokens that changed since the last real frame; copying gets 0."""
    frames: Estimate
    """Share of frames of which all 36 tokens are right."""
    frames_copy: Estimate
    pixels: Estimate
    """Mean error of moving pixels, grey levels of 255."""
    pixels_copy: Estimate
    pixels_tokenizer: Estimate
    """Of the real frame as the tokenizer shows it."""
    rewards: Estimate
    """Share of reward signs right."""
    rewards_copy: Estimate
    """Saying 0 always."""
    reward_precision: Estimate
    """Share of the non-zero rewards said that are right, with their sign."""
    reward_recall: Estimate
    """Share of the real non-zero rewards that are said, with their sign."""
    ends: Estimate
    """Share of steps with the end rightly said or not said."""
    ends_copy: Estimate
    """Never saying it."""
    end_precision: Estimate
    end_recall: Estimate


def step_figures(scored: Scored, weights: Floats, resampler: Resampler) -> list[StepFigures]:
    """A row for each of K steps; ``weights`` (N,) of the moments."""
    return [_one_step(scored, step, weights, resampler) for step in range(scored.seen.shape[1])]


def _one_step(scored: Scored, step: int, weights: Floats, resampler: Resampler) -> StepFigures:
    at = {field.name: getattr(scored, field.name)[:, step] for field in dataclasses.fields(scored)}
    seen, happened, changed = at["seen"], at["happened"], at["changed"]

    def share(hits: Numbers, of: Numbers) -> Estimate:
        return resampler.share(hits, of, weights)

    def pixels(name: str) -> Estimate:
        return resampler.ratio(at[name], at["moving"], weights)

    reward, said = at["reward"], at["reward_said"]
    hit = (reward == said) & (reward != 0)
    end, end_said = at["end"], at["end_said"]
    return StepFigures(
        k=step + 1,
        tokens=share(at["tokens_right"], TOKENS_PER_FRAME * seen),
        tokens_copy=share((TOKENS_PER_FRAME - changed) * seen, TOKENS_PER_FRAME * seen),
        changed_tokens=share(at["changed_right"], changed),
        frames=share(seen & (at["tokens_right"] == TOKENS_PER_FRAME), seen),
        frames_copy=share(seen & (changed == 0), seen),
        pixels=pixels("error"),
        pixels_copy=pixels("error_copied"),
        pixels_tokenizer=pixels("error_tokenizer"),
        rewards=share(happened & (reward == said), happened),
        rewards_copy=share(happened & (reward == 0), happened),
        reward_precision=share(hit, said != 0),
        reward_recall=share(hit, reward != 0),
        ends=share(happened & (end == end_said), happened),
        ends_copy=share(happened & ~end, happened),
        end_precision=share(end & end_said, end_said),
        end_recall=share(end & end_said, end),
    )


@dataclass(frozen=True)
class BoundTerms:
    """The terms of the bound for planning k steps ahead, as shares; an estimate, without the theorem's constants.

    Each error is Σ over i = 1..k of γ^(i - 1) times the share that is wrong i steps ahead.
    """

    k: int
    tokens: float | None
    frames: float | None
    rewards: float | None
    ends: float | None
    critic: float | None
    """γ^k times the mean |Q - return|, in clipped reward."""


def bound_terms(figures: Sequence[StepFigures], gamma: float, q_error: float | None) -> list[BoundTerms]:
    """One row for each k; ``q_error`` is the critic's mean absolute error."""
    sums: dict[str, float | None] = dict.fromkeys(("tokens", "frames", "rewards", "ends"), 0.0)
    rows = []
    for step, row in enumerate(figures):
        for name, total in sums.items():
            right = getattr(row, name).value
            sums[name] = None if total is None or right is None else total + gamma**step * (1 - right)
        rows.append(BoundTerms(row.k, **sums, critic=None if q_error is None else gamma**row.k * q_error))
    return rows
