"""Steps of training, utilisation and memory, against the plain implementation; processes on one CPU."""

from __future__ import annotations

import dataclasses
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.plain_training import PlainStep, both_curves, comparable
from jowa.devices import choose_precision, precision_name
from jowa.model import WorldActionModel
from jowa.model.objective import Objective
from jowa.tokenizer import Tokenizer
from jowa.train.config import ParallelConfig, TrainConfig
from jowa.train.distributed import Place
from jowa.train.flops import measured_ceiling, model_flops_per_step
from jowa.train.loop import Trainer
from jowa.train.presets import get_train_preset
from jowa.types import Batch

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if CUDA else torch.device("cpu")
SEGMENTS_ON_A_CPU = {1: 2, 2: 4}
"""By stage; two are the fewest whose share of frames for the tokenizer makes whole segments of eight."""


def sized(preset: str, segments: int | None, pieces: int = 1, compiled: str = "auto") -> TrainConfig:
    """A preset without dropout, which the plain attention lacks; with batches of ``segments``, if given."""
    config = get_train_preset(preset)
    one, two, length = config.stage1, config.stage2, config.data.segment_length
    if segments is not None:  # as many frames for the tokenizer as the preset has for a segment
        one = dataclasses.replace(
            one, batch_size=segments, tokenizer_batch=segments * one.tokenizer_batch // one.batch_size
        )
        two = dataclasses.replace(two, batch_size=segments)
    plain = {"world_from": 0, "world_from_codebook": False, "revive_every": 0, "motion_weight": 0.0}
    one = dataclasses.replace(one, steps=10**9, **plain)
    assert one.tokenizer_batch % length == 0
    return dataclasses.replace(
        config, stage1=one, stage2=two, device=str(DEVICE), log_every=10**9,
        model=dataclasses.replace(config.model, dropout=0.0, q_dropout=0.0),
        parallel=ParallelConfig(microbatches=pieces, compile=compiled),
    )  # fmt: skip


class MadeUpFeed:
    """Batches of noise on the device: only the step is measured, not the loader."""

    def __init__(self, config: TrainConfig, rows: int, stage: int) -> None:
        length, tokens = config.data.segment_length, None
        generator = torch.Generator().manual_seed(0)
        shape, frames = (rows, length), None
        if not config.trains_tokenizer(stage):
            tokens = torch.randint(config.model.vocab_size, (*shape, 36), generator=generator)
        else:
            frames = torch.randint(256, (*shape, 84, 84), dtype=torch.uint8, generator=generator)
        self.batch = Batch(
            frames, tokens, torch.randint(18, shape, generator=generator), torch.zeros(shape),
            torch.zeros(shape, dtype=torch.bool), torch.ones(shape, dtype=torch.bool),
            torch.zeros(rows, dtype=torch.int64), torch.ones(rows, 18, dtype=torch.bool),
        ).to(DEVICE)  # fmt: skip
        count = config.stage1.tokenizer_batch
        self.frames = torch.randint(256, (count, 84, 84), dtype=torch.uint8, generator=generator).to(DEVICE)

    def pixels(self, step: int) -> Batch:
        return self.batch

    def tokens(self, step: int, stage: int = 2) -> Batch:
        return self.batch

    def tokenizer_frames(self, step: int, motion_weight: float) -> tuple[torch.Tensor, None]:
        return self.frames, None


def fast_step(config: TrainConfig, stage: int) -> Any:
    """A call that takes one step of the trainer, by AdamW as the plain step does."""
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, name="adamw"))
    if stage == 2:
        config = dataclasses.replace(config, stage1=dataclasses.replace(config.stage1, steps=0))
    trainer = Trainer(config, Place(0, 1, DEVICE))
    feed: Any = MadeUpFeed(config, config.stage1.batch_size if stage == 1 else config.stage2.batch_size, stage)

    def step() -> None:
        trainer._stage_one_step(feed) if stage == 1 else trainer._stage_two_step(feed)
        trainer.step += 1

    return step


