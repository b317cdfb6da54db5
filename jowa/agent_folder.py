"""The files of an agent folder: ``config.json`` and weights as safetensors, read with checks and written atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jowa.config import ModelConfig, TokenizerConfig, config_from_dict
from jowa.errors import CheckpointError
from jowa.files import atomic_write
from jowa.model.published_names import check_names

FORMAT = 1
"""Version of the agent folder."""
FINGERPRINT = "tokenizer_fingerprint"
"""Key of the weight files' metadata."""


def read_sizes(folder: Path) -> tuple[TokenizerConfig, ModelConfig, dict[str, int]]:
    """Sizes and task ids of the agent in ``folder``, without its weights; :class:`CheckpointError` as of loading."""
    config, where = read_config(folder), str(folder / "config.json")
    model = config_from_dict(ModelConfig, config["model"], where)
    tokenizer = config_from_dict(TokenizerConfig, config["tokenizer"], where)
    _check_tasks(config["tasks"], model.num_tasks, where)
    return tokenizer, model, config["tasks"]


def read_config(folder: Path) -> dict[str, Any]:
    """What ``config.json`` says; :class:`CheckpointError` when there is none, or one of something else."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder} is not an agent: it has no config.json; train one with python -m jowa.train, or import a "
            "published checkpoint with python -m jowa.convert"
        )
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}): restore it or write the agent anew") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds no JSON object: restore it or write the agent anew")
    if "stage1" in config and (folder / "agent" / "config.json").is_file():
        raise CheckpointError(f"{folder} is a training run, not an agent: its agent is {folder / 'agent'}")
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {config.get('format')!r}, this version reads {FORMAT}: convert it anew"
        )
    absent = {"tokenizer", "model", "tasks", "planning"} - set(config)
    if absent:
        raise CheckpointError(f"{path} lacks {sorted(absent)[0]!r}: restore it or write the agent anew")
    return config


def _check_tasks(tasks: object, count: int, where: str) -> None:
    """Raise :class:`CheckpointError` unless ``tasks`` maps game names to task ids below ``count``."""
    if not isinstance(tasks, dict):
        raise CheckpointError(f"{where}: tasks is {tasks!r}, expected game names and their task ids")
    for game, task in tasks.items():
        if isinstance(task, bool) or not isinstance(task, int) or not 0 <= task < count:
            raise CheckpointError(f"{where}: the task id of {game} is {task!r}, expected 0 to {count - 1}")


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with its float32 tensors in float16, the finer of the two halves: weights are far below its limit.

    Raises :class:`CheckpointError` when one is not, rather than write an infinity.
    """
    small = {name: value.half() if value.dtype == torch.float32 else value for name, value in state.items()}
    for name, value in small.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{name} has values that float16 cannot hold: save the agent without half")
    return small


def save_weights(state: Mapping[str, Tensor], fingerprint: str, path: Path) -> None:
    """Write ``state`` atomically, with the ``fingerprint`` of the agent's tokenizer."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    try:
        atomic_write(path, partial(save_file, tensors, metadata={FINGERPRINT: fingerprint}))
    except SafetensorError as error:  # what safetensors makes of a disk that is full
        raise CheckpointError(
            f"the agent could not be written to {path.parent} ({error}): free some space or choose another folder, "
            "then rerun"
        ) from error


def load_weights(module: nn.Module, path: Path) -> str | None:
    """Load ``path`` into ``module``, in the precision of ``module``; returns the fingerprint of the tokenizer that the
    file names."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): restore it or write the agent anew") from error
    expected = module.state_dict()
    check_names(tensors, expected, str(path))
    for name, value in tensors.items():
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(value.shape)}, config.json asks for {tuple(expected[name].shape)}: "
                "the files are of different agents"
            )
    module.load_state_dict(tensors)
    return metadata.get(FINGERPRINT)
