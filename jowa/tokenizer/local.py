"""An encoder in which a token sees only its own 14 x 14 patch.

A wide encoder (GroupNorm, 3 x 3 convolutions over the 6 x 6 grid) lets every token see everything:
one moving sprite changes up to 26 of 36 tokens.  Here an unchanged patch keeps its token, so the
next frame is easier to predict and the previous frame is a good draft of it.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from jowa.config import FRAME_SIZE, TokenizerConfig

GRID = 6
PATCH = FRAME_SIZE // GRID
ENCODER_BLOCKS = 3
DECODER_BLOCKS = 2


class PositionwiseBlock(nn.Module):
    """x + MLP(LayerNorm(x)) at each grid position alone, float (..., C) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, 2 * channels)
        self.down = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(functional.gelu(self.up(self.norm(x))))


class LocalEncoder(nn.Module):
    """float (B, 1, 84, 84) in [-1, 1] to float (B, code_dim, 6, 6); patch by patch."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, config.channels, PATCH, stride=PATCH)
        self.blocks = nn.Sequential(*(PositionwiseBlock(config.channels) for _ in range(ENCODER_BLOCKS)))
        self.norm = nn.LayerNorm(config.channels)
        self.out = nn.Linear(config.channels, config.code_dim)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.patches(frames).permute(0, 2, 3, 1)
        return self.out(self.norm(self.blocks(x))).permute(0, 3, 1, 2)

    def encode_patches(self, patches: Tensor) -> Tensor:
        """float (N, 1, 14, 14) in [-1, 1], from anywhere in a frame, to float (N, code_dim)."""
        return self.out(self.norm(self.blocks(self.patches(patches)[:, :, 0, 0])))


def split_patches(frames: Tensor) -> Tensor:
    """(B, 84, 84) to its patches (B, 36, 14, 14), row-major."""
    grid = frames.view(-1, GRID, PATCH, GRID, PATCH).transpose(2, 3)
    return grid.reshape(-1, GRID * GRID, PATCH, PATCH)


class LocalDecoder(nn.Module):
    """float (B, code_dim, 6, 6) to float (B, 1, 84, 84) in [-1, 1]; a patch sees its neighbours' codes once."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.mix = nn.Conv2d(config.code_dim, config.channels, 3, padding=1)
        self.blocks = nn.Sequential(*(PositionwiseBlock(config.channels) for _ in range(DECODER_BLOCKS)))
        self.norm = nn.LayerNorm(config.channels)
        self.pixels = nn.Linear(config.channels, PATCH * PATCH)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.mix(latents).permute(0, 2, 3, 1)
        x = self.pixels(self.norm(self.blocks(x))).permute(0, 3, 1, 2)
        return functional.pixel_shuffle(x, PATCH)
