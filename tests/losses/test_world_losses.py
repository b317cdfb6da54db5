"""The world losses against loops that follow the specification word by word."""

from __future__ import annotations

import pytest
import torch

from jowa.losses import end_loss, frame_loss, reward_loss

B, L, K, V = 4, 3, 36, 7
MASKS = {
    "whole": [[1, 1, 1]] * 4,
    "right": [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 0]],
    "left": [[0, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1]],
    "mixed": [[0, 0, 1], [1, 0, 0], [1, 1, 1], [0, 1, 0]],
}
masks = pytest.mark.parametrize("mask", [torch.tensor(m).bool() for m in MASKS.values()], ids=MASKS)


@masks
def test_frames(mask: torch.Tensor) -> None:
    torch.manual_seed(0)
    logits, tokens = torch.randn(B, K * L, V), torch.randint(V, (B, L, K))
    surprise = []
    for row in range(B):
        for step in range(L):
            for token in range(K):
                place = step * K + token
                if mask[row, step] and place > 0:  # nothing comes before the first token
                    surprise.append(-logits[row, place - 1].log_softmax(0)[tokens[row, step, token]])
    torch.testing.assert_close(frame_loss(logits, tokens, mask), torch.stack(surprise).mean())


@masks
def test_rewards_are_learned_by_their_sign(mask: torch.Tensor) -> None:
    torch.manual_seed(0)
    logits, rewards = torch.randn(B, L, 3), torch.tensor([-1.0, -0.25, 0.0, 0.5])[torch.randint(4, (B, L))]
    surprise = []
    for row, step in mask.nonzero().tolist():
        reward = rewards[row, step].item()
        surprise.append(-logits[row, step].log_softmax(0)[(reward > 0) - (reward < 0) + 1])
    torch.testing.assert_close(reward_loss(logits, rewards, mask), torch.stack(surprise).mean())


@masks
def test_ends(mask: torch.Tensor) -> None:
    torch.manual_seed(0)
    logits, ends = torch.randn(B, L, 2), torch.rand(B, L) < 0.5
    surprise = [-logits[r, s].log_softmax(0)[int(ends[r, s])] for r, s in mask.nonzero().tolist()]
    torch.testing.assert_close(end_loss(logits, ends, mask), torch.stack(surprise).mean())


def test_what_stands_in_padding_changes_nothing_and_gets_no_gradient() -> None:
    torch.manual_seed(0)
    mask = torch.tensor(MASKS["right"]).bool()
    logits, tokens = torch.randn(B, K * L, V, requires_grad=True), torch.randint(V, (B, L, K))
    other = torch.where(mask[:, :, None], tokens, (tokens + 1) % V)
    assert torch.equal(frame_loss(logits, tokens, mask), frame_loss(logits, other, mask))
    frame_loss(logits, tokens, mask).backward()
    predicted = torch.cat([mask.repeat_interleave(K, 1)[:, 1:], torch.zeros(B, 1, dtype=torch.bool)], 1)
    assert torch.equal(logits.grad.abs().sum(2) > 0, predicted)


def test_nothing_but_padding_is_zero_not_nan() -> None:
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    assert frame_loss(torch.randn(1, 72, V), torch.zeros(1, 2, 36, dtype=torch.int64), nothing) == 0
    assert reward_loss(torch.randn(1, 2, 3), torch.zeros(1, 2), nothing) == 0
    assert end_loss(torch.randn(1, 2, 2), nothing, nothing) == 0
