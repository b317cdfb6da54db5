"""Causal attention against its definition, its dropout, and the custom operation's place in PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jowa.kernels import attention
from jowa.kernels.attention import (
    causal_attention,
    causal_attention_reference,
    dropout_mask,
    fused_causal_attention,
)

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def inputs(*shape: int) -> list[Tensor]:
    """As a projection gives them: (B, H, T, d) seen in (B, T, H, d)."""
    batch, heads, length, size = shape
    return [torch.randn(batch, length, heads, size).transpose(1, 2).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (2, 3, 37, 8), (1, 4, 296, 32)])
def test_equals_the_definition_forwards_and_backwards(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    leaves = inputs(*shape)
    fast, plain = causal_attention(*leaves), causal_attention_reference(*leaves)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    weights = torch.randn(shape)
    for a, b in zip(
        torch.autograd.grad(fast, leaves, weights), torch.autograd.grad(plain, leaves, weights), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_dropout_drops() -> None:
    torch.manual_seed(0)
    ones = torch.ones(1, 1, 50, 4)
    torch.testing.assert_close(causal_attention(ones, ones, ones, 0.0), ones)
    assert (causal_attention(ones, ones, ones, 0.5) - ones).abs().max() > 0.1


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_operation_on_a_cpu_is_the_oracle_with_its_gradients(dropout: float) -> None:
    torch.manual_seed(0)
    leaves, weights = inputs(2, 3, 37, 16), torch.randn(2, 3, 37, 16)
    state = torch.get_rng_state()
    found = fused_causal_attention(*leaves, dropout)
    torch.set_rng_state(state)
    kept = dropout_mask(torch.randint(-(2**31), 2**31, (2,)), 2, 3, 37, dropout) if dropout else None
    expected = causal_attention_reference(*leaves, kept, dropout)
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(out, leaves, weights) for out in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_pytorch_finds_the_operation_sound(dropout: float) -> None:
    torch.manual_seed(0)
    seed = torch.tensor([1, -2])
    torch.library.opcheck(torch.ops.jowa.causal_attention.default, (*inputs(2, 3, 37, 16), dropout, seed))


@pytest.mark.parametrize("again", [False, True], ids=["kept", "checkpointed"])
def test_compiles_whole_and_recomputes_the_same_dropout(again: bool) -> None:
    torch.manual_seed(0)
    leaves = inputs(2, 3, 37, 16)

    def mixed(*tensors: Tensor) -> Tensor:
        if again:
            return torch.utils.checkpoint.checkpoint(fused_causal_attention, *tensors, 0.3, use_reentrant=False)
        return fused_causal_attention(*tensors, 0.3)

    results = []
    for function in (lambda *tensors: fused_causal_attention(*tensors, 0.3),
                     torch.compile(mixed, fullgraph=True, backend="aot_eager")):  # fmt: skip
        torch.manual_seed(5)
        out = function(*leaves)
        results.append((out, *torch.autograd.grad(out.square().sum(), leaves)))
    torch.testing.assert_close(*results)


def test_a_recent_gpu_is_asked_for_without_breaking_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    capability = [(7, 5)]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability[0])

    def function(x: Tensor) -> Tensor:
        return x + 1 if attention._has_kernels(0) else x

    zero = torch.zeros(2)
    assert torch.equal(torch.compile(function, fullgraph=True, backend="eager")(zero), zero)
    capability[0] = (8, 0)
    torch.compiler.reset()
    assert torch.equal(torch.compile(function, fullgraph=True, backend="eager")(zero), zero + 1)


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_dropout_drops_evenly_and_independently(dropout: float) -> None:
    """Rates and correlations within 5 standard errors: overall, of each row and column, of neighbours, of seeds."""
    masks = torch.stack([dropout_mask(torch.tensor(seed), 2, 4, 128, dropout) for seed in ((0, 0), (0, 1), (1, 0))])
    dropped = 1 - masks.double() - dropout
    spread = (dropout * (1 - dropout)) ** 0.5
    for dimensions in ((0, 1, 2, 3, 4), (0, 1, 2, 3), (0, 1, 2, 4), (3, 4)):
        count = dropped.numel() // dropped.mean(dimensions).numel()
        assert dropped.mean(dimensions).abs().max() < 5 * spread / count**0.5
    pairs = [(dropped[..., :-lag], dropped[..., lag:]) for lag in range(1, 65)]
    pairs += [(dropped[..., :-lag, :], dropped[..., lag:, :]) for lag in (1, 2, 64)]
    pairs += [(dropped[:, :, :-1], dropped[:, :, 1:]), (dropped[:1], dropped[1:2]), (dropped[:1], dropped[2:])]
    for one, other in pairs:
        assert (one * other).mean().abs() < 5 * spread**2 / one.numel() ** 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v: (q[0], k, v, 0.0), "queries must be floating"),
        (lambda q, k, v: (q.long(), k, v, 0.0), "queries must be floating"),
        (lambda q, k, v: (q, k[:, :, 1:], v, 0.0), "keys must have the queries' shape"),
        (lambda q, k, v: (q, k, v[..., :8], 0.0), "values must have the queries' shape"),
        (lambda q, k, v: (q, k.half(), v, 0.0), "keys must be torch.float32"),
        (lambda q, k, v: (q, k, v.to("meta"), 0.0), "values are on meta"),
        (lambda q, k, v: (q, k, v, 1.0), "dropout must be a probability below 1"),
        (lambda q, k, v: (q, k, v, -0.1), "dropout must be a probability below 1"),
    ],
)
@pytest.mark.parametrize("function", [causal_attention, fused_causal_attention])
def test_what_does_not_fit_is_refused(function, change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(*change(*inputs(2, 3, 5, 16)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v: (q.double(), k.double(), v.double()), "queries must be float32, float16 or bfloat16"),
        (lambda q, k, v: (q[..., :8], k[..., :8], v[..., :8]), "queries must have a head size of"),
        (lambda q, k, v: (q, k.mT.contiguous().mT, v), "keys must have a last stride of 1"),
    ],
)
def test_what_the_kernels_cannot_take_is_refused_by_them_alone(change, message: str) -> None:
    tensors = change(*inputs(2, 3, 5, 16))
    with pytest.raises(ValueError, match=message):
        fused_causal_attention(*tensors)
    assert causal_attention(*tensors).shape == tensors[0].shape


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(1, 1, 1, 64), (3, 12, 296, 64), (2, 4, 295, 128), (2, 2, 37, 16), (2, 2, 100, 32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_gpu_agrees_with_the_oracle(dtype: torch.dtype, shape: tuple[int, ...], dropout: float) -> None:
    torch.manual_seed(0)
    leaves = [tensor.detach().cuda().to(dtype).requires_grad_() for tensor in inputs(*shape)]
    weights = torch.randn(shape, device="cuda").to(dtype)
    state = torch.cuda.get_rng_state()
    found = causal_attention(*leaves, dropout)
    torch.cuda.set_rng_state(state)
    seed = torch.randint(-(2**31), 2**31, (2,), device="cuda")
    kept = dropout_mask(seed, *shape[:3], dropout) if dropout else None
    exact = [tensor.detach().double().requires_grad_() for tensor in leaves]
    expected = causal_attention_reference(*exact, kept, dropout)
    tolerance = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]
    gradients = torch.autograd.grad(found, leaves, weights)
    wanted = torch.autograd.grad(expected, exact, weights.double())
    for one, other in zip((found, *gradients), (expected, *wanted), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
@gpu
def test_a_gpu_compiles_it_whole_with_the_same_result() -> None:
    leaves = [tensor.detach().cuda().bfloat16().requires_grad_() for tensor in inputs(2, 4, 296, 64)]
    results = []
    for function in (causal_attention, torch.compile(causal_attention, fullgraph=True)):
        out = function(*leaves)
        results.append((out, *torch.autograd.grad(out.square().sum(), leaves)))
    torch.testing.assert_close(*results, rtol=0, atol=0)
