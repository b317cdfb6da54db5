"""The nearest-code search as one Triton kernel: distances, minimum and runner-up, without an N x V matrix.

Letters: N latents, V codebook vectors, D width.  Called by :mod:`jowa.kernels.vq_lookup`, never directly.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_N, BLOCK_V, BLOCK_D = 128, 64, 16
"""Latents a program, codes a round, numbers a product.  Products of three TF32 parts want many registers: 32 numbers
at a time spill on sm_80 with every tile tried (tests/kernels/compiled.py)."""
WARPS, STAGES = 8, 3
BLOCK_GATHER = 32
"""Numbers of a code that are copied at once."""


@triton.jit
def nearest_two(
    latents, codebook, squares, index, lowest, second, chosen, count, codes,
    D: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr, GATHER: tl.constexpr,
):  # fmt: skip
    """For each latent: the code with the lowest |e|^2 - 2 z.e, that score, and the lowest of all others.

    A code wins only with a strictly lower score, so the first of equal ones stays.  With GATHER its vector is written
    too, by the program that has just read the codebook.
    """
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = rows < count
    best = tl.full((BLOCK_N,), float("inf"), tl.float32)
    runner_up = tl.full((BLOCK_N,), float("inf"), tl.float32)
    winner = tl.zeros((BLOCK_N,), tl.int32)
    columns = tl.arange(0, BLOCK_V)
    inner = tl.arange(0, BLOCK_D)
    for start in range(0, codes, BLOCK_V):
        these = start + columns
        known = these < codes
        products = tl.zeros((BLOCK_N, BLOCK_V), tl.float32)
        for depth in range(0, D, BLOCK_D):
            part = depth + inner
            valid = part < D
            z = tl.load(latents + rows[:, None] * D + part[None, :], mask=inside[:, None] & valid[None, :], other=0.0)
            e = tl.load(codebook + these[None, :] * D + part[:, None], mask=known[None, :] & valid[:, None], other=0.0)
            products = tl.dot(z, e, products, input_precision="tf32x3")
        scores = tl.load(squares + these, mask=known, other=float("inf"))[None, :] - 2.0 * products
        scores = tl.where(scores == scores, scores, float("inf"))  # a minimum of NaN alone is nobody's
        block_best = tl.min(scores, axis=1)
        block_winner = tl.argmin(scores, axis=1)
        others = tl.where(columns[None, :] == block_winner[:, None], float("inf"), scores)
        runner_up = tl.minimum(tl.minimum(runner_up, tl.min(others, axis=1)), tl.maximum(best, block_best))
        winner = tl.where(block_best < best, start + block_winner, winner)
        best = tl.minimum(best, block_best)
    tl.store(index + rows, winner, mask=inside)
    tl.store(lowest + rows, best, mask=inside)
    tl.store(second + rows, runner_up, mask=inside)
    if GATHER:
        for depth in range(0, D, GATHER):
            part = depth + tl.arange(0, GATHER)
            there = inside[:, None] & (part < D)[None, :]
            vectors = tl.load(codebook + winner.to(tl.int64)[:, None] * D + part[None, :], mask=there, other=0.0)
            tl.store(chosen + rows.to(tl.int64)[:, None] * D + part[None, :], vectors, mask=there)


def nearest_two_codes(
    latents: Tensor, codebook: Tensor, squares: Tensor, gather: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """(index int64 (N,), its score float32 (N,), the runner-up's score float32 (N,), codes float32 (N, D) or None).

    ``latents`` float32 (N, D), ``codebook`` float32 (V, D), ``squares`` float32 (V,) = |e|^2, on one device.
    A score is |e|^2 - 2 z.e, from products of three TF32 parts each.
    """
    latents, codebook = latents.contiguous(), codebook.contiguous()
    count, width = latents.shape
    index = torch.empty(count, dtype=torch.int32, device=latents.device)
    lowest = torch.empty(count, dtype=torch.float32, device=latents.device)
    second = torch.empty_like(lowest)
    chosen = torch.empty_like(latents) if gather else None
    place = lowest if chosen is None else chosen
    if count:
        nearest_two[(triton.cdiv(count, BLOCK_N),)](
            latents, codebook, squares, index, lowest, second, place, count, len(codebook), width,
            BLOCK_N, BLOCK_V, BLOCK_D, BLOCK_GATHER if gather else 0, num_warps=WARPS, num_stages=STAGES,
        )  # fmt: skip
    return index.long(), lowest, second, chosen
