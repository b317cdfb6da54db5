"""What a checkpoint holds, gathered from a trainer's networks and put back.

Everything is named by the parameter it belongs to, whoever holds it: one process, replicas (DDP) or shards
(``fully_shard``).  So a checkpoint of one kind is one of the others, on any number of processes.

Not among it, because they are functions of the seed and the step: the data position, every random number, the
learning rates, and when the target head is updated next.
"""

from __future__ import annotations

import functools
import platform
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

import jowa
from jowa.train.step import Part

State = dict[str, Any]
"""``tokenizer`` and ``model`` (the target head among it), ``optimizers`` and ``skipped`` by the name of the part."""


def begun_optimizers(parts: Sequence[Part]) -> list[str]:
    """The parts whose optimizer has taken a step; the others have no state yet, and must not be given one."""
    return [part.name for part in parts if part.optimizer.state]


def gather_state(
    tokenizer: nn.Module | None, model: nn.Module, parts: Sequence[Part], begun: Collection[str] | None = None
) -> State:
    """References to the tensors that a checkpoint holds; of shards, to this process's.

    ``tokenizer``: None where it is no part of the run's state.
    ``begun``: parts whose optimizer has state (default: those that have), to make room for a checkpoint of such.
    """
    wanted = begun_optimizers(parts) if begun is None else begun
    return ({} if tokenizer is None else {"tokenizer": get_model_state_dict(tokenizer)}) | {
        "model": get_model_state_dict(model),
        "optimizers": {
            part.name: get_optimizer_state_dict(part.module, part.optimizer) for part in parts if part.name in wanted
        },
        "skipped": {part.name: torch.stack([part.skipped, part.skipped_in_row]) for part in parts},
    }


def restore_state(state: State, tokenizer: nn.Module | None, model: nn.Module, parts: Sequence[Part]) -> None:
    """Put back what :func:`gather_state` gave."""
    if tokenizer is not None:
        set_model_state_dict(tokenizer, state["tokenizer"])
    set_model_state_dict(model, state["model"])
    for part in parts:
        if part.name in state["optimizers"]:
            set_optimizer_state_dict(part.module, part.optimizer, optim_state_dict=state["optimizers"][part.name])
        part.skipped, part.skipped_in_row = state["skipped"][part.name].unbind()


@functools.cache
def code_version() -> dict[str, str | None]:
    """Which code this is: versions of the package, torch and Python, and the commit if it runs from a checkout."""
    root = Path(jowa.__file__).resolve().parent.parent
    commit = None
    if (root / ".git").exists():
        asked = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            found = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=10)
            commit = found.stdout.strip() or None
        except (OSError, subprocess.TimeoutExpired):
            pass  # no git here: the package's version has to do
    return {
        "jowa": jowa.__version__, "commit": commit, "torch": torch.__version__, "python": platform.python_version(),
    }  # fmt: skip
