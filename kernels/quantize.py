"""Vector quantisation as a layer: nearest codes with the straight-through and the codebook gradient.

Letters: N latents, V codebook vectors, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jowa.kernels.vq_lookup import nearest_codes, vq_lookup


def quantize(latents: Tensor, codebook: Tensor, settle: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """(codes (N, D), tokens int64 (N,), commitment scalar) of ``latents`` float (N, D) and ``codebook`` float (V, D).

    ``codes`` are the nearest codebook vectors; their gradient goes to the latents as it is (straight through).
    ``commitment`` is mean (sg(z) - e)^2 + mean (z - sg(e))^2 (van den Oord et al. 2017, equation 3, with weight 1 for
    the second term): the first pulls codes to latents, the second latents to codes.  One tensor (N, D) is kept for the
    backward pass.  ``settle``, and what is refused: see
    :func:`jowa.kernels.vq_lookup.vq_lookup`.
    """
    tokens, nearest = nearest_codes(latents, codebook, settle)
    codes, commitment = _Quantize.apply(latents, codebook, tokens, nearest)  # type: ignore[no-untyped-call]
    return codes, tokens, commitment


def quantize_reference(latents: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The definition, by autograd; see :func:`quantize`."""
    tokens = vq_lookup(latents, codebook)
    codes = codebook[tokens]
    commitment = (latents.detach() - codes).pow(2).mean() + (latents - codes.detach()).pow(2).mean()
    return latents + (codes - latents).detach(), tokens, commitment


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, latents: Tensor, codebook: Tensor, tokens: Tensor, nearest: Tensor
    ) -> tuple[Tensor, Tensor]:
        apart = latents - nearest
        context.save_for_backward(apart, tokens)
        context.size, context.types = codebook.shape, (latents.dtype, codebook.dtype)
        return latents - apart, 2 * apart.float().pow(2).mean()

    @staticmethod
    def backward(context: Any, by_codes: Tensor, by_commitment: Tensor) -> tuple[Tensor, Tensor, None, None]:
        apart, tokens = context.saved_tensors
        pull = apart * (2 * by_commitment / apart.numel())
        by_codebook = torch.zeros(context.size, dtype=pull.dtype, device=pull.device).index_add_(0, tokens, -pull)
        return (by_codes + pull).to(context.types[0]), by_codebook.to(context.types[1]), None, None
