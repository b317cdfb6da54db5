"""Causal attention, forward and backward, against PyTorch's own back ends; on a CPU, those against the definition."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.ceilings import add_rates
from jowa.kernels.attention import causal_attention, causal_attention_reference, fused_causal_attention

HEADS, LENGTH, SIZE = 12, 296, 64
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def projections(batch: int, heads: int, device: str, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys, values and the gradient of the result, as the model's projections lie in memory."""
    shape = (batch, LENGTH, heads, SIZE)
    return [torch.randn(shape, device=device, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(4)]


def both_ways(attention: Attention, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    out = attention(*tensors[:3])
    return out, *torch.autograd.grad(out, tensors[:3], tensors[3])


def backend(chosen: SDPBackend) -> Attention:
    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(chosen):
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    return attention


def flex() -> Attention:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def causal(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query >= key

    mask, compiled = create_block_mask(causal, None, None, LENGTH, LENGTH), torch.compile(flex_attention)
    return lambda q, k, v: compiled(q, k, v, block_mask=mask)


def rivals(tensors: list[Tensor]) -> dict[str, Attention]:
    """Those that run here; the others are named with what they said."""
    found = {}
    makers: dict[str, Callable[[], Attention]] = {
        "SDPA flash": lambda: backend(SDPBackend.FLASH_ATTENTION),
        "SDPA efficient": lambda: backend(SDPBackend.EFFICIENT_ATTENTION),
        "SDPA cuDNN": lambda: backend(SDPBackend.CUDNN_ATTENTION),
        "FlexAttention": flex,
    }
    for name, make in makers.items():
        try:
            rival = make()
            both_ways(rival, tensors)
        except Exception as error:  # whatever a back end that does not serve this GPU raises
            print(f"\n{name} does not run here: {str(error).splitlines()[:1]}")
        else:
            found[name] = rival
    return found


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="waits for a GPU: the kernels run on nothing else")
@pytest.mark.parametrize("batch", [512, 32])
def test_attention(compare, batch: int) -> None:
    tensors = projections(batch, HEADS, "cuda", torch.bfloat16)
    shapes = f"({batch} x {HEADS}, {LENGTH}, {SIZE}), bfloat16"
    weights = LENGTH * (LENGTH + 1) / 2 * SIZE * HEADS * batch
    # The backward pass has five products where the forward pass has two; of tensors they touch eight and four.
    work, traffic = 3.5 * 2 * 2 * weights, 12 * tensors[0].numel() * 2
    ratios = {}
    for name, rival in rivals(tensors).items():
        for ours, theirs in zip(both_ways(fused_causal_attention, tensors), both_ways(rival, tensors), strict=True):
            torch.testing.assert_close(ours.float(), theirs.float(), rtol=5e-2, atol=5e-2)
        ratios[name] = compare(
            f"causal attention, forward and backward, against {name}", shapes,
            lambda: both_ways(fused_causal_attention, tensors),
            lambda rival=rival: both_ways(rival, tensors), runs=30,
        )  # fmt: skip
        add_rates(compare.rows[-1], work, traffic, "cuda", torch.bfloat16)
    assert ratios, "no rival runs here"
    print(f"\nthe best rival takes {min(ratios.values()):.2f} times as long")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="waits for a GPU: the kernels run on nothing else")
def test_attention_with_dropout(compare) -> None:
    tensors = projections(512, HEADS, "cuda", torch.bfloat16)
    compare(
        "causal attention with dropout 0.1, forward and backward, against SDPA's choice",
        f"(512 x {HEADS}, {LENGTH}, {SIZE}), bfloat16",
        lambda: both_ways(lambda q, k, v: fused_causal_attention(q, k, v, 0.1), tensors),
        lambda: both_ways(
            lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True), tensors
        ),
        runs=30,
    )  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a CPU takes is measured where there is no GPU")
@pytest.mark.parametrize(("batch", "heads", "length", "size"), [(12, 4, 74, 32), (8, 8, 296, 64), (8, 12, 296, 64)])
def test_attention_on_a_cpu(compare, batch: int, heads: int, length: int, size: int) -> None:
    shape = (batch, length, heads, size)
    tensors = [torch.randn(shape).transpose(1, 2).requires_grad_() for _ in range(4)]
    for ours, theirs in zip(
        both_ways(causal_attention, tensors), both_ways(causal_attention_reference, tensors), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    compare(
        "causal attention on a CPU, forward and backward, SDPA against matmul, softmax, matmul",
        f"({batch} x {heads}, {length}, {size}), float32",
        lambda: both_ways(causal_attention, tensors), lambda: both_ways(causal_attention_reference, tensors),
    )  # fmt: skip
    weights = length * (length + 1) / 2 * size * heads * batch
    add_rates(compare.rows[-1], 3.5 * 2 * 2 * weights, 12 * tensors[0].numel() * 4, "cpu", torch.float32)
