"""Causal self-attention over a whole sequence: the oracle and the one function that callers use.

Letters: B batch, H heads, T tokens, d head size.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

HEAD_SIZES = (16, 32, 64, 128)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""What the fused kernels take."""
SHORT = 512
"""Tokens up to which :func:`causal_attention` takes the fused kernels."""
MIX_1, MIX_2 = 0x21F0AAAD, 0x735A2D97
"""Multipliers of the 32-bit mixer that decides what dropout keeps (Wellons, "hash-prospector", lowbias32)."""
STEP = 0x61C88647
"""2^32 less 2^32 over the golden ratio, so that neighbouring columns lie far apart before they are mixed."""
_WORD = 0xFFFFFFFF


def causal_attention(queries: Tensor, keys: Tensor, values: Tensor, dropout: float = 0.0) -> Tensor:
    """Softmax attention in which position t sees positions 0..t.

    All float (B, H, T, d) of one shape, dtype and device; returns the same shape.  ``dropout`` is the probability of
    dropping an attention weight, below 1, drawn from torch's generator; pass 0 in evaluation.  On a GPU that
    :mod:`jowa.kernels.attention_triton` serves, :func:`fused_causal_attention`, else PyTorch's own.
    Raises ValueError for shapes, dtypes, devices or a dropout that do not fit.
    """
    _check(queries, keys, values, dropout)
    if _served(queries, keys, values):
        return fused_causal_attention(queries, keys, values, dropout)
    return functional.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout, is_causal=True)


def fused_causal_attention(queries: Tensor, keys: Tensor, values: Tensor, dropout: float = 0.0) -> Tensor:
    """The custom operation ``torch.ops.jowa.causal_attention``, which autograd, torch.compile and checkpoints know.

    As :func:`causal_attention`, for float32, float16 and bfloat16, head sizes 16, 32, 64 and 128, and a last stride
    of 1; the other strides are free, and the result is laid out as (B, T, H, d).  On a CPU it is the oracle, with the
    GPU's own dropout.  What dropout keeps is a function of a seed, drawn here so that a recomputed forward pass draws
    it again, and of a weight's place.  Raises ValueError for anything else, before any kernel starts.
    """
    _check(queries, keys, values, dropout)
    _check_fused(queries, keys, values)
    seed = queries.new_empty(2, dtype=torch.int64)  # not read without dropout
    if dropout > 0:
        seed = torch.randint(-(2**31), 2**31, (2,), device=queries.device)
    out, _ = torch.ops.jowa.causal_attention(queries, keys, values, dropout, seed)
    return out


def causal_attention_reference(
    queries: Tensor, keys: Tensor, values: Tensor, kept: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """The definition: softmax(q k^T / sqrt(d)) v over the lower triangle.

    ``kept`` bool (B, H, T, T): the weights that ``dropout`` leaves, which are divided by 1 - dropout; None keeps all.
    """
    weights = _scores(queries, keys).softmax(dim=-1)
    if kept is not None:
        weights = torch.where(kept, weights, 0) / (1 - dropout)
    return weights @ values


def dropout_mask(seed: Tensor, batch: int, heads: int, length: int, dropout: float) -> Tensor:
    """bool (B, H, T, T): which weights the fused kernels keep, a function of ``seed`` int64 (2,) and of their place.

    A row's seed and number, mixed, are where its stream begins; a stream steps by the golden ratio, and each of its
    numbers is mixed again.  Nothing depends on how the kernels cut the work.
    """
    low, high = (seed & _WORD).unbind()
    x = torch.arange(batch * heads * length, device=seed.device) & _WORD ^ low
    x = (x ^ x >> 16) * MIX_1 & _WORD ^ high
    x = (x ^ x >> 15) * MIX_2 & _WORD
    x = (x ^ x >> 15)[:, None] + torch.arange(length, device=seed.device) * STEP & _WORD
    x = (x ^ x >> 16) * MIX_1 & _WORD
    x = (x ^ x >> 15) * MIX_2 & _WORD
    signed = (x ^ 2**31) - 2**31
    return (signed >= threshold_of(dropout)).view(batch, heads, length, length)


def threshold_of(dropout: float) -> int:
    """32 random bits, read as a signed number, drop a weight when they are below this."""
    return round(dropout * 2**32) - 2**31


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    length = queries.shape[-2]
    hidden = torch.ones(length, length, dtype=torch.bool, device=queries.device).triu(1)
    return (queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])).masked_fill(hidden, -math.inf)


