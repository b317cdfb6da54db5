"""Minari → store: episodes of one Atari game from any data set whose observations are 84 × 84 grey frames."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from jowa.data.minari_export import DETAILS, check_dataset, import_minari
from jowa.data.schema import check_episode
from jowa.data.writer import EpisodeWriter
from jowa.errors import DataError, UsageError
from jowa.games import GAMES, NUM_ACTIONS, get_game
from jowa.progress import steps_progress
from jowa.types import Episode

IMPORTED = "imported"
"""Root attribute: for each game the data set that it came from."""
SHAPES = ((84, 84), (84, 84, 1), (1, 84, 84))


@dataclass(frozen=True)
class Source:
    """A Minari data set, and how to understand it."""

    dataset: Any
    path: Path
    game: str
    actions: NDArray[np.uint8]
    """uint8 (n,): the action of the full set of 18 that each of its actions is."""
    first_action: int
    """What it calls the first of them."""
    digest: str
    """SHA-256 of its metadata and its episodes' seeds, lengths and names."""
    metadata: list[dict[str, Any]]
    """Of each episode: total_steps, and what else there is of seed, policy, score."""
    policy: str
    """Who played, where an episode does not say."""
    lossy: bool
    """Whether its frames were stored as JPEG."""


@dataclass(frozen=True)
class Summary:
    """What an import did."""

    source: Source
    out: Path
    episodes: int
    steps: int
    reused: int
    """Episodes that were in the store before."""
    clipped: int
    """Rewards of the new episodes that were outside [-1, 1]."""

    def describe(self) -> str:
        """One line for the user."""
        notes = [f"{self.clipped:,} rewards clipped to [-1, 1]"]
        if self.reused:
            notes.append(f"{self.reused} episodes were there")
        if self.source.lossy:
            notes.append("its frames were stored as JPEG, which is not exact")
        return f"{self.out}: {self.source.game}, {self.episodes:,} episodes, {self.steps:,} steps ({'; '.join(notes)})"


def open_source(path: Path, game: str | None = None, minimal_actions: bool = False) -> Source:
    """The Minari data set at ``path``.

    ``game``: whose it is, where its metadata do not say.  ``minimal_actions``: its actions index the game's minimal
    set instead of the full set of 18.  Raises :class:`UsageError` for what has to be said and is not,
    :class:`DataError` for a data set that is not of this kind.
    """
    minari, folder = import_minari(), check_dataset(path)
    try:
        dataset = minari.MinariDataset(folder)
        metadata = list(dataset.storage.get_episode_metadata(dataset.episode_indices.tolist()))
        raw = json.loads((folder / "metadata.json").read_bytes())
    except Exception as error:  # whatever the library makes of damaged or missing files
        raise DataError(f"{path} cannot be read ({_first_line(error)}): restore it from a copy") from None
    name = _game_of(path, raw, game)
    observations = dataset.observation_space
    if not isinstance(observations, gymnasium.spaces.Box) or observations.dtype != np.uint8:
        raise DataError(f"{path} has observations {observations}: expected frames of uint8")
    if observations.shape not in SHAPES:
        raise DataError(f"{path} has observations of shape {observations.shape}: expected one of {SHAPES}")
    actions = _actions_of(path, dataset.action_space, name, minimal_actions)
    told = [{key: str(value) for key, value in sorted(each.items())} for each in metadata]
    digest = hashlib.sha256(json.dumps([raw, told, actions.tolist()], sort_keys=True).encode()).hexdigest()
    lossy = bool(raw.get("jpeg_encoding", True)) and len(observations.shape) in (2, 3) and observations.shape[0] > 1
    policy = str(raw.get("algorithm_name") or dataset.id)
    first = int(dataset.action_space.start)
    return Source(dataset, path, name, actions, first, digest, metadata, policy, lossy)


def _game_of(path: Path, raw: dict[str, Any], game: str | None) -> str:
    told = raw.get(DETAILS, {}).get("game") if isinstance(raw.get(DETAILS, {}), dict) else None
    if told is None and isinstance(raw.get("env_spec"), str):
        rom = json.loads(raw["env_spec"]).get("kwargs", {}).get("game")
        told = next((known.name for known in GAMES if known.rom == rom), None)
    if game is not None and told is not None and game != told:
        raise UsageError(f"{path} is of {told}, not of {game}: leave --game out")
    if game is None and told is None:
        raise UsageError(f"{path} does not say whose data it holds: name the game with --game, for example --game Pong")
    return get_game(str(game or told)).name


