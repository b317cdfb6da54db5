"""Recording: ALE → store, with several processes, resumable at any moment.

Episode k of a game is a pure function of (seed, game, k) and the settings.  Processes play ahead in any
order; the one writer commits in the order k = 0, 1, 2, ..., so a store always holds the first n episodes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from jowa.data.schema import get_layout
from jowa.data.workers import local_workers, plain_failures
from jowa.data.writer import EpisodeWriter
from jowa.env.atari import AtariEnv, AtariOptions
from jowa.env.experts.policies import AGENTS, EXPERTS_VERSION, default_mixture, make_policy
from jowa.errors import UsageError
from jowa.games import get_game
from jowa.hub import find_agent
from jowa.progress import steps_progress
from jowa.types import Episode


@dataclass(frozen=True)
class RecordConfig:
    """What to record, and where."""

    out: Path
    """Folder of the data set; created, or resumed when it exists."""
    games: tuple[str, ...]
    """Games by their CamelCase names, for example Pong Breakout."""
    steps: int = 100_000
    """Agent steps per game (four emulator frames each); whole episodes are played until there are at least as many."""
    policies: tuple[str, ...] = ()
    """Who plays: random, expert, follower (a plainer script), lookahead (any game, about 100 steps a second), each of
    the three also with :NOISE (share of random actions, 0 to 1), or agent:NAME (a trained agent's folder, demo, or its
    owner/name on the Hugging Face hub; agent-beam:NAME and agent-mcts:NAME: with planning). Episode k is played by
    policy k modulo their number. Default: a mixture of good, middling and bad play where docs/players.md lists one,
    else random."""
    sticky: float = 0.25
    """Probability, per emulator frame, that the previous action is repeated."""
    max_steps: int = 27_000
    """Agent steps after which an episode is cut off."""
    seed: int = 0
    """Non-negative; episode k of a game is a function of the seed, the game and k."""
    workers: int = 0
    """Processes that play; 0: one per CPU core. The data do not depend on it."""
    layout: str = "default"
    """How the frames of a new data set are packed: default (smaller) or fast (twice the size, read faster)."""

    def __post_init__(self) -> None:
        """Raise :class:`UsageError` for values that cannot be recorded."""
        for name in self.games:
            get_game(name)
        if not self.games or len(set(self.games)) != len(self.games):
            raise UsageError(f"games are {' '.join(self.games) or 'none'}: name at least one, each once")
        if self.steps < 1 or self.workers < 0 or self.seed < 0:
            raise UsageError(
                f"steps {self.steps}, workers {self.workers}, seed {self.seed}: expected at least 1, 0 and 0"
            )
        get_layout(self.layout)
        AtariOptions(self.sticky, self.max_steps)

    def mixture(self, game: str) -> tuple[str, ...]:
        """Policy specifications for ``game``."""
        return self.policies or default_mixture(game)

    def settings(self, game: str) -> dict[str, Any]:
        """Everything but the seed's episode number that an episode of ``game`` follows from, as JSON types."""
        return {
            "seed": self.seed,
            "sticky": self.sticky,
            "max_steps": self.max_steps,
            "policies": list(self.mixture(game)),
            "experts_version": EXPERTS_VERSION,
        } | _weights_of_agents(self.mixture(game))


def _weights_of_agents(policies: Sequence[str]) -> dict[str, Any]:
    """SHA-256 of the model of each ``agent:NAME``: trained on, it plays differently under the same name."""
    digests = {}
    for spec in policies:
        kind, _, name = spec.partition(":")
        if kind not in AGENTS or not name:
            continue
        weights = find_agent(name) / "model.safetensors"
        if weights.is_file():
            with weights.open("rb") as file:
                digests[spec] = hashlib.file_digest(file, "sha256").hexdigest()
    return {"agents": digests} if digests else {}


@dataclass(frozen=True)
class Summary:
    """What a store holds after recording."""

    out: Path
    steps: dict[str, int]
    """Agent steps per game."""
    episodes: dict[str, int]
    reused: int
    """Episodes that were there already."""

    def describe(self) -> str:
        """One line for the user."""
        parts = [f"{game} {self.steps[game]} steps in {self.episodes[game]} episodes" for game in self.steps]
        reused = f" (reusing {self.reused} episodes)" if self.reused else ""
        return f"{self.out}: {', '.join(parts)}{reused}"


@dataclass
class _Game:
    """One game's progress while recording."""

    name: str
    steps: int
    committed: int
    playing: list[Future[Episode]] = field(default_factory=list)
    """Episodes handed out and not committed, in order."""

    def wants_more(self, target: int) -> bool:
        """Whether another episode will probably be needed; a wrong guess costs time, never data."""
        mean = self.steps / self.committed if self.committed else 1000.0
        return self.steps + mean * len(self.playing) < target

    def finished(self, target: int) -> bool:
        return self.steps >= target


