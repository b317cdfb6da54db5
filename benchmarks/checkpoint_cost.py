"""How long a checkpoint holds up the training: ``python -m benchmarks.checkpoint_cost [PRESET] [FOLDER]``.

The state is a whole one of stage 2 (weights, both moments of AdamW); the folder (default: a temporary one) decides
which disk is measured.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from jowa.devices import choose_device
from jowa.train.checkpoint import checkpoints
from jowa.train.distributed import Place
from jowa.train.loop import Trainer
from jowa.train.presets import get_train_preset

REPEATS = 5


def make_trainer(preset: str, out: Path, asynchronous: bool) -> Trainer:
    """A trainer in stage 2 whose optimizer has taken a step."""
    config = get_train_preset(preset)
    config = dataclasses.replace(
        config,
        out=out,
        stage1=dataclasses.replace(config.stage1, steps=0),
        checkpoint=dataclasses.replace(config.checkpoint, asynchronous=asynchronous),
    )
    trainer = Trainer(config, Place(0, 1, choose_device("auto")))
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    trainer.world.optimizer.step()
    return trainer


def main(preset: str, folder: str | None) -> None:
    """Print seconds, the median of :data:`REPEATS` after one to warm up."""
    for asynchronous in (False, True):
        with tempfile.TemporaryDirectory(dir=folder) as out:
            trainer = make_trainer(preset, Path(out), asynchronous)
            held, written = [], []
            for _ in range(REPEATS + 1):
                trainer.step += 1
                began = time.perf_counter()
                trainer.save()
                held.append(time.perf_counter() - began)
                trainer.store.wait()
                written.append(time.perf_counter() - began)
            newest = checkpoints(trainer.store.folder)[-1]
            size = sum(path.stat().st_size for path in newest.iterdir()) / 1e6
        print(
            f"{preset}, {'asynchronous' if asynchronous else 'synchronous'}, {size:,.0f} MB: held up for "
            f"{statistics.median(held[1:]):.3f} s (first {held[0]:.3f}), on the disk after "
            f"{statistics.median(written[1:]):.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "40M", sys.argv[2] if len(sys.argv) > 2 else None)
