"""The native search tree against its NumPy oracle: one whole search, imagination replaced by fixed numbers."""

from __future__ import annotations

import numpy as np
import pytest

from jowa.planner.tree import NativeBeamTree, ReferenceBeamTree, native_available

WIDTH, HORIZON, ACTIONS = 4, 2, 18


def search(tree_type: type, roots: int) -> np.ndarray:
    """A complete search over random values; returns the chosen actions (R,)."""
    generator = np.random.default_rng(0)
    tree = tree_type(roots, WIDTH, HORIZON, ACTIONS, 0.99, True)
    legal = np.ones((roots, ACTIONS), dtype=np.bool_)
    q = generator.normal(size=(roots, 1, ACTIONS)).astype(np.float32)
    while not tree.finished():
        shape = tree.expand(q, legal).actions.shape
        rewards, values = generator.normal(size=(2, *shape)).astype(np.float32)
        tree.keep(rewards, generator.random(shape) < 0.05, values)
        q = generator.normal(size=(roots, WIDTH, ACTIONS)).astype(np.float32)
    return tree.best()[0]


@pytest.mark.skipif(not native_available(), reason="the native core is not built")
@pytest.mark.parametrize("roots", [1, 16, 256])
def test_native_tree(compare, roots: int) -> None:
    assert np.array_equal(search(NativeBeamTree, roots), search(ReferenceBeamTree, roots))
    shapes = f"roots {roots}, width {WIDTH}, horizon {HORIZON}"
    ratio = compare(
        "native search tree", shapes, lambda: search(NativeBeamTree, roots), lambda: search(ReferenceBeamTree, roots)
    )
    assert ratio > 1
