"""Frames to tokens and back (VQ-VAE).  The only room that knows frames as numbers in [-1, 1]."""

from jowa.tokenizer.losses import CodebookStatistics, TokenizerLosses
from jowa.tokenizer.perceptual import PerceptualDistance, load_perceptual
from jowa.tokenizer.tokenizer import Tokenizer

__all__ = [
    "CodebookStatistics",
    "PerceptualDistance",
    "Tokenizer",
    "TokenizerLosses",
    "load_perceptual",
]
