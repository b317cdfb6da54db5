"""What is known about a run while it trains: numbers read back without making the device wait, and bad steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.errors import NumericalError
from jowa.files import atomic_write
from jowa.train.config import TrainConfig
from jowa.train.step import FIRST, IN_ROW
from jowa.types import Batch

BAD_BATCH = "bad-batch"
"""What the names of saved batches begin with."""


def observations(config: TrainConfig, step: int) -> set[str]:
    """What is looked at after ``step`` steps: ``play``, ``picture``, both or nothing."""
    health, in_stage_two = config.health, step - config.stage1.steps
    due = {
        "play": health.evaluate_every and in_stage_two > 0 and in_stage_two % health.evaluate_every == 0,
        "picture": health.picture_every and step % health.picture_every == 0,
    }
    return {name for name, is_due in due.items() if is_due}


class Readings:
    """Metrics on their way from the device to the host, in the order of their steps."""

    def __init__(self) -> None:
        self._under_way: deque[tuple[int, list[str], Tensor, torch.cuda.Event | None]] = deque()

    def put(self, step: int, names: list[str], values: Tensor) -> None:
        """Send the metrics of ``step`` on their way: ``values`` float64 (len(names),) on any device."""
        arrived = None
        if values.is_cuda:
            values = values.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        self._under_way.append((step, names, values, arrived))

    def take(self, wait: bool) -> Iterator[tuple[int, dict[str, float]]]:
        """(step, its metrics), oldest first; not the newest from a GPU unless told to ``wait`` for it.

        Those before it arrived long ago.  Which ones are taken does not depend on timing, so that all processes, which
        hold the same numbers, come to the same conclusions at the same step.
        """
        while self._under_way:
            step, names, values, arrived = self._under_way[0]
            if arrived is not None:
                if len(self._under_way) == 1 and not wait:
                    return
                arrived.synchronize()
            self._under_way.popleft()
            yield step, dict(zip(names, values.tolist(), strict=True))


def bad_part(metrics: Mapping[str, float], limit: int) -> tuple[str, int, int] | None:
    """(name, steps in a row that it skipped, the first of them) of a part that skipped ``limit`` or more."""
    for name, value in metrics.items():
        part = name.removesuffix(IN_ROW)
        if name.endswith(IN_ROW) and value >= limit:
            return part, round(value), round(metrics[part + FIRST])
    return None


def save_bad_batch(path: Path, batch: Batch | Tensor) -> None:
    """Keep what could not be trained on, as a NumPy archive: a batch's fields, or the tokenizer's frames alone."""
    values = {"frames": batch} if isinstance(batch, Tensor) else {f.name: getattr(batch, f.name) for f in fields(batch)}
    arrays = {name: value.cpu().numpy() for name, value in values.items() if value is not None}
    atomic_write(path, partial(_write_archive, arrays))


def _write_archive(arrays: dict[str, NDArray[Any]], path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def bad_steps_error(name: str, first: int, count: int, path: Path) -> NumericalError:
    """What stops a run whose part ``name`` skipped ``count`` steps from ``first`` on; ``path``: the batch kept."""
    return NumericalError(
        f"step {first}: the {name} loss or its gradient is not finite, nor in the {count - 1} steps after it; expected "
        "finite numbers: lower the learning rate or check the data; these steps changed no weights, the last "
        f"checkpoint is unharmed, and the first batch is kept in {path}"
    )
