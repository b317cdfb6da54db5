"""Pre-LN GPT-2 blocks.  How positions attend is an argument, so training and planning share the blocks.

Letters: B batch, T tokens, D width, H heads, d = D / H.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from jowa.config import ModelConfig
from jowa.kernels.attention import causal_attention

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, queries, keys, values), each (B, H, T, d), to the mixed values (B, H, T, d)."""


class SelfAttention(nn.Module):
    """Separate q, k, v and output projections with bias, float (B, T, D) to the same shape."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.dropout = layer, config.heads, config.dropout
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, attend: Attend | None) -> Tensor:
        batch, tokens, width = x.shape
        layers = (self.query, self.key, self.value)
        if attend is None:
            # One product: the input is read and cast once, and its gradient needs no sum.
            weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
            projected = functional.linear(x, weight, bias).view(batch, tokens, 3, self.heads, -1)
            q, k, v = projected.permute(2, 0, 3, 1, 4).unbind()
            mixed = causal_attention(q, k, v, self.dropout if self.training else 0.0)
        else:
            q, k, v = (layer(x).view(batch, tokens, self.heads, -1).transpose(1, 2) for layer in layers)
            mixed = attend(self.layer, q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    """x + attention(LN x), then x + MLP(LN x); exact GELU, MLP of four times the width."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(config.width)
        self.ln2 = nn.LayerNorm(config.width)
        self.attn = SelfAttention(config, layer)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, 4 * config.width), nn.GELU(), nn.Linear(4 * config.width, config.width)
        )
        self.dropout = config.dropout

    def forward(self, x: Tensor, attend: Attend | None) -> Tensor:
        x = x + functional.dropout(self.attn(self.ln1(x), attend), self.dropout, self.training)
        return x + functional.dropout(self.mlp(self.ln2(x)), self.dropout, self.training)


class Transformer(nn.Module):
    """The backbone: embeddings float (B, T, D) to hidden states float (B, T, D)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.ln_f = nn.LayerNorm(config.width)
        self.dropout = config.dropout
        self.recompute = False
        """Keep each block's input alone for the backward pass, and compute the rest again then: less memory."""

    def forward(self, x: Tensor, attend: Attend | None = None) -> Tensor:
        x = functional.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            # The random state is kept with the input: dropout is the same the second time.
            x = checkpoint(block, x, attend, use_reentrant=False) if self.recompute else block(x, attend)
        return self.ln_f(x)
