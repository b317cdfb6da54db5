"""A trainer in this process, watched step by step."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from jowa.train.config import TrainConfig
from jowa.train.distributed import Place
from jowa.train.feed import Feed
from jowa.train.loop import Trainer

WORKER = str(Path(__file__).with_name("ddp_worker.py"))
Watch = Callable[[Trainer, int, dict[str, float]], None]


@pytest.fixture(scope="session")
def alone() -> Place:
    """The only process, on the CPU."""
    return Place(0, 1, torch.device("cpu"))


@pytest.fixture(scope="session")
def run_trainer(alone: Place) -> Callable[..., Trainer]:
    """Resume or begin a run and train to its end; ``watch(trainer, step, metrics)`` is called after every step."""

    def run(config: TrainConfig, watch: Watch | None = None) -> Trainer:
        trainer = Trainer(config, alone)
        trainer.resume()
        trainer.run(Feed(config, alone), lambda step, metrics: watch(trainer, step, metrics) if watch else None)
        return trainer

    return run


def _tensors(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return {key: tensor for part, inner in items for key, tensor in _tensors(inner, f"{name}/{part}").items()}


@pytest.fixture(scope="session")
def assert_same_state() -> Callable[[Any, Any], None]:
    """Two nested states hold the same tensors, bit for bit."""

    def check(a: Any, b: Any) -> None:
        left, right = _tensors(a), _tensors(b)
        assert left.keys() == right.keys() and left
        different = [name for name in left if not torch.equal(left[name], right[name])]
        assert not different, different

    return check


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def train_on(command: Any, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Train ``config`` on so many processes; what each of them found."""

    def train(config: Any, world: int, gradients_after: Sequence[int] = ()) -> list[dict[str, Any]]:
        out = tmp_path / f"world{world}-{config.out.name}"
        out.mkdir(parents=True)
        wanted = {"config": config, "gradients_after": gradients_after}
        torch.save(wanted, out / "settings.pt")
        shared = {
            "WORLD_SIZE": world,
            "LOCAL_WORLD_SIZE": world,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": free_port(),
        }
        environments = [{k: str(v) for k, v in (shared | {"RANK": r, "LOCAL_RANK": r}).items()} for r in range(world)]
        arguments = [str(out / "settings.pt"), str(out)]
        jobs = [{"run": WORKER, "arguments": arguments, "env": environment} for environment in environments]
        for done in command.together(jobs):
            assert done.returncode == 0, done.stderr
        return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(world)]

    return train
