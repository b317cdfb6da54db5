"""The ablations' losses, step by step in plain arithmetic, and beside the losses they stand in for."""

from __future__ import annotations

import math

import pytest
import torch

from jowa.losses import (
    c51_td,
    critic_losses,
    masked_mean,
    mixed_distribution,
    mixed_values,
    pull_up,
    push_down,
    rem_weights,
    squared_td,
)
from jowa.model.heads import expectation, member_values

LOW, HIGH = -10.0, 30.0


def test_squared_td_step_by_step() -> None:
    torch.manual_seed(0)
    q, target = torch.randn(2, 4, 18), torch.randn(2, 4, 18)
    actions, rewards = torch.randint(18, (2, 4)), torch.randn(2, 4)
    ends, legal = torch.rand(2, 4) < 0.3, torch.rand(2, 18) < 0.4
    legal[:, 3] = True
    found = squared_td(q, actions, target, legal, rewards, 0.9 * (~ends).float())
    assert ends[:, :3].any() and not ends[:, :3].all()
    for row in range(2):
        for step in range(3):
            best = max(float(target[row, step + 1, a]) for a in range(18) if legal[row, a])
            wanted = float(rewards[row, step]) + (0.0 if ends[row, step] else 0.9 * best)
            error = float(q[row, step, actions[row, step]]) - wanted
            assert found[row, step].item() == pytest.approx(error**2, rel=1e-5, abs=1e-6)


def test_squared_td_gives_the_target_no_gradient() -> None:
    q, target = torch.randn(1, 2, 18, requires_grad=True), torch.randn(1, 2, 18, requires_grad=True)
    squared_td(
        q, torch.zeros(1, 2).long(), target, torch.ones(1, 18).bool(), torch.zeros(1, 2), torch.ones(1, 2)
    ).sum().backward()
    assert target.grad is None and q.grad is not None and int((q.grad != 0).sum()) == 2


def test_rem_weights_are_convex_random_and_seeded() -> None:
    torch.manual_seed(5)
    first, second = rem_weights(4, torch.device("cpu")), rem_weights(4, torch.device("cpu"))
    torch.manual_seed(5)
    assert torch.equal(first, rem_weights(4, torch.device("cpu"))) and not torch.equal(first, second)
    torch.manual_seed(5)
    drawn = torch.rand(4)
    torch.testing.assert_close(first, drawn / drawn.sum())
    assert rem_weights(1, torch.device("cpu")).item() == 1.0


def test_a_mixture_by_hand() -> None:
    logits, weights = torch.randn(3, 2, 5), torch.tensor([0.5, 0.2, 0.3])
    by_hand = sum(float(w) * one.softmax(-1) for w, one in zip(weights, logits, strict=True))
    torch.testing.assert_close(mixed_distribution(logits, weights), by_hand)
    torch.testing.assert_close(mixed_values(logits, None), (logits[0] + logits[1] + logits[2]) / 3)


def test_from_distributions_as_from_logits() -> None:
    """The parts that ablations are made of give the fused loss where nothing is ablated."""
    torch.manual_seed(3)
    logits, actions = torch.randn(2, 3, 4, 18, 51), torch.randint(18, (3, 4))
    successor, rewards = torch.randn(3, 4, 51).softmax(-1), torch.randn(3, 4).clamp(-1, 1)
    discounts, mask = 0.99 * (torch.rand(3, 4) < 0.8).float(), torch.rand(3, 4) < 0.7
    td, cql = critic_losses(logits, actions, successor, rewards, discounts, mask, mask, LOW, HIGH)
    predicted = mixed_distribution(logits, None)
    values = expectation(predicted, LOW, HIGH)
    step_by_step = c51_td(predicted, actions, successor, rewards, discounts, LOW, HIGH)
    torch.testing.assert_close(masked_mean(step_by_step, mask), td)
    torch.testing.assert_close(push_down(values, mask) + pull_up(values, actions, mask), cql)


def test_push_and_pull_by_hand() -> None:
    values = torch.zeros(1, 3, 18)
    values[0, :, 4] = torch.tensor([1.0, 2.0, 50.0])
    actions, mask = torch.tensor([[4, 4, 4]]), torch.tensor([[True, True, False]])
    spread = [math.log(17 + math.exp(q)) for q in (1.0, 2.0)]
    assert push_down(values, mask).item() == pytest.approx(sum(spread) / 2, rel=1e-6)
    assert pull_up(values, actions, mask).item() == pytest.approx(-1.5)
    assert pull_up(values, actions, torch.zeros_like(mask)) == 0


def test_one_atom_is_the_value() -> None:
    logits = torch.randn(2, 3, 18, 1)
    assert torch.equal(member_values(logits, LOW, HIGH), logits[..., 0])
