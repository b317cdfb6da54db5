"""What the tokenizer is trained to do: settings, terms of the loss, and how the codebook fares.

Letters: B batch, V codebook size, C code width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CodebookStatistics:
    """What a batch says about the codes; without gradient."""

    counts: Tensor
    """float32 (V,): latents that chose each code."""
    sums: Tensor
    """float32 (V, C): their sums."""


@dataclass(frozen=True)
class TokenizerLosses:
    """Scalars, float32; ``total`` is the sum of the loss terms.  All stay on the device."""

    reconstruction: Tensor
    commitment: Tensor
    """``gradient``: mean (sg(z) - e)^2 + mean (z - sg(e))^2; ``ema``: the second alone."""
    perceptual: Tensor
    square: Tensor
    usage: Tensor
    """Share of the codes that this batch uses, 0 to 1; no loss."""
    perplexity: Tensor
    """exp(entropy) of this batch's codes, 1 to V: how many codes it uses, weighed by how often; no loss."""
    counts: Tensor
    """float32 (V,): how often each code was chosen; no loss."""
    statistics: CodebookStatistics | None = None
    """With an ``ema`` codebook, what :meth:`Tokenizer.update_codebook` takes after the step."""

    @property
    def total(self) -> Tensor:
        return self.reconstruction + self.commitment + self.perceptual + self.square

    def named(self) -> dict[str, Tensor]:
        """Every term of the loss under its name, for logs."""
        names = ("reconstruction", "commitment", "perceptual", "square")
        return {name: getattr(self, name).detach() for name in names}


def code_counts(tokens: Tensor, vocab_size: int) -> Tensor:
    """float32 (V,): how often each code occurs in ``tokens`` int64 (N,).  Unlike bincount it never waits for a GPU."""
    ones = torch.ones(tokens.shape, dtype=torch.float32, device=tokens.device)
    return ones.new_zeros(vocab_size).index_add_(0, tokens, ones)


def usage_and_perplexity(counts: Tensor) -> tuple[Tensor, Tensor]:
    """(share of codes in use, exp of the entropy in nats) of ``counts`` float32 (V,)."""
    shares = counts / counts.sum().clamp_min(1)
    return (counts > 0).float().mean(), torch.special.entr(shares).sum().exp()


def absolute_error(target: Tensor, pixels: Tensor, weights: Tensor | None) -> Tensor:
    """Mean absolute error of ``pixels`` float (B, 1, h, w); ``weights`` float (B, 1, h, w) multiply it."""
    error = (target - pixels).abs()
    return (error if weights is None else error * weights).mean()


def squared_error(target: Tensor, pixels: Tensor, weights: Tensor | None) -> Tensor:
    """Mean squared error of ``pixels`` float (B, 1, h, w); ``weights`` float (B, 1, h, w) multiply it."""
    error = (target - pixels).pow(2)
    return (error if weights is None else error * weights).mean()
