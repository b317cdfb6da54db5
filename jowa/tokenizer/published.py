"""The published encoder and decoder (VQGAN-style, 84 -> 12 -> 6), in which every token sees the frame.

Attribute names follow the released state dicts, so that those load without renaming.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from jowa.config import TokenizerConfig

STRIDES = (7, 2)
"""Downsampling after level 0 and level 1: 84 -> 12 -> 6."""
UP_STRIDES = {2: 7, 1: 2}
"""Upsampling after each decoder level, coarse to fine: by 7 first (not the encoder's order mirrored)."""
LEVELS = 3
ENCODER_BLOCKS = 2
DECODER_BLOCKS = 3
ATTENTION_LEVELS = (1, 2)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm as published: 2 groups, eps 1e-6."""
    return nn.GroupNorm(2, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x)))))), float (B, C, h, w) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = group_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(functional.silu(self.norm1(x)))
        return x + self.conv2(functional.silu(self.norm2(hidden)))


class AttentionBlock(nn.Module):
    """x + single-head attention over the h*w positions, float (B, C, h, w) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (layer(normed).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(mixed[:, 0].transpose(1, 2).reshape(x.shape))


class Middle(nn.Module):
    """Residual, attention, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels)
        self.attn_1 = AttentionBlock(channels)
        self.block_2 = ResidualBlock(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Resample(nn.Module):
    """Down: one zero row below and column right, conv s+1 stride s.  Up: nearest by s, conv 3 x 3."""

    def __init__(self, channels: int, stride: int, up: bool) -> None:
        super().__init__()
        self.stride, self.up = stride, up
        self.conv = (
            nn.Conv2d(channels, channels, 3, padding=1) if up else nn.Conv2d(channels, channels, stride + 1, stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            return self.conv(functional.interpolate(x, scale_factor=float(self.stride), mode="nearest"))
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention where the level has it."""

    def __init__(self, channels: int, blocks: int, attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResidualBlock(channels) for _ in range(blocks))
        self.attn = nn.ModuleList(AttentionBlock(channels) for _ in range(blocks if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        return x


class PublishedEncoder(nn.Module):
    """float (B, 1, 84, 84) in [-1, 1] to float (B, z_channels, 6, 6)."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        channels = config.channels
        self.conv_in = nn.Conv2d(1, channels, 3, padding=1)
        self.down = nn.ModuleList()
        for index in range(LEVELS):
            level = Level(channels, ENCODER_BLOCKS, index in ATTENTION_LEVELS)
            if index < len(STRIDES):
                level.downsample = Resample(channels, STRIDES[index], up=False)
            self.down.append(level)
        self.mid = Middle(channels)
        self.norm_out = group_norm(channels)
        self.conv_out = nn.Conv2d(channels, config.z_channels, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        x = _channels_last(self.conv_in(frames))
        for index, level in enumerate(self.down):
            x = level(x)
            if index < len(STRIDES):
                x = level.downsample(x)  # type: ignore[operator]
        return self.conv_out(functional.silu(self.norm_out(self.mid(x))))


class PublishedDecoder(nn.Module):
    """float (B, z_channels, 6, 6) to float (B, 1, 84, 84) in [-1, 1]."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        channels = config.channels
        self.conv_in = nn.Conv2d(config.z_channels, channels, 3, padding=1)
        self.mid = Middle(channels)
        self.up = nn.ModuleList()
        for index in range(LEVELS):
            level = Level(channels, DECODER_BLOCKS, attention=False)
            if index > 0:
                level.upsample = Resample(channels, UP_STRIDES[index], up=True)
            self.up.append(level)
        self.norm_out = group_norm(channels)
        self.conv_out = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.mid(_channels_last(self.conv_in(latents)))
        for index in reversed(range(LEVELS)):
            level = self.up[index]
            x = level(x)
            if index > 0:
                x = level.upsample(x)  # type: ignore[operator]
        return self.conv_out(functional.silu(self.norm_out(x)))


def _channels_last(x: Tensor) -> Tensor:
    """``x`` float (B, C, h, w) with the channels of a pixel side by side in memory, which everything after it keeps.

    Convolutions and GroupNorm run faster so (docs/tokenizer.md); values, and the layout of the weights, stay.
    """
    return x.contiguous(memory_format=torch.channels_last)


def orthogonal_init(module: nn.Module) -> None:
    """Orthogonal with ReLU gain for convolutions, biases 0 (for ``Module.apply``)."""
    if isinstance(module, nn.Conv2d):
        nn.init.orthogonal_(module.weight, gain=nn.init.calculate_gain("relu"))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
