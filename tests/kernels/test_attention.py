"""Causal attention against its definition."""

from __future__ import annotations

import pytest
import torch

from jowa.kernels.attention import causal_attention, causal_attention_reference


@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (2, 3, 37, 8), (1, 4, 296, 32)])
def test_equals_the_definition_forwards_and_backwards(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(shape, requires_grad=True) for _ in range(3)]
    fast, plain = causal_attention(*inputs), causal_attention_reference(*inputs)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    weights = torch.randn(shape)
    for a, b in zip(
        torch.autograd.grad(fast, inputs, weights), torch.autograd.grad(plain, inputs, weights), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_dropout_drops() -> None:
    torch.manual_seed(0)
    ones = torch.ones(1, 1, 50, 4)
    torch.testing.assert_close(causal_attention(ones, ones, ones, 0.0), ones)
    assert (causal_attention(ones, ones, ones, 0.5) - ones).abs().max() > 0.1
