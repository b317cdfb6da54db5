"""The native search trees against the same searches in plain Python and in batched tensors; imagination is recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.torch_trees import TorchBeam, TorchMCTS
from jowa.planner.tree import (
    NativeBeamTree,
    NativeMCTSTree,
    ReferenceBeamTree,
    ReferenceMCTSTree,
    native_available,
)

WIDTH, HORIZON, ACTIONS, GAMMA = 4, 3, 18, 0.99
SIMULATIONS, DEPTH = 36, 7
ROOTS = [1, 4, 16, 64, 256, 1024]
PAUSE = 0.02
"""torch's threads spin behind each operation on the cores that the tree needs; planners hold torch to one thread."""
pytestmark = pytest.mark.skipif(not native_available(), reason="the native core is not built")


def recorded(roots: int, rounds: int, rows: int) -> tuple[Any, ...]:
    """What was imagined in each round: rewards, ends, values, q; random and made outside the clock."""
    rng = np.random.default_rng(0)
    shape = (rounds, roots, rows)
    return (
        rng.integers(-1, 2, shape).astype(np.float32),
        rng.random(shape) < 0.05,
        rng.normal(size=shape).astype(np.float32),
        rng.normal(size=(*shape, ACTIONS)).astype(np.float32),
    )


class Beams:
    """A whole beam search over recorded numbers."""

    def __init__(self, roots: int) -> None:
        self.roots, self.legal = roots, np.ones((roots, ACTIONS), np.bool_)
        rewards, ends, values, q = recorded(roots, HORIZON, WIDTH * WIDTH)
        self.levels = []
        for level, slots in enumerate((1, WIDTH, WIDTH)):
            given = (array[level, :, : slots * WIDTH] for array in (rewards, ends, values))
            self.levels.append([np.ascontiguousarray(array) for array in (q[level, :, :slots], *given)])
        self.tensors = [[torch.from_numpy(array) for array in level] for level in self.levels]
        sizes = np.full(roots, WIDTH), np.full(roots, HORIZON)
        self.native = NativeBeamTree(*sizes, ACTIONS, GAMMA)
        self.oracle = ReferenceBeamTree(*sizes, ACTIONS, GAMMA)

    def run(self, tree: Any) -> Any:
        tree.reset()
        for q, *given in self.levels:
            tree.expand(q, self.legal)
            tree.keep(*given)
        return tree.best()[0]

    def in_torch(self) -> Any:
        tree, legal = TorchBeam(self.roots, WIDTH, GAMMA), torch.from_numpy(self.legal)
        for q, *given in self.tensors:
            tree.expand(q, legal)
            tree.keep(*given)
        return tree.first[:, 0].numpy()


class Walks:
    """A whole Monte-Carlo search over recorded numbers, one leaf a round."""

    def __init__(self, roots: int) -> None:
        self.roots, self.legal = roots, np.ones((roots, ACTIONS), np.bool_)
        rewards, ends, _, q = recorded(roots, SIMULATIONS, 1)
        self.numbers, self.q = (rewards, ends, q), q[0, :, 0][::-1].copy()
        self.tensors = [torch.from_numpy(array[:, :, 0]) for array in self.numbers]
        self.native = NativeMCTSTree(roots, SIMULATIONS, ACTIONS)
        self.oracle = ReferenceMCTSTree(roots, SIMULATIONS, ACTIONS)
        self.one = np.ones(roots, np.int64)

    def run(self, tree: Any) -> Any:
        tree.start(self.one > 0, self.q, self.legal, np.full(self.roots, DEPTH))
        rewards, ends, q = self.numbers
        for index in range(SIMULATIONS):
            tree.select(self.one)
            tree.backup(rewards[index], ends[index], q[index])
        return tree.best()[0]

    def in_torch(self) -> Any:
        legal = torch.from_numpy(self.legal)
        tree = TorchMCTS(self.roots, SIMULATIONS + 2, torch.from_numpy(self.q), legal, DEPTH, GAMMA)
        rewards, ends, q = self.tensors
        for index in range(SIMULATIONS):
            tree.simulate(rewards[index], ends[index], q[index])
        return tree.best().numpy()


@pytest.mark.parametrize("roots", ROOTS)
@pytest.mark.parametrize("kind", [Beams, Walks])
def test_native_tree(compare, kind: Any, roots: int) -> None:
    work = kind(roots)
    chosen = work.run(work.native)
    assert (chosen == work.in_torch()).mean() >= 0.98, "the rival does other work"  # last bits may decide otherwise
    steps = WIDTH + (HORIZON - 1) * WIDTH**2 if kind is Beams else SIMULATIONS
    name = "beam search" if kind is Beams else "Monte-Carlo search"
    shapes = f"roots {roots}, " + (
        f"width {WIDTH}, horizon {HORIZON}" if kind is Beams else f"{SIMULATIONS} simulations"
    )
    ratio = compare(
        f"native {name} beside batched tensors", shapes, lambda: work.run(work.native), work.in_torch, 5, PAUSE
    )
    assert ratio > 1
    seconds = compare.rows[-1]["seconds"]["ours"]
    compare.note(f"native {name}, rate", shapes, nodes_per_second=roots * steps / seconds,
                 microseconds_a_root=1e6 * seconds / roots)  # fmt: skip
    if roots <= 16:
        assert np.array_equal(chosen, work.run(work.oracle))
        plain = f"native {name} beside plain Python"
        assert compare(plain, shapes, lambda: work.run(work.native), lambda: work.run(work.oracle), 3) > 1
