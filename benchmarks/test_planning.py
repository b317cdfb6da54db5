"""Planning for many environments in one batch against the same planner, one environment at a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from jowa.config import PRESETS
from jowa.model import WorldActionModel
from jowa.planner import BeamPlanner, Context, PlannerConfig


def contexts(roots: int, steps: int, vocabulary: int, device: torch.device) -> Context:
    """Random contexts of equal length."""
    generator = torch.Generator().manual_seed(0)
    return Context(
        torch.randint(0, vocabulary, (roots, steps, 36), generator=generator).to(device),
        torch.randint(0, 18, (roots, steps), generator=generator).to(device),
        torch.full((roots,), steps, device=device),
        torch.zeros(roots, dtype=torch.long, device=device),
        torch.ones(roots, 18, dtype=torch.bool, device=device),
    )


def part(context: Context, root: int) -> Context:
    """One root alone."""
    return Context(*(getattr(context, field.name)[root : root + 1] for field in dataclasses.fields(context)))


@pytest.mark.parametrize("roots", [4, 16])
def test_batched_planning(compare, roots: int) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = PRESETS["tiny"].model
    torch.manual_seed(0)
    planner = BeamPlanner(WorldActionModel(config).eval().to(device), PlannerConfig("beam", 2, 2))
    context = contexts(roots, 2, config.vocab_size, device)
    together = planner.plan(context).actions
    alone = np.concatenate([planner.plan(part(context, root)).actions for root in range(roots)])
    assert np.array_equal(together, alone)
    ratio = compare(
        "batched planning", f"tiny, {roots} environments, context 2, width 2, horizon 2",
        lambda: planner.plan(context), lambda: [planner.plan(part(context, root)) for root in range(roots)], runs=5,
    )  # fmt: skip
    assert ratio > 1
