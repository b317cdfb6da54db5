"""Playing real games, many environments in one batch, under a named protocol."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jowa.agent import Agent, Planning, Player
from jowa.env.atari import AtariOptions, AtariVector
from jowa.errors import unknown_name
from jowa.games import get_game
from jowa.planner import shared_settings


@dataclass(frozen=True)
class Protocol:
    """The rules under which scores are measured."""

    name: str
    sticky: float
    """Probability of repeating the previous action."""
    max_steps: int
    """Agent steps after which an episode is cut off."""
    random_action: float
    """Probability of a uniformly random legal action instead of the agent's."""


PROTOCOLS = {
    # The paper's: no sticky actions, so 16 episodes hold few distinct scores.
    "published": Protocol("published", sticky=0.0, max_steps=108_000, random_action=0.001),
    # Machado et al. 2018: sticky actions 0.25, 108,000 frames.
    "sticky": Protocol("sticky", sticky=0.25, max_steps=27_000, random_action=0.0),
}


def get_protocol(name: str) -> Protocol:
    """The protocol called ``name``; UsageError if there is none."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


@dataclass(frozen=True)
class Played:
    """One finished episode."""

    game: str
    episode: int
    score: float
    """Sum of raw rewards, game points."""
    steps: int
    """Agent steps."""


def steps_of(played: Sequence[Played]) -> dict[str, list[int]]:
    """Agent steps of each episode by game, in the order of its scores."""
    games = dict.fromkeys(one.game for one in played)
    return {game: [one.steps for one in played if one.game == game] for game in games}


@dataclass(frozen=True)
class Decider:
    """Who decides for the slots of one wave."""

    choose: Callable[[NDArray[np.int64], NDArray[np.uint8]], NDArray[np.int64]]
    """(slots (n,), their frames uint8 (n, 84, 84)) to actions int64 (n,)."""
    took: Callable[[list[int], NDArray[np.int64]], None] = lambda slots, actions: None
    """Told the slots and the actions int64 (n,) that were really taken; a player with a memory needs them."""
    earned: Callable[[list[int], NDArray[np.float64]], None] = lambda slots, rewards: None
    """Told the slots and the raw rewards float64 (n,) of their last actions; who studies a player needs them."""


MakePlayer = Callable[[Sequence[tuple[str, int]]], Decider]
"""From one (game, episode) per slot to who decides for them."""


def agent_player(agent: Agent, plannings: Mapping[str, Planning]) -> MakePlayer:
    """The agent, which plans as ``plannings`` says for each game.

    Games whose planners can share a batch are decided together, others one kind after the other.
    """

    def make(jobs: Sequence[tuple[str, int]]) -> Decider:
        kinds: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for slot, (game, _) in enumerate(jobs):
            kinds[shared_settings(plannings[game].planner)].append(slot)
        players, where = [], {}
        for kind, slots in enumerate(kinds.values()):
            chosen = [plannings[jobs[slot][0]] for slot in slots]
            planners, contexts = [one.planner for one in chosen], [one.context for one in chosen]
            players.append(agent.player([jobs[slot][0] for slot in slots], planners, contexts))
            where.update({slot: (kind, place) for place, slot in enumerate(slots)})

        def parts(slots: Sequence[int]) -> Iterator[tuple[Player, list[int], list[int]]]:
            """Each player, its own slots, and where in ``slots`` they are."""
            for kind, player in enumerate(players):
                rows = [row for row, slot in enumerate(slots) if where[slot][0] == kind]
                if rows:
                    yield player, [where[slots[row]][1] for row in rows], rows

        def choose(slots: NDArray[np.int64], frames: NDArray[np.uint8]) -> NDArray[np.int64]:
            actions = np.empty(len(slots), dtype=np.int64)
            for player, own, rows in parts(slots.tolist()):
                actions[rows] = player.decide(own, frames[rows]).actions
            return actions

        def took(slots: list[int], actions: NDArray[np.int64]) -> None:
            for player, own, rows in parts(slots):
                player.took(own, actions[rows])

        return Decider(choose, took)

    return make


def random_player(seed: int) -> MakePlayer:
    """Uniformly random legal actions."""

    def make(jobs: Sequence[tuple[str, int]]) -> Decider:
        generators = [episode_generator(seed, game, episode, stream=1) for game, episode in jobs]
        legal = [np.array(get_game(game).legal_actions) for game, _ in jobs]

        def choose(slots: NDArray[np.int64], frames: NDArray[np.uint8]) -> NDArray[np.int64]:
            return np.array([generators[slot].choice(legal[slot]) for slot in slots], dtype=np.int64)

        return Decider(choose)

    return make


def episode_generator(seed: int, game: str, episode: int, stream: int) -> np.random.Generator:
    """A generator of its own for each use ``stream`` of each episode."""
    return np.random.default_rng((seed, get_game(game).task_id, episode, stream))


def noting(advance: Callable[..., None], before: int = 0) -> Callable[[int, int], None]:
    """What :func:`play` calls to show its progress in a bar (:func:`jowa.progress.steps_progress`).

    ``before``: episodes that the bar counted already.
    """

    def note(finished: int, steps: int) -> None:
        advance(before + finished, f"{steps:,} decisions")

    return note


def play(
    make_player: MakePlayer,
    games: Sequence[str],
    episodes: int,
    protocol: Protocol,
    seed: int = 0,
    batch: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Played]:
    """Play ``episodes`` of each game, at most ``batch`` environments at once.

    Episode k of a game starts from a seed that follows from (seed, game, k) alone.  ``on_progress`` is
    called with (episodes finished, agent steps taken so far).
    """
    jobs = [(game, episode) for game in games for episode in range(episodes)]
    results: list[Played] = []
    steps = 0

    def count(finished: int, taken: int) -> None:
        nonlocal steps
        steps += taken
        if on_progress:
            on_progress(len(results) + finished, steps)

    for start in range(0, len(jobs), batch):
        results += _play_wave(make_player, jobs[start : start + batch], protocol, seed, count)
    return results


def _play_wave(
    make_player: MakePlayer,
    jobs: Sequence[tuple[str, int]],
    protocol: Protocol,
    seed: int,
    count: Callable[[int, int], None],
) -> list[Played]:
    """One episode in each slot; a slot that finishes waits for the others."""
    decider = make_player(jobs)
    worlds = _Worlds(jobs, protocol, seed)
    noise = [episode_generator(seed, game, episode, stream=2) for game, episode in jobs]
    scores, lengths = np.zeros(len(jobs)), np.zeros(len(jobs), dtype=np.int64)
    frames = worlds.reset()
    done = np.zeros(len(jobs), dtype=np.bool_)
    try:
        while not done.all():
            active = np.flatnonzero(~done)
            chosen = decider.choose(active, frames[active])
            for row, slot in enumerate(active.tolist()):
                if protocol.random_action and noise[slot].random() < protocol.random_action:
                    chosen[row] = noise[slot].choice(get_game(jobs[slot][0]).legal_actions)
            decider.took(active.tolist(), chosen)
            actions = np.zeros(len(jobs), dtype=np.int64)
            actions[active] = chosen
            frames, rewards, done = worlds.step(actions)
            decider.earned(active.tolist(), rewards[active])
            scores += rewards
            lengths[active] += 1
            count(int(done.sum()), len(active))
    finally:
        worlds.close()
    return [
        Played(game, episode, float(score), int(length))
        for (game, episode), score, length in zip(jobs, scores, lengths, strict=True)
    ]


class _Worlds:
    """The environments of one wave: slots of the same game are neighbours and share a vector."""

    def __init__(self, jobs: Sequence[tuple[str, int]], protocol: Protocol, seed: int) -> None:
        self.games = list(dict.fromkeys(game for game, _ in jobs))
        options = AtariOptions(protocol.sticky, protocol.max_steps)
        self.vectors, self.parts, start = [], [], 0
        for game in self.games:
            seeds = [
                int(episode_generator(seed, game, episode, stream=0).integers(2**31))
                for name, episode in jobs
                if name == game
            ]
            self.vectors.append(AtariVector(game, len(seeds), options, seeds))
            self.parts.append(slice(start, start + len(seeds)))
            start += len(seeds)

    def reset(self) -> NDArray[np.uint8]:
        """Frames uint8 (S, 84, 84) of new episodes."""
        return np.concatenate([vector.reset() for vector in self.vectors])

    def step(self, actions: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.bool_]]:
        """Frames (S, 84, 84), raw rewards (S,), whether each slot's episode is over (S,)."""
        outcomes = [vector.step(actions[part]) for vector, part in zip(self.vectors, self.parts, strict=True)]
        frames, rewards, terminated, truncated = (np.concatenate(column) for column in zip(*outcomes, strict=True))
        return frames, rewards.astype(np.float64), terminated | truncated

    def close(self) -> None:
        """Stop the vectors' threads."""
        for vector in self.vectors:
            vector.close()
