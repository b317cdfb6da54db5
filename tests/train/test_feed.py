"""How much each pixel counts when the tokenizer trains."""

from __future__ import annotations

import pytest
import torch

from jowa.train.feed import motion_weights


def still(steps: int = 3) -> torch.Tensor:
    return torch.full((1, steps, 84, 84), 60, dtype=torch.uint8)


def test_pixels_at_rest_count_once() -> None:
    frames = still()
    frames[0, 1, 5, 5] = 60 + 24  # no more than noise
    assert torch.equal(motion_weights(frames, 1600.0), torch.ones(1, 3, 84, 84))


def test_a_patch_with_motion_weighs_the_same_however_few_pixels_move() -> None:
    frames = still(2)
    frames[0, 1, 3, 2:4] = 200  # a ball of two pixels in the patch at row 0, column 0
    frames[0, 1, 30:40, 60:68] = 200  # eighty pixels in the patch at row 2, column 4
    extra = motion_weights(frames, 1600.0) - 1
    patches = extra.unflatten(2, (6, 14)).unflatten(4, (6, 14)).sum((3, 5))
    assert patches[0, 1, 0, 0].item() == pytest.approx(1600) and patches[0, 1, 2, 4].item() == pytest.approx(1600)
    assert patches[0, 1].sum().item() == pytest.approx(3200), "the others have no motion"
    assert extra[0, 1, 3, 2].item() == pytest.approx(800) and extra[0, 1, 35, 62].item() == pytest.approx(20)


def test_motion_counts_before_and_after_it_shows() -> None:
    frames = still(4)
    frames[0, 2, 50, 50] = 255
    extra = motion_weights(frames, 10.0)[0, :, 50, 50] - 1
    # A single pixel gets half of its patch's weight, lest it outweigh all else.
    assert extra.tolist() == [0.0, 5.0, 5.0, 5.0]
