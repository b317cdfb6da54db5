"""Frames to tokens and back (VQ-VAE).  The only room that knows frames as numbers in [-1, 1]."""

from jowa.tokenizer.losses import WEIGHT_FREE, CodebookStatistics, TokenizerLossConfig, TokenizerLosses
from jowa.tokenizer.perceptual import PerceptualDistance, load_perceptual
from jowa.tokenizer.tokenizer import Tokenizer

__all__ = [
    "WEIGHT_FREE",
    "CodebookStatistics",
    "PerceptualDistance",
    "Tokenizer",
    "TokenizerLossConfig",
    "TokenizerLosses",
    "load_perceptual",
]
