"""How well a tokenizer keeps what moves: a ball that its tokens do not show is lost for the world model.

Letters: T steps, K = 36 tokens a frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from jowa.tokenizer.tokenizer import Tokenizer

MOVED = 24
"""Grey levels by which a pixel must change from one step to the next to count as moving."""
REPRODUCED = 32
"""Grey levels within which a decoded pixel must lie to count as reproduced."""
SMALL = 12
"""Most pixels of a connected moving patch that counts as small: a ball, a bullet."""
AT_ONCE = 128
"""Frames encoded and decoded together."""

Frames = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Quality:
    """What a tokenizer makes of recorded frames; shares are 0 to 1, or NaN where there was nothing to count."""

    moving_recall: float
    """Share of the pixels that moved (:data:`MOVED`) that are reproduced (:data:`REPRODUCED`)."""
    small_recall: float
    """The same, of the pixels in connected moving patches of at most :data:`SMALL` pixels."""
    ball_recall: float
    """The same, of those small patches' pixels that differ from what is usual at their place: where a small thing is,
    without where it has been."""
    error: float
    """Mean absolute error of all pixels, in grey levels."""
    tokens_changed: float
    """Mean number of the 36 tokens that differ from the frame before."""
    codes_used: int
    """Codes that occur at all."""
    frames: int
    """Frames looked at."""


def moving_pixels(frames: Frames) -> Mask:
    """bool (T - 1, 84, 84): which pixels of ``frames`` uint8 (T, 84, 84) differ from the frame before."""
    return np.abs(np.diff(frames.astype(np.int16), axis=0)) > MOVED


def small_patches(moving: Mask) -> Mask:
    """Those pixels of ``moving`` bool (T, 84, 84) whose connected patch (8 neighbours, one frame) is small."""
    neighbours = np.zeros((3, 3, 3), dtype=bool)
    neighbours[1] = True
    labels, _ = ndimage.label(moving, structure=neighbours)
    sizes = np.bincount(labels.ravel())
    small: Mask = (sizes <= SMALL)[labels] & moving
    return small


def measure(tokenizer: Tokenizer, stretches: Iterable[Frames]) -> Quality:
    """Encode and decode ``stretches`` of consecutive frames uint8 (T, 84, 84) of one game."""
    kept, counted = np.zeros(3), np.zeros(3)
    error = changed = steps = total = 0.0
    used = np.zeros(tokenizer.config.vocab_size, dtype=bool)
    stretches = list(stretches)
    usual = np.median(np.concatenate(stretches), axis=0).astype(np.int16)
    for frames in stretches:
        tokens, decoded = _round_trip(tokenizer, frames)
        apart = np.abs(frames.astype(np.int16) - decoded)
        moving = moving_pixels(frames)
        small = small_patches(moving)
        balls = small & (np.abs(frames[1:] - usual) > MOVED)
        for place, which in enumerate((moving, small, balls)):
            counted[place] += which.sum()
            kept[place] += (apart[1:][which] <= REPRODUCED).sum()
        error += float(apart.sum())
        changed += float((tokens[1:] != tokens[:-1]).sum())
        steps, total = steps + len(frames) - 1, total + len(frames)
        used[np.unique(tokens)] = True
    recalls = [float(k / n) if n else float("nan") for k, n in zip(kept, counted, strict=True)]
    pixels = total * stretches[0][0].size
    return Quality(
        moving_recall=recalls[0], small_recall=recalls[1], ball_recall=recalls[2], error=error / pixels,
        tokens_changed=changed / max(steps, 1), codes_used=int(used.sum()), frames=int(total),
    )  # fmt: skip


def _round_trip(tokenizer: Tokenizer, frames: Frames) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    """Tokens (T, 36), and what they decode to, int16 (T, 84, 84) in [0, 255]."""
    device = tokenizer.embedding.weight.device
    tokens, decoded = [], []
    for chunk in torch.split(torch.from_numpy(frames), AT_ONCE):
        tokens.append(tokenizer.encode(chunk.to(device)))
        decoded.append(tokenizer.decode(tokens[-1]).mul(255).round().to(torch.int16).cpu().numpy())
    return torch.cat(tokens).cpu().numpy(), np.concatenate(decoded)
