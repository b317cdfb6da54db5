"""Attention of a search level's rows to their root's context and the pages of their ancestors.

Letters: R roots, M rows a root, H heads, Q queries a row, T context tokens, P pages of 37 tokens, J slots of a row's
page table, d head size.
"""

from __future__ import annotations

import math
from importlib.util import find_spec

import torch
from torch import Tensor

PAGE = 37
"""Tokens a page: those of one imagined step."""
LARGEST_HEAD = 64
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@torch.no_grad()
def tree_attention(
    queries: Tensor, context_keys: Tensor, context_values: Tensor, context_lengths: Tensor,
    page_keys: Tensor, page_values: Tensor, page_table: Tensor, page_tokens: Tensor,
) -> Tensor:  # fmt: skip
    """Softmax attention of Q queries a row, the last Q tokens it has written, to all that stands before them.

    ``queries`` (R, M, H, Q, d), Q up to 37; ``context_keys``, ``context_values`` (R, H, T, d), of which root r has the
    first ``context_lengths`` int32 (R,); ``page_keys``, ``page_values`` (P, H, 37, d).  A row's tokens stand in the
    pages that ``page_table`` int32 (R, M, J) names, its oldest ancestor's first and its own last; ``page_tokens`` int32
    (R, M) counts them: n = 37 (ancestors) + those written in its own page, the keys of the queries included.  Query i
    sees the context and tokens 0 to n - Q + i.  Floats share a dtype (float32, float16 or bfloat16) and the device;
    their last dimension must be contiguous, d at most 64.  Returns the queries' shape and dtype.

    What is not seen is not used, be it NaN: padding of contexts, tokens behind n, pages out of use.  A row with n = 0
    is idle and gets zeros; a page id outside 0..P-1 stands for nothing to see.  Lengths beyond T or 37 J count as
    those.  With Triton on a GPU two kernels (:mod:`jowa.kernels.tree_attention_triton`), on a CPU torch's products
    root by root, elsewhere :func:`tree_attention_reference`.  No gradient.
    Raises ValueError, naming the argument, for a dtype, device, shape or stride that does not fit.
    """
    arguments = (
        queries, context_keys, context_values, context_lengths, page_keys, page_values, page_table, page_tokens
    )  # fmt: skip
    _check(*arguments)
    if queries.numel() == 0:
        return torch.empty_like(queries)
    if _runs_triton(queries):
        from jowa.kernels.tree_attention_triton import attend_tree

        # Triton launches on the current device.
        with torch.cuda.device_of(queries):  # type: ignore[no-untyped-call]
            return attend_tree(*arguments, processors=_processors(queries.device))
    with torch.autocast(queries.device.type, enabled=False):
        return _root_by_root(*arguments) if queries.device.type == "cpu" else tree_attention_reference(*arguments)


def tree_attention_reference(
    queries: Tensor, context_keys: Tensor, context_values: Tensor, context_lengths: Tensor,
    page_keys: Tensor, page_values: Tensor, page_table: Tensor, page_tokens: Tensor,
) -> Tensor:  # fmt: skip
    """The definition, in float32: every row's keys and values laid side by side, and a masked softmax over them."""
    roots, rows, heads, count, width = queries.shape
    length, slots = context_keys.shape[2], page_table.shape[2]
    exists = _exists(page_table, len(page_keys))
    written = torch.arange(slots * PAGE, device=queries.device) <= _last_seen(page_tokens, count)[..., None]
    in_context = torch.arange(length, device=queries.device) < context_lengths[:, None]
    in_context = in_context[:, None, None].expand(roots, rows, count, length)
    visible = torch.cat([in_context, written & exists.repeat_interleave(PAGE, 2)[:, :, None]], dim=3)
    visible = (visible & (page_tokens > 0)[..., None, None])[:, :, None]
    sources = []
    for context, pages in ((context_keys, page_keys), (context_values, page_values)):
        own = pages.new_zeros(roots, rows, slots, heads, PAGE, width)
        own[exists] = pages[page_table[exists].long()]
        own = own.transpose(2, 3).reshape(roots, rows, heads, slots * PAGE, width)
        context = context[:, None].expand(roots, rows, heads, length, width)
        sources.append(torch.cat([context, own], dim=3).float())
    keys, values = sources
    # A weight of 0 does not silence a NaN.
    values = values.masked_fill(~visible.any(3)[..., None], 0.0)
    scores = (queries.float() @ keys.transpose(-1, -2) / math.sqrt(width)).masked_fill(~visible, -math.inf)
    weights = scores.softmax(-1).masked_fill(~visible.any(-1, keepdim=True), 0.0)
    return (weights @ values).to(queries.dtype)


def _exists(page_table: Tensor, pages: int) -> Tensor:
    return (page_table >= 0) & (page_table < pages)


def _last_seen(page_tokens: Tensor, count: int) -> Tensor:
    """(R, M, Q): the last token among a row's pages that each of its queries sees."""
    return page_tokens[..., None] - count + torch.arange(count, device=page_tokens.device)


def _runs_triton(queries: Tensor) -> bool:
    return queries.is_cuda and find_spec("triton") is not None


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def _root_by_root(
    queries: Tensor, context_keys: Tensor, context_values: Tensor, context_lengths: Tensor,
    page_keys: Tensor, page_values: Tensor, page_table: Tensor, page_tokens: Tensor,
) -> Tensor:  # fmt: skip
    """One root after another: each context is cut to its length, so it needs no mask, and one root fits in a cache."""
    roots, rows, heads, count, width = queries.shape
    out = queries.new_empty(roots, rows, count, heads, width).transpose(2, 3)
    for root, length in enumerate(context_lengths.clamp(min=0).tolist()):
        context = (context_keys[root, :, :length].float(), context_values[root, :, :length].float())
        out[root] = _one_root(
            queries[root].float(), *context, page_keys, page_values, page_table[root], page_tokens[root]
        )
    return out


