"""Causal attention as Triton kernels, forward and backward.  Called by :mod:`jowa.kernels.attention`, never directly.

The algorithm is FlashAttention-2 (Dao 2023, arXiv 2307.08691) for sequences of a few hundred tokens and thousands of
heads.  A program owns one block of one head; the blocks of a head are neighbours in the launch, so what one of them
reads the others find in the cache.  Scores are kept in base 2, with the scale folded in.

Letters: B batch, H heads, T tokens, d head size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from jowa.kernels.attention import MIX_1, MIX_2, STEP, threshold_of, token_major


@dataclass(frozen=True)
class Config:
    """How a kernel is cut: tokens a program owns, tokens a round, warps and pipeline stages."""

    block: int
    inner: int
    warps: int
    stages: int


FORWARD = {
    (2, 16): Config(64, 64, 4, 2), (4, 16): Config(32, 32, 4, 2),
    (2, 32): Config(64, 64, 4, 2), (4, 32): Config(32, 32, 4, 2),
    (2, 64): Config(64, 64, 4, 2), (4, 64): Config(32, 32, 8, 2),
    (2, 128): Config(64, 32, 8, 2), (4, 128): Config(16, 16, 4, 2),
}  # fmt: skip
BACKWARD = {
    (2, 16): Config(64, 32, 4, 2), (4, 16): Config(32, 32, 4, 2),
    (2, 32): Config(64, 32, 4, 2), (4, 32): Config(32, 32, 8, 2),
    (2, 64): Config(64, 32, 4, 2), (4, 64): Config(32, 32, 8, 2),
    (2, 128): Config(32, 32, 4, 2), (4, 128): Config(16, 16, 4, 2),
}  # fmt: skip
"""By bytes a number and head size.  Chosen from the compiler's report alone, not yet by the clock: none spills a
register on sm_80 or sm_90 (tests/kernels/compiled_attention.py), and most leave room for two or more programs on a
multiprocessor.  Blocks of 64 waste less of a triangle of 296 than blocks of 128.  Float32 is three TF32 products, which
want many registers."""
ROWS_BLOCK, ROWS_WARPS = 64, 4


@triton.jit
def _tile(base, tokens, columns, stride, length):
    """Rows of a (T, d) matrix; beyond its end 0, whatever lies there."""
    at = base + tokens[:, None] * stride + columns[None, :]
    return tl.load(at, mask=(tokens < length)[:, None], other=0.0)


@triton.jit
def _store(base, tokens, columns, stride, length, tile):
    """Rows into a (T, d) matrix, in its type."""
    at = base + tokens[:, None] * stride + columns[None, :]
    tl.store(at, tile.to(base.dtype.element_ty), mask=(tokens < length)[:, None])


@triton.jit
def _visible(ahead, OWN: tl.constexpr, INNER: tl.constexpr, KEYS: tl.constexpr):
    """Which weights of an (OWN, INNER) tile exist; OWN are keys or queries, whose block begins ``ahead`` of the other.

    Places within the tile are compared, not tokens, of which the compiler would make 64-bit numbers.
    """
    own, inner = tl.arange(0, OWN)[:, None], tl.arange(0, INNER)[None, :]
    return own <= inner + ahead if KEYS else own + ahead >= inner


@triton.jit
def _streams(seed, head, rows, length, MIX_1: tl.constexpr, MIX_2: tl.constexpr):
    """Where each row of weights begins to draw: jowa.kernels.attention.dropout_mask.

    Shifts of signed numbers are masked, which the interpreter, that knows no unsigned ones, needs and costs nothing.
    """
    low, high = tl.load(seed).to(tl.int32), tl.load(seed + 1).to(tl.int32)
    x = (head * length + rows) ^ low
    x = (x ^ ((x >> 16) & 0xFFFF)) * MIX_1 ^ high
    x = (x ^ ((x >> 15) & 0x1FFFF)) * MIX_2
    return x ^ ((x >> 15) & 0x1FFFF)


@triton.jit
def _kept(streams, columns, threshold, STEP: tl.constexpr, MIX_1: tl.constexpr, MIX_2: tl.constexpr):
    """Which weights dropout keeps, from their row's stream and their column alone."""
    x = streams + columns * STEP
    x = (x ^ ((x >> 16) & 0xFFFF)) * MIX_1
    x = (x ^ ((x >> 15) & 0x1FFFF)) * MIX_2
    return x >= threshold


