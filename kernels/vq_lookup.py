"""Nearest codebook vector: the oracle and the one function that callers use.

Letters: N latents, V codebook vectors, D width, P pairs of a latent and a code.
"""

from __future__ import annotations

import torch
from torch import Tensor

PAIRS_AT_ONCE = 1 << 16
"""Pairs rescored in one piece, to bound the memory: some copies of 256 MiB at D = 512."""


def vq_lookup(latents: Tensor, codebook: Tensor) -> Tensor:
    """Index of the codebook vector nearest to each latent, by squared Euclidean distance.

    ``latents`` float (N, D), ``codebook`` float (V, D); returns int64 (N,).  Equal to
    :func:`vq_lookup_reference`: a float32 matrix product narrows the choice, and where rounding could
    have decided it, the candidates are compared again in float64.  So ties go to the lowest index, and a
    CPU and a GPU agree.  Raises ValueError when the widths differ.
    """
    if latents.ndim != 2 or codebook.ndim != 2 or latents.shape[1] != codebook.shape[1]:
        raise ValueError(
            f"latents (N, D) and codebook (V, D) must share D, got {tuple(latents.shape)} and {tuple(codebook.shape)}"
        )
    latents, codebook = latents.detach().float(), codebook.detach().float()
    squares = (codebook * codebook).sum(1)
    with torch.autocast(latents.device.type, enabled=False):
        # |z|^2 is the same for every code, so only |e|^2 - 2 z.e is compared.
        scores = torch.addmm(squares, latents, codebook.T, alpha=-2.0)
    lowest, nearest = scores.min(dim=1)
    close = scores <= (lowest + 2 * _rounding(latents, squares))[:, None]
    unsure = (close.sum(1) > 1).nonzero()[:, 0]
    if len(unsure):
        nearest[unsure] = _exact_among(latents[unsure], codebook, close[unsure])
    return nearest


def _rounding(latents: Tensor, squares: Tensor) -> Tensor:
    """float (N,): a bound on the error of a score, from the usual bound for sums of D products."""
    width, device = latents.shape[1], latents.device
    coarse = device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32
    unit = 2.0**-24 * (width + 2) + (2.0**-10 if coarse else 0.0)
    longest = squares.amax().sqrt()
    return unit * (longest * longest + 2 * longest * latents.norm(dim=1))


def _exact_among(latents: Tensor, codebook: Tensor, candidates: Tensor) -> Tensor:
    """int64 (N,): the nearest in float64 among ``candidates`` bool (N, V), the lowest index first."""
    rows, codes = candidates.nonzero(as_tuple=True)
    distances = [
        (latents[rows[first:last]].double() - codebook[codes[first:last]].double()).pow(2).sum(1)
        for first, last in ((first, first + PAIRS_AT_ONCE) for first in range(0, len(rows), PAIRS_AT_ONCE))
    ]
    exact = torch.full(candidates.shape, torch.inf, dtype=torch.float64, device=latents.device)
    exact[rows, codes] = torch.cat(distances)
    return exact.argmin(dim=1)


def vq_lookup_reference(latents: Tensor, codebook: Tensor) -> Tensor:
    """The definition, in float64: every distance, the lowest index on a tie.  Takes N V D numbers of memory."""
    differences = latents.double()[:, None] - codebook.double()
    return differences.pow(2).sum(2).argmin(dim=1)
