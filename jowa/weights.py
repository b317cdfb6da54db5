"""Weights on disk: one safetensors file a network, written atomically, checked against the network that reads it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from jowa.errors import CheckpointError
from jowa.files import atomic_write
from jowa.model.published_names import check_names

FINGERPRINT = "tokenizer_fingerprint"
"""Key of the weight files' metadata: the tokenizer whose tokens the network reads."""


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with its float32 tensors in float16, the finer of the two halves: weights are far below its limit.

    Raises :class:`CheckpointError` when one is not, rather than write an infinity.
    """
    small = {name: value.half() if value.dtype == torch.float32 else value for name, value in state.items()}
    for name, value in small.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{name} has values that float16 cannot hold: save the agent without half")
    return small


def save_weights(state: Mapping[str, Tensor], path: Path, fingerprint: str | None = None) -> None:
    """Write ``state`` atomically, with the ``fingerprint`` of the tokenizer that it belongs to, if there is one.

    Raises :class:`CheckpointError` when the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    metadata = {} if fingerprint is None else {FINGERPRINT: fingerprint}
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    try:
        atomic_write(path, partial(save_file, tensors, metadata=metadata))
    except SafetensorError as error:  # what safetensors makes of a disk that is full
        raise CheckpointError(
            f"the agent could not be written to {path.parent} ({error}): free some space or choose another folder, "
            "then rerun"
        ) from error


def load_weights(module: nn.Module, path: Path) -> str | None:
    """Load ``path`` into ``module``; returns the fingerprint of the tokenizer that the file names.

    Raises :class:`CheckpointError` when the file is missing, damaged, or of other sizes than ``module``.
    """
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
