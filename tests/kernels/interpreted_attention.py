"""Fused causal attention against its oracle in Triton's interpreter; a script, as interpreted.py."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

from collections.abc import Callable

import torch
from torch import Tensor

from jowa.kernels import attention
from jowa.kernels.attention import causal_attention_reference, dropout_mask
from jowa.kernels.attention_triton import backward, forward

attention._runs_triton = lambda queries: True
LENGTHS = (1, 36, 37, 38, 100, 295, 296)
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-5}, torch.float16: {"rtol": 1e-2, "atol": 5e-3}}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def agree(inputs: list[Tensor], out_gradient: Tensor, dropout: float = 0.0, **tolerance: float) -> None:
    """The kernels on ``inputs`` as they lie in memory, against the oracle in float64, forward and backward."""
    seed = torch.tensor([-(2**31) + 5, 123456789])
    out, spread = forward(*inputs, dropout, seed)
    gradients = backward(*inputs, out, spread, out_gradient, dropout, seed)
    leaves = [tensor.double().requires_grad_() for tensor in inputs]
    kept = dropout_mask(seed, *out.shape[:3], dropout) if dropout else None
    expected = causal_attention_reference(*leaves, kept, dropout)
    close = tolerance or TOLERANCE[out.dtype]
    torch.testing.assert_close(out.double(), expected.detach(), **close)
    wanted = torch.autograd.grad(expected, leaves, out_gradient.double())
    for found, gradient in zip(gradients, wanted, strict=True):
        assert found.dtype == out.dtype
        torch.testing.assert_close(found.double(), gradient, **close)


def attention_at_every_length() -> None:
    for dtype in (torch.float32, torch.float16):
        for length in LENGTHS:
            *inputs, gradient = random(4, 1, 2, length, 64, seed=length).to(dtype)
            agree(list(inputs), gradient)


def attention_with_dropout() -> None:
    for dtype, length, dropout in (
        (torch.float32, 1, 0.5), (torch.float16, 38, 0.9), (torch.float32, 100, 0.1), (torch.float16, 296, 0.1),
    ):  # fmt: skip
        *inputs, gradient = random(4, 2, 2, length, 64, seed=length).to(dtype)
        close = {} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
        agree(list(inputs), gradient, dropout, **close)


def attention_of_every_head_size() -> None:
    for size in attention.HEAD_SIZES:
        for dtype in (torch.float32, torch.float16):
            *inputs, gradient = random(4, 1, 1, 70, size, seed=size).to(dtype)
            agree(list(inputs), gradient, 0.2)


def attention_of_large_scores() -> None:
    """Scores up to 10^4, where a maximum that is not subtracted overflows and rounding alone moves weights by 10^-3."""
    *inputs, gradient = random(4, 1, 2, 100, 64)
    inputs = [inputs[0] * 300, inputs[1] * 10, inputs[2]]
    scores = inputs[0] @ inputs[1].transpose(-1, -2) / 8
    assert 1e4 < scores.abs().max() < 2e4
    agree(inputs, gradient, rtol=1e-2, atol=2e-2)


def attention_of_views_in_the_midst_of_nan() -> None:
    """As projections give them, as parts of one projection, and with NaN and infinity wherever no token lies."""
    for batch, heads, length in ((2, 3, 37), (1, 2, 65)):
        apart = [random(batch, length, heads, 32, seed=part).transpose(1, 2) for part in range(4)]
        agree(apart[:3], apart[3])
        padded = torch.full((batch + 1, length + 70, 4, heads + 1, 40), torch.nan)
        padded[:, length:, 1] = torch.inf
        together = [padded[:batch, :length, part, :heads, 3:35].transpose(1, 2) for part in range(4)]
        for view, tensor in zip(together, apart, strict=True):
            view.copy_(tensor)
        agree(together[:3], together[3], 0.1)
        agree(apart[:3], torch.ones(()).expand(batch, heads, length, 32))  # a sum's gradient: one number, seen often


def attention_through_the_operation() -> None:
    """Autograd, the seed from torch's generator, and checkpoints, whose second forward pass must drop the same."""
    leaves = [random(2, 37, 2, 16, seed=part).transpose(1, 2).requires_grad_() for part in range(3)]
    results = []
    for run in (
        lambda: attention.fused_causal_attention(*leaves, 0.3),
        lambda: torch.utils.checkpoint.checkpoint(attention.fused_causal_attention, *leaves, 0.3, use_reentrant=False),
    ):
        torch.manual_seed(7)
        out = run()
        assert out.transpose(1, 2).is_contiguous(), "ready for the projection"
        results.append((out, *torch.autograd.grad(out.square().sum(), leaves)))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    torch.manual_seed(8)
    assert not torch.equal(attention.fused_causal_attention(*leaves, 0.3), results[0][0])


def attention_of_nothing_is_nothing() -> None:
    for shape in ((0, 2, 5, 64), (2, 0, 5, 64), (2, 2, 0, 64)):
        leaves = [torch.zeros(shape, requires_grad=True) for _ in range(3)]
        out = attention.fused_causal_attention(*leaves, 0.1)
        assert out.shape == shape
        out.sum().backward()
        assert all(leaf.grad is not None and leaf.grad.shape == shape for leaf in leaves)


CASES: tuple[Callable[[], None], ...] = (
    attention_at_every_length,
    attention_with_dropout,
    attention_of_every_head_size,
    attention_of_large_scores,
    attention_of_views_in_the_midst_of_nan,
    attention_through_the_operation,
    attention_of_nothing_is_nothing,
)

if __name__ == "__main__":
    for case in CASES:
        case()
        print(f"passed: {case.__name__}")
