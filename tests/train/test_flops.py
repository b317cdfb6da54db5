"""Operations and memory reckoned from the sizes, against what PyTorch counts and keeps."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from jowa.config import LOCAL_TOKENIZER, PRESETS, ModelConfig, ObjectiveConfig, TokenizerConfig
from jowa.errors import UsageError
from jowa.kernels import native
from jowa.model import WorldActionModel
from jowa.model.objective import Objective
from jowa.tokenizer import Tokenizer
from jowa.train.dry_run import divisors, networks, parameter_counts, show, time_table
from jowa.train.flops import (
    critic_flops,
    encoding_flops,
    measured_ceiling,
    model_flops_per_step,
    tokenizer_flops,
    utilisation,
    world_flops,
)
from jowa.train.memory import ParameterCounts, frame_bytes, gathered_bytes, segment_bytes, stage_bytes
from jowa.train.presets import get_train_preset
from jowa.types import Batch

SMALL = ModelConfig(
    layers=3, heads=4, width=64, q_width=48, q_ensemble=2, vocab_size=128, context_steps=4, dropout=0.0, q_dropout=0.0
)
PUBLISHED = TokenizerConfig(vocab_size=64, code_dim=16, channels=8, z_channels=24)


def batch_of(config: ModelConfig, rows: int, steps: int) -> Batch:
    shape = (rows, steps)
    return Batch(
        None, torch.randint(config.vocab_size, (*shape, 36)), torch.randint(18, shape), torch.randn(shape).sign(),
        torch.zeros(shape, dtype=torch.bool), torch.ones(shape, dtype=torch.bool), torch.zeros(rows, dtype=torch.int64),
        torch.ones(rows, 18, dtype=torch.bool),
    )  # fmt: skip


class Counter(TorchDispatchMode):
    """PyTorch's formulas, operation by operation: FlopCounterMode's hooks on modules do not bear the target head."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if function.overloadpacket in flop_registry:
            self.total += flop_registry[function.overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def counted(step: Callable[[], torch.Tensor]) -> int:
    """Operations of a loss and its gradient; attention as plain products, whose formulas a CPU has."""
    with sdpa_kernel(SDPBackend.MATH), Counter() as counter:
        step().backward()
    return counter.total


@pytest.mark.parametrize(("critic", "detach"), [(False, False), (True, False), (True, True)])
def test_a_step_of_the_model(critic: bool, detach: bool) -> None:
    objective = Objective(WorldActionModel(SMALL), ObjectiveConfig(detach_q=detach))
    objective.model.q_head.requires_grad_(critic)
    batch, everything = batch_of(SMALL, 2, 3), (3 * 37) ** 2
    found = counted(lambda: torch.stack(list(objective(batch, critic=critic).values())).sum())
    if critic:
        expected = critic_flops(SMALL, 3, detach, pairs=everything)
        assert expected > critic_flops(SMALL, 3, detach), "what causal attention does not see is not counted"
    else:
        expected = world_flops(SMALL, 3, pairs=everything)
    assert found == 2 * expected


@pytest.mark.parametrize("config", [PUBLISHED, LOCAL_TOKENIZER], ids=["published", "local"])
def test_a_step_of_the_tokenizer(config: TokenizerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "native", None)  # whose lookup PyTorch does not count
    tokenizer, frames = Tokenizer(config), torch.randint(256, (3, 84, 84), dtype=torch.uint8)
    # To be exact it multiplies some vectors twice.
    lookup = 3 * 2 * 36 * config.vocab_size * config.code_dim
    with sdpa_kernel(SDPBackend.MATH), Counter() as counter:
        tokenizer.encode(frames)
    assert counter.total - 3 * encoding_flops(config) == pytest.approx(0, abs=lookup / 100)
    found = counted(lambda: tokenizer(frames).total)
    assert found == pytest.approx(3 * tokenizer_flops(config), abs=lookup / 100)


def test_a_step_is_the_sum_of_its_parts() -> None:
    config = get_train_preset("150M")
    assert model_flops_per_step(config, 2) == 512 * critic_flops(config.model, 8)
    # 6 operations a weight and token, a tenth more for attention, and the critic.
    assert 6 * 88e6 * 512 * 296 < model_flops_per_step(config, 2) < 7 * 88e6 * 512 * 296
    parts = 512 * world_flops(config.model, 8) + 2048 * tokenizer_flops(config.tokenizer)
    assert model_flops_per_step(config, 1) == parts + 512 * 8 * encoding_flops(config.tokenizer)


def test_a_tokenizer_that_trains_in_stage_2_is_counted() -> None:
    """Its own batch forward and backward, and the encoding of the batch; time and memory alike."""
    config = get_train_preset("150M")
    tuned = dataclasses.replace(config, stage2=dataclasses.replace(config.stage2, train_tokenizer=True))
    own = 2048 * tokenizer_flops(config.tokenizer) + 512 * 8 * encoding_flops(config.tokenizer)
    assert model_flops_per_step(tuned, 2) == model_flops_per_step(config, 2) + own
    counts = parameter_counts(*networks(config))
    more = stage_bytes(tuned, 2, counts, 2048, 2) - stage_bytes(config, 2, counts, 2048, 2)
    assert more >= 12 * counts.tokenizer
    # Of many frames in one piece, what the tokenizer keeps is the most.
    wide = dataclasses.replace(tuned, stage2=dataclasses.replace(tuned.stage2, batch_size=1))
    frames = stage_bytes(wide, 2, counts, 1, 4) - stage_bytes(wide, 2, counts, 2, 4)
    assert frames == pytest.approx(frame_bytes(config.tokenizer) * 2048 / 2)


def test_shards_are_a_part_of_what_one_device_holds() -> None:
    """FSDP divides weights, gradients and moments of the model; the tokenizer and what is at work stay whole."""
    config = get_train_preset("400M")
    sharded = dataclasses.replace(config, parallel=dataclasses.replace(config.parallel, strategy="fsdp"))
    counts = parameter_counts(*networks(config))
    model = (counts.world + 2 * counts.q_head) * 4 + (counts.world + counts.q_head) * 12
    alone = stage_bytes(config, 2, counts, 16, 2)
    assert stage_bytes(sharded, 2, counts, 16, 2) == alone
    assert stage_bytes(config, 2, counts, 16, 2, devices=8) == alone + 4 * (counts.world + counts.q_head)
    many = stage_bytes(sharded, 2, counts, 16, 2, devices=8)
    assert alone - many == pytest.approx(model * 7 / 8 - gathered_bytes(config.model, counts))
    assert 0 < gathered_bytes(config.model, counts) < model / 4
    half = dataclasses.replace(sharded, stage2=dataclasses.replace(sharded.stage2, imagined="half"))
    assert stage_bytes(half, 2, counts, 16, 2, devices=8) - many == 4 * (counts.world + 2 * counts.q_head)
    blocks = WorldActionModel(SMALL).transformer.blocks
    block = sum(parameter.numel() for parameter in blocks[0].parameters())
    narrow = ParameterCounts(0, SMALL.layers * block, 0)
    assert gathered_bytes(SMALL, narrow) == 3 * 4 * block  # this one, the next, and a gradient


def test_utilisation_is_the_share_of_what_was_measured() -> None:
    ceiling = measured_ceiling(torch.device("cpu"), None, seconds=0.02)
    assert 1e9 < ceiling < 1e14
    config = get_train_preset("tiny")
    seconds = model_flops_per_step(config, 2) / ceiling
    assert utilisation(config, 2, seconds, ceiling) == pytest.approx(1)
    assert utilisation(config, 2, 2 * seconds, ceiling, world=2) == pytest.approx(0.25)


def kept_bytes(run: Callable[[], Any], besides: list[torch.Tensor]) -> int:
    """Bytes of different storages that are kept for the backward pass of ``run``."""
    skipped, kept = {tensor.untyped_storage().data_ptr() for tensor in besides}, {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in skipped:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        _alive = run()
    return sum(kept.values())


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("item", [4, 2])
def test_the_memory_of_a_segment(item: int, recompute: bool) -> None:
    model = WorldActionModel(SMALL)
    model.transformer.recompute = recompute
    objective, found = Objective(model, ObjectiveConfig()), []
    for rows in (2, 4):  # what does not grow with the batch, such as casts of weights, is not a segment's
        batch = batch_of(SMALL, rows, 4)
        inputs = [value for value in vars(batch).values() if value is not None]

        def run(batch: Batch = batch) -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=item == 2):
                return objective(batch, critic=True)

        found.append(kept_bytes(run, [*model.parameters(), *inputs]))
    expected = segment_bytes(SMALL, 4, item, recompute)
    if recompute:  # the one block that is there in full is computed in the backward pass
        fewer = dataclasses.replace(SMALL, layers=SMALL.layers - 1)
        expected -= segment_bytes(SMALL, 4, item, False) - segment_bytes(fewer, 4, item, False)
    assert (found[1] - found[0]) / 2 == pytest.approx(expected, rel=0.02)


def test_recomputing_saves_memory() -> None:
    config = get_train_preset("150M").model
    assert segment_bytes(config, 8, 2, True) < segment_bytes(config, 8, 2, False) / 4


def test_the_memory_of_a_frame() -> None:
    tokenizer = Tokenizer(PUBLISHED)
    found = []
    for rows in (1, 2):
        frames = torch.randint(256, (rows, 84, 84), dtype=torch.uint8)
        found.append(kept_bytes(lambda frames=frames: tokenizer(frames).total, [*tokenizer.parameters()]))
    assert found[1] - found[0] == pytest.approx(frame_bytes(PUBLISHED), rel=0.05)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_dry_run_says_what_it_takes_and_writes_nothing(command: Any, tmp_path: Any, preset: str) -> None:
    out = tmp_path / "run"
    done = command(
        "jowa.train", "--preset", preset, "--dry-run", "--out", out, "--device", "cpu", "--dry-run-gpu", "A100",
        env={"COLUMNS": "120"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not out.exists() and not list(tmp_path.iterdir())
    assert "A100" in done.stdout and "assumption" in done.stdout
    fewest = re.search(r"--parallel.microbatches (\d+)", done.stdout)
    assert fewest and int(fewest[1]) == {"tiny": 1, "40M": 2, "70M": 2, "150M": 2, "400M": 4}[preset]


def test_the_dry_run_of_fine_tuning_and_of_several_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    config = get_train_preset("150M")
    config = dataclasses.replace(
        config, dry_run_gpus=8, dry_run_gpu="H100", device="cpu", stage1=dataclasses.replace(config.stage1, steps=0),
        parallel=dataclasses.replace(config.parallel, strategy="fsdp"),
    )  # fmt: skip
    show(config)
    said = capsys.readouterr().out
    assert "8 x H100" in said and "of 8, fsdp" in said and "stage 2" in said and "stage 1" not in said
    assert divisors(config)[0] == 8
    one, eight = (
        time_table(dataclasses.replace(config, dry_run_gpus=gpus), "here", 1e12).columns[1]._cells for gpus in (1, 8)
    )
    days = 6
    assert float(one[days]) == pytest.approx(8 * float(eight[days]), rel=0.01)
    with pytest.raises(UsageError, match=r"3 process\(es\)"):
        show(dataclasses.replace(config, dry_run_gpus=3))


def test_memory_falls_with_the_microbatches() -> None:
    config = get_train_preset("150M")
    counts = parameter_counts(*networks(config))
    needed = [stage_bytes(config, 2, counts, pieces, 2) for pieces in (1, 2, 4)]
    assert needed[0] - needed[1] == pytest.approx(2 * (needed[1] - needed[2]))