def _one_root(
    queries: Tensor, context_keys: Tensor, context_values: Tensor,
    page_keys: Tensor, page_values: Tensor, page_table: Tensor, page_tokens: Tensor,
) -> Tensor:  # fmt: skip
    """float32 (M, H, Q, d) of one root, without its dimension, and with all of its context visible."""
    rows, heads, count, width = queries.shape
    pages, length, table = len(page_keys), context_keys.shape[1], page_table.T.tolist()
    last = _last_seen(page_tokens, count)
    end = min(int(page_tokens.max()), len(table) * PAGE) if pages else 0
    shortest = int(page_tokens.min()) - count
    queries = queries * width**-0.5
    # The rows are the query axis of one product: the context is read once for all of them.
    packed = queries.transpose(0, 1).reshape(heads, rows * count, width)
    scores = [(packed @ context_keys.transpose(1, 2)).view(heads, rows, count, length).transpose(0, 1)]
    values = []
    blind = torch.full((rows, count), length == 0)
    for slot, first in enumerate(range(0, end, PAGE)):
        size = min(PAGE, end - first)
        keys, mine = (_pages_of(every, table[slot], size) for every in (page_keys, page_values))
        scores.append(queries @ keys.transpose(2, 3))
        if first + size - 1 > shortest or not 0 <= min(table[slot]) <= max(table[slot]) < pages:
            hidden = torch.arange(first, first + size) > last[..., None]
            hidden |= ~_exists(page_table[:, slot, None, None], pages)
            scores[-1].masked_fill_(hidden[:, None], -math.inf)
            blind &= hidden.all(2)
            # A weight of 0 does not silence a NaN; the values may be the caller's own.
            mine = mine.masked_fill(hidden.all(1)[:, None, :, None], 0.0)
        else:
            blind.fill_(False)
        values.append(mine)
    weights = torch.cat(scores, dim=-1).softmax(-1)
    packed = weights[..., :length].transpose(0, 1).reshape(heads, rows * count, length)
    mixed = (packed @ context_values).view(heads, rows, count, width).transpose(0, 1)
    for slot, mine in enumerate(values):
        first = length + slot * PAGE
        mixed = mixed + weights[..., first : first + mine.shape[2]] @ mine
    blind |= (page_tokens <= 0)[:, None]
    return mixed.masked_fill(blind[:, None, :, None], 0.0)


def _pages_of(pages: Tensor, ids: list[int], size: int) -> Tensor:
    """float32 (M, H, size, d): the first tokens of the pages named; of ids that are none, any page's.

    Pages that lie side by side, as those handed out to the rows of a new level do, are not copied.
    """
    first = ids[0]
    if 0 <= first <= len(pages) - len(ids) and ids == list(range(first, first + len(ids))):
        return pages[first : first + len(ids), :, :size].float()
    chosen = torch.tensor(ids).clamp_(0, len(pages) - 1)
    return pages[:, :, :size].index_select(0, chosen).float()


def _check(
    queries: Tensor, context_keys: Tensor, context_values: Tensor, context_lengths: Tensor,
    page_keys: Tensor, page_values: Tensor, page_table: Tensor, page_tokens: Tensor,
) -> None:  # fmt: skip
    """In the order of the arguments, so that the first one that is wrong is named."""
    if queries.ndim != 5 or not 1 <= queries.shape[4] <= LARGEST_HEAD or queries.shape[3] > PAGE:
        raise ValueError(
            f"queries must be (R, M, H, Q, d) with Q up to {PAGE} and d of 1 to {LARGEST_HEAD}, "
            f"got {tuple(queries.shape)}"
        )
    if queries.dtype not in DTYPES:
        raise ValueError(f"queries must be float32, float16 or bfloat16, got {queries.dtype}")
    roots, rows, heads, _, width = queries.shape
    length = context_keys.shape[2] if context_keys.ndim == 4 else "T"
    slots = page_table.shape[2] if page_table.ndim == 3 else "J"
    pages = len(page_keys) if page_keys.ndim == 4 else "P"
    floats = {
        "queries": (queries, queries.shape),
        "context_keys": (context_keys, (roots, heads, length, width)),
        "context_values": (context_values, (roots, heads, length, width)),
        "page_keys": (page_keys, (pages, heads, PAGE, width)),
        "page_values": (page_values, (pages, heads, PAGE, width)),
    }
    integers = {
        "context_lengths": (context_lengths, (roots,)),
        "page_table": (page_table, (roots, rows, slots)),
        "page_tokens": (page_tokens, (roots, rows)),
    }
    for name, (tensor, shape) in (floats | integers).items():
        dtype = queries.dtype if name in floats else torch.int32
        if tensor.shape != shape:
            raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(tensor.shape)}")
        if tensor.dtype != dtype:
            raise ValueError(f"{name} must be {dtype}, got {tensor.dtype}")
        if tensor.device != queries.device:
            raise ValueError(f"{name} is on {tensor.device} and queries on {queries.device}: move one")
        if name in floats and tensor.stride(-1) != 1 and tensor.numel():
            raise ValueError(f"the last dimension of {name} must be contiguous, its stride is {tensor.stride(-1)}")