@triton.jit
def _place(length, heads, BLOCK: tl.constexpr):
    """(block, head among all, batch entry, head of that entry) of this program."""
    blocks = tl.cdiv(length, BLOCK)
    program = tl.program_id(0)
    head = program // blocks
    return program % blocks, head, (head // heads).to(tl.int64), (head % heads).to(tl.int64)


@triton.jit
def _attend(
    q, highest, total, mixed, streams, keys, values, start, ahead, length, scale, threshold, k_t, v_t,
    D: tl.constexpr, BLOCK: tl.constexpr, INNER: tl.constexpr, DIAGONAL: tl.constexpr, DROPOUT: tl.constexpr,
    STEP: tl.constexpr, MIX_1: tl.constexpr, MIX_2: tl.constexpr,
):  # fmt: skip
    """One round of the running softmax, over the keys from ``start``: the new (highest, total, mixed)."""
    columns = tl.arange(0, D)
    seen = start + tl.arange(0, INNER)
    k = _tile(keys, seen, columns, k_t, length)
    v = _tile(values, seen, columns, v_t, length)
    scores = tl.dot(q, tl.trans(k), input_precision="tf32x3")
    if DIAGONAL:
        scores = tl.where(_visible(ahead, BLOCK, INNER, False), scores, float("-inf"))
    higher = tl.maximum(highest, tl.max(scores, axis=1) * scale)
    weights = tl.exp2(scores * scale - higher[:, None])
    shrink = tl.exp2(highest - higher)
    total = total * shrink + tl.sum(weights, axis=1)
    if DROPOUT:
        weights = tl.where(_kept(streams[:, None], seen[None, :], threshold, STEP, MIX_1, MIX_2), weights, 0.0)
    return higher, total, tl.dot(weights.to(v.dtype), v, mixed * shrink[:, None], input_precision="tf32x3")


@triton.jit
def forward_kernel(
    queries, keys, values, seed, out, spread, heads, length, scale, threshold, inflate,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, o_b, o_h, o_t,
    D: tl.constexpr, BLOCK: tl.constexpr, INNER: tl.constexpr, DROPOUT: tl.constexpr,
    STEP: tl.constexpr, MIX_1: tl.constexpr, MIX_2: tl.constexpr,
):  # fmt: skip
    """One block of queries: the mixed values, and log2(sum(2^score)) for the backward pass.

    The diagonal comes first: there every query sees a key in the first round, so that the running maximum is finite
    from then on, and the rounds before it have nothing to hide.
    """
    block, head, batch, own = _place(length, heads, BLOCK)
    columns = tl.arange(0, D)
    rows = block * BLOCK + tl.arange(0, BLOCK)
    keys += batch * k_b + own * k_h
    values += batch * v_b + own * v_h
    q = _tile(queries + batch * q_b + own * q_h, rows, columns, q_t, length)
    streams = rows
    if DROPOUT:
        streams = _streams(seed, head, rows, length, MIX_1, MIX_2)
    highest = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    mixed = tl.zeros((BLOCK, D), tl.float32)
    for within in tl.static_range(0, BLOCK, INNER):
        highest, total, mixed = _attend(
            q, highest, total, mixed, streams, keys, values, block * BLOCK + within, -within, length, scale, threshold,
            k_t, v_t, D, BLOCK, INNER, True, DROPOUT, STEP, MIX_1, MIX_2,
        )  # fmt: skip
    for start in range(0, block * BLOCK, INNER):
        highest, total, mixed = _attend(
            q, highest, total, mixed, streams, keys, values, start, 0, length, scale, threshold,
            k_t, v_t, D, BLOCK, INNER, False, DROPOUT, STEP, MIX_1, MIX_2,
        )  # fmt: skip
    _store(out + batch * o_b + own * o_h, rows, columns, o_t, length, mixed * (inflate / total)[:, None])
    tl.store(spread + head.to(tl.int64) * length + rows, highest + tl.log2(total), mask=rows < length)


@triton.jit
def rows_kernel(
    out, out_gradient, seed, delta, streams, heads, length, o_b, o_h, o_t, g_b, g_h, g_t,
    D: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr, MIX_1: tl.constexpr, MIX_2: tl.constexpr,
):  # fmt: skip
    """What the backward pass wants of each query: sum(out x its gradient), and its row's stream."""
    block, head, batch, own = _place(length, heads, BLOCK)
    columns = tl.arange(0, D)
    rows = block * BLOCK + tl.arange(0, BLOCK)
    at = head.to(tl.int64) * length + rows
    o = _tile(out + batch * o_b + own * o_h, rows, columns, o_t, length).to(tl.float32)
    g = _tile(out_gradient + batch * g_b + own * g_h, rows, columns, g_t, length).to(tl.float32)
    tl.store(delta + at, tl.sum(o * g, axis=1), mask=rows < length)
    if DROPOUT:
        tl.store(streams + at, _streams(seed, head, rows, length, MIX_1, MIX_2), mask=rows < length)


@triton.jit
def _key_value_gradients(
    queries, keys, values, out_gradient, streams, spread, delta, block, length, scale, threshold, inflate,
    q_t, k_t, v_t, g_t,
    D: tl.constexpr, BLOCK: tl.constexpr, INNER: tl.constexpr, DROPOUT: tl.constexpr,
    STEP: tl.constexpr, MIX_1: tl.constexpr, MIX_2: tl.constexpr,
):  # fmt: skip
    """Of one block of keys, from every query that sees it, transposed: float32 (BLOCK, D) twice, not yet scaled.

    A row beyond the end adds nothing: its queries and gradients read as 0, so its weights are finite.
    """
    columns = tl.arange(0, D)
    seen = block * BLOCK + tl.arange(0, BLOCK)
    k = _tile(keys, seen, columns, k_t, length)
    v = _tile(values, seen, columns, v_t, length)
    by_k = tl.zeros((BLOCK, D), tl.float32)
    by_v = tl.zeros((BLOCK, D), tl.float32)
    for start in range(block * BLOCK, length, INNER):
        rows = start + tl.arange(0, INNER)
        q = _tile(queries, rows, columns, q_t, length)
        g = _tile(out_gradient, rows, columns, g_t, length)
        scores = tl.dot(k, tl.trans(q), input_precision="tf32x3") * scale
        weights = tl.exp2(scores - tl.load(spread + rows, mask=rows < length, other=0.0)[None, :])
        ahead = start - block * BLOCK
        weights = tl.where(_visible(ahead, BLOCK, INNER, True), weights, 0.0)
        by_weights = tl.dot(v, tl.trans(g), input_precision="tf32x3") * inflate
        used = weights
        if DROPOUT:
            drawn = tl.load(streams + rows, mask=rows < length, other=0)[None, :]
            kept = _kept(drawn, seen[:, None], threshold, STEP, MIX_1, MIX_2)
            used = tl.where(kept, weights, 0.0)
            by_weights = tl.where(kept, by_weights, 0.0)
        by_v = tl.dot(used.to(g.dtype), g, by_v, input_precision="tf32x3")
        by_scores = weights * (by_weights - tl.load(delta + rows, mask=rows < length, other=0.0)[None, :])
        by_k = tl.dot(by_scores.to(q.dtype), q, by_k, input_precision="tf32x3")
    return by_k, by_v


@triton.jit
def _query_gradients(
    queries, keys, values, out_gradient, streams, spread, delta, block, length, scale, threshold, inflate,
    q_t, k_t, v_t, g_t,
    D: tl.constexpr, BLOCK: tl.constexpr, INNER: tl.constexpr, DROPOUT: tl.constexpr,
    STEP: tl.constexpr, MIX_1: tl.constexpr, MIX_2: tl.constexpr,
):  # fmt: skip
    """Of one block of queries, from every key it sees: float32 (BLOCK, D), not yet scaled."""
    columns = tl.arange(0, D)
    rows = block * BLOCK + tl.arange(0, BLOCK)
    q = _tile(queries, rows, columns, q_t, length)
    g = _tile(out_gradient, rows, columns, g_t, length)
    own_spread = tl.load(spread + rows, mask=rows < length, other=0.0)[:, None]
    own_delta = tl.load(delta + rows, mask=rows < length, other=0.0)[:, None]
    if DROPOUT:
        drawn = tl.load(streams + rows, mask=rows < length, other=0)[:, None]
    by_q = tl.zeros((BLOCK, D), tl.float32)
    for start in range(0, tl.minimum(length, (block + 1) * BLOCK), INNER):
        seen = start + tl.arange(0, INNER)
        k = _tile(keys, seen, columns, k_t, length)
        v = _tile(values, seen, columns, v_t, length)
        weights = tl.exp2(tl.dot(q, tl.trans(k), input_precision="tf32x3") * scale - own_spread)
        ahead = block * BLOCK - start
        weights = tl.where(_visible(ahead, BLOCK, INNER, False), weights, 0.0)
        by_weights = tl.dot(g, tl.trans(v), input_precision="tf32x3") * inflate
        if DROPOUT:
            kept = _kept(drawn, seen[None, :], threshold, STEP, MIX_1, MIX_2)
            by_weights = tl.where(kept, by_weights, 0.0)
        by_q = tl.dot((weights * (by_weights - own_delta)).to(k.dtype), k, by_q, input_precision="tf32x3")
    return by_q


@triton.jit
def backward_kernel(
    queries, keys, values, out_gradient, streams, spread, delta, by_queries, by_keys, by_values,
    heads, length, scale, threshold, inflate, plain_scale,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, g_b, g_h, g_t, o_b, o_h, o_t,
    D: tl.constexpr, BLOCK: tl.constexpr, INNER: tl.constexpr, DROPOUT: tl.constexpr,
    STEP: tl.constexpr, MIX_1: tl.constexpr, MIX_2: tl.constexpr,
):  # fmt: skip
    """One block as keys and then as queries: few queries see late keys, but late queries see many, so programs are
    equally long, nothing is added atomically, and a head is read from memory once.
    """
    block, head, batch, own = _place(length, heads, BLOCK)
    queries += batch * q_b + own * q_h
    keys += batch * k_b + own * k_h
    values += batch * v_b + own * v_h
    out_gradient += batch * g_b + own * g_h
    spread += head.to(tl.int64) * length
    delta += head.to(tl.int64) * length
    streams += head.to(tl.int64) * length
    place = batch * o_b + own * o_h
    columns = tl.arange(0, D)
    tokens = block * BLOCK + tl.arange(0, BLOCK)
    by_k, by_v = _key_value_gradients(
        queries, keys, values, out_gradient, streams, spread, delta, block, length, scale, threshold, inflate,
        q_t, k_t, v_t, g_t, D, BLOCK, INNER, DROPOUT, STEP, MIX_1, MIX_2,
    )  # fmt: skip
    _store(by_keys + place, tokens, columns, o_t, length, by_k * plain_scale)
    _store(by_values + place, tokens, columns, o_t, length, by_v * inflate)
    by_q = _query_gradients(
        queries, keys, values, out_gradient, streams, spread, delta, block, length, scale, threshold, inflate,
        q_t, k_t, v_t, g_t, D, BLOCK, INNER, DROPOUT, STEP, MIX_1, MIX_2,
    )  # fmt: skip
    _store(by_queries + place, tokens, columns, o_t, length, by_q * plain_scale)


def _numbers(tensor: Tensor, dropout: float) -> tuple[int, int, float, int, float]:
    """(heads, length, scale in base 2, dropout's threshold, what kept weights are multiplied by)."""
    _, heads, length, size = tensor.shape
    return heads, length, math.log2(math.e) / math.sqrt(size), threshold_of(dropout), 1 / (1 - dropout)


def forward(queries: Tensor, keys: Tensor, values: Tensor, dropout: float, seed: Tensor) -> tuple[Tensor, Tensor]:
    """(out (B, H, T, d), spread float32 (B, H, T) = log2 of the sum of 2^score) of valid inputs.

    Their last stride is 1; ``seed`` int64 (2,) is read only where ``dropout`` is not 0.
    """
    out = token_major(queries)
    spread = queries.new_empty(queries.shape[:3], dtype=torch.float32)
    size = queries.shape[3]
    config = FORWARD[queries.element_size(), size]
    if queries.numel():
        forward_kernel[_grid(queries, config.block)](
            queries, keys, values, seed, out, spread,
            *_numbers(queries, dropout), *_strides(queries, keys, values, out),
            size, config.block, config.inner, dropout > 0, STEP, MIX_1, MIX_2,
            num_warps=config.warps, num_stages=config.stages,
        )  # fmt: skip
    return out, spread


def backward(
    queries: Tensor, keys: Tensor, values: Tensor, out: Tensor, spread: Tensor, out_gradient: Tensor, dropout: float,
    seed: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients by queries, keys and values, each (B, H, T, d), of what :func:`forward` took and gave.

    ``out_gradient`` (B, H, T, d), in any layout.
    """
    if out_gradient.stride(3) != 1:  # that of a sum, for one, is a single number seen many times
        out_gradient = out_gradient.contiguous()
    by_queries, by_keys, by_values = token_major(queries), token_major(keys), token_major(values)
    if not queries.numel():
        return by_queries, by_keys, by_values
    size = queries.shape[3]
    heads, length, scale, threshold, inflate = _numbers(queries, dropout)
    delta = torch.empty_like(spread)
    streams = torch.empty_like(spread, dtype=torch.int32) if dropout > 0 else delta
    rows_kernel[_grid(queries, ROWS_BLOCK)](
        out, out_gradient, seed, delta, streams, heads, length, *_strides(out, out_gradient),
        size, ROWS_BLOCK, dropout > 0, MIX_1, MIX_2, num_warps=ROWS_WARPS,
    )  # fmt: skip
    config = BACKWARD[queries.element_size(), size]
    backward_kernel[_grid(queries, config.block)](
        queries, keys, values, out_gradient, streams, spread, delta, by_queries, by_keys, by_values,
        heads, length, scale, threshold, inflate, 1 / math.sqrt(size),
        *_strides(queries, keys, values, out_gradient, by_queries),
        size, config.block, config.inner, dropout > 0, STEP, MIX_1, MIX_2,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
    return by_queries, by_keys, by_values


def _grid(queries: Tensor, block: int) -> tuple[int]:
    return (triton.cdiv(queries.shape[2], block) * queries.shape[0] * queries.shape[1],)


def _strides(*tensors: Tensor) -> list[int]:
    return [step for tensor in tensors for step in tensor.stride()[:3]]
