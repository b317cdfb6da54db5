"""torch.compile of the objective: one graph, the same numbers; and no waiting for the device in a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from jowa.model import WorldActionModel
from jowa.model.objective import Objective, target_counts
from jowa.train.config import ParallelConfig
from jowa.train.feed import Feed
from jowa.train.loop import Trainer
from jowa.train.parallel import compile_objective, compiles


@pytest.mark.slow
@pytest.mark.parametrize("critic", [False, True])
@pytest.mark.parametrize("whole", [True, False])
def test_one_graph_and_the_same_losses_and_gradients(small_config: Any, alone: Any, critic: bool, whole: bool) -> None:
    config = small_config(
        {"model.dropout": 0.0, "model.q_dropout": 0.0, "stage1.steps": 0, "objective.action_noise": 0.5}
    )
    feed = Feed(config, alone)
    trainer = Trainer(config, alone)
    feed.encode(trainer.tokenizer, None)
    batch = feed.tokens(0)
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        objective = Objective(WorldActionModel(config.model), config.objective)
        objective.model.q_head.requires_grad_(critic)
        if compiled:  # with fullgraph: a break in the graph is an error
            compile_objective(objective, whole)
        torch.manual_seed(1)
        losses = objective(batch, critic=critic, counts=target_counts(batch, critic))
        torch.stack(list(losses.values())).sum().backward()
        gradients = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
        found.append((losses, gradients))
    if not critic:  # there actions are noisy, which compiled code draws in its own way
        torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)
    assert found[0][1].keys() == found[1][1].keys()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["alone", "ddp", "fsdp"])
def test_a_compiled_run_has_the_losses_of_a_plain_one(
    small_config: Any, train_on: Any, run_trainer: Any, tmp_path: Any, strategy: str
) -> None:
    common = {"model.dropout": 0.0, "model.q_dropout": 0.0, "stage1.world_from": 0, "parallel.microbatches": 2}
    plain: list[dict[str, float]] = []
    run_trainer(small_config(common | {"out": tmp_path / "plain"}), lambda trainer, step, found: plain.append(found))
    changes = common | {"parallel.compile": "on", "out": tmp_path / "compiled"}
    compiled: list[dict[str, float]] = []
    if strategy == "alone":
        run_trainer(small_config(changes), lambda trainer, step, found: compiled.append(found))
    else:
        compiled = train_on(small_config(changes | {"parallel.strategy": strategy}), 2)[0]["losses"]
    for step, (expected, found) in enumerate(zip(plain, compiled, strict=True), start=1):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5), f"step {step}"


def test_compiled_on_a_gpu_unless_told_otherwise() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [compiles(ParallelConfig(compile="auto"), device) for device in (cpu, gpu)] == [False, True]
    assert compiles(ParallelConfig(compile="on"), cpu) and not compiles(ParallelConfig(compile="off"), gpu)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("compiled", ["off", "on"])
def test_no_step_waits_for_the_gpu(small_config: Any, compiled: str) -> None:
    from jowa.train.distributed import Place

    place = Place(0, 1, torch.device("cuda", 0))
    config = small_config(
        {"device": "cuda", "parallel.compile": compiled, "stage1.steps": 6, "stage1.world_from": 0, "stage2.steps": 6,
         "stage1.revive_every": 0, "log_every": 100, "checkpoint.every": 100, "objective.action_noise": 0.5}
    )  # fmt: skip
    trainer, steps = Trainer(config, place), []

    def watch(step: int, metrics: dict[str, float]) -> None:
        steps.append(step)  # the first steps of a stage compile, load kernels, and take memory
        torch.cuda.set_sync_debug_mode("error" if step in (3, 4, 5, 9, 10, 11) else "default")
        if step in (5, 11):
            torch.cuda.set_sync_debug_mode("default")

    try:
        trainer.run(Feed(config, place), watch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert steps == list(range(1, 13))
