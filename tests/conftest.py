"""What several rooms' tests share: a made-up data set, a very small training run, and commands run quickly."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from jowa.agent import Agent
    from jowa.planner import PlannerConfig
    from jowa.train.config import TrainConfig
    from jowa.types import Episode

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the hub's client is imported: no test asks the network

# Heavy imports happen inside the fixtures: the native core's tests run without torch, under sanitizers.


class _Progress:
    """Prints a line every tenth of the way: how many tests ended, at what rate, how long the rest will take."""

    def __init__(self, reporter: Any) -> None:
        self.reporter, self.began = reporter, time.monotonic()
        self.total = self.done = self.printed = 0

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self.total = len(ids)  # every worker collects all tests and runs a part of them

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.total = self.total or len(session.items)

    def pytest_runtest_logfinish(self) -> None:
        self.done += 1
        if (self.done - self.printed) * 10 >= self.total > 0:
            self.printed = self.done
            rate = self.done / max(time.monotonic() - self.began, 1e-9)
            minutes, seconds = divmod(round((self.total - self.done) / rate), 60)
            self.reporter.ensure_newline()
            self.reporter.write_line(
                f"{self.done}/{self.total} tests, {rate:.3g} tests/s, {minutes}:{seconds:02d} left"
            )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(config, "workerinput"):  # workers do not print
        config.pluginmanager.register(_Progress(reporter))


@pytest.fixture(scope="session")
def make_sprite_episode() -> Callable[..., Episode]:
    """A white square that the actions move over a grey field; rewards and actions random."""
    from jowa.games import get_game
    from jowa.types import Episode

    def make(game: str, length: int, seed: int, terminal: bool = True) -> Episode:
        generator = np.random.default_rng((seed, length))
        actions = generator.choice(get_game(game).legal_actions, length).astype(np.uint8)
        frames = np.full((length, 84, 84), 40 + 10 * (seed % 4), np.uint8)
        for step, left in enumerate(np.cumsum(actions) * 3 % 70):
            frames[step, 10 * (seed % 7) : 10 * (seed % 7) + 12, left : left + 12] = 230
        rewards = generator.choice(np.array([-1, 0, 0, 1], np.float32), length)
        return Episode(game, frames, actions, rewards, terminal, "random", seed, float(rewards.sum()))

    return make


@pytest.fixture(scope="session")
def sprite_store(tmp_path_factory: pytest.TempPathFactory, make_sprite_episode: Callable[..., Episode]) -> Path:
    """A data set of three games; lengths such that most batches hold padding.  Read only: copy it to change it."""
    from jowa.data.writer import EpisodeWriter

    path = tmp_path_factory.mktemp("sprites") / "store"
    with EpisodeWriter.open(path) as writer:
        for game in ("Pong", "Breakout", "Robotank"):
            for seed, length in enumerate((21, 13, 15)):
                writer.append(make_sprite_episode(game, length, seed, terminal=seed != 1))
    return path


@pytest.fixture(scope="session")
def make_tiny_agent() -> Callable[..., Agent]:
    """A very small agent with random weights, the same ones every time."""
    import torch

    from jowa.agent import Agent, Planning
    from jowa.config import ModelConfig, TokenizerConfig
    from jowa.model import WorldActionModel
    from jowa.tokenizer import Tokenizer

    def make(games: Sequence[str], planner: PlannerConfig, context_steps: int = 4) -> Agent:
        from jowa.games import get_game

        torch.manual_seed(0)
        tokenizer = Tokenizer(TokenizerConfig("local", vocab_size=20, code_dim=8, channels=16))
        sizes = {"layers": 2, "heads": 2, "width": 16, "q_width": 12, "q_ensemble": 2, "vocab_size": 20}
        model = WorldActionModel(ModelConfig(**sizes, context_steps=context_steps))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(12)  # so that what is imagined depends on what was seen
        tasks = {game: get_game(game).task_id for game in games}
        return Agent(tokenizer, model, tasks, planning=Planning(planner, context=2))

    return make


def override(config: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of a nested dataclass with ``{"stage1.steps": 3, ...}`` changed."""
    for name, value in changes.items():
        head, _, rest = name.partition(".")
        inner = override(getattr(config, head), {rest: value}) if rest else value
        config = dataclasses.replace(config, **{head: inner})
    return config


@pytest.fixture(scope="session")
def with_changes() -> Callable[[Any, Mapping[str, Any]], Any]:
    """:func:`override`, for rooms with settings of their own."""
    return override


