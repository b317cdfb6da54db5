"""Made-up episodes: every frame, action and reward tells which step of which episode it is."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from jowa.data import schema
from jowa.data.store import EpisodeStore
from jowa.data.writer import EpisodeWriter
from jowa.games import get_game
from jowa.types import Episode

MakeEpisode = Callable[..., Episode]


def episode_maker(game: str, length: int, seed: int = 0, terminal: bool = True, policy: str = "random") -> Episode:
    generator = np.random.default_rng((seed, length))
    frames = np.zeros((length, 84, 84), np.uint8)
    frames[:, 20:30, 30:40] = generator.integers(0, 255, (length, 10, 10), dtype=np.uint8)
    frames[:, 0, 0] = np.arange(length) % 251
    rewards = generator.choice(np.array([-1.0, 0.0, 0.25, 1.0], np.float32), length)
    actions = generator.choice(get_game(game).legal_actions, length).astype(np.uint8)
    return Episode(game, frames, actions, rewards, terminal, policy, seed, float(rewards.sum() * 7))


@pytest.fixture(scope="session")
def make_episode() -> MakeEpisode:
    return episode_maker


@pytest.fixture
def make_store(tmp_path: Path, make_episode: MakeEpisode) -> Callable[..., EpisodeStore]:
    """A store of one game per keyword: its episodes' lengths; negative for an episode that was cut off."""

    def make(**lengths: Sequence[int]) -> EpisodeStore:
        with EpisodeWriter.open(tmp_path / "store") as writer:
            for game, values in lengths.items():
                for number, length in enumerate(values):
                    writer.append(make_episode(game, abs(length), number, terminal=length > 0))
        return EpisodeStore.open(tmp_path / "store")

    return make


def old_store_maker(path: Path, episodes: Sequence[Episode]) -> Path:
    """A store as version 1 of the schema wrote it: smaller shards, larger chunks, documents without checksums."""
    root = zarr.create_group(path, zarr_format=3, attributes={"schema": schema.SCHEMA, "version": 1})
    for game in dict.fromkeys(episode.game for episode in episodes):
        chosen = [episode for episode in episodes if episode.game == game]
        group, lengths = root.create_group(game), np.array([len(episode) for episode in chosen])
        policies = list(dict.fromkeys(episode.policy for episode in chosen))
        columns = {
            "offset": np.cumsum(lengths) - lengths,
            "length": lengths,
            **{name: [getattr(episode, name) for episode in chosen] for name in ("terminal", "seed", "score")},
            "policy": [policies.index(episode.policy) for episode in chosen],
        }
        for name, (dtype, row) in schema.STEP_ARRAYS.items():
            rows = np.concatenate([getattr(episode, name) for episode in chosen])
            _old_array(group, name, rows.astype(dtype), (32 if row else 4096, *row), (4096, *row))
        for name, dtype in schema.EPISODE_ARRAYS.items():
            _old_array(group, name, np.array(columns[name.removeprefix("episode_")], dtype), (1024,), None)
        counts = {"num_episodes": len(chosen), "num_steps": int(lengths.sum()), "policies": policies}
        group.update_attributes(counts)
    return path


def _old_array(group: zarr.Group, name: str, rows: np.ndarray, chunk: tuple[int, ...], shard: tuple | None) -> None:
    packing = [ZstdCodec(level=1), Crc32cCodec()]
    sharding = ShardingCodec(
        chunk_shape=chunk, codecs=[BytesCodec(), *packing], index_codecs=[BytesCodec(), Crc32cCodec()]
    )
    array = group.create_array(
        name, shape=rows.shape, chunks=shard or chunk, dtype=rows.dtype, serializer=sharding if shard else BytesCodec(),
        compressors=None if shard else packing, filters=None, fill_value=rows.dtype.type(0).item(),
        config={"write_empty_chunks": True},
    )  # fmt: skip
    array[:] = rows


@pytest.fixture(scope="session")
def make_old_store() -> Callable[[Path, Sequence[Episode]], Path]:
    return old_store_maker


def write_store(path: Path, episodes: Sequence[Episode], layout: str = "default") -> Path:
    with EpisodeWriter.open(path, layout) as writer:
        for episode in episodes:
            writer.append(episode)
    return path


@pytest.fixture(scope="session")
def make_store_of() -> Callable[..., Path]:
    """A store of given episodes: (path, episodes, layout)."""
    return write_store


@pytest.fixture
def full_disk(monkeypatch) -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """``with full_disk(n)``: from the n-th file on, writing finds the disk full."""

    @contextlib.contextmanager
    def full(fails_at: int) -> Iterator[None]:
        original, calls = Path.replace, 0

        def replace(self: Path, target: Path) -> Path:
            nonlocal calls
            calls += 1
            if calls >= fails_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            yield

    return full


@pytest.fixture
def killed() -> Callable[[Callable[[], object], int, str], bool]:
    """``killed(action, n, when)``: run ``action`` in a child process that is killed (SIGKILL) at its n-th file.

    ``when``: ``before`` the file gets its name, ``after``, or ``half``: with half of it written under its temporary
    name.  Returns whether it came to that.
    """

    def run(action: Callable[[], object], number: int, when: str) -> bool:
        child = os.fork()
        if child == 0:
            try:
                _kill_at(number, when)
                action()
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL

    return run


def _kill_at(number: int, when: str) -> None:
    calls = 0

    def wrap(original: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def moved(self: Path, target: Path) -> Path:
            nonlocal calls
            calls += 1
            if calls == number and when == "half" and self.is_file():
                os.truncate(self, self.stat().st_size // 2)
            if calls == number and when != "after":
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(self, target)
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return moved

    Path.replace, Path.rename = wrap(Path.replace), wrap(Path.rename)  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file of a folder but the lock, by its path in it."""
    return lambda folder: {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "writer.lock"
    }


def _same_episode(a: Episode, b: Episode) -> None:
    assert (a.game, a.terminal, a.policy, a.seed, a.score) == (b.game, b.terminal, b.policy, b.seed, b.score)
    for name in ("frames", "actions", "rewards"):
        left, right = getattr(a, name), getattr(b, name)
        assert left.dtype == right.dtype and np.array_equal(left, right), name


@pytest.fixture(scope="session")
def assert_same_episode() -> Callable[[Episode, Episode], None]:
    return _same_episode


@pytest.fixture(scope="session")
def fake() -> ModuleType:
    """The module ``fake_dqn_replay`` beside this file."""
    spec = importlib.util.spec_from_file_location("fake_dqn_replay", Path(__file__).with_name("fake_dqn_replay.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
