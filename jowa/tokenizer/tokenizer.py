"""The VQ-VAE: frames to tokens and back, and its training loss.

Letters: B batch, K = 36 tokens a frame, V codebook size, C code width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jowa.config import FRAME_SIZE, TOKENS_PER_FRAME, TokenizerConfig, TokenizerLossConfig
from jowa.kernels.quantize import quantize
from jowa.kernels.vq_lookup import vq_lookup
from jowa.tokenizer.codebook import EmaCodebook
from jowa.tokenizer.local import GRID, LocalDecoder, LocalEncoder, split_patches
from jowa.tokenizer.losses import (
    CodebookStatistics,
    TokenizerLosses,
    absolute_error,
    code_counts,
    squared_error,
    usage_and_perplexity,
)
from jowa.tokenizer.patches import PIXELS, PatchDecoder, PatchEncoder
from jowa.tokenizer.published import PublishedDecoder, PublishedEncoder, orthogonal_init

EMA_COUNTS = "embedding.counts"
"""What the state dict of a tokenizer with an ``ema`` codebook has beside that of any other."""


class Tokenizer(nn.Module):
    """Frames uint8 (B, 84, 84) to tokens int64 (B, 36) and back.

    Args:
        config: sizes and architecture.
        perceptual: the network of the perceptual term (:func:`jowa.tokenizer.load_perceptual`), or None to leave it
            out: frames float (B, 1, 84, 84) in [-1, 1] twice, to distances (B,).
        losses: how it is trained; what it computes from frames and tokens does not depend on it.
    """

    embedding: nn.Embedding | EmaCodebook

    def __init__(
        self, config: TokenizerConfig, perceptual: nn.Module | None = None, losses: TokenizerLossConfig | None = None
    ) -> None:
        super().__init__()
        self.config, self.losses = config, losses or TokenizerLossConfig()
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.encoder == "published":
            self.encoder, self.decoder = PublishedEncoder(config), PublishedDecoder(config)
            self.pre_quant_conv: nn.Module = nn.Conv2d(config.z_channels, config.code_dim, 1)
            self.post_quant_conv: nn.Module = nn.Conv2d(config.code_dim, config.z_channels, 1)
            self.apply(orthogonal_init)
        else:
            if config.encoder == "local":
                self.encoder, self.decoder = LocalEncoder(config), LocalDecoder(config)
            elif config.code_dim == PIXELS:
                self.encoder, self.decoder = PatchEncoder(), PatchDecoder()
            else:
                raise ValueError(f"code_dim is {config.code_dim}, expected {PIXELS}, the pixels of a patch: set it")
            self.pre_quant_conv = self.post_quant_conv = nn.Identity()
        if self.losses.codebook == "ema":
            self.embedding = EmaCodebook(config.vocab_size, config.code_dim, self.losses.ema_decay)
        else:
            self.embedding = nn.Embedding(config.vocab_size, config.code_dim)
        nn.init.uniform_(self.embedding.weight, -1.0 / config.vocab_size, 1.0 / config.vocab_size)
        # A tuple keeps the frozen network out of parameters() and of state_dict().
        self._perceptual = (perceptual,)
        self.register_load_state_dict_pre_hook(_fit_codebook)  # type: ignore[no-untyped-call]

    def latents(self, frames: Tensor) -> Tensor:
        """float (B, C, 6, 6): the encoding before the codebook, of ``frames`` uint8 (B, 84, 84)."""
        if frames.shape[1:] != (FRAME_SIZE, FRAME_SIZE) or frames.dtype != torch.uint8:
            raise ValueError(f"frames must be uint8 (B, 84, 84), got {frames.dtype} {tuple(frames.shape)}")
        return self.pre_quant_conv(self.encoder(_scale(frames)))

    def _nearest(self, latents: Tensor, settle: bool) -> Tensor:
        flat = latents.permute(0, 2, 3, 1).reshape(-1, self.config.code_dim)
        return vq_lookup(flat, self.embedding.weight, settle).view(-1, TOKENS_PER_FRAME)

    @torch.no_grad()
    def encode(self, frames: Tensor, settle: bool = True) -> Tensor:
        """Tokens int64 (..., 36) of ``frames`` uint8 (..., 84, 84); ``settle`` as for :func:`vq_lookup`."""
        flat = frames.reshape(-1, FRAME_SIZE, FRAME_SIZE)
        return self._nearest(self.latents(flat), settle).view(*frames.shape[:-2], TOKENS_PER_FRAME)

    @torch.no_grad()
    def encode_sequence(self, frames: Tensor) -> Tensor:
        """Tokens int64 (N, 36) of ``frames`` uint8 (N, 84, 84) in order of time, as :meth:`encode` gives them.

        Where a token sees only its patch, only patches that differ from the frame before are computed: a fifth or less.
        """
        if not isinstance(self.encoder, LocalEncoder | PatchEncoder) or len(frames) == 0:
            return self.encode(frames)
        patches = split_patches(frames)
        changed = torch.ones(len(frames), TOKENS_PER_FRAME, dtype=torch.bool, device=frames.device)
        changed[1:] = (patches[1:] != patches[:-1]).flatten(2).any(-1)
        latents = self.encoder.encode_patches(_scale(patches[changed]))
        # Row i of a column holds the number of the last changed row at or before it.
        rows = torch.arange(len(frames), device=frames.device)[:, None]
        latest = torch.where(changed, rows, 0).cummax(0).values
        order = changed.flatten().cumsum(0).view_as(changed) - 1
        return vq_lookup(latents, self.embedding.weight)[order.gather(0, latest)]

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Frames float32 (..., 84, 84), clamped to [0, 1], of ``tokens`` int64 (..., 36)."""
        return self.decode_unclamped(tokens).clamp(0, 1)

    def decode_unclamped(self, tokens: Tensor) -> Tensor:
        """The decoder's own output, float32 (..., 84, 84) in about [0, 1], of ``tokens`` int64 (..., 36)."""
        pixels = self._decode_codes(self._grid(tokens.reshape(-1, TOKENS_PER_FRAME)))
        return pixels.add(1).div(2).float().view(*tokens.shape[:-1], FRAME_SIZE, FRAME_SIZE)

    def _grid(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens).view(-1, GRID, GRID, self.config.code_dim).permute(0, 3, 1, 2)

    def _decode_codes(self, codes: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(codes))

    def forward(self, frames: Tensor, weights: Tensor | None = None) -> TokenizerLosses:
        """The losses on ``frames`` uint8 (B, 84, 84).

        ``weights`` float (B, 84, 84), optional: how much each pixel's error counts; None counts all alike, as
        published.
        """
        latents = self.latents(frames)
        flat = latents.permute(0, 2, 3, 1).reshape(-1, self.config.code_dim)
        codes, tokens, commitment = quantize(flat, self.embedding.weight, settle=not self.training)
        pixels = self._decode_codes(codes.view(-1, GRID, GRID, self.config.code_dim).permute(0, 3, 1, 2))
        target, settings, network = _scale(frames), self.losses, self._perceptual[0]
        pixel_weights = None if weights is None else weights[:, None]
        none = commitment.new_zeros((), dtype=torch.float32)
        counts = code_counts(tokens, self.config.vocab_size)
        statistics = None
        if settings.codebook == "ema":
            # The value alone: codes receive no gradient, and that of the latents is the same.
            commitment = commitment - commitment.detach() / 2
            detached = flat.detach().float()
            statistics = CodebookStatistics(
                counts, torch.zeros_like(self.embedding.weight).index_add_(0, tokens, detached)
            )
        usage, perplexity = usage_and_perplexity(counts)

        return TokenizerLosses(
            reconstruction=absolute_error(target, pixels, pixel_weights).float(),
            commitment=commitment.float(),
            perceptual=none if network is None else settings.perceptual_weight * network(target, pixels).mean().float(),
            square=self._square(target, pixels, pixel_weights) if settings.square_weight else none,
            usage=usage,
            perplexity=perplexity,
            counts=counts,
            statistics=statistics,
        )

    def _square(self, target: Tensor, pixels: Tensor, weights: Tensor | None) -> Tensor:
        return self.losses.square_weight * squared_error(target, pixels, weights).float()

    def update_codebook(self, statistics: Sequence[CodebookStatistics | None], skipped: Tensor | None = None) -> None:
        """Move an ``ema`` codebook after an optimizer step, by the ``statistics`` of each forward pass of the step.

        ``skipped`` float32 (), optional: 1 if the optimizer skipped the step; the codes stay then, too.
        All processes must call it: it sums over them, so that all keep the same codes.  Does nothing with a
        ``gradient`` codebook.
        """
        if isinstance(self.embedding, EmaCodebook):
            self.embedding.update([part for part in statistics if part is not None], skipped)

    def playing_state(self) -> dict[str, Tensor]:
        """The state dict without what only training needs: the same names whatever the tokenizer was trained with."""
        return {name: value for name, value in self.state_dict().items() if name != EMA_COUNTS}

    def fingerprint(self) -> str:
        """Hex digest of the weights that decide tokens: token files name the tokenizer that wrote them."""
        digest = hashlib.sha256(repr(self.config).encode())
        for name, value in sorted(self.playing_state().items()):
            if not name.startswith(("decoder", "post_quant")):
                digest.update(name.encode())
                digest.update(value.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def revive_dead_codes(self, frames: Tensor, generator: torch.Generator) -> int:
        """Move codes that ``frames`` uint8 (B, 84, 84) never use onto latents that lack one; returns how many.

        Distinct latents are drawn without replacement, with probabilities proportional to the squared distance to
        their code (the seeding of k-means++, Arthur and Vassilvitskii 2007, in one draw): uniform draws would put most
        codes on the background.  Give many frames, or codes of what is rare count as unused.
        """
        latents = self.latents(frames).permute(0, 2, 3, 1).reshape(-1, self.config.code_dim).float()
        tokens = vq_lookup(latents, self.embedding.weight)
        dead = (torch.bincount(tokens, minlength=self.config.vocab_size) == 0).nonzero().flatten()
        distances = (latents - self.embedding.weight[tokens]).pow(2).sum(1)
        distinct = torch.unique(torch.cat([latents, distances[:, None]], dim=1)[distances > 0], dim=0)
        count = min(len(dead), len(distinct))
        if count == 0:
            return 0
        picked = torch.multinomial(distinct[:, -1].cpu(), count, generator=generator).to(latents.device)
        self.embedding.weight[dead[:count]] = distinct[picked, :-1].to(self.embedding.weight.dtype)
        if isinstance(self.embedding, EmaCodebook):
            self.embedding.counts[dead[:count]] = 0  # the first latents that choose it make it their mean
        return count


def _scale(frames: Tensor) -> Tensor:
    """uint8 (B, h, w) in [0, 255] to float32 (B, 1, h, w) in [-1, 1]."""
    return frames[:, None].float().mul(2.0 / 255.0).sub(1.0)


def _fit_codebook(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Load with either kind of codebook what the other saved: an agent that plays knows nothing of averages."""
    key = prefix + EMA_COUNTS
    if not isinstance(module.embedding, EmaCodebook):
        state.pop(key, None)
    elif key not in state and prefix + "embedding.weight" in state:
        state[key] = torch.zeros_like(module.embedding.counts)