def plain_step(config: TrainConfig, stage: int) -> Any:
    """The same by :class:`PlainStep`."""
    torch.manual_seed(config.seed)
    tokenizer, model = Tokenizer(config.tokenizer).to(DEVICE), WorldActionModel(config.model).to(DEVICE)
    model.q_head.requires_grad_(stage == 2)
    dtype = choose_precision(config.precision, DEVICE)
    objective = Objective(model, config.objective)
    trains = config.trains_tokenizer(stage)
    run = PlainStep(objective, tokenizer if trains else None, dtype, (1e-4, 1e-4))
    feed = MadeUpFeed(config, config.stage1.batch_size if stage == 1 else config.stage2.batch_size, stage)
    frames = feed.frames if trains else None
    return lambda: run(feed.batch, frames, critic=stage == 2, pieces=config.parallel.microbatches)


def fits(config: TrainConfig, stage: int, make: Any = fast_step) -> bool:
    try:
        step = make(config, stage)
        step(), step()
        torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def fewest_pieces(preset: str, stage: int, make: Any) -> int:
    pieces = 1
    while not fits(sized(preset, 512, pieces), stage, make):
        pieces *= 2
    return pieces


@pytest.mark.parametrize("stage", [2, 1])
@pytest.mark.parametrize("preset", ["tiny", "40M", "70M", "150M"])
def test_a_step(compare, preset: str, stage: int) -> None:
    if CUDA and preset == "tiny":
        pytest.skip("tiny is for a CPU")
    segments = 512 if CUDA else None if preset == "tiny" else SEGMENTS_ON_A_CPU[stage]
    pieces = [fewest_pieces(preset, stage, make) for make in (fast_step, plain_step)] if CUDA else [1, 1]
    ours, rival = (sized(preset, segments, count) for count in pieces)
    dtype = choose_precision(ours.precision, DEVICE)
    batch = ours.stage2.batch_size if stage == 2 else ours.stage1.batch_size
    shapes = f"{preset}, {batch} segments of {ours.data.segment_length}, {precision_name(dtype)}, no dropout"
    shapes += f", in {pieces[0]} against {pieces[1]} microbatches" if CUDA else ""
    steps = fast_step(ours, stage), plain_step(rival, stage)
    compare(f"a step of stage {stage} against plain PyTorch", shapes, *steps, runs={"tiny": 20}.get(preset, 3))
    flops, ceiling = model_flops_per_step(ours, stage), measured_ceiling(DEVICE, dtype, 1.0)
    for name, seconds in compare.rows[-1]["seconds"].items():
        compare.note(
            f"share of the measured rate in stage {stage}, {name}", shapes, model_gflop=flops / 1e9,
            gflop_s=flops / seconds / 1e9, ceiling_gflop_s=ceiling / 1e9, utilisation=flops / seconds / ceiling,
        )  # fmt: skip
    if CUDA:
        peaks = []
        for step in steps:
            torch.cuda.reset_peak_memory_stats()
            step()
            torch.cuda.synchronize()
            peaks.append(torch.cuda.max_memory_allocated() / 2**30)
        compare.note(f"peak memory of stage {stage}", shapes, ours_GiB=peaks[0], rival_GiB=peaks[1])


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="waits for a GPU: whether a step waits for one")
@pytest.mark.parametrize("stage", [2, 1])
def test_a_step_never_waits_for_the_gpu(stage: int) -> None:
    step = fast_step(sized("40M", 16), stage)
    for _ in range(3):  # these compile, load kernels, and take memory
        step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(), step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


CURVE_STEPS = 200


