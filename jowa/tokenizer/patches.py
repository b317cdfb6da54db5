"""A tokenizer without networks: its codes are pictures of 14 x 14 pixels, and a token names the nearest one.

The codes are the patches of which most frames are made, and the centres of clusters of all that occur, each distinct
patch counted once, so that what is rare and moves weighs as much as the background.  That takes seconds, where small
networks train for minutes and keep less of what is small (docs/tokenizer.md).  Letters: N patches, V codes, P = 196
pixels of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from jowa.errors import UsageError
from jowa.kernels.vq_lookup import vq_lookup
from jowa.tokenizer.local import PATCH

PIXELS = PATCH * PATCH
ROUNDS = 12
"""Of Lloyd's algorithm: the error falls by less than a hundredth in the next ones."""
CHUNK = 8192
"""Patches compared at once."""


class Patches(NamedTuple):
    """What occurs in a game; uint8 (N, 196) each."""

    distinct: NDArray[np.uint8]
    """Patches, each once, so that what is rare and moves counts as much as the background."""
    usual: NDArray[np.uint8]
    """Those of which most frames are made."""


class PatchEncoder(nn.Module):
    """float (B, 1, 84, 84) to float (B, 196, 6, 6): the pixels of each patch."""

    def forward(self, frames: Tensor) -> Tensor:
        return functional.pixel_unshuffle(frames, PATCH)

    def encode_patches(self, patches: Tensor) -> Tensor:
        """float (N, 1, 14, 14) to float (N, 196)."""
        return patches.flatten(1)


class PatchDecoder(nn.Module):
    """float (B, 196, 6, 6) to float (B, 1, 84, 84)."""

    def forward(self, latents: Tensor) -> Tensor:
        return functional.pixel_shuffle(latents, PATCH)


def nearest(patches: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """(int64 (N,), float32 (N,)): the nearest of ``codes`` (V, P) to each of ``patches`` (N, P), squared distances."""
    tokens = torch.cat([vq_lookup(part, codes) for part in torch.split(patches, CHUNK)])
    distances = torch.cat(
        [
            (a - codes[b]).square().sum(1)
            for a, b in zip(torch.split(patches, CHUNK), torch.split(tokens, CHUNK), strict=True)
        ]
    )
    return tokens, distances


def cluster(patches: Tensor, codes: Tensor, free: Tensor, generator: torch.Generator, rounds: int = ROUNDS) -> Tensor:
    """Codes float32 (V, P) for ``patches`` float32 (N, P): Lloyd's algorithm (1982) on those that are ``free``.

    Args:
        patches: in [-1, 1].
        codes: float32 (V, P), where it starts from; rows that are not free stay as they are.
        free: bool (V,): codes that may move.  Each round those that no patch chose are drawn anew among the patches,
            with probabilities proportional to the squared distance to their code (Arthur and Vassilvitskii 2007).
        generator: on the CPU.
    """
    codes = codes.clone()
    for _ in range(rounds if len(patches) else 0):
        tokens, distances = nearest(patches, codes)
        counts = torch.bincount(tokens, minlength=len(codes))
        means = torch.zeros_like(codes).index_add_(0, tokens, patches) / counts.clamp_min(1)[:, None]
        moving = (counts > 0) & free
        codes[moving] = means[moving]
        unused = ((counts == 0) & free).nonzero().flatten()
        count = min(len(unused), int((distances > 0).sum()))
        if count:
            picked = torch.multinomial(distances.cpu(), count, generator=generator).to(patches.device)
            codes[unused[:count]] = patches[picked]
    return codes


def fit_patches(codes: Tensor, games: Sequence[Patches], seed: int, keep_used: bool, rounds: int = ROUNDS) -> Tensor:
    """Codes float32 (V, 196) for the patches of ``games``; usual ones get a code of their own, but half of V at most.

    ``keep_used``: those of ``codes`` that some patch chooses stay, as do their meanings; else all are fitted anew.
    Raises :class:`UsageError` without any patch.
    """
    joined, usual = (
        torch.from_numpy(np.concatenate(parts)).to(codes.device).float().mul(2.0 / 255.0).sub(1.0)
        for parts in ([game.distinct for game in games], [game.usual for game in games])
    )
    if not len(joined):
        raise UsageError("the data set holds no frame: record some with python -m jowa.record")
    generator = torch.Generator().manual_seed(seed)
    free = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
    if keep_used:
        free = torch.bincount(nearest(torch.cat([joined, usual]), codes)[0], minlength=len(codes)) == 0
    else:
        first = torch.randperm(len(joined), generator=generator)[: len(codes)].to(codes.device)
        codes = torch.zeros_like(codes)
        codes[: len(first)] = joined[first]
    places = free.nonzero().flatten()[: len(codes) // 2]
    own = torch.unique(usual, dim=0)
    own = own[(own[:, None] != codes[~free]).any(-1).all(1)] if keep_used else own
    places = places[: len(own)]
    codes = codes.clone()
    codes[places], free[places] = own[: len(places)], False
    return cluster(joined, codes, free, generator, rounds)
