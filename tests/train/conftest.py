"""A trainer in this process, watched step by step."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

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


@pytest.fixture(scope="session")
def read_state(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Any]:
    """What a checkpoint holds, without the networks that it belongs to."""

    def read(checkpoint: Path) -> Any:
        file = tmp_path_factory.mktemp("read") / "state.pt"
        dcp_to_torch_save(checkpoint, file)
        return torch.load(file, weights_only=False)

    return read


@pytest.fixture(scope="session")
def process_environments() -> Callable[[int], list[dict[str, str]]]:
    """What ``torchrun`` would tell each of so many processes on this machine."""

    def make(world: int) -> list[dict[str, str]]:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        shared = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [
            {key: str(value) for key, value in (shared | {"RANK": rank, "LOCAL_RANK": rank}).items()}
            for rank in range(world)
        ]

    return make


@pytest.fixture
def train_on(
    command: Any, tmp_path: Path, process_environments: Callable[[int], list[dict[str, str]]]
) -> Callable[..., list[dict[str, Any]]]:
    """Train ``config`` on so many processes; what each of them found."""

    def train(config: Any, world: int, gradients_after: Sequence[int] = ()) -> list[dict[str, Any]]:
        out = tmp_path / f"world{world}-{config.out.name}"
        out.mkdir(parents=True)
        wanted = {"config": config, "gradients_after": gradients_after}
        torch.save(wanted, out / "settings.pt")
        arguments = [str(out / "settings.pt"), str(out)]
        jobs = [{"run": WORKER, "arguments": arguments, "env": place} for place in process_environments(world)]
        for done in command.together(jobs):
            assert done.returncode == 0, done.stderr
        return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(world)]

    return train
