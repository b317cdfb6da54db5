"""Attention of a search level's rows to their root's context and their own ancestors, as two Triton kernels.

Letters: R roots, M rows a root, H heads, Q queries a row, T context tokens, J page slots a row, S splits, d head size.
Called by :mod:`jowa.kernels.tree_attention`, never directly.

The first kernel packs the M Q queries of a root into tiles of a matrix product over the context, so a tile of 16 to 64
queries reads it once, not once per row: 16 rows of a decoding step (Q = 1) share one reading.  One
root with 12 heads would occupy 12 of a GPU's 100 and more processors, so where roots are few the context is split
(as in flash decoding), and each split leaves its mixed values with their log-sum-exp.  The second kernel has one
program a row and head, because rows share neither pages nor their number: it walks the row's pages through the table,
then merges the splits' results.  That merging is the combination split attention needs anyway, so two launches do all.
With Q = 1 the second kernel's products are padded to the 16 rows a tensor core wants: reading pages bounds it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PAGE = 37
LOG2_E = 1.4426950408889634
STAGES = 2
MOST_SPLITS = 4


def tiling(dtype: torch.dtype, queries: int) -> tuple[int, int, int]:
    """Queries a tile, keys a round and warps for so many queries side by side: 16 of them while decoding.

    The largest that spill no registers, neither in Triton 3.6 nor in 3.9, even where no stride divides by 16.  Products
    of float32 are three of TF32 each and want the most: tests/kernels/compiled_tree_attention.py.
    """
    if queries <= 16:
        return 16, 32, 4
    return (32, 16, 4) if dtype == torch.float32 else (64, 32, 8)


@triton.jit
def _grow(highest, candidates):
    """The new maximum, one that is safe to subtract (0 while nothing was seen), and the factor for what was summed."""
    highest_now = tl.maximum(highest, candidates)
    safe = tl.where(highest_now == float("-inf"), 0.0, highest_now)
    return highest_now, safe, tl.exp2(highest - safe)


@triton.jit
def _fold(q, keys, values, visible, scale, highest, total, mixed, PRECISION: tl.constexpr):
    """One round of online softmax in base 2: q (B, D), keys (D, N), values (N, D), visible (B, N)."""
    scores = tl.dot(q, keys, input_precision=PRECISION) * scale
    scores = tl.where(visible, scores, float("-inf"))
    highest, safe, shrink = _grow(highest, tl.max(scores, axis=1))
    powers = tl.exp2(scores - safe[:, None])
    total = total * shrink + tl.sum(powers, axis=1)
    mixed = tl.dot(powers.to(values.dtype), values, mixed * shrink[:, None], input_precision=PRECISION)
    return highest, total, mixed


@triton.jit
def context_kernel(
    queries, keys, values, lengths, mixed_out, spread_out, scale, H, MQ, Q, T, tiles, reach,
    q_root, q_row, q_head, q_token, k_root, k_head, k_token, v_root, v_head, v_token,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of one root's queries over ``reach`` tokens of its context: mixed values, and log2-sum-exp2 of scores."""
    tile = tl.program_id(0) % tiles
    head = tl.program_id(0) // tiles % H
    root = (tl.program_id(0) // tiles // H).to(tl.int64)
    split = tl.program_id(1)
    packed, columns, tokens = tile * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    wide = columns < D
    inside = (packed < MQ)[:, None] & wide[None, :]
    q_at = root * q_root + head * q_head + (packed // Q) * q_row + (packed % Q) * q_token
    q = tl.load(queries + q_at[:, None] + columns[None, :], mask=inside, other=0.0)
    keys += root * k_root + head * k_head
    values += root * v_root + head * v_head
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    mixed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    end = tl.minimum(tl.minimum(tl.load(lengths + root), T), (split + 1) * reach)
    for start in range(split * reach, end, BLOCK_N):
        at = start + tokens
        seen = at < end
        k = tl.load(keys + at[None, :] * k_token + columns[:, None], mask=seen[None, :] & wide[:, None], other=0.0)
        v = tl.load(values + at[:, None] * v_token + columns[None, :], mask=seen[:, None] & wide[None, :], other=0.0)
        highest, total, mixed = _fold(q, k, v, seen[None, :], scale, highest, total, mixed, PRECISION)
    some = tl.where(total == 0.0, 1.0, total)
    out = (split * (tl.num_programs(0) // tiles) + tl.program_id(0) // tiles).to(tl.int64) * MQ + packed
    mixed = (mixed / some[:, None]).to(mixed_out.dtype.element_ty)
    tl.store(mixed_out + out[:, None] * D + columns[None, :], mixed, mask=inside)
    tl.store(spread_out + out, highest + tl.log2(some), mask=packed < MQ)


@triton.jit
def rows_kernel(
    queries, keys, values, table, counts, mixed_in, spread_in, out, scale, H, M, Q, J, pages, splits, between,
    q_root, q_row, q_head, q_token, k_page, k_head, k_token, v_page, v_head, v_token,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAGE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of a row's queries, one head: over its pages, then what context_kernel left, ``between`` queries apart.

    An idle row (no tokens) reads nothing and gets zeros.
    """
    head = tl.program_id(0) % H
    line = (tl.program_id(0) // H).to(tl.int64)  # root * M + row
    root, row = line // M, line % M
    index = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns, tokens = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    wide = columns < D
    inside = (index < Q)[:, None] & wide[None, :]
    q_at = root * q_root + row * q_row + head * q_head + index * q_token
    q = tl.load(queries + q_at[:, None] + columns[None, :], mask=inside, other=0.0)
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    mixed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    count = tl.load(counts + line)
    end = tl.minimum(count, J * PAGE)
    for start in range(0, end, BLOCK_N):
        at = start + tokens
        page = tl.load(table + line * J + at // PAGE, mask=at < end, other=-1).to(tl.int64)
        seen = (page >= 0) & (page < pages)
        k_at = page * k_page + head * k_head + (at % PAGE) * k_token
        v_at = page * v_page + head * v_head + (at % PAGE) * v_token
        k = tl.load(keys + k_at[None, :] + columns[:, None], mask=seen[None, :] & wide[:, None], other=0.0)
        v = tl.load(values + v_at[:, None] + columns[None, :], mask=seen[:, None] & wide[None, :], other=0.0)
        visible = seen[None, :] & (at[None, :] <= (count - Q + index)[:, None])
        highest, total, mixed = _fold(q, k, v, visible, scale, highest, total, mixed, PRECISION)
    part = (root * H + head) * M * Q + row * Q + index
    for _ in range(tl.where(count > 0, splits, 0)):
        spread = tl.load(spread_in + part, mask=index < Q, other=float("-inf"))
        found = tl.load(mixed_in + part[:, None] * D + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        highest, safe, shrink = _grow(highest, spread)
        weight = tl.exp2(spread - safe)
        total = total * shrink + weight
        mixed = mixed * shrink[:, None] + weight[:, None] * found
        part += between
    mixed = mixed / tl.where(total == 0.0, 1.0, total)[:, None]
    out_at = (line * Q + index) * H + head
    tl.store(out + out_at[:, None] * D + columns[None, :], mixed.to(out.dtype.element_ty), mask=inside)


def context_splits(programs: int, rounds: int, processors: int) -> int:
    """Into how many parts to cut the context: so many that each processor has two programs, but four at most.

    Every row reads what each part found, one after the other, so many parts cost more there than they save here.
    """
    return max(1, min(rounds, MOST_SPLITS, 2 * processors // programs))


def attend_tree(
    queries: Tensor, context_keys: Tensor, context_values: Tensor, context_lengths: Tensor,
    page_keys: Tensor, page_values: Tensor, page_table: Tensor, page_tokens: Tensor, processors: int,
) -> Tensor:  # fmt: skip
    """See :func:`jowa.kernels.tree_attention.tree_attention`, which checks.  ``processors``: the GPU's.

    Returns (R, M, H, Q, d), in memory (R, M, Q, H, d): what the output projection reads.
    """
    roots, rows, heads, count, width = queries.shape
    length, packed = context_keys.shape[2], rows * count
    sizes = {"D": width, "BLOCK_D": max(16, triton.next_power_of_2(width)), "num_stages": STAGES}
    sizes["PRECISION"] = "tf32x3" if queries.dtype == torch.float32 else "ieee"
    scale = LOG2_E * width**-0.5
    tile, block, warps = tiling(queries.dtype, packed)
    tiles, rounds = triton.cdiv(packed, tile), triton.cdiv(length, block)
    splits = context_splits(roots * heads * tiles, rounds, processors) if rounds else 0
    out = queries.new_empty(roots, rows, count, heads, width)
    mixed = queries.new_empty(splits, roots, heads, packed, width)
    spread = queries.new_empty(splits, roots, heads, packed, dtype=torch.float32)
    if splits:
        context_kernel[(roots * heads * tiles, splits)](
            queries, context_keys, context_values, context_lengths.contiguous(), mixed, spread, scale, heads, packed,
            count, length, tiles, triton.cdiv(rounds, splits) * block, *queries.stride()[:4],
            *context_keys.stride()[:3], *context_values.stride()[:3],
            BLOCK_M=tile, BLOCK_N=block, num_warps=warps, **sizes,
        )  # fmt: skip
    tile, block, warps = tiling(queries.dtype, count)
    rows_kernel[(roots * rows * heads, triton.cdiv(count, tile))](
        queries, page_keys, page_values, page_table.contiguous(), page_tokens.contiguous(), mixed, spread, out, scale,
        heads, rows, count, page_table.shape[2], len(page_keys), splits, roots * heads * packed,
        *queries.stride()[:4], *page_keys.stride()[:3], *page_values.stride()[:3],
        PAGE=PAGE, BLOCK_M=tile, BLOCK_N=block, num_warps=warps, **sizes,
    )  # fmt: skip
    return out.transpose(2, 3)