SMALL = {
    "device": "cpu",
    "draft.moments": 3,
    "draft.steps": 2,
    "checkpoint.every": 2,
    "log_every": 1,
    "data.games": ("Pong", "Breakout"),
    "data.record_steps": 0,
    "data.segment_length": 4,
    "data.segment_stride": 2,
    "tokenizer.encoder": "local",
    "tokenizer.vocab_size": 32,
    "tokenizer.code_dim": 8,
    "tokenizer.channels": 16,
    "model.layers": 1,
    "model.heads": 2,
    "model.width": 32,
    "model.q_width": 16,
    "model.q_ensemble": 2,
    "model.vocab_size": 32,
    "model.context_steps": 4,
    "model.dropout": 0.1,
    "model.q_dropout": 0.1,
    "stage1.steps": 4,
    "stage1.batch_size": 4,
    "stage1.tokenizer_batch": 16,
    "stage1.world_from": 1,
    "stage1.motion_weight": 5.0,
    "stage1.revive_every": 2,
    "stage2.steps": 4,
    "stage2.batch_size": 4,
    "stage2.target_every": 3,
    "optimizer.warmup_steps": 2,
    "optimizer.final_fraction": 0.1,
    "evaluation.episodes": 0,
    "evaluation.width": 2,
    "evaluation.horizon": 2,
    "evaluation.context": 2,
    "evaluation.protocol": "sticky",
}
"""Settings with which a step takes milliseconds; dropout on, every feature of the tiny preset on."""


@pytest.fixture
def small_config(sprite_store: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """A very small run in ``tmp_path / "run"``; changes as ``{"stage1.steps": 3}``."""
    from jowa.train.presets import get_train_preset

    def make(changes: Mapping[str, Any] | None = None) -> TrainConfig:
        places = {"data.path": sprite_store, "out": tmp_path / "run"}
        config: TrainConfig = override(get_train_preset("tiny"), SMALL | places | dict(changes or {}))
        return config

    return make


@pytest.fixture(scope="session")
def as_arguments() -> Callable[[TrainConfig], list[str]]:
    """The options of ``python -m jowa.train`` that give a configuration: all of them, whatever the defaults."""

    def flatten(config: Any, prefix: str) -> Iterator[str]:
        for field in dataclasses.fields(config):
            value, name = getattr(config, field.name), field.name.replace("_", "-")
            if dataclasses.is_dataclass(value):
                yield from flatten(value, f"{prefix}{name}.")
            elif isinstance(value, bool):
                yield f"--{prefix}{name}" if value else f"--{prefix}no-{name}"
            else:
                yield from (f"--{prefix}{name}", *map(str, value if isinstance(value, tuple) else (value,)))

    return lambda config: list(flatten(config, ""))


@dataclass
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


class CommandServer:
    """``python -m`` commands in processes of their own, forked from one that has imported torch already."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.count = scratch, 0
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("command_server.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def together(self, jobs: Sequence[Mapping[str, Any]]) -> list[Done]:
        """Run jobs side by side; see ``command_server.py`` for their keys."""
        assert self.process.stdin and self.process.stdout
        requests = []
        for job in jobs:
            self.count += 1
            files = {name: str(self.scratch / f"{self.count}.{name}") for name in ("stdout", "stderr")}
            requests.append({"cwd": str(self.scratch), "env": {}, "largest_file": 0, **files, **job})
        self.process.stdin.write(json.dumps(requests) + "\n")
        self.process.stdin.flush()
        codes: list[int] = json.loads(self.process.stdout.readline())
        texts = [[Path(r[name]).read_text() for name in ("stdout", "stderr")] for r in requests]
        return [Done(code, *text) for code, text in zip(codes, texts, strict=True)]

    def __call__(self, module: str, *arguments: object, **options: Any) -> Done:
        """Run ``python -m module arguments``."""
        return self.together([{"run": module, "arguments": [str(a) for a in arguments], **options}])[0]


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandServer]:
    """``command("jowa.train", "--help").returncode``, fast enough to try every mistake."""
    server = CommandServer(tmp_path_factory.mktemp("commands"))
    yield server
    assert server.process.stdin
    server.process.stdin.close()
    server.process.wait(30)


@pytest.fixture(scope="session")
def finished_run(
    sprite_store: Path, tmp_path_factory: pytest.TempPathFactory, command: CommandServer,
    as_arguments: Callable[[TrainConfig], list[str]],
) -> Path:  # fmt: skip
    """The folder of a finished very small run of the real command.  Read only: copy it to change it."""
    from jowa.train.presets import get_train_preset

    out = tmp_path_factory.mktemp("finished") / "run"
    config = override(get_train_preset("tiny"), SMALL | {"data.path": sprite_store, "out": out})
    done = command("jowa.train", *as_arguments(config))
    assert done.returncode == 0, done.stderr
    return out
