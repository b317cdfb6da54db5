"""Search levels for tree attention, drawn at random: ragged, with idle rows, and with NaN wherever nobody may look."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PAGE = 37


@dataclass(frozen=True)
class Level:
    """Sizes of a level; the letters are those of jowa.kernels.tree_attention."""

    roots: int = 2
    rows: int = 3
    heads: int = 2
    queries: int = 1
    context: int = 73
    slots: int = 2
    width: int = 16
    dtype: torch.dtype = torch.float32
    scale: float = 1.0

    def draw(self, seed: int = 0) -> tuple[Tensor, ...]:
        """The arguments of tree_attention, in its order.

        Rows have 0 to J - 1 ancestors, some of them shared; every fourth or so is idle.  Every float tensor is a view
        whose strides are nobody's default.
        """
        generator = torch.Generator().manual_seed(seed)

        def integers(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high + 1, shape, generator=generator)

        def floats(*shape: int) -> Tensor:
            """Dimensions 1 and 2 swapped in memory, and room behind the last."""
            drawn = torch.randn(*shape, generator=generator)
            room = torch.full((shape[0], shape[2], shape[1], *shape[3:-1], shape[-1] + 3), math.nan, dtype=self.dtype)
            room[..., : shape[-1]] = drawn.transpose(1, 2)
            return room[..., : shape[-1]].transpose(1, 2)

        pages = 1 + self.roots * self.rows * self.slots
        ancestors = integers(0, max(self.slots - 1, 0), self.roots, self.rows)
        own = integers(self.queries, PAGE, self.roots, self.rows)
        tokens = (ancestors * PAGE + own).masked_fill(integers(0, 3, self.roots, self.rows) == 0, 0)
        lengths = integers(0, self.context, self.roots)
        table = torch.randperm(pages - 1, generator=generator).view(self.roots, self.rows, self.slots)
        table[:, 1::2, : self.slots - 1] = table[:, : self.rows - self.rows % 2 : 2, : self.slots - 1]
        queries = floats(self.roots, self.rows, self.heads, self.queries, self.width) * self.scale
        context = [floats(self.roots, self.heads, self.context, self.width) for _ in range(2)]
        paged = [floats(pages, self.heads, PAGE, self.width) for _ in range(2)]
        position = torch.arange(self.slots * PAGE)
        unused = torch.ones(pages, PAGE, dtype=torch.bool)
        for line, count in zip(table.view(-1, self.slots), tokens.view(-1).tolist(), strict=True):
            seen = position[:count]
            unused[line[seen // PAGE], seen % PAGE] = False
        for keys_or_values in context:
            keys_or_values.masked_fill_((torch.arange(self.context) >= lengths[:, None])[:, None, :, None], math.nan)
        for keys_or_values, rubbish in zip(paged, (math.nan, -math.inf), strict=True):
            keys_or_values.masked_fill_(unused[:, None, :, None], rubbish)
        queries = queries.masked_fill((tokens == 0)[..., None, None, None], math.nan)
        table = table.masked_fill(torch.arange(self.slots) * PAGE >= tokens[..., None], -1)
        return (queries, *context, lengths.int(), *paged, table.int(), tokens.int())


LEVELS = [
    Level(queries=queries, context=context, slots=slots)
    for queries, context, slots in ((1, 36, 1), (1, 221, 3), (2, 73, 2), (36, 36, 2), (37, 73, 1), (37, 147, 3))
]
LEVELS += [
    Level(rows=1, roots=1, heads=1, context=1, slots=1, width=1),
    Level(rows=16, heads=1, context=73, slots=3, width=64),
    Level(rows=17, roots=1, heads=3, context=33, slots=1, width=33),
    Level(rows=5, queries=16, context=31, slots=2, width=32),
    Level(rows=5, queries=17, context=32, slots=2, width=64),
    Level(rows=9, queries=7, context=0, slots=4, width=8),
    Level(roots=3, rows=4, context=73, slots=2, width=32, scale=1e4),
    Level(roots=1, rows=2, queries=37, context=36, slots=2, width=16, scale=1e4),
]
HALVES = [replace(level, dtype=torch.float16) for level in LEVELS]