def episode_seed(seed: int, game: str, number: int) -> int:
    """The seed, below 2**63, of episode ``number`` of ``game``."""
    state = np.random.SeedSequence((seed, get_game(game).task_id, number)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def play_episode(game: str, number: int, policy: str, seed: int, options: AtariOptions) -> Episode:
    """Play episode ``number`` of ``game``; rewards come clipped to [-1, 1], the score does not."""
    environment, player = _environment(game, options), _player(policy, game)
    own_seed = episode_seed(seed, game, number)
    player.reset(own_seed)
    frame, _ = environment.reset(seed=own_seed)
    frames, actions, rewards = [], [], []
    ended = truncated = False
    while not (ended or truncated):
        action = player.act(frame, environment)
        frames.append(frame)
        actions.append(action)
        frame, reward, ended, truncated, _ = environment.step(action)
        rewards.append(reward)
    return Episode(
        game=game,
        frames=np.stack(frames),
        actions=np.array(actions, np.uint8),
        rewards=np.clip(np.array(rewards, np.float32), -1.0, 1.0),
        terminal=ended,
        policy=policy,
        seed=own_seed,
        score=float(sum(rewards)),
    )


# A ROM takes a tenth of a second to load and an agent much longer: keep the last ones.
_environment = lru_cache(maxsize=2)(AtariEnv)
_player = lru_cache(maxsize=8)(make_policy)


def record(config: RecordConfig, progress: bool = True) -> Summary:
    """Bring the store at ``config.out`` to at least ``config.steps`` steps of every game.

    Raises :class:`UsageError` when the store was recorded with other settings, :class:`DataError` when it is
    damaged or in use, OSError (naming the folder) when it cannot be written; finished episodes stay.
    """
    for game in config.games:
        for policy in config.mixture(game):
            if policy.partition(":")[0] not in AGENTS:  # loading an agent is the player's work
                make_policy(policy, game)
    with plain_failures(config.out, "finished episodes"), EpisodeWriter.open(config.out, config.layout) as writer:
        _agree_on_settings(writer, config)
        games = [_Game(name, writer.num_steps(name), writer.num_episodes(name)) for name in config.games]
        reused = sum(game.committed for game in games)
        with _shown(config, games) if progress else nullcontext(lambda: None) as report:
            _fill(writer, games, config, report)
        return Summary(config.out, {g.name: g.steps for g in games}, {g.name: g.committed for g in games}, reused)


def _agree_on_settings(writer: EpisodeWriter, config: RecordConfig) -> None:
    """Note how each game is recorded, or make sure that it was recorded the same way so far."""
    recorded: dict[str, dict[str, Any]] = dict(writer.attributes.get("recording", {}))
    for game in config.games:
        wanted, had = config.settings(game), recorded.get(game)
        if had is None and writer.num_episodes(game):
            raise UsageError(f"{game} in {config.out} was not recorded by this command: choose another folder")
        if had is not None and had != wanted:
            names = sorted(k for k in wanted.keys() | had.keys() if wanted.get(k) != had.get(k))
            differences = "; ".join(f"{k} was {had.get(k)}, now {wanted.get(k)}" for k in names)
            raise UsageError(
                f"{game} in {config.out} was recorded with other settings ({differences}): "
                "use the same ones, or choose another folder"
            )
        recorded[game] = wanted
    if recorded != writer.attributes.get("recording"):
        writer.update_attributes({"recording": recorded})


@contextmanager
def _shown(config: RecordConfig, games: list[_Game]) -> Iterator[Callable[[], None]]:
    """A bar over the steps of all games; yields what to call after a commit."""
    total = config.steps * len(games)

    def done() -> int:
        return sum(min(game.steps, config.steps) for game in games)

    with steps_progress("recording", total, "steps", done()) as advance:
        yield lambda: advance(done(), ", ".join(f"{game.name} {game.steps:,}" for game in games))


def _fill(writer: EpisodeWriter, games: list[_Game], config: RecordConfig, report: Callable[[], None]) -> None:
    """Play and commit until every game has its steps."""
    if all(game.finished(config.steps) for game in games):
        return
    workers = config.workers or os.cpu_count() or 1
    options = AtariOptions(config.sticky, config.max_steps)
    # Twice as many episodes as processes: while a long early one holds up the commits, nobody may idle.
    ahead = 2 * workers if workers > 1 else 1
    with local_workers(workers) as pool:
        while unfinished := [game for game in games if not game.finished(config.steps)]:
            for game in unfinished:
                while sum(len(g.playing) for g in unfinished) < ahead and game.wants_more(config.steps):
                    mixture = config.mixture(game.name)
                    number = game.committed + len(game.playing)
                    policy = mixture[number % len(mixture)]
                    game.playing.append(pool.submit(play_episode, game.name, number, policy, config.seed, options))
            wait([future for g in unfinished for future in g.playing], return_when=FIRST_COMPLETED)
            for game in unfinished:
                _commit_finished(writer, game, config.steps)
            report()


def _commit_finished(writer: EpisodeWriter, game: _Game, target: int) -> None:
    while game.playing and game.playing[0].done() and not game.finished(target):
        episode = game.playing.pop(0).result()
        writer.append(episode)
        game.steps += len(episode)
        game.committed += 1
