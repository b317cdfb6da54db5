"""Batches read ahead, and how much each pixel counts when the tokenizer trains."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from jowa.train.distributed import Place
from jowa.train.feed import Feed, motion_weights
from jowa.types import Batch


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


def same_batches(a: Batch, b: Batch) -> bool:
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(Batch)]
    return all((x is None) == (y is None) and (x is None or torch.equal(x.cpu(), y.cpu())) for x, y in pairs)


def check_order(plain: Feed, ahead: Feed) -> None:
    """In order, out of order, after a jump: always the batch of the step that was asked for."""
    for step in (4, 5, 6, 40, 7, 5, 8, 9):
        assert same_batches(plain.pixels(step), ahead.pixels(step)), step
        (a, weights), (b, others) = plain.tokenizer_frames(step, 10.0), ahead.tokenizer_frames(step, 10.0)
        assert torch.equal(a.cpu(), b.cpu()) and weights is not None and others is not None
        assert torch.equal(weights.cpu(), others.cpu())


def test_batches_read_ahead_are_the_same(small_config, alone) -> None:
    plain, ahead = Feed(small_config(), alone), Feed(small_config(), alone)
    ahead._ahead = 2
    check_order(plain, ahead)
    assert len(ahead._prefetchers) == 2
    ahead.close()
    assert not ahead._prefetchers and same_batches(plain.pixels(9), ahead.pixels(9))
    ahead.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_gpu_are_those_on_a_cpu(small_config, alone) -> None:
    on_gpu = Feed(small_config(), Place(0, 1, torch.device("cuda", 0)))
    check_order(Feed(small_config(), alone), on_gpu)
    on_gpu.close()
