"""Rows of a search level that share their root's context, against the same attention on repeated keys."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.ceilings import add_rates
from jowa.kernels.tree_attention import tree_attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
ROWS, HEADS, WIDTH, PAGE = 16, 12, 64, 37
WAITS = pytest.mark.skipif(DEVICE == "cpu", reason="waits for a GPU")


def level(roots: int, context: int, queries: int, written: int) -> tuple[Tensor, ...]:
    """Arguments of tree_attention: full contexts, ``written`` tokens a row.

    Rows own pages that were handed out in order; their ancestors' are scattered at random.
    """
    generator = torch.Generator().manual_seed(0)

    def floats(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE, DTYPE)

    slots = math.ceil(written / PAGE)
    pages = roots * ROWS * slots
    # The layout that the model's projections leave: heads next to the head size.
    asked = floats(roots, ROWS, queries, HEADS, WIDTH).transpose(2, 3)
    context_keys, context_values = floats(2, roots, HEADS, context, WIDTH)
    page_keys, page_values = floats(2, pages, HEADS, PAGE, WIDTH)
    own = roots * ROWS
    ancestors = own + torch.randperm(pages - own, generator=generator).view(roots, ROWS, slots - 1)
    table = torch.cat([ancestors, torch.arange(own).view(roots, ROWS, 1)], dim=2).int().to(DEVICE)
    lengths = torch.full((roots,), context, dtype=torch.int32, device=DEVICE)
    tokens = torch.full((roots, ROWS), written, dtype=torch.int32, device=DEVICE)
    return asked, context_keys, context_values, lengths, page_keys, page_values, table, tokens


def repeat(context: Tensor, pages: Tensor, table: Tensor, written: int) -> Tensor:
    """(R * M, H, T + n, d): each row's context and pages side by side, as a search that shares nothing keeps them."""
    roots, rows, slots = table.shape
    own = pages[table.flatten().long()].view(roots, rows, slots, HEADS, PAGE, WIDTH).transpose(2, 3)
    own = own.reshape(roots, rows, HEADS, slots * PAGE, WIDTH)[..., :written, :]
    return torch.cat([context[:, None].expand(-1, rows, -1, -1, -1), own], dim=3).flatten(0, 1)


def rivals(arguments: tuple[Tensor, ...], written: int) -> dict[str, Callable[[], Tensor]]:
    """The first two on keys and values that were repeated beforehand, outside the clock; the last repeats them."""
    asked, context_keys, context_values, _, page_keys, page_values, table, _ = arguments
    keys, values = repeat(context_keys, page_keys, table, written), repeat(context_values, page_values, table, written)
    queries = asked.flatten(0, 1)
    count, total = queries.shape[2], keys.shape[2]
    visible = torch.arange(total, device=DEVICE) <= torch.arange(total - count, total, device=DEVICE)[:, None]
    bias = torch.zeros(visible.shape, device=DEVICE, dtype=DTYPE).masked_fill(~visible, -math.inf)
    # A single query sees every key, and SDPA has faster ways without a mask.
    mask = None if count == 1 else visible

    def plain() -> Tensor:
        scores = (queries * WIDTH**-0.5) @ keys.transpose(-1, -2)
        return (scores if count == 1 else scores + bias).softmax(-1) @ values

    def repeating() -> Tensor:
        mine = (
            repeat(*source, table, written) for source in ((context_keys, page_keys), (context_values, page_values))
        )
        return functional.scaled_dot_product_attention(queries, *mine, attn_mask=mask)

    return {
        "SDPA on repeated keys": lambda: functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask),
        "SDPA that repeats the keys": repeating,
        "matmul-softmax-matmul on repeated keys": plain,
    }


@pytest.mark.parametrize("written", [37, 74])
@pytest.mark.parametrize("queries", [1, 37])
@pytest.mark.parametrize("context", [73, 147, 221])
@pytest.mark.parametrize("roots", [1, 16, pytest.param(64, marks=[pytest.mark.gpu, WAITS])])
@torch.inference_mode()
def test_tree_attention(compare, roots: int, context: int, queries: int, written: int) -> None:
    arguments = level(roots, context, queries, written)
    close = 2e-2 if arguments[0].dtype == torch.bfloat16 else 1e-4
    for name, rival in rivals(arguments, written).items():
        torch.testing.assert_close(tree_attention(*arguments).flatten(0, 1), rival(), rtol=close, atol=close)
        compare(
            f"tree attention against {name}",
            f"{roots} roots of {ROWS} rows, context {context}, {written} tokens in pages, {queries} queries, "
            f"{HEADS} heads of {WIDTH}, {str(DTYPE).removeprefix('torch.')}, {DEVICE}",
            lambda: tree_attention(*arguments), rival,
        )  # fmt: skip
        seen = context + written  # the queries' own tokens in full, which is a little too many
        numbers = roots * HEADS * WIDTH * (2 * ROWS * queries + 2 * context + 2 * ROWS * written)
        work = 4 * roots * ROWS * HEADS * queries * seen * WIDTH
        add_rates(compare.rows[-1], work, numbers * DTYPE.itemsize, DEVICE, DTYPE)