def _actions_of(path: Path, space: Any, game: str, minimal: bool) -> NDArray[np.uint8]:
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise DataError(f"{path} has actions {space}: expected a Discrete space")
    legal, number = np.array(get_game(game).legal_actions, np.uint8), int(space.n)
    if minimal:
        if number != len(legal):
            raise UsageError(f"{path} has {number} actions, {game}'s minimal set {len(legal)}: drop --minimal-actions")
        return legal
    if number != NUM_ACTIONS:
        hint = "; are they the game's minimal set? then add --minimal-actions" if number == len(legal) else ""
        raise UsageError(f"{path} has {number} actions: expected ALE's full set of {NUM_ACTIONS}{hint}")
    return np.arange(NUM_ACTIONS, dtype=np.uint8)


def import_episodes(source: Source, out: Path, layout: str = "default", progress: bool = True) -> Summary:
    """Append the episodes of ``source`` to the store at ``out``; those that are in are skipped.

    Raises :class:`UsageError` when ``out`` has the game from elsewhere, :class:`DataError` naming an episode that
    does not fit, OSError when ``out`` cannot be written; episodes that were committed stay.
    """
    game, clipped = source.game, 0
    total = sum(int(each["total_steps"]) for each in source.metadata)
    try:
        with EpisodeWriter.open(out, layout) as writer:
            _agree_on_source(writer, source)
            reused = writer.num_episodes(game)
            start = writer.num_steps(game)
            with steps_progress(f"importing {game}", total, "steps", start, progress) as advance:
                for episode, outside in _episodes(source, reused):
                    writer.append(episode)
                    clipped += outside
                    advance(writer.num_steps(game))
            return Summary(source, out, writer.num_episodes(game), writer.num_steps(game), reused, clipped)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or error.filename is None:
            error.filename = str(out)
        raise


def _agree_on_source(writer: EpisodeWriter, source: Source) -> None:
    had = writer.attributes.get(IMPORTED, {})
    known = had.get(source.game)
    if known is None and writer.num_episodes(source.game):
        raise UsageError(f"{writer.path} has {source.game} from elsewhere: import into a new folder, then merge")
    if known is not None and known.get("digest") != source.digest:
        raise UsageError(
            f"{source.game} in {writer.path} came from {known.get('path', 'elsewhere')}, another data set or one read "
            "with other options: import into a new folder, then merge"
        )
    if known is None:
        came = {"path": str(source.path), "dataset": source.dataset.id, "digest": source.digest}
        writer.update_attributes({IMPORTED: {**had, source.game: came}})


def _episodes(source: Source, first: int) -> Iterator[tuple[Episode, int]]:
    """The episodes from number ``first`` on, and how many rewards of each were clipped."""
    numbers = source.dataset.episode_indices[first:].tolist()
    found = iter(source.dataset.iterate_episodes(numbers))
    for number, metadata in zip(numbers, source.metadata[first:], strict=True):
        try:
            data = next(found)
        except Exception as error:  # h5py and the decoders raise what they like
            raise DataError(
                f"episode {number} of {source.path} cannot be read ({_first_line(error)}): restore it from a copy"
            ) from None
        try:
            yield _convert(source, data, metadata)
        except DataError as error:
            raise DataError(f"episode {number} of {source.path} cannot be taken: {error}") from None


def _convert(source: Source, data: Any, metadata: dict[str, Any]) -> tuple[Episode, int]:
    steps, frames = len(data.rewards), np.asarray(data.observations)
    if frames.shape[1:] not in SHAPES or len(frames) != steps + 1 or not steps:
        raise DataError(f"it has {steps} rewards and observations {frames.shape}: expected one frame more than steps")
    actions = np.asarray(data.actions).reshape(-1).astype(np.int64) - source.first_action
    if len(actions) != steps or actions.min() < 0 or actions.max() >= len(source.actions):
        raise DataError(f"it has {len(actions)} actions, some not below {len(source.actions)}: expected {steps}")
    rewards = np.asarray(data.rewards, np.float64)
    seed, score = metadata.get("seed"), metadata.get("score")
    episode = Episode(
        game=source.game,
        frames=np.ascontiguousarray(frames[:-1].reshape(steps, 84, 84)),
        actions=source.actions[actions],
        rewards=np.clip(rewards, -1.0, 1.0).astype(np.float32),
        terminal=bool(data.terminations[-1]),
        policy=str(metadata.get("policy", source.policy)),
        seed=0 if seed is None else int(seed),
        score=float(rewards.sum()) if score is None else float(score),
    )
    check_episode(episode)
    return episode, int((np.abs(rewards) > 1.0).sum())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
