"""Tree attention: the oracle against plain loops, and what callers get against the oracle."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from tree_cases import HALVES, LEVELS, PAGE, Level

from jowa.kernels.tree_attention import tree_attention, tree_attention_reference

# A machine with a GPU may have nothing beyond torch, triton, NumPy and pytest.
st = pytest.importorskip("hypothesis.strategies")
given, settings = (getattr(pytest.importorskip("hypothesis"), name) for name in ("given", "settings"))

NAMES = (
    "queries", "context_keys", "context_values", "context_lengths",
    "page_keys", "page_values", "page_table", "page_tokens",
)  # fmt: skip
BFLOATS = [replace(level, dtype=torch.bfloat16) for level in LEVELS]
CLOSE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def by_loops(
    queries: Tensor, context_keys: Tensor, context_values: Tensor, context_lengths: Tensor,
    page_keys: Tensor, page_values: Tensor, page_table: Tensor, page_tokens: Tensor,
) -> Tensor:  # fmt: skip
    """One query at a time, float64, from nothing but what it sees."""
    roots, rows, heads, count, width = queries.shape
    out = torch.zeros(queries.shape, dtype=torch.float64)
    for root, row, head, i in torch.cartesian_prod(*map(torch.arange, (roots, rows, heads, count))).tolist():
        written, length = int(page_tokens[root, row]), int(context_lengths[root])
        if written == 0:
            continue
        places = [(int(page_table[root, row, at // PAGE]), at % PAGE) for at in range(written - count + i + 1)]
        keys = [*context_keys[root, head, :length], *(page_keys[page, head, at] for page, at in places)]
        values = [*context_values[root, head, :length], *(page_values[page, head, at] for page, at in places)]
        scores = torch.stack(keys).double() @ queries[root, row, head, i].double() / math.sqrt(width)
        out[root, row, head, i] = scores.softmax(0) @ torch.stack(values).double()
    return out


@pytest.mark.parametrize(
    "level",
    [
        Level(slots=3),
        Level(queries=37, context=36, heads=1),
        Level(queries=5, context=0, slots=1),
        Level(rows=4, context=10, slots=2, width=8, scale=1e3),
        Level(context=20, dtype=torch.float16),
    ],
    ids=str,
)
def test_the_oracle_is_what_the_words_say(level: Level) -> None:
    arguments = level.draw(7)
    assert (arguments[-1] > 0).any(), "some row is in use"
    found = tree_attention_reference(*arguments)
    assert found.dtype == level.dtype
    close = 1e-3 if level.dtype == torch.float16 else 2e-5
    torch.testing.assert_close(found.double(), by_loops(*arguments), rtol=close, atol=close)


@pytest.mark.parametrize("level", LEVELS + HALVES + BFLOATS, ids=str)
def test_a_cpu_agrees_with_the_oracle(level: Level) -> None:
    arguments = level.draw(len(str(level)))
    found, close = tree_attention(*arguments), CLOSE[level.dtype]
    assert found.dtype == level.dtype and found.isfinite().all()
    torch.testing.assert_close(found, tree_attention_reference(*arguments), rtol=close, atol=close)


@settings(deadline=None, max_examples=60)
@given(
    level=st.builds(
        Level,
        roots=st.integers(1, 4), rows=st.integers(1, 6), heads=st.integers(1, 3), queries=st.integers(1, 37),
        context=st.integers(0, 80), slots=st.integers(1, 4), width=st.integers(1, 64),
        scale=st.sampled_from([0.1, 1.0]),
    ),
    seed=st.integers(0, 2**31),
)  # fmt: skip
def test_a_cpu_agrees_with_the_oracle_on_any_level(level: Level, seed: int) -> None:
    arguments = level.draw(seed)
    found = tree_attention(*arguments)
    torch.testing.assert_close(found, tree_attention_reference(*arguments), rtol=2e-5, atol=2e-5)


def test_idle_rows_get_zeros_and_rows_in_use_do_not() -> None:
    *arguments, tokens = Level(roots=3, rows=8).draw()
    found = tree_attention(*arguments, tokens)
    assert (tokens == 0).any() and (tokens > 0).any()
    assert torch.equal((found == 0).all(-1).all(-1).all(-1), tokens == 0)


def test_lengths_and_pages_that_do_not_exist() -> None:
    """A length beyond what is stored means all of it; a page that does not exist, nothing."""
    queries, keys, values, lengths, page_keys, page_values, table, tokens = (
        tensor.nan_to_num(0, 0, 0) for tensor in Level(rows=2, slots=3).draw()
    )
    pages, table, tokens = (page_keys, page_values), table.clamp(min=0), torch.full_like(tokens, 3 * PAGE)
    full = tree_attention(queries, keys, values, torch.full_like(lengths, 73), *pages, table, tokens)
    # 3 pages hold 111 tokens, so the query of a row that claims 500 sees all of them, as the last one does.
    claimed = tree_attention(
        queries, keys, values, torch.full_like(lengths, 500), *pages, table, torch.full_like(tokens, 500)
    )
    torch.testing.assert_close(claimed, full)
    cut = table.clone()
    cut[0, 0, 2], cut[0, 1, 2] = -1, len(page_keys)
    missing = tree_attention(queries, keys, values, lengths, *pages, cut, tokens)
    shorter = tree_attention(queries, keys, values, lengths, *pages, table[..., :2], tokens.clamp(max=2 * PAGE))
    torch.testing.assert_close(missing[0], shorter[0])
    assert not torch.equal(missing[1], shorter[1])


@pytest.mark.parametrize("first", [0, 1])
def test_pages_side_by_side_are_read_in_place_and_left_as_they_are(first: int) -> None:
    """Not copied when they serve rows in order, but hidden tokens and their rubbish must be left out all the same."""
    queries, *context, page_keys, page_values, _, _ = Level(roots=2, rows=4, queries=3, slots=1).draw()
    table = first + torch.arange(8, dtype=torch.int32).view(2, 4, 1)
    tokens = torch.tensor([[37, 3, 0, 20], [37, 37, 37, 37]], dtype=torch.int32)
    pages = [torch.nan_to_num(tensor, 0.5, 0.5, 0.5) for tensor in (page_keys, page_values)]
    for tensor in pages:
        tensor[first + 1, :, 3:], tensor[first + 2], tensor[first + 3, :, 20:] = math.nan, -math.inf, math.nan
    arguments = (queries.nan_to_num(), *context, *pages, table, tokens)
    before = [tensor.clone() for tensor in arguments]
    torch.testing.assert_close(tree_attention(*arguments), tree_attention_reference(*arguments), rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(list(arguments), before, rtol=0, atol=0, equal_nan=True)


def test_autocast_does_not_reach_it() -> None:
    arguments = Level(queries=3).draw()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = tree_attention(*arguments)
    assert torch.equal(found, tree_attention(*arguments))


@pytest.mark.parametrize("level", [Level(roots=0), Level(rows=0), Level(heads=0), Level(queries=0)], ids=str)
def test_empty_batches_give_empty_results(level: Level) -> None:
    arguments = level.draw()
    assert tree_attention(*arguments).shape == arguments[0].shape
    assert tree_attention_reference(*arguments).shape == arguments[0].shape


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", ["shape", "dimensions", "dtype", "device"])
def test_what_does_not_fit_is_named(name: str, fault: str) -> None:
    arguments = dict(zip(NAMES, Level().draw(), strict=True))
    tensor = arguments[name]
    faulty = {
        "shape": torch.cat([tensor, tensor], dim=min(1, tensor.ndim - 1)),
        "dimensions": tensor[None],
        "dtype": tensor.double() if tensor.is_floating_point() else tensor.long(),
        "device": tensor.to("meta"),
    }[fault]
    if name == "queries" and fault == "shape":
        faulty = tensor.expand(-1, -1, -1, 38, -1)
    # The queries' device is the measure of the others, so the next argument is the one told.
    named = "context_keys" if (name, fault) == ("queries", "device") else name
    with pytest.raises(ValueError, match=rf"^{named} "):
        tree_attention(**(arguments | {name: faulty}))


@pytest.mark.parametrize("name", ["queries", "context_keys", "context_values", "page_keys", "page_values"])
def test_a_last_dimension_with_gaps_is_refused(name: str) -> None:
    arguments = dict(zip(NAMES, Level().draw(), strict=True))
    arguments[name] = arguments[name].repeat_interleave(2, -1)[..., ::2]
    with pytest.raises(ValueError, match=f"the last dimension of {name} must be contiguous, its stride is 2"):
        tree_attention(**arguments)


@pytest.mark.parametrize("width", [0, 65])
def test_a_head_that_is_too_large_or_empty_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=r"^queries must be .* d of 1 to 64, got \(2, 3, 2, 1, "):
        tree_attention(*Level(width=width).draw())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("level", LEVELS + HALVES + BFLOATS, ids=str)
def test_a_gpu_agrees_with_the_oracle(level: Level) -> None:
    for roots in (level.roots, 40):  # few roots: split contexts; many: whole ones
        arguments = replace(level, roots=roots).draw(roots)
        found = tree_attention(*(argument.cuda() for argument in arguments))
        # Splits round once more than the oracle; TF32 in three parts is close to float32, large scores magnify it.
        close = 3 * CLOSE[level.dtype] * (10 if level.scale > 1 else 1)
        torch.testing.assert_close(found.cpu(), tree_attention_reference(*arguments), rtol=close, atol=close)
