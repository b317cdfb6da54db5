"""What the tokenizer is trained to do: settings, terms of the loss, and how the codebook fares.

Letters: B batch, V codebook size, C code width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

SCALES = (2, 4)
"""Side of the squares over which the multi-scale term averages."""


@dataclass(frozen=True)
class TokenizerLossConfig:
    """The tokenizer's loss beside the absolute error and the commitment; the defaults are the published ones."""

    perceptual: Literal["auto", "lpips", "none"] = "auto"
    """The perceptual term: ``auto`` if VGG16's weights are on disk (torch.hub's folder; nothing is downloaded),
    ``lpips`` insists on it, ``none`` leaves it out."""
    perceptual_weight: float = 1.0
    """Weight of the perceptual term, 1 as published."""
    edge_weight: float = 0.0
    """Weight of the error of differences between neighbouring pixels, which needs no pretrained weights; 0 as
    published."""
    multiscale_weight: float = 0.0
    """Weight of the error of the frame averaged over squares of 2 and of 4 pixels; 0 as published."""
    codebook: Literal["gradient", "ema"] = "gradient"
    """How codes follow the latents: ``gradient`` (a loss term, as published) or ``ema`` (moving averages)."""
    ema_decay: float = 0.99
    """Share of a code's moving average that a step keeps (``ema`` only)."""


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
    edge: Tensor
    multiscale: Tensor
    usage: Tensor
    """Share of the codes that this batch uses, 0 to 1; no loss."""
    perplexity: Tensor
    """exp(entropy) of this batch's codes, 1 to V: how many codes it uses, weighed by how often; no loss."""
    statistics: CodebookStatistics | None = None
    """With an ``ema`` codebook, what :meth:`Tokenizer.update_codebook` takes after the step."""

    @property
    def total(self) -> Tensor:
        return self.reconstruction + self.commitment + self.perceptual + self.edge + self.multiscale

    def named(self) -> dict[str, Tensor]:
        """Every scalar under its name, for logs."""
        names = ("reconstruction", "commitment", "perceptual", "edge", "multiscale", "usage", "perplexity")
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


def edge_error(target: Tensor, pixels: Tensor, weights: Tensor | None) -> Tensor:
    """Mean absolute error of the differences between neighbours, across plus down (Mathieu et al. 2016, exponent 1).

    ``target``, ``pixels``, ``weights`` float (B, 1, h, w); a difference weighs as much as its two pixels on average.
    """
    error = target - pixels
    total = error.new_zeros(())
    for axis in (2, 3):
        size = error.shape[axis] - 1
        steps = (error.narrow(axis, 1, size) - error.narrow(axis, 0, size)).abs()
        if weights is not None:
            steps = steps * (weights.narrow(axis, 1, size) + weights.narrow(axis, 0, size)) / 2
        total = total + steps.mean()
    return total


def multiscale_error(target: Tensor, pixels: Tensor, weights: Tensor | None) -> Tensor:
    """Sum over :data:`SCALES` of the mean absolute error of frames averaged over squares.

    ``target``, ``pixels``, ``weights`` float (B, 1, h, w), sides divisible by 4; a square weighs as its pixels do.
    """
    error = target - pixels
    total = error.new_zeros(())
    for side in SCALES:
        coarse = functional.avg_pool2d(error, side).abs()
        total = total + (coarse if weights is None else coarse * functional.avg_pool2d(weights, side)).mean()
    return total
