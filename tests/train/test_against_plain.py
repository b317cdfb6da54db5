"""The trainer against plain PyTorch (benchmarks/plain_training.py): the same losses at every step."""

from __future__ import annotations

import copy
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from jowa.train.feed import Feed
from jowa.train.loop import Trainer

sys.path.insert(0, str(Path(__file__).parents[2]))
PlainStep = importlib.import_module("benchmarks.plain_training").PlainStep
sys.path.pop(0)


@pytest.mark.parametrize("steps", [10, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", [1, 2])
def test_the_loss_curves_lie_on_each_other(
    small_config: Any, run_trainer: Any, alone: Any, stage: int, steps: int
) -> None:
    changes = {
        "model.dropout": 0.0, "model.q_dropout": 0.0, "optimizer.warmup_steps": 0, "optimizer.final_fraction": 1.0,
        "stage1.steps": steps if stage == 1 else 0, "stage1.world_from": 0, "stage1.motion_weight": 0.0,
        "stage1.revive_every": 0, "stage1.world_from_codebook": False, "stage2.steps": steps if stage == 2 else 0,
        "stage1.learning_rate": 1e-4, "stage1.tokenizer_learning_rate": 1e-4,
        "stage2.target_every": 10_000, "checkpoint.every": 10_000,
    }  # fmt: skip
    config = small_config(changes)
    start, curve = Trainer(config, alone), []
    tokenizer, objective = copy.deepcopy(start.tokenizer), copy.deepcopy(start.objective)
    run_trainer(config, lambda trainer, step, metrics: curve.append(metrics))

    feed = Feed(config, alone)
    rates = (config.stage1 if stage == 1 else config.stage2).learning_rate, config.stage1.tokenizer_learning_rate
    plain = PlainStep(objective, tokenizer if stage == 1 else None, None, rates, config.optimizer.weight_decay)
    if stage == 2:
        feed.encode(tokenizer, None)
    plain_curve = []
    for step in range(steps):
        batch = feed.pixels(step) if stage == 1 else feed.tokens(step)
        frames = feed.tokenizer_frames(step, 0.0)[0] if stage == 1 else None
        plain_curve.append(plain(batch, frames, critic=stage == 2))
    # In stage 1 rounding soon turns one token into another: there, averages of ten steps are compared.
    width, tolerance = (10, 0.1) if stage == 1 and steps > 10 else (1, 0.02)
    for name in plain_curve[0]:
        found, expected = (torch.tensor([row[name] for row in rows]).view(-1, width).mean(1)
                           for rows in (curve, plain_curve))  # fmt: skip
        assert found.isfinite().all()
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=2e-3)
