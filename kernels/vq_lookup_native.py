"""The nearest-code search on a CPU, in C++ (csrc/kernels/search.h).  Called by :mod:`jowa.kernels.vq_lookup` only."""

from __future__ import annotations

import torch
from torch import Tensor

from jowa.kernels.native import native, threads


def search(
    latents: Tensor, codebook: Tensor, gather: bool, instructions: str | None = None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """(tokens int64 (N,), codes float32 (N, D) or None, left int64 (R,)) of contiguous float32 (N, D) and (V, D).

    ``left`` are the latents without a result: they or a code are not finite, or float64 cannot tell two codes apart.
    ``instructions`` names a set of instructions ("v4", "v3", "portable"), None the best at hand.
    """
    tokens = torch.empty(len(latents), dtype=torch.int64)
    codes = torch.empty_like(latents) if gather else None
    left = native.nearest_codes(
        latents.data_ptr(), len(latents), codebook.data_ptr(), len(codebook), latents.shape[1],
        tokens.data_ptr(), 0 if codes is None else codes.data_ptr(), threads(), instructions,
    )  # fmt: skip
    return tokens, codes, torch.tensor(left, dtype=torch.int64)
