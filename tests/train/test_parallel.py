"""However a batch is cut, recomputed and spread over processes: the same losses and the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

COMMON = {
    "stage1.world_from": 0, "stage1.revive_every": 5, "stage1.batch_size": 8, "stage1.tokenizer_batch": 32,
    "stage2.batch_size": 8, "stage2.target_every": 5, "objective.action_noise": 0.5, "checkpoint.every": 1000,
    "model.layers": 2,
}  # fmt: skip
NO_GRADIENT = "attn.key.bias"
"""Softmax does not feel it: its gradient is rounding, which Adam makes as large as any other."""


@pytest.fixture
def train_alone(small_config: Any, train_on: Any, tmp_path: Any) -> Callable[..., dict[str, Any]]:
    """What one process finds with so many microbatches; trained once."""

    def train(microbatches: int, optimizer: str, steps: tuple[int, int]) -> dict[str, Any]:
        key = (microbatches, optimizer, steps)
        if key not in ALONE:
            settings = COMMON | stages(steps) | {"out": tmp_path / "alone", "parallel.microbatches": microbatches}
            ALONE[key] = train_on(small_config(settings | {"optimizer.name": optimizer}), 1)[0]
        return ALONE[key]

    return train


ALONE: dict[tuple[int, str, tuple[int, int]], dict[str, Any]] = {}


def stages(steps: tuple[int, int]) -> dict[str, int]:
    return {"stage1.steps": steps[0], "stage2.steps": steps[1]}


@pytest.mark.parametrize(
    ("world", "strategy", "microbatches", "recompute", "optimizer", "steps"),
    [
        (2, "fsdp", 4, True, "muon", (4, 6)),
        *(
            pytest.param(world, strategy, microbatches, recompute, optimizer, (20, 30), marks=pytest.mark.slow)
            for world in (2, 4)
            for strategy in ("ddp", "fsdp")
            for microbatches in (4, 8)
            for recompute, optimizer in ((False, "adamw"), (True, "muon"))
        ),
    ],
)
def test_every_step_is_that_of_one_process(
    small_config: Any,
    train_on: Any,
    train_alone: Any,
    tmp_path: Any,
    world: int,
    strategy: str,
    microbatches: int,
    recompute: bool,
    optimizer: str,
    steps: tuple[int, int],
) -> None:
    alone = train_alone(microbatches, optimizer, steps)
    settings = {
        "parallel.strategy": strategy, "parallel.microbatches": microbatches,
        "parallel.checkpoint_activations": recompute, "out": tmp_path / "many", "optimizer.name": optimizer,
        **stages(steps),
    }  # fmt: skip
    ranks = train_on(small_config(COMMON | settings), world)

    assert len(ranks[0]["losses"]) == sum(steps)
    for step, (one, many) in enumerate(zip(alone["losses"], ranks[0]["losses"], strict=True), start=1):
        assert many == pytest.approx(one, rel=2e-3, abs=1e-5), f"step {step}"
    for part, state in alone["state"].items():
        for name, expected in state.items():
            found = [rank["state"][part][name] for rank in ranks]
            assert all(torch.equal(found[0], other) for other in found[1:]), f"the replicas drifted apart in {name}"
            if not name.endswith(NO_GRADIENT):
                torch.testing.assert_close(found[0], expected, rtol=1e-2, atol=1e-4)
    for rank in ranks:
        assert all(torch.equal(value, rank["state"]["model"][name]) for name, value in rank["playing"].items())
        share = rank["held"] / alone["held"]
        assert share == pytest.approx(1 / world, rel=0.05) if strategy == "fsdp" else share == 1
