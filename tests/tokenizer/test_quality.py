"""What counts as moving, as small, as a ball; and the measure of it against frames whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jowa.config import TokenizerConfig
from jowa.tokenizer import Tokenizer
from jowa.tokenizer.quality import SMALL, measure, moving_pixels, small_patches

PLAIN = TokenizerConfig("local", vocab_size=32, code_dim=8, channels=12)


def flight(steps: int = 5) -> np.ndarray:
    """A ball of 2 x 2 pixels flies over black; a block of 20 x 20 blinks."""
    frames = np.zeros((steps, 84, 84), dtype=np.uint8)
    for step in range(steps):
        frames[step, 10:12, 6 * step : 6 * step + 2] = 200
        frames[step, 50:70, 50:70] = 100 * (step % 2)
    return frames


class Painter(Tokenizer):
    """Decodes every frame as it is told to, in order."""

    def __init__(self, painted: np.ndarray) -> None:
        super().__init__(PLAIN)
        self.painted, self.at = torch.from_numpy(painted), 0

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.arange(len(frames))[:, None] // torch.arange(1, 37)

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        self.at += len(tokens)
        return self.painted[self.at - len(tokens) : self.at].float() / 255


def test_moving_pixels_and_small_patches() -> None:
    frames = flight()
    moving = moving_pixels(frames)
    assert moving.shape == (4, 84, 84) and moving.sum() == 4 * (4 + 4 + 400), "where the ball was, is, and the block"
    small = small_patches(moving)
    assert small.sum() == 4 * 8 and not small[:, 40:].any()
    diagonal = np.zeros((2, 84, 84), dtype=bool)
    diagonal[0, range(SMALL + 1), range(SMALL + 1)] = True  # touches itself by its corners
    diagonal[1, range(SMALL), range(SMALL)] = True
    assert not small_patches(diagonal)[0].any() and small_patches(diagonal)[1].sum() == SMALL
    dim = flight()
    assert not moving_pixels(np.minimum(dim, 24)).any()


def test_a_perfect_tokenizer() -> None:
    found = measure(Painter(flight()), [flight()])
    assert (found.moving_recall, found.small_recall, found.ball_recall, found.error) == (1, 1, 1, 0)
    assert found.frames == 5


def test_a_lost_ball_shows() -> None:
    """Where the ball was is black again, so half of what moved is right; where it is, nothing is."""
    painted = flight()
    painted[:, 10:12] = 0
    found = measure(Painter(painted), [flight()])
    assert found.small_recall == pytest.approx(0.5) and found.ball_recall == 0
    assert found.moving_recall == pytest.approx(1 - 16 / (4 * 408))
    assert found.error == pytest.approx(200 * 4 / 84**2)


def test_tolerance_tokens_and_codes() -> None:
    painted = np.where(flight() > 0, flight() - 32, 0).astype(np.uint8)
    found = measure(Painter(painted), [flight()])
    assert found.ball_recall == 1
    painted = np.where(flight() > 0, flight() - 33, 0).astype(np.uint8)
    found = measure(Painter(painted), [flight()])
    assert found.ball_recall == 0
    tokens = np.arange(5)[:, None] // np.arange(1, 37)
    assert found.tokens_changed == pytest.approx((tokens[1:] != tokens[:-1]).sum() / 4)
    assert found.codes_used == 5


def test_stretches_are_apart_and_nothing_moving_is_no_number() -> None:
    black, white = np.zeros((2, 84, 84), dtype=np.uint8), np.full((3, 84, 84), 255, dtype=np.uint8)
    found = measure(Painter(np.concatenate([black, white])), [black, white])
    assert np.isnan(found.moving_recall) and np.isnan(found.ball_recall), "no step leads from one to the other"
    assert found.error == 0 and found.frames == 5


def test_a_real_tokenizer_gives_shares() -> None:
    torch.manual_seed(0)
    found = measure(Tokenizer(PLAIN), [flight(7)])
    assert 0 <= found.moving_recall <= 1 and 0 < found.error < 255 and 1 <= found.codes_used <= 32
