"""What planning really gains: both actions tried from the same moment of the real game, many times."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jowa.agent import Agent, Planning
from jowa.diagnose.estimates import Estimate, Floats, Resampler
from jowa.diagnose.memory import Memory
from jowa.diagnose.planning import Decisions, decide
from jowa.env.atari import AtariOptions
from jowa.env.branching import BranchingEnv, BranchPoint
from jowa.evaluate.play import Protocol
from jowa.games import get_game

GAMES = 4
"""Games that the agent plays at once to reach moments."""
BRANCHES = 16
"""Branches played at once."""


@dataclass(frozen=True)
class Fork:
    """A moment that the agent reached, at which planning and greed part."""

    point: BranchPoint
    memory: Memory
    planned: int
    greedy: int
    imagined: float
    """Imagined gain."""


@dataclass(frozen=True)
class RealFigures:
    """Real gains in discounted clipped reward: the planned action, then greed, against greed from the start."""

    decisions: int
    """Decisions at moments that the agent itself reached."""
    changed: Estimate
    """Share of them in which the planned action is not the greedy one (the interval treats games as units)."""
    gain: Estimate
    """Mean gain where it is not; the interval resamples moments."""
    gain_a_decision: float | None
    """The two multiplied: what planning once, now, adds to an average decision."""
    imagined: Estimate
    """Mean imagined gain at the same moments."""
    better: Estimate
    """Share of these moments whose mean gain over repeats is above 0."""
    worse: Estimate
    """Below 0."""
    steps: int
    """Agent steps a branch was played for, at most."""
    repeats: int
    """Branches of each kind a moment, both kinds with the same draws of sticky actions."""


class RealGames:
    """Plays one game for real with ``agent``, under ``protocol``."""

    def __init__(
        self, agent: Agent, game: str, planning: Planning, protocol: Protocol, context: int, seed: int
    ) -> None:
        """``context``: frames remembered at most, by the planner and by greed."""
        self.agent, self.game, self.context = agent, game, context
        self.protocol, self.seed = protocol, seed
        self.config = planning.planner
        self.greed = dataclasses.replace(planning.planner, name="none")
        self._task = get_game(game).task_id
        self._legal = get_game(game).legal_actions
        options = AtariOptions(protocol.sticky, protocol.max_steps)
        self._envs = [BranchingEnv(game, options) for _ in range(max(GAMES, BRANCHES))]

    def reach(
        self, decisions: int, count: int, advance: Callable[[int], None]
    ) -> tuple[list[Fork], NDArray[np.bool_], NDArray[np.int64]]:
        """Play by the planner; returns at most ``count`` forks, each equally likely to be one of them, whether each
        decision was one (D,), and in which game it was made (D,)."""
        planner = self.agent.planner(self.config)
        chance = np.random.default_rng((self.seed, self._task, 1))
        envs, started = self._envs[:GAMES], 0
        frames, memories, games = [], [], []
        for env in envs:
            frames.append(self._begin(env, started))
            memories.append(Memory(self.context))
            games.append(started)
            started += 1
        forks: list[Fork] = []
        changed: list[bool] = []
        made_in: list[int] = []
        met = 0
        while len(changed) < decisions:
            self._see(memories, frames)
            decided = decide(self.agent, planner, self.config, self.game, memories)
            for slot, env in enumerate(envs):
                differs = bool(decided.changed[slot])
                changed.append(differs)
                made_in.append(games[slot])
                if differs:
                    met += 1
                    place = len(forks) if len(forks) < count else int(chance.integers(met))
                    if place < count:
                        forks[place : place + 1] = [_fork(env, memories[slot], decided, slot)]
                action = self._spoiled(int(decided.planned[slot]), chance)
                memories[slot].took(action)
                frames[slot], _, ended, cut, _ = env.step(action)
                if ended or cut:
                    frames[slot], memories[slot], games[slot] = self._begin(env, started), Memory(self.context), started
                    started += 1
            advance(min(len(changed), decisions))
        return forks, np.array(changed), np.array(made_in, dtype=np.int64)

    def play_out(self, forks: Sequence[Fork], repeats: int, steps: int, advance: Callable[[int], None]) -> Floats:
        """Discounted clipped returns (forks, repeats, 2) of the planned action (0) and the greedy one (1), each
        followed by greed for ``steps`` steps in all."""
        returns = np.zeros((len(forks), repeats, 2))
        jobs = list(np.ndindex(*returns.shape))
        for first in range(0, len(jobs), BRANCHES):
            part = jobs[first : first + BRANCHES]
            returns[tuple(np.array(part).T)] = self._branches(forks, part, steps)
            advance(first + len(part))
        return returns

    def _branches(self, forks: Sequence[Fork], jobs: Sequence[tuple[int, ...]], steps: int) -> Floats:
        """Returns (len(jobs),) of branches (fork, repeat, kind) side by side."""
        greedy = self.agent.planner(self.greed)
        chances, memories, actions = [], [], []
        for env, (fork, repeat, kind) in zip(self._envs, jobs, strict=False):
            # The same draws for both kinds: what differs then is what was done.
            seed = (self.seed, self._task, 2, fork, repeat)
            env.branch(forks[fork].point, seed)
            chances.append(np.random.default_rng((*seed, 0)))
            memories.append(forks[fork].memory.copy())
            actions.append(forks[fork].greedy if kind else forks[fork].planned)
        earned, alive = np.zeros(len(jobs)), list(range(len(jobs)))
        for step in range(steps):
            going, frames = [], []
            for slot in alive:
                memories[slot].took(actions[slot])
                frame, reward, ended, cut, _ = self._envs[slot].step(actions[slot])
                earned[slot] += self.greed.gamma**step * float(np.clip(reward, -1, 1))
                if not (ended or cut):
                    going.append(slot)
                    frames.append(frame)
            alive = going
            if not alive or step + 1 == steps:
                break
            mine = [memories[slot] for slot in alive]
            self._see(mine, frames)
            decided = decide(self.agent, greedy, self.greed, self.game, mine)
            for slot, action in zip(alive, decided.planned.tolist(), strict=True):
                actions[slot] = self._spoiled(action, chances[slot])
        return earned

    def _begin(self, env: BranchingEnv, number: int) -> NDArray[np.uint8]:
        seed = np.random.SeedSequence((self.seed, self._task, 0, number)).generate_state(1)[0]
        return env.reset(seed=int(seed))[0]

    def _see(self, memories: Sequence[Memory], frames: Sequence[NDArray[np.uint8]]) -> None:
        for memory, tokens in zip(memories, self.agent.encode(np.stack(frames)), strict=True):
            memory.see(tokens)

    def _spoiled(self, action: int, chance: np.random.Generator) -> int:
        """``action``, or a random one as often as the protocol says."""
        if self.protocol.random_action and chance.random() < self.protocol.random_action:
            return int(chance.choice(self._legal))
        return action


def _fork(env: BranchingEnv, memory: Memory, decided: Decisions, slot: int) -> Fork:
    return Fork(
        env.branch_point(), memory.copy(), int(decided.planned[slot]), int(decided.greedy[slot]),
        float(decided.gain[slot]),
    )  # fmt: skip


def real_figures(
    forks: Sequence[Fork], returns: Floats, changed: NDArray[np.bool_], games: NDArray[np.int64], steps: int, seed: int
) -> RealFigures:
    """All figures; arguments as :class:`RealGames` returns them."""
    gains = (returns[..., 0] - returns[..., 1]).mean(1) if len(forks) else np.zeros(0)
    resampler = Resampler(np.arange(len(forks)), seed)
    share = Resampler(games, seed).share(changed, np.ones(len(changed)))
    gain, everyone = resampler.mean(gains), np.ones(len(forks))
    return RealFigures(
        decisions=len(changed),
        changed=share,
        gain=gain,
        gain_a_decision=None if gain.value is None or share.value is None else gain.value * share.value,
        imagined=resampler.mean(np.array([fork.imagined for fork in forks])),
        better=resampler.share(gains > 0, everyone),
        worse=resampler.share(gains < 0, everyone),
        steps=steps,
        repeats=returns.shape[1],
    )
