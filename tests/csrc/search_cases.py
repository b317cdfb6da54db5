"""What the tests of search trees share."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from jowa.planner.tree import native_available

needs_native = pytest.mark.skipif(not native_available(), reason="the native core was not built")

TIED = np.array([-1.0, 0.0, 0.5, 0.5, 2.0], dtype=np.float32)
"""Few distinct values, so that ties are common."""


def draw_floats(rng: np.random.Generator, shape: tuple[int, ...], infinite: bool = False) -> Any:
    """float32 numbers, half of them from :data:`TIED`; some are -inf if asked for."""
    continuous = rng.normal(size=shape).astype(np.float32)
    numbers = np.where(rng.random(shape) < 0.5, rng.choice(TIED, size=shape), continuous)
    return np.where(infinite & (rng.random(shape) < 0.1), np.float32(-np.inf), numbers)


def draw_legal(rng: np.random.Generator, roots: int, actions: int) -> Any:
    """bool (R, A) with at least one legal action a root, often very few."""
    legal = rng.random((roots, actions)) < rng.uniform(0.1, 1.0)
    legal[np.arange(roots), rng.integers(actions, size=roots)] = True
    return legal


def assert_same(left: Any, right: Any) -> None:
    """Equal arrays, types included, through tuples and dictionaries."""
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        left, right = list(left.values()), [right[key] for key in left]
    for a, b in zip(left, right, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


class Toy:
    """A deterministic world on the integers: action a leads from s to 3 s + a + 1; everything is a table of s."""

    def __init__(self, seed: int, actions: int, end_rate: float) -> None:
        rng = np.random.default_rng(seed)
        states = 3**7
        self.actions = actions
        self.rewards = rng.normal(size=states).astype(np.float32)
        self.values = rng.normal(size=states).astype(np.float32)
        self.q = rng.normal(size=(states, actions)).astype(np.float32)
        self.ends = rng.random(states) < end_rate

    def best_path(self, start: int, horizon: int, gamma: float) -> tuple[float, tuple[int, ...]]:
        """The best score over all paths, by trying each."""
        results = []
        for path in itertools.product(range(self.actions), repeat=horizon):
            state, total, taken = start, 0.0, 0
            for action in path:
                state = 3 * state + action + 1
                total += gamma**taken * float(self.rewards[state])
                taken += 1
                if self.ends[state]:
                    break
            else:
                total += gamma**horizon * float(self.values[state])
            results.append((total, path[:taken]))
        return max(results)


class Pages:
    """What an engine would find in its pages: who wrote each last, a node being its root and path of actions."""

    def __init__(self) -> None:
        self.owner: dict[int, tuple[int, ...]] = {}

    def imagine(self, root: int, path: tuple[int, ...], table: Any, depth: int, pages_per_root: int) -> None:
        """Check a row's table (J,) against the pages of its ancestors, and write its own."""
        row = table.tolist()
        assert len(path) == depth + 1 and all(page == -1 for page in row[depth + 1 :])
        for level, page in enumerate(row[: depth + 1]):
            assert root * pages_per_root <= page < (root + 1) * pages_per_root
            if level < depth:
                assert self.owner[page] == (root, *path[: level + 1]), "an ancestor's page was given away"
        self.owner[row[depth]] = (root, *path)
