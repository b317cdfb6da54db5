"""N dreams side by side: games that go on in the world model alone.  Gymnasium's forms stand on top of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.agent import Agent
from jowa.data.store import EpisodeStore
from jowa.env.atari import AtariEnv
from jowa.errors import NumericalError, UsageError
from jowa.games import get_game
from jowa.planner import Context, PlannerConfig
from jowa.planner.engine import Level, Sampling
from jowa.planner.rollout import Rollout

WARM_UP = 30
"""Random steps in the real game before a dream begins, at most."""


@dataclass(frozen=True)
class Start:
    """What a dream goes on from, oldest first."""

    frames: NDArray[np.uint8]
    """(n, 84, 84)."""
    actions: NDArray[np.int64]
    """(n - 1,): of the full 18, each between two frames."""

    def check(self) -> None:
        """Raise ValueError unless shapes, dtype and actions fit."""
        n = len(self.frames)
        if self.frames.shape != (n, 84, 84) or self.frames.dtype != np.uint8 or n < 1:
            raise ValueError(f"frames must be uint8 (n, 84, 84) with n at least 1, got {self.frames.dtype} "
                             f"{self.frames.shape}")  # fmt: skip
        if self.actions.shape != (n - 1,) or not ((self.actions >= 0) & (self.actions < 18)).all():
            raise ValueError(f"actions must be {n - 1} numbers from 0 to 17, got {self.actions.tolist()}")


@dataclass(frozen=True)
class Moment:
    """What a dream remembers at some moment."""

    tokens: tuple[Tensor, ...]
    """int64 (36,) each, oldest first."""
    actions: tuple[int, ...]


@dataclass
class _Memory:
    """The last steps of one dream."""

    tokens: deque[Tensor]
    actions: deque[int] = field(default_factory=deque)


class Dreams:
    """N dreams of ``game``, each imagined from its own last ``context`` frames; none influences another.

    A step's reward is the model's: -1, 0 or 1.  ``sample``: draw tokens, reward and end (frame tokens at
    ``temperature``) instead of taking the most likely.
    """

    def __init__(
        self, agent: Agent, game: str, count: int, context: int | None, sample: bool, temperature: float
    ) -> None:
        longest = agent.model.config.context_steps - 1
        self.context = min(agent.planning.of(game).context, longest) if context is None else context
        if not 1 <= self.context <= longest:
            raise UsageError(f"context is {context}, expected 1 to {longest} steps with this model")
        if not temperature > 0:
            raise UsageError(f"temperature is {temperature}, expected a number above 0")
        self.agent, self.sample, self.temperature = agent, sample, temperature
        self.rollout = Rollout(agent.model, PlannerConfig(), agent.autocast, agent.engine, agent.draft_head)
        self.task = agent.task_id(game)
        self._legal = torch.from_numpy(get_game(game).action_mask.copy()).to(agent.device)
        self._memories = [_Memory(deque(maxlen=self.context), deque(maxlen=self.context)) for _ in range(count)]

    def begin(self, index: int, start: Start) -> NDArray[np.uint8]:
        """Let dream ``index`` go on from ``start``, of which it sees the last frames; returns its last frame uint8
        (84, 84) as the tokenizer shows it."""
        start.check()
        memory = self._memories[index]
        memory.tokens.clear()
        memory.actions.clear()
        memory.tokens.extend(self.agent.encode(start.frames[-self.context :]))
        memory.actions.extend(start.actions[len(start.actions) + 1 - len(memory.tokens) :].tolist())
        return self._show(memory.tokens[-1][None])[0]

    def step(
        self, indices: Sequence[int], actions: NDArray[np.int64], seeds: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
        """Take ``actions`` int64 (n,), of the full 18, in the dreams ``indices``.

        Returns frames uint8 (n, 84, 84), rewards float32 (n,), ends bool (n,).  ``seeds`` int64 (n,) decide what is
        drawn.
        """
        count, device = len(indices), self.agent.device
        memories = [self._memories[index] for index in indices]
        pages = torch.arange(count, dtype=torch.int32, device=device).view(count, 1, 1)
        level = Level(torch.from_numpy(actions).to(device).view(count, 1), pages, torch.zeros_like(pages[..., 0]))
        sampling = None
        if self.sample:
            sampling = Sampling(torch.from_numpy(seeds).to(device).view(count, 1), self.temperature)
        context = self._context(memories)
        latest = torch.stack([memory.tokens[-1] for memory in memories])[:, None]
        with self.rollout.working():
            self.rollout.reserve(count, count)
            self.rollout.encode(context)
            found = self.rollout.imagine(level, latest, context.tasks, sampling)
        if bool(found.rewards.isnan().any()):
            raise NumericalError(
                "the model answers NaN: its weights are damaged or training diverged; use another checkpoint, or "
                "--precision float32"
            )
        # Only now, so that a step that failed leaves the dreams where they were.
        for memory, tokens, action in zip(memories, found.tokens[:, 0], actions.tolist(), strict=True):
            memory.tokens.append(tokens)
            memory.actions.append(action)
        return self._show(found.tokens[:, 0]), found.rewards[:, 0].cpu().numpy(), found.ends[:, 0].cpu().numpy()

    def moment(self, index: int) -> Moment:
        """What dream ``index`` remembers now, for :meth:`return_to`."""
        memory = self._memories[index]
        return Moment(tuple(memory.tokens), tuple(memory.actions))

    def return_to(self, index: int, moment: Moment) -> NDArray[np.uint8]:
        """Let dream ``index`` go on from ``moment``, of a dream of the same agent; its last frame uint8 (84, 84)."""
        memory = self._memories[index]
        memory.tokens = deque(moment.tokens, maxlen=self.context)
        memory.actions = deque(moment.actions, maxlen=self.context)
        return self._show(memory.tokens[-1][None])[0]

    def tokens(self, index: int) -> NDArray[np.int64]:
        """int64 (36,): what dream ``index`` sees."""
        return np.asarray(self._memories[index].tokens[-1].cpu().numpy(), dtype=np.int64)

    def _context(self, memories: Sequence[_Memory]) -> Context:
        count, device = len(memories), self.agent.device
        longest = max(len(memory.tokens) for memory in memories)
        tokens = torch.zeros(count, longest, 36, dtype=torch.int64, device=device)
        actions = torch.zeros(count, longest, dtype=torch.int64, device=device)
        for row, memory in enumerate(memories):
            seen = len(memory.tokens)
            tokens[row, :seen] = torch.stack(tuple(memory.tokens))
            # Those between the frames; older ones fell out with their frames.
            taken = list(memory.actions)[1 - seen :] if seen > 1 else []
            actions[row, : len(taken)] = torch.tensor(taken, dtype=torch.int64, device=device)
        lengths = torch.tensor([len(memory.tokens) for memory in memories], device=device)
        tasks = torch.full((count,), self.task, dtype=torch.int64, device=device)
        return Context(tokens, actions, lengths, tasks, self._legal.expand(count, -1))

    def _show(self, tokens: Tensor) -> NDArray[np.uint8]:
        """Frames uint8 (n, 84, 84) of tokens (n, 36)."""
        pixels = self.agent.tokenizer.decode(tokens)
        return np.asarray((pixels * 255).round().byte().cpu().numpy(), dtype=np.uint8)


class Starts:
    """Where dreams begin: in the real game, after some random steps, or at recorded moments."""

    def __init__(self, game: str, data: Path | str | None, context: int) -> None:
        self.game, self.context = game, context
        self._legal = np.array(get_game(game).legal_actions)
        self._env: AtariEnv | None = None
        self._store = None if data is None else EpisodeStore.open(Path(data))
        if self._store is not None and (game not in self._store.games or not self._store.num_episodes(game)):
            raise UsageError(f"{data} holds no episodes of {game}: choose one of {', '.join(self._store.games)}")

    def draw(self, generator: np.random.Generator) -> Start:
        """A start that follows from ``generator`` alone."""
        if self._store is not None:
            return self._recorded(self._store, generator)
        if self._env is None:
            self._env = AtariEnv(self.game)
        frame, _ = self._env.reset(seed=int(generator.integers(2**31)))
        frames, actions = [frame], []
        for action in generator.choice(self._legal, size=int(generator.integers(WARM_UP + 1))).tolist():
            frame, _, terminated, truncated, _ = self._env.step(action)
            if terminated or truncated:
                break
            frames.append(frame)
            actions.append(action)
        return Start(np.stack(frames), np.array(actions, dtype=np.int64))

    def _recorded(self, store: EpisodeStore, generator: np.random.Generator) -> Start:
        episode = store.episode(self.game, int(generator.integers(store.num_episodes(self.game))))
        last = episode.offset + int(generator.integers(episode.length))
        first = max(episode.offset, last + 1 - self.context)
        frames, actions, _ = store.read(self.game, first, last + 1)
        return Start(frames, actions[:-1].astype(np.int64))
