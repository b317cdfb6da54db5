"""Causal self-attention over a whole sequence: the oracle and the one function that callers use."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def causal_attention(queries: Tensor, keys: Tensor, values: Tensor, dropout: float = 0.0) -> Tensor:
    """Softmax attention in which position t sees positions 0..t.

    All float (B, H, T, d); returns the same shape.  ``dropout`` is the probability of dropping an
    attention weight; pass 0 in evaluation.
    """
    return functional.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout, is_causal=True)


def causal_attention_reference(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The definition, without dropout: softmax(q k^T / sqrt(d)) v over the lower triangle."""
    length = queries.shape[-2]
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
    hidden = torch.ones(length, length, dtype=torch.bool, device=queries.device).triu(1)
    return scores.masked_fill(hidden, -math.inf).softmax(dim=-1) @ values
