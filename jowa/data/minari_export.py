"""Store → Minari: one game as a data set that Minari reads, from which the import makes the same episodes again."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from jowa.data import lock as locking
from jowa.data.store import EpisodeStore
from jowa.errors import DataError, UsageError
from jowa.files import PARTIAL
from jowa.games import NUM_ACTIONS
from jowa.progress import steps_progress

DETAILS = "jowa"
"""Entry of the data set's metadata that tells the import what Minari has no name for."""
NAME = re.compile(r"\w[-\w]*-v\d+")
DESCRIPTION = (
    "Episodes of the Atari game {game}: 84 x 84 grey frames, every fourth one of the emulator's; actions index ALE's "
    "full set of 18; rewards are clipped to [-1, 1], the raw score is in each episode's metadata. The frame after the "
    "last action was not recorded: the last observation of every episode is the one before it, repeated."
)


def import_minari() -> Any:
    """The library; :class:`UsageError` naming the extra when it is not installed."""
    try:
        import h5py  # noqa: F401  (Minari's own dependency for this format, and optional there)
        import minari
    except ImportError as error:
        raise UsageError(f"Minari cannot be used ({error.name} is not installed): pip install 'minari[hdf5]'") from None
    return minari


def export(store: EpisodeStore, out: Path, game: str | None = None, progress: bool = True) -> tuple[int, int]:
    """Write one game of ``store`` as the Minari data set ``out``; returns how many episodes and steps.

    ``out`` appears whole or not at all.  Its name is the data set's id (``pong-v0``), so that Minari finds it when
    MINARI_DATASETS_PATH is the folder around it.  Raises :class:`UsageError` for a bad name or a choice that is
    not made, :class:`DataError` when the store is damaged, OSError when ``out`` cannot be written.
    """
    minari = import_minari()
    game = _choose_game(store, game)
    if not NAME.fullmatch(out.name):
        raise UsageError(f"{out}: Minari reads the data set's id off the name, which must be like {game.lower()}-v0")
    if out.exists():
        raise UsageError(f"{out} exists: Minari data sets are not overwritten; choose another folder")
    unfinished = out.parent / f".{out.name}{PARTIAL}"
    unfinished.mkdir(parents=True, exist_ok=True)
    lock = locking.take_lock(unfinished)
    try:
        shutil.rmtree(unfinished / out.name, ignore_errors=True)  # of an export that was killed
        with _written_below(unfinished):
            _write(minari, store, out.name, game, progress)
        for file in (unfinished / out.name / "data").iterdir():
            with file.open("rb+") as written:
                os.fsync(written.fileno())
        (unfinished / out.name).rename(out)
    finally:
        os.close(lock)
        shutil.rmtree(unfinished, ignore_errors=True)
    return store.num_episodes(game), store.num_steps(game)


def _choose_game(store: EpisodeStore, game: str | None) -> str:
    if game is None and len(store.games) > 1:
        raise UsageError(f"{store.path} has {', '.join(store.games)}: choose one with --game")
    chosen = store.games[0] if game is None else game
    store.num_steps(chosen)  # the store has it
    return chosen


@contextmanager
def _written_below(folder: Path) -> Iterator[None]:
    """Let Minari write its data sets into ``folder``; it takes no path, but reads the environment."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def _write(minari: Any, store: EpisodeStore, name: str, game: str, progress: bool) -> None:
    with warnings.catch_warnings():  # about an author, an address and an environment that are not given
        warnings.simplefilter("ignore", UserWarning)
        dataset = minari.create_dataset_from_buffers(
            name,
            [],
            observation_space=gymnasium.spaces.Box(0, 255, (84, 84), np.uint8),
            action_space=gymnasium.spaces.Discrete(NUM_ACTIONS),
            description=DESCRIPTION.format(game=game),
            algorithm_name=", ".join(dict.fromkeys(info.policy for info in store.episodes(game))),
            data_format="hdf5",
            jpeg_encoding=False,  # the default loses what the frames were
        )
    dataset.storage.update_metadata({DETAILS: {"game": game, "actions": "full"}})
    total, infos = store.num_steps(game), store.episodes(game)
    with steps_progress(f"exporting {game}", total, "steps", shown=progress) as advance:
        dataset.storage.update_episodes(_buffers(minari, store, game, advance))
    metadata = ({"policy": info.policy, "score": info.score} for info in infos)
    dataset.storage.update_episode_metadata(metadata, range(len(infos)))


def _buffers(minari: Any, store: EpisodeStore, game: str, advance: Any) -> Iterator[Any]:
    """The episodes as Minari takes them, one at a time."""
    done = 0
    for number in range(store.num_episodes(game)):
        episode = store.read_episode(game, number)
        last = np.zeros(len(episode), np.bool_)
        last[-1] = True
        yield minari.data_collector.EpisodeBuffer(
            seed=episode.seed,
            observations=np.concatenate([episode.frames, episode.frames[-1:]]),
            actions=episode.actions.astype(np.int64),
            rewards=episode.rewards,
            terminations=last & episode.terminal,
            truncations=last & (not episode.terminal),
            infos={},
        )
        done += len(episode)
        advance(done)


def check_dataset(path: Path) -> Path:
    """The folder with the data of the Minari data set ``path``, which may be given with or without ``data``."""
    for folder in (path / "data", path):
        if (folder / "metadata.json").is_file():
            return folder
    raise DataError(f"{path} is no Minari data set: expected a folder with data/metadata.json")
