"""Nearest codebook vector: the oracle and the one function that callers use."""

from __future__ import annotations

import torch
from torch import Tensor


def vq_lookup(latents: Tensor, codebook: Tensor) -> Tensor:
    """Index of the codebook vector nearest to each latent, by squared Euclidean distance.

    ``latents`` float (N, D), ``codebook`` float (V, D); returns int64 (N,).  Scored in float32,
    ties go to the lowest index.  Raises ValueError when the widths differ.
    """
    if latents.ndim != 2 or codebook.ndim != 2 or latents.shape[1] != codebook.shape[1]:
        raise ValueError(
            f"latents (N, D) and codebook (V, D) must share D, got {tuple(latents.shape)} and {tuple(codebook.shape)}"
        )
    return vq_lookup_reference(latents, codebook)


def vq_lookup_reference(latents: Tensor, codebook: Tensor) -> Tensor:
    """The plain path: |z|^2 is the same for every code, so only |e|^2 - 2 z.e is compared."""
    latents, codebook = latents.float(), codebook.float()
    with torch.autocast(latents.device.type, enabled=False):
        scores = torch.addmm((codebook * codebook).sum(1), latents, codebook.T, alpha=-2.0)
    return scores.argmin(dim=1)