def _served(queries: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Whether the fused kernels take these and are made for them: short sequences in 16 bits.

    In float32, where tiles must be small, and on long sequences PyTorch's own are the safer choice until somebody
    has measured otherwise (benchmarks/test_attention.py).
    """
    if not _runs_triton(queries) or queries.dtype == torch.float32 or queries.dtype not in DTYPES:
        return False
    if queries.shape[-1] not in HEAD_SIZES or queries.shape[-2] > SHORT:
        return False
    return all(tensor.stride(-1) == 1 for tensor in (queries, keys, values))


def _runs_triton(queries: Tensor) -> bool:
    return queries.is_cuda and _has_kernels(queries.get_device())


def _has_kernels(device: int) -> bool:
    """With Triton, from Ampere on; before, there is no bfloat16."""
    return find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (8, 0)


# What torch.compiler.assume_constant_result sets; calling it would import the whole compiler here.
_has_kernels._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _check(queries: Tensor, keys: Tensor, values: Tensor, dropout: float) -> None:
    if queries.ndim != 4 or not queries.is_floating_point():
        raise ValueError(f"queries must be floating (B, H, T, d), got {queries.dtype} {tuple(queries.shape)}")
    for name, tensor in (("keys", keys), ("values", values)):
        if tensor.shape != queries.shape:
            raise ValueError(f"{name} must have the queries' shape {tuple(queries.shape)}, got {tuple(tensor.shape)}")
        if tensor.dtype != queries.dtype:
            raise ValueError(f"{name} must be {queries.dtype} as the queries are, got {tensor.dtype}")
        if tensor.device != queries.device:
            raise ValueError(f"{name} are on {tensor.device}, the queries on {queries.device}: move them")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be a probability below 1, got {dropout}")


def _check_fused(queries: Tensor, keys: Tensor, values: Tensor) -> None:
    if queries.dtype not in DTYPES:
        raise ValueError(f"queries must be float32, float16 or bfloat16, got {queries.dtype}")
    if queries.shape[3] not in HEAD_SIZES:
        raise ValueError(f"queries must have a head size of {HEAD_SIZES}, got {queries.shape[3]}")
    for name, tensor in (("queries", queries), ("keys", keys), ("values", values)):
        if tensor.stride(3) != 1:
            raise ValueError(f"{name} must have a last stride of 1, got {tensor.stride()}: call .contiguous()")


@torch.library.custom_op("jowa::causal_attention", mutates_args=())
def _forward(queries: Tensor, keys: Tensor, values: Tensor, dropout: float, seed: Tensor) -> tuple[Tensor, Tensor]:
    """(out, spread float32 (B, H, T)), the latter log2 of the sum of 2^score, for the backward pass."""
    if _runs_triton(queries):
        from jowa.kernels.attention_triton import forward

        with torch.cuda.device_of(queries):  # type: ignore[no-untyped-call]
            return forward(queries, keys, values, dropout, seed)
    mixed = causal_attention_reference(queries, keys, values, _kept(queries, dropout, seed), dropout)
    out = token_major(queries).copy_(mixed)
    return out, _scores(queries.float(), keys.float()).logsumexp(-1) * math.log2(math.e)


@torch.library.custom_op("jowa::causal_attention_backward", mutates_args=())
def _backward(
    queries: Tensor, keys: Tensor, values: Tensor, out: Tensor, spread: Tensor, out_gradient: Tensor, dropout: float,
    seed: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients by queries, keys and values."""
    if _runs_triton(queries):
        from jowa.kernels.attention_triton import backward

        with torch.cuda.device_of(queries):  # type: ignore[no-untyped-call]
            return backward(queries, keys, values, out, spread, out_gradient, dropout, seed)
    # Autograd does not reach into a custom operation, so the chain rule is written out.
    kept = _kept(queries, dropout, seed)
    weights = _scores(queries, keys).softmax(dim=-1)
    by_weights = torch.where(kept, out_gradient @ values.transpose(-1, -2), 0) / (1 - dropout)
    by_scores = weights * (by_weights - (weights * by_weights).sum(-1, keepdim=True)) / math.sqrt(queries.shape[-1])
    by_values = (torch.where(kept, weights, 0) / (1 - dropout)).transpose(-1, -2) @ out_gradient
    gradients = (by_scores @ keys, by_scores.transpose(-1, -2) @ queries, by_values)
    by_queries, by_keys, by_values = (token_major(queries).copy_(gradient) for gradient in gradients)
    return by_queries, by_keys, by_values


def _kept(queries: Tensor, dropout: float, seed: Tensor) -> Tensor:
    if dropout == 0:
        return torch.ones((), dtype=torch.bool, device=queries.device)
    batch, heads, length, _ = queries.shape
    return dropout_mask(seed, batch, heads, length, dropout)


def token_major(like: Tensor) -> Tensor:
    """An empty (B, H, T, d) laid out as (B, T, H, d), which the projections around attention read and write."""
    return like.new_empty(like.shape[0], like.shape[2], like.shape[1], like.shape[3]).transpose(1, 2)


@_forward.register_fake
def _(queries: Tensor, keys: Tensor, values: Tensor, dropout: float, seed: Tensor) -> tuple[Tensor, Tensor]:
    return token_major(queries), queries.new_empty(queries.shape[:3], dtype=torch.float32)


@_backward.register_fake
def _(queries: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return token_major(queries), token_major(queries), token_major(queries)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    queries, keys, values, ctx.dropout, seed = inputs
    ctx.save_for_backward(queries, keys, values, seed, *output)


def _differentiate(ctx: Any, out_gradient: Tensor, spread_gradient: Tensor) -> tuple[Tensor | None, ...]:
    queries, keys, values, seed, out, spread = ctx.saved_tensors
    gradients = torch.ops.jowa.causal_attention_backward(
        queries, keys, values, out, spread, out_gradient, ctx.dropout, seed
    )
    return (*gradients, None, None)


_forward.register_autograd(_differentiate, setup_context=_keep)