@pytest.mark.parametrize("stage", [1, 2])
def test_the_loss_curves(compare, tmp_path: Path, stage: int) -> None:
    """The fast path and the plain one, from the same weights on the same real frames: every loss, step by step."""
    for package in ("ale_py", "cv2", "google_crc32c", "numcodecs", "zarr"):
        pytest.importorskip(package, reason="real frames are recorded and read with it: pip install -e . brings it")
    from jowa.data.record import RecordConfig, record

    games, steps = ("Freeway", "Pong"), 1_000
    record(RecordConfig(tmp_path / "data", games, steps=steps, policies=("random",), max_steps=500, workers=1))
    config = get_train_preset("tiny")
    config = dataclasses.replace(
        config, out=tmp_path / "run", device=str(DEVICE),
        data=dataclasses.replace(config.data, path=tmp_path / "data", games=games, record_steps=0),
    )  # fmt: skip
    curves = both_curves(comparable(config, stage, CURVE_STEPS), stage, Place(0, 1, DEVICE))
    figures: dict[str, Any] = {}
    for name in curves[1][0]:
        ours, rival = (torch.tensor([row[name] for row in curve]) for curve in curves)
        assert len(ours) == CURVE_STEPS and ours.isfinite().all()
        apart = ((ours - rival).abs() > 1e-4 * rival.abs() + 1e-5).nonzero()
        alike = int(apart[0]) if len(apart) else CURVE_STEPS
        # Rounding grows from step to step, and turns one token, or one greedy action, into another in the end: from
        # then on only the courses are alike.
        assert alike >= 20
        late = [float(curve[CURVE_STEPS // 2 :].mean()) for curve in (ours, rival)]
        assert late[0] == pytest.approx(late[1], rel=0.1, abs=2e-3)
        figures |= {f"{name}_steps_alike": alike, f"{name}_late_mean": late[0], f"{name}_late_mean_plain": late[1]}
        figures[f"{name}_farthest_apart"] = float((ours - rival).abs().max())
    compare.note(
        f"losses of {CURVE_STEPS} steps of stage {stage}: how many are the plain path's within 1e-4, and later means",
        f"tiny, float32, {steps:,} steps each of {' and '.join(games)}, random play", **figures,
    )  # fmt: skip


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="waits for a GPU: memory, and what fits into it, is a GPU's")
@pytest.mark.parametrize("preset", ["40M", "70M", "150M", "400M"])
def test_the_largest_batch_that_fits(compare, preset: str) -> None:
    segments = 64
    while segments < 8192 and fits(sized(preset, 2 * segments), 2):
        segments *= 2
    compare.note("largest batch of stage 2 that fits in one piece, a power of two", preset, segments=segments)


@pytest.mark.skipif(CUDA, reason="processes share a CPU where there is no GPU")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_processes(compare, strategy: str) -> None:
    """How much communication costs: the same batch on 1, 2 and 4 processes of one thread each, on the same cores."""
    seconds = {}
    for world in (1, 2, 4):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        workers = [
            subprocess.Popen(
                [sys.executable, __file__, strategy], stdout=subprocess.PIPE, text=True,
                env={**os.environ, "WORLD_SIZE": str(world), "RANK": str(rank), "LOCAL_RANK": str(rank),
                     "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                     "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            for rank in range(world)
        ]  # fmt: skip
        outputs = [worker.communicate()[0] for worker in workers]
        assert all(worker.returncode == 0 for worker in workers)
        seconds[world] = float(outputs[0])
    cores = os.cpu_count() or 1
    ideal = {world: seconds[1] / min(world, cores) for world in seconds}
    compare.note(
        f"processes sharing {cores} cores, {strategy}, gloo: step time, and the share of it that is not communication",
        "70M with 2 layers, 16 segments in all, float32",
        **{f"{world}_processes_s": value for world, value in seconds.items()},
        **{f"{world}_processes_efficiency": ideal[world] / seconds[world] for world in (2, 4)},
    )  # fmt: skip


def _worker(strategy: Any) -> None:
    """One process of :func:`test_processes`; the main one prints the seconds of a step."""
    from jowa.train.distributed import process_group

    config = sized("70M", 16, pieces=4)
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, layers=2), stage1=dataclasses.replace(config.stage1, steps=0),
        parallel=dataclasses.replace(config.parallel, strategy=strategy),
    )  # fmt: skip
    with process_group("cpu") as place:
        trainer, feed = Trainer(config, place), MadeUpFeed(config, 16 // place.world, 2)
        times = []
        for _ in range(6):
            began = time.perf_counter()
            trainer._stage_two_step(feed)  # type: ignore[arg-type]
            trainer.step += 1
            place.barrier()
            times.append(time.perf_counter() - began)
        if place.is_main:
            print(statistics.median(times[2:]))


if __name__ == "__main__":
    _worker(sys.argv[1])
