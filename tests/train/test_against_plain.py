"""The trainer against plain PyTorch (benchmarks/plain_training.py): the same losses at every step."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from jowa.tokenizer.patches import PIXELS

sys.path.insert(0, str(Path(__file__).parents[2]))
plain = importlib.import_module("benchmarks.plain_training")
sys.path.pop(0)


TOKENIZERS = {"local": {}, "patches": {"tokenizer.encoder": "patches", "tokenizer.code_dim": PIXELS}}


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("stage", [1, 2])
def test_the_loss_curves_lie_on_each_other(small_config: Any, alone: Any, stage: int, tokenizer: str) -> None:
    """Ten steps; benchmarks/test_training.py takes two hundred."""
    config = plain.comparable(small_config(TOKENIZERS[tokenizer]), stage, steps=10)
    curve, expected = plain.both_curves(config, stage, alone)
    assert len(curve) == len(expected) == 10
    for name in expected[0]:
        found, wanted = (torch.tensor([row[name] for row in rows]) for rows in (curve, expected))
        assert found.isfinite().all()
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=2e-3)
