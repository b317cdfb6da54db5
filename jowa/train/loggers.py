"""Where a run's curves and pictures go: TensorBoard always, Weights & Biases when asked for."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from jowa.errors import UsageError
from jowa.train.config import TrainConfig


class Loggers:
    """Scalars and pictures by name and step."""

    def __init__(self, config: TrainConfig, folder: Path, step: int) -> None:
        """Go on at ``step``: what an earlier run of ``folder`` logged after it is dropped.

        Raises :class:`UsageError` when Weights & Biases is asked for and not installed.
        """
        self._board = SummaryWriter(str(folder), purge_step=step + 1)
        self._wandb: Any = _start_wandb(config) if config.health.wandb else None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Curves: one point each."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if self._wandb is not None and values:
            self._wandb.log({**values, "step": step})

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """A grey picture."""
        self._board.add_image(name, np.asarray(picture)[None], step, dataformats="CHW")
        if self._wandb is not None:
            import wandb

            self._wandb.log({name: wandb.Image(picture), "step": step})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if error is None else 1)


def _start_wandb(config: TrainConfig) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise UsageError(
            "--health.wandb needs the wandb package: pip install wandb, or leave the option out"
        ) from error
    # The id follows from the folder, so that a resumed run goes on in its own curves.
    identity = hashlib.sha256(str(config.out.resolve()).encode()).hexdigest()[:16]
    run = wandb.init(
        project=config.health.wandb, name=config.out.name, id=identity, resume="allow",
        config=dataclasses.asdict(config), dir=str(config.out),
    )  # fmt: skip
    run.define_metric("*", step_metric="step")
    return run
