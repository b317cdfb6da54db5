"""Recorded searches: every call's arguments and answers, as JSON.  Run as a script, it records them by the oracles.

Record again only when a rule of the search is meant to change, and say so in the commit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from jowa.planner.tree import MCTSSettings, ReferenceBeamTree, ReferenceMCTSTree

FOLDER = Path(__file__).with_name("golden_trees")
Encoded = dict[str, Any]


def encode(array: Any) -> Encoded | None:
    """An array that reads back to the last bit; float64 JSON holds every float32."""
    return None if array is None else {"dtype": str(array.dtype), "values": array.tolist()}


def decode(encoded: Encoded | None) -> Any:
    return None if encoded is None else np.array(encoded["values"], dtype=encoded["dtype"])


def answers(result: Any) -> list[Any]:
    """The arrays of an answer, in order."""
    if result is None:
        return []
    if isinstance(result, dict):
        return list(result.values())
    return list(result) if isinstance(result, tuple) else [result]


class Recorder:
    """Calls a tree's methods and keeps what went in and out."""

    def __init__(self, tree: Any) -> None:
        self.tree, self.calls = tree, []

    def __call__(self, method: str, *arguments: Any) -> Any:
        result = getattr(self.tree, method)(*arguments)
        self.calls.append(
            {
                "method": method,
                "arguments": [encode(argument) for argument in arguments],
                "answers": [encode(answer) for answer in answers(result)],
            }
        )
        return result


def record_beam(respect_ends: bool) -> Encoded:
    rng = np.random.default_rng(0)
    widths, horizons = np.array([3, 1, 2]), np.array([3, 2, 0])
    tree = Recorder(ReferenceBeamTree(widths, horizons, 4, 0.9, respect_ends))
    legal, slots = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 1, 1]], bool), 1
    while not tree.tree.finished():
        shape = tree("expand", rng.normal(size=(3, slots, 4)).astype(np.float32), legal).valid.shape
        rewards, values = rng.integers(-1, 2, shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)
        tree("keep", rewards, rng.random(shape) < 0.3, values)
        tree("best")
        slots = 3
    for method in ("beam", "nodes"):
        tree(method)
    return {"widths": widths.tolist(), "horizons": horizons.tolist(), "num_actions": 4, "gamma": 0.9,
            "respect_ends": respect_ends, "calls": tree.calls}  # fmt: skip


def record_mcts(gumbel: bool) -> Encoded:
    rng = np.random.default_rng(1)
    tree = Recorder(ReferenceMCTSTree(2, 12, 4, MCTSSettings(gumbel=gumbel)))
    legal = np.array([[1, 1, 1, 1], [1, 0, 1, 0]], bool)
    q, noise = rng.normal(size=(2, 2, 4)).astype(np.float32)
    tree("start", np.ones(2, bool), q, legal, np.array([4, 3]), None, noise, np.full(2, 10), np.array([3, 2]))
    for turn in range(6):
        shape = tree("select", np.array([2, 3])).valid.shape
        rewards = rng.integers(-1, 2, shape).astype(np.float32)
        tree("backup", rewards, rng.random(shape) < 0.3, rng.normal(size=(*shape, 4)).astype(np.float32))
        best = tree("best")
        if turn == 3:
            tree("advance", np.ones(2, bool), best[0], noise[::-1].copy())
    for method in ("root_children", "nodes", "simulations", "origins"):
        tree(method)
    return {"num_roots": 2, "capacity": 12, "num_actions": 4, "gumbel": gumbel, "calls": tree.calls}


if __name__ == "__main__":
    for flag in (False, True):
        for name, case in (("beam", record_beam(flag)), ("mcts", record_mcts(flag))):
            path = FOLDER / f"{name}-{'with' if flag else 'without'}-{'ends' if name == 'beam' else 'gumbel'}.json"
            path.write_text(json.dumps(case) + "\n", encoding="utf-8")
