"""Frames to tokens and back (VQ-VAE).  The only room that knows frames as numbers in [-1, 1]."""

from jowa.tokenizer.losses import CodebookStatistics, TokenizerLossConfig, TokenizerLosses
from jowa.tokenizer.lpips import LPIPS
from jowa.tokenizer.perceptual import PerceptualDistance, load_perceptual
from jowa.tokenizer.tokenizer import Tokenizer

__all__ = [
    "LPIPS",
    "CodebookStatistics",
    "PerceptualDistance",
    "Tokenizer",
    "TokenizerLossConfig",
    "TokenizerLosses",
    "load_perceptual",
]
