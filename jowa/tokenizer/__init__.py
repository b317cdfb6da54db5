"""Frames to tokens and back (VQ-VAE).  The only room that knows frames as numbers in [-1, 1]."""

from jowa.tokenizer.lpips import LPIPS
from jowa.tokenizer.tokenizer import Tokenizer, TokenizerLosses

__all__ = ["LPIPS", "Tokenizer", "TokenizerLosses"]
