"""Checkpoints of a run: complete, atomic, the last two kept.

A file holds everything that decides the next step: step counter, weights, target head, optimizers and the
configuration.  Random numbers are functions of (seed, step, rank), and so is the data order, so there is
no random state to save.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from jowa.errors import CheckpointError
from jowa.files import atomic_write

KEPT = 2
_NAME = re.compile(r"step-(\d+)\.pt")


def checkpoints(folder: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    found = [path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(_NAME.fullmatch(path.name)[1]))  # type: ignore[index]


def save_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write ``state`` (with its integer ``step``) and drop all but the newest :data:`KEPT` files."""
    path = folder / f"step-{state['step']:08d}.pt"
    atomic_write(path, lambda temporary: torch.save(state, temporary))
    for old in checkpoints(folder)[:-KEPT]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.  Raises :class:`CheckpointError` when it is damaged."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails in many ways on a damaged file
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}): expected a checkpoint of jowa.train; "
            "delete it to fall back to the one before, or start anew with --restart"
        ) from error
    if not isinstance(state, dict) or "step" not in state:
        raise CheckpointError(f"{path} is not a checkpoint of jowa.train: delete it, or start anew with --restart")
    return state
