"""``--dry-run``: what a run would take, from its settings alone; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from jowa.config import TOKENS_PER_STEP
from jowa.devices import choose_device, choose_precision, device_name, precision_name
from jowa.model import WorldActionModel
from jowa.tokenizer import Tokenizer
from jowa.train.checks import check_split
from jowa.train.config import TrainConfig
from jowa.train.flops import measured_ceiling, model_flops_per_step
from jowa.train.memory import ROOM, ParameterCounts, stage_bytes


@dataclass(frozen=True)
class Gpu:
    """A GPU as its maker describes it."""

    rate: float
    """Operations a second: bfloat16, dense."""
    memory: float
    """Bytes."""


GPUS = {"H200": Gpu(989e12, 141e9), "H100": Gpu(989e12, 80e9), "A100": Gpu(312e12, 80e9)}
"""Published figures (SXM; A100 with 80 GB)."""
ASSUMED_UTILISATION = 0.4
"""Share of its rate that a device is assumed to reach.  An assumption, not a measurement."""
DAY = 86_400.0


def show(config: TrainConfig) -> None:
    """Print the tables.  Raises :class:`UsageError` for batches that do not divide among the GPUs."""
    check_split(config, config.dry_run_gpus)
    console = Console()
    tokenizer, model = networks(config)
    device = choose_device(config.device)
    dtype = choose_precision(config.precision, device)
    here = f"this machine ({device_name(device)}, {precision_name(dtype)})"
    console.print(parameter_table(tokenizer, model))
    console.print(time_table(config, here, measured_ceiling(device, dtype)))
    console.print(memory_table(config, parameter_counts(tokenizer, model)))
    console.print(
        f"Days are steps x operations / ({ASSUMED_UTILISATION:.0%} of the rate). That share is an assumption: a run "
        "shows what it reaches. The rate of this machine was measured just now, a GPU's is its maker's. Evaluation, "
        "checkpoints, imagined segments, traffic between GPUs and the tokenizer's perceptual term are not counted.",
        soft_wrap=True,
    )


def networks(config: TrainConfig) -> tuple[Tokenizer, WorldActionModel]:
    """Both networks without data, to be counted."""
    with torch.device("meta"):
        return Tokenizer(config.tokenizer), WorldActionModel(config.model)


def parameter_counts(tokenizer: Tokenizer, model: WorldActionModel) -> ParameterCounts:
    """What memory is reckoned from."""
    q_head = _size(model.q_head)
    return ParameterCounts(_size(tokenizer), _size(model) - 2 * q_head, q_head)


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def parameter_table(tokenizer: Tokenizer, model: WorldActionModel) -> Table:
    """Parameters by part."""
    table = Table("part", title="parameters")
    table.add_column("millions", justify="right")
    parts = {f"model: {name.replace('_', ' ')}": _size(child) for name, child in model.named_children()}
    whole = {"tokenizer": _size(tokenizer), **parts, "model, all": _size(model)}
    for name, count in whole.items():
        table.add_row(name, f"{count / 1e6:.2f}")
    return table


def stage_steps(config: TrainConfig) -> dict[int, int]:
    """The stages that have steps, and how many."""
    return {stage: steps for stage, steps in ((1, config.stage1.steps), (2, config.stage2.steps)) if steps}


def time_table(config: TrainConfig, here: str, ceiling: float) -> Table:
    """Operations and tokens of a step by stage, and days on the GPUs and here."""
    table = Table("", title="arithmetic and time")
    steps, gpus = stage_steps(config), config.dry_run_gpus
    for stage in steps:
        table.add_column(f"stage {stage}", justify="right")
    batches = {1: config.stage1.batch_size, 2: config.stage2.batch_size}
    operations = {stage: model_flops_per_step(config, stage) for stage in steps}
    tokens = {stage: batches[stage] * config.data.segment_length * TOKENS_PER_STEP for stage in steps}
    rows = {
        "steps": {stage: f"{count:,}" for stage, count in steps.items()},
        "tokens a step": {stage: f"{count:,}" for stage, count in tokens.items()},
        "model TFLOP a step": {stage: f"{count / 1e12:.4g}" for stage, count in operations.items()},
    }
    named = config.dry_run_gpu if gpus == 1 else f"{gpus} x {config.dry_run_gpu}"
    for name, rate in ((named, gpus * GPUS[config.dry_run_gpu].rate), (here, ceiling)):
        seconds = {stage: count / (rate * ASSUMED_UTILISATION) for stage, count in operations.items()}
        rows[f"{name}: TFLOP/s at most"] = dict.fromkeys(steps, f"{rate / 1e12:.4g}")
        rows["  seconds a step"] = {stage: f"{value:.3g}" for stage, value in seconds.items()}
        rows["  tokens a second"] = {stage: f"{tokens[stage] / value:,.0f}" for stage, value in seconds.items()}
        rows["  days"] = {stage: f"{value * steps[stage] / DAY:.3g}" for stage, value in seconds.items()}
        for label, values in rows.items():
            table.add_row(label, *values.values())
        table.add_section()
        rows = {}
    return table


def memory_table(config: TrainConfig, counts: ParameterCounts) -> Table:
    """Memory on each of the named GPUs by microbatches; the fewest that fit are marked."""
    gpu, gpus, stages = GPUS[config.dry_run_gpu], config.dry_run_gpus, list(stage_steps(config))
    item = 4 if config.precision == "float32" else 2
    recompute = ", activations recomputed" if config.parallel.checkpoint_activations else ""
    spread = f" of {gpus}, {config.parallel.strategy}" if gpus > 1 else ""
    table = Table(
        title=f"memory of one {config.dry_run_gpu} ({gpu.memory / 1e9:.0f} GB){spread}, estimated, "
        f"{'float32' if item == 4 else 'bfloat16'}{recompute}"
    )
    for name in ("microbatches", "segments in each", *(f"stage {stage}, GB" for stage in stages), ""):
        table.add_column(name, justify="right" if name else "left")
    fewest = 0
    for pieces in divisors(config):
        needed = [stage_bytes(config, stage, counts, pieces, item, gpus) for stage in stages]
        fits = max(needed) <= ROOM * gpu.memory
        fewest = fewest or (pieces if fits else 0)
        batches = {1: config.stage1.batch_size, 2: config.stage2.batch_size}
        segments = f"{batches[max(stages)] // pieces}"
        table.add_row(str(pieces), segments, *(f"{bytes_ / 1e9:.1f}" for bytes_ in needed), "fits" if fits else "")
    few, many = "fewest that fit: --parallel.microbatches", "none fits: --parallel.checkpoint-activations, more GPUs"
    table.caption = f"{few} {fewest}" if fewest else many
    return table


def divisors(config: TrainConfig) -> list[int]:
    """Numbers of microbatches into which every batch can be cut: that of the GPUs, times powers of two."""
    batches = (
        config.stage1.tokenizer_batch // config.data.segment_length, config.stage1.batch_size, config.stage2.batch_size,
    )  # fmt: skip
    several = (config.dry_run_gpus * 2**power for power in range(max(batches).bit_length()))
    return [pieces for pieces in several if all(batch % pieces == 0 < batch for batch in batches)]
