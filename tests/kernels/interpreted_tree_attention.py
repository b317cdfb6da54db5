"""Tree attention's kernels against their oracle, in Triton's interpreter; a script, as interpreted.py is."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import random
from dataclasses import replace

import torch
from tree_cases import HALVES, LEVELS, Level

from jowa.kernels import tree_attention as module
from jowa.kernels.tree_attention import tree_attention, tree_attention_reference

module._runs_triton = lambda queries: True


def agree(level: Level, seed: int, processors: int) -> None:
    """``processors`` decides into how many parts the context is split."""
    module._processors = lambda device: processors
    arguments = level.draw(seed)
    found, expected = tree_attention(*arguments), tree_attention_reference(*arguments)
    assert found.dtype == level.dtype and found.isfinite().all(), (level, seed)
    # Half precision rounds weights, each split's result and the sum; large scores are rounded more than small ones.
    close = 4e-3 if level.dtype == torch.float16 else 2e-5 if level.scale <= 1 else 2e-4
    torch.testing.assert_close(found, expected, rtol=close, atol=close, msg=lambda text: f"{level} {seed}: {text}")


def levels_of_all_kinds() -> None:
    for seed, level in enumerate(LEVELS + HALVES):
        agree(level, seed, processors=1)


def levels_with_split_contexts() -> None:
    for seed, level in enumerate(LEVELS + HALVES):
        if level.context > 32:
            agree(replace(level, roots=1), seed, processors=(3, 5, 132)[seed % 3] * level.heads)


def random_levels() -> None:
    choose = random.Random(0)
    for seed in range(24):
        level = Level(
            choose.randint(1, 3), choose.randint(1, 5), choose.randint(1, 3), choose.randint(1, 37),
            choose.randint(0, 100), choose.randint(1, 3), choose.randint(1, 64),
            choose.choice([torch.float32, torch.float16]), choose.choice([0.1, 1.0, 100.0]),
        )  # fmt: skip
        agree(level, seed, processors=choose.choice([1, 7, 132]))


def nothing_is_nothing() -> None:
    for level in (Level(roots=0), Level(rows=0), Level(heads=0), Level(queries=0)):
        arguments = level.draw()
        assert tree_attention(*arguments).shape == arguments[0].shape, level


def pages_that_do_not_exist_are_not_read() -> None:
    queries, *rest, table, tokens = Level(slots=3).draw(3)
    table[0, 0, 0], table[1, 2, 1] = len(rest[3]), -5
    queries, tokens = queries.nan_to_num(), torch.full_like(tokens, 10**6)
    rest[3], rest[4] = rest[3].nan_to_num(0, 0, 0), rest[4].nan_to_num(0, 0, 0)
    arguments = (queries, *rest, table, tokens)
    torch.testing.assert_close(tree_attention(*arguments), tree_attention_reference(*arguments), rtol=2e-5, atol=2e-5)


CASES = (
    levels_of_all_kinds,
    levels_with_split_contexts,
    random_levels,
    nothing_is_nothing,
    pages_that_do_not_exist_are_not_read,
)

if __name__ == "__main__":
    for case in CASES:
        case()
        print(f"passed: {case.__name__}")
