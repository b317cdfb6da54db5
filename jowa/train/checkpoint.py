"""Checkpoints of a run: complete, atomic, the last two kept.

A file holds everything that decides the next step: step counter, weights, target head, optimizers and the
sizes of the networks.  Random numbers are functions of (seed, step, rank), and so is the data order, so there
is no random state to save.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from jowa.errors import CheckpointError
from jowa.files import atomic_write

KEPT = 2
CONTENTS = frozenset({"step", "sizes", "tokenizer", "model", "tokenizer_optimizer", "world_optimizer"})
_NAME = re.compile(r"step-(\d+)\.pt")
_WAY_OUT = "delete it to fall back to the one before, or start anew with --restart"


def checkpoints(folder: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    found = [path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(_NAME.fullmatch(path.name)[1]))  # type: ignore[index]


def save_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write ``state`` (:data:`CONTENTS`) and drop all but the newest :data:`KEPT` files.

    Raises OSError or :class:`CheckpointError` when it cannot be written; the earlier ones are unharmed.
    """
    path = folder / f"step-{state['step']:08d}.pt"
    try:
        atomic_write(path, lambda temporary: torch.save(state, temporary))
    except RuntimeError as error:  # what torch makes of a disk that is full
        raise CheckpointError(
            f"{path} could not be written ({str(error).splitlines()[0]}): is the disk full? Free some space, or choose "
            "another --out, then rerun; the checkpoints before it are kept"
        ) from error
    for old in checkpoints(folder)[:-KEPT]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.  Raises :class:`CheckpointError` when it is damaged."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails in many ways on a damaged file
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}): expected a checkpoint of jowa.train; {_WAY_OUT}"
        ) from error
    if not isinstance(state, dict) or not set(state) >= CONTENTS:
        raise CheckpointError(f"{path} is not a checkpoint of jowa.train: {_WAY_OUT}")
    return state


def remove_leftovers(folder: Path) -> None:
    """Delete what a process that was killed while writing a checkpoint left behind."""
    for leftover in folder.glob(".step-*.pt.*"):
        leftover.unlink(missing_ok=True)
