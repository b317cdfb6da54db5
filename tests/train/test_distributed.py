"""Two processes on two halves of a batch compute what one computes on the whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from jowa.errors import UsageError
from jowa.train.distributed import Place, process_group

FIRST_OF_STAGE_ONE, LAST_OF_STAGE_ONE, FIRST_OF_STAGE_TWO = 1, 20, 21


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item() + 1e-9)


def test_gradients_losses_and_weights_of_two_processes_are_those_of_one(
    small_config: Any, train_on: Any, tmp_path: Path
) -> None:
    # Two microbatches each: dropout is on, and the same whichever process draws it.
    common = {
        "parallel.microbatches": 2,
        "objective.action_noise": 0.5,
        "stage1.steps": LAST_OF_STAGE_ONE,
        "stage1.world_from": 0,
        "stage1.revive_every": 5,
        "stage2.steps": 30,
        "stage2.target_every": 5,
        "optimizer.gradient_clip": 1e9,
        "checkpoint.every": 1000,
    }
    watched = [FIRST_OF_STAGE_ONE, FIRST_OF_STAGE_TWO]
    single = train_on(small_config(common | {"out": tmp_path / "one"}), 1, watched)[0]
    first, second = train_on(small_config(common | {"out": tmp_path / "two"}), 2, watched)
    assert any(a != b for a, b in zip(first["padding"], second["padding"], strict=True)), "the halves are padded alike"

    for step, whole in single["gradients"].items():
        assert whole.keys() == first["gradients"][step].keys() == second["gradients"][step].keys()
        for name, gradient in whole.items():
            assert torch.equal(first["gradients"][step][name], second["gradients"][step][name]), name
            if step == FIRST_OF_STAGE_ONE:  # later the weights differ by rounding, and so may a token
                assert_close(first["gradients"][step][name], gradient)

    assert len(single["losses"]) == len(first["losses"]) == 50
    for step, (whole, half) in enumerate(zip(single["losses"], first["losses"], strict=True), start=1):
        assert half == pytest.approx(whole, rel=2e-3), f"step {step}"
    for part, state in first["state"].items():
        for name, value in state.items():
            assert torch.equal(value, second["state"][part][name]), f"the replicas drifted apart in {part}.{name}"


def test_joint_gradients_of_two_processes_are_those_of_one(small_config: Any, train_on: Any, tmp_path: Path) -> None:
    # No stage 1: the weights are still equal, so the first gradient of the joint loss can be compared exactly.
    common = {"model.dropout": 0.0, "model.q_dropout": 0.0, "stage1.steps": 0, "stage2.steps": FIRST_OF_STAGE_ONE}
    common |= {"optimizer.gradient_clip": 1e9, "stage2.batch_size": 8}  # and one microbatch against two
    watched = [FIRST_OF_STAGE_ONE]
    single = train_on(small_config(common | {"out": tmp_path / "one"}), 1, watched)[0]
    first, second = train_on(small_config(common | {"out": tmp_path / "two"}), 2, watched)
    assert first["padding"][0] != second["padding"][0], "the halves are padded alike: choose another seed"
    gradients = [found["gradients"][FIRST_OF_STAGE_ONE] for found in (single, first, second)]
    assert any("q_head" in name for name in gradients[0]) and not any("target" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        assert torch.equal(gradients[1][name], gradients[2][name]), name
        assert_close(gradients[1][name], gradient)
    assert first["losses"][0] == pytest.approx(single["losses"][0], rel=1e-5)


TOGETHER = {
    "imagined segments": {
        "stage1.steps": 0, "stage2.steps": 4, "stage2.imagined": "half", "stage2.imagined_from": 1,
        "model.dropout": 0.0, "model.q_dropout": 0.0, "objective.conservative": "combo",
    },
    "a tokenizer that trains in stage 2": {
        "stage1.steps": 0, "stage2.steps": 6, "stage2.train_tokenizer": True, "stage1.revive_every": 3,
    },
    "a codebook of moving averages": {"stage1.steps": 8, "stage2.steps": 1, "tokenizer_loss.codebook": "ema"},
}  # fmt: skip


@pytest.mark.parametrize(("name", "strategy"), [*((name, "ddp") for name in TOGETHER), ("imagined segments", "fsdp")])
def test_two_processes_do_together_what_one_does(
    small_config: Any, train_on: Any, tmp_path: Path, name: str, strategy: str
) -> None:
    common = {
        "parallel.microbatches": 2, "stage1.batch_size": 8, "stage2.batch_size": 8, "stage1.world_from": 0,
        "optimizer.gradient_clip": 1e9, "checkpoint.every": 1000,
    }  # fmt: skip
    common |= TOGETHER[name]
    single = train_on(small_config(common | {"out": tmp_path / "one"}), 1)[0]
    first, second = train_on(small_config(common | {"out": tmp_path / "two", "parallel.strategy": strategy}), 2)
    assert len(first["losses"]) == common["stage1.steps"] + common["stage2.steps"]
    for step, (alone, both) in enumerate(zip(single["losses"], first["losses"], strict=True), start=1):
        assert both == pytest.approx(alone, rel=2e-3, abs=1e-5), f"step {step}"
    for part, state in first["state"].items():
        for weight, value in state.items():
            assert torch.equal(value, second["state"][part][weight]), f"the replicas drifted apart in {part}.{weight}"
    found, expected = (rank["state"]["tokenizer"]["embedding.weight"] for rank in (first, single))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_wrapping_warns_of_nothing(process_environments: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a wrapper is told has another name since torch 2.13; buffers stay the process's own in either."""
    for name, value in process_environments(1)[0].items():
        monkeypatch.setenv(name, value)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            wrapped = Place(0, 2, torch.device("cpu")).wrap(torch.nn.BatchNorm1d(2))
        assert isinstance(wrapped, torch.nn.parallel.DistributedDataParallel) and not wrapped.broadcast_buffers
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_torchrun_trains_and_writes_one_set_of_files(small_config: Any, as_arguments: Any, finished_run: Path) -> None:
    config = small_config()
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", "jowa.train", *as_arguments(config),
        ],
        capture_output=True, text=True, check=False, timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("agent: ") == 1 and "on cpu x 2" in done.stdout

    def names(folder: Path) -> set[str]:
        """Tokens lie under their tokenizer's fingerprint, which the order of sums in a gradient changes.

        In a checkpoint every process has a file.
        """
        found = (str(path.relative_to(folder)) for path in folder.rglob("*") if "tfevents" not in path.name)
        return {re.sub("tokens/[0-9a-f]{16}", "tokens/ITS", re.sub(r"__\d+_0\.", "__N_0.", name)) for name in found}

    assert names(config.out) == names(finished_run)
    assert len(list(config.out.rglob("*tfevents*"))) == 1


def test_alone_everything_is_itself() -> None:
    with process_group("cpu") as place:
        module, rows = torch.nn.Linear(2, 2), torch.arange(3)
        assert place.is_main and place.wrap(module) is module and torch.equal(place.gather(rows), rows)
        place.barrier()
        place.broadcast(rows)
        assert place.mean(torch.tensor([2.0, 3.0])).tolist() == [2.0, 3.0]


def test_one_named_gpu_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--device cuda"), process_group("cuda:0"):
        pass


def test_what_does_not_train_is_not_wrapped() -> None:
    place = Place(0, 2, torch.device("cpu"))
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    assert place.wrap(frozen) is frozen
