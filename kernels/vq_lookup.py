"""Nearest codebook vector: the oracle and the two functions that callers use.

Letters: N latents, V codebook vectors, D width, P pairs of a latent and a code.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from jowa.kernels.native import native_runs

PAIRS_AT_ONCE = 1 << 16
"""Pairs rescored in one piece, to bound the memory: some copies of 256 MiB at D = 512."""
SCORES_AT_ONCE = 1 << 22
"""Scores in one matrix product: 16 MiB, which also stay in a CPU's cache between product and minimum."""
TF32, TF32X3 = 2.0**-10, 2.0**-21
"""Relative rounding of a product of TF32 numbers (10 bits of mantissa), and of one split into three such products."""


def vq_lookup(latents: Tensor, codebook: Tensor, settle: bool = True) -> Tensor:
    """Index of the codebook vector nearest to each latent, by squared Euclidean distance.

    ``latents`` float (N, D), ``codebook`` float (V, D) on one device; returns int64 (N,).  Equal to
    :func:`vq_lookup_reference`: a fast search narrows the choice, and where rounding could have decided it, the
    candidates are compared again in float64.  So ties go to the lowest index, and a CPU and a GPU agree.  On a GPU
    with Triton the fast search is one kernel (:mod:`jowa.kernels.vq_lookup_triton`), on a CPU it is native code
    (:mod:`jowa.kernels.vq_lookup_native`), else a float32 matrix product.
    ``settle=False`` leaves on a GPU what rounding could have decided as it is: how many those are must be known on the
    host, which a training step should not wait for.
    Raises ValueError when widths, dtypes or devices do not fit or there is no code.
    """
    return _nearest(latents, codebook, False, settle)[0]


def nearest_codes(latents: Tensor, codebook: Tensor, settle: bool = True) -> tuple[Tensor, Tensor]:
    """(tokens int64 (N,), codes (N, D)): as :func:`vq_lookup`, and ``codebook[tokens]``.

    The kernels write the codes while the codebook is at hand, so nothing reads the tokens again.  ``codes`` have the
    codebook's dtype and no gradient.
    """
    tokens, codes = _nearest(latents, codebook, True, settle)
    assert codes is not None
    return tokens, codes.to(codebook.dtype)


def _nearest(latents: Tensor, codebook: Tensor, gather: bool, settle: bool) -> tuple[Tensor, Tensor | None]:
    _check(latents, codebook)
    latents, codebook = latents.detach().float().contiguous(), codebook.detach().float().contiguous()
    with torch.autocast(latents.device.type, enabled=False):
        if _runs_triton(latents):
            tokens, codes, unsure = _by_triton(latents, codebook, gather, settle)
        elif native_runs(latents):
            from jowa.kernels.vq_lookup_native import search

            tokens, codes, unsure = search(latents, codebook, gather)
        else:
            tokens = _by_matrix_product(latents, codebook, settle or not latents.is_cuda)
            return tokens, codebook[tokens] if gather else None
        if len(unsure):
            tokens[unsure] = _by_matrix_product(latents[unsure], codebook)
            if codes is not None:
                codes[unsure] = codebook[tokens[unsure]]
        return tokens, codes


def _check(latents: Tensor, codebook: Tensor) -> None:
    if latents.ndim != 2 or codebook.ndim != 2 or latents.shape[1] != codebook.shape[1] or len(codebook) == 0:
        raise ValueError(
            f"latents (N, D) and codebook (V, D) must share D, with V at least 1, got {tuple(latents.shape)} and "
            f"{tuple(codebook.shape)}"
        )
    for name, tensor in (("latents", latents), ("codebook", codebook)):
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating, got {tensor.dtype}")
    if latents.device != codebook.device:
        raise ValueError(f"codebook is on {codebook.device} and latents on {latents.device}: move one")


def _runs_triton(latents: Tensor) -> bool:
    return latents.is_cuda and find_spec("triton") is not None


def _by_triton(latents: Tensor, codebook: Tensor, gather: bool, settle: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """(tokens, codes, which of them rounding could have decided; none of them unless they are to be settled)."""
    from jowa.kernels.vq_lookup_triton import nearest_two_codes

    squares = (codebook * codebook).sum(1)
    tokens, lowest, second, codes = nearest_two_codes(latents, codebook, squares, gather)
    if not settle:
        return tokens, codes, tokens[:0]
    # Not sure either where anything is NaN or infinite.
    unsure = ~(second > lowest + 2 * _rounding(latents, squares, TF32X3))
    return tokens, codes, unsure.nonzero()[:, 0]


def _by_matrix_product(latents: Tensor, codebook: Tensor, settle: bool = True) -> Tensor:
    """int64 (N,): scores as float32 products; to ``settle`` what rounding could have decided, in float64."""
    rows = max(1, SCORES_AT_ONCE // len(codebook))
    if len(latents) > rows:
        return torch.cat([_by_matrix_product(part, codebook, settle) for part in torch.split(latents, rows)])
    # |z|^2 is the same for every code, so only |e|^2 - 2 z.e is compared.
    squares = (codebook * codebook).sum(1)
    scores = torch.addmm(squares, latents, codebook.T, alpha=-2.0)
    coarse = latents.is_cuda and torch.backends.cuda.matmul.allow_tf32
    lowest, nearest = scores.min(dim=1)
    if not settle:
        return nearest
    scores.scatter_(1, nearest[:, None], torch.inf)  # the winner out of the way, the runner-up is the minimum
    within = lowest + 2 * _rounding(latents, squares, TF32 if coarse else 0.0)
    unsure = (~(scores.amin(dim=1) > within)).nonzero()[:, 0]
    if len(unsure):
        close = ~(scores[unsure] > within[unsure, None])
        close.scatter_(1, nearest[unsure, None], True)
        nearest[unsure] = _exact_among(latents[unsure], codebook, close)
    return nearest


def _rounding(latents: Tensor, squares: Tensor, product: float) -> Tensor:
    """float (N,): a bound on the error of a score, from the usual bound for sums of D products.

    ``product``: what a product's own rounding adds, relative.
    """
    unit = 2.0**-24 * (latents.shape[1] + 2) + product
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
