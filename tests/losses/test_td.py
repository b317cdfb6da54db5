"""TD targets and weights, and the conservative term, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from jowa.kernels.c51_projection import c51_projection
from jowa.losses import critic_losses, td_successors, td_weights

LOW, HIGH, GAMMA, Z, A = -10.0, 30.0, 0.99, 51, 18
ATOMS = torch.linspace(LOW, HIGH, Z)


def draw(batch: int, steps: int, seed: int = 0) -> torch.Tensor:
    """Value distributions (B, L, A, Z)."""
    return torch.randn(batch, steps, A, Z, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(-1)


def td_targets(target, rewards, ends, legal):
    """The projected targets (B, L, Z), as the loss sees them."""
    successor = td_successors(target, legal, LOW, HIGH)
    discounts = GAMMA * (~ends).float()
    projected = c51_projection(successor.flatten(0, 1), rewards.flatten(), discounts.flatten(), LOW, HIGH)
    return projected.view_as(successor)


def test_targets_step_by_step() -> None:
    torch.manual_seed(1)
    target, rewards, ends = draw(3, 4), torch.randn(3, 4).clamp(-1, 1), torch.rand(3, 4) < 0.3
    legal = torch.rand(3, A) < 0.3
    legal[:, 5] = True
    found = td_targets(target, rewards, ends, legal)
    for row in range(3):
        for step in range(4):
            if ends[row, step]:
                successor, discount = torch.full((Z,), 1 / Z), 0.0  # any distribution: it is silenced
            elif step == 3:
                continue
            else:
                values = {a: float(target[row, step + 1, a] @ ATOMS) for a in range(A) if legal[row, a]}
                successor, discount = target[row, step + 1, max(values, key=values.__getitem__)], GAMMA
            expected = c51_projection(
                successor[None], rewards[row, step : step + 1], torch.tensor([discount]), LOW, HIGH
            )
            torch.testing.assert_close(found[row, step], expected[0])


def test_an_illegal_action_is_never_the_successor() -> None:
    target = torch.zeros(1, 2, A, Z)
    target[..., 0] = 1.0  # every legal action is worth -10
    target[:, :, 7] = torch.eye(Z)[-1]  # the illegal one 30
    legal = torch.ones(1, A, dtype=torch.bool)
    legal[0, 7] = False
    found = td_targets(target, torch.zeros(1, 2), torch.zeros(1, 2).bool(), legal)
    assert found[0, 0] @ ATOMS == pytest.approx(-9.9, abs=1e-4)


def test_an_end_is_the_projection_of_the_reward_alone() -> None:
    ends = torch.tensor([[False, True]])
    found = td_targets(draw(1, 2), torch.ones(1, 2), ends, torch.ones(1, A).bool())
    expected = torch.zeros(Z)
    expected[13], expected[14] = 0.25, 0.75  # 1 lies between the atoms 0.4 and 1.2
    torch.testing.assert_close(found[0, 1], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("mask", "ends", "expected"),
    [
        ([1, 1, 1], [0, 0, 0], [1, 1, 0]),  # cut off: the last step has no target
        ([1, 1, 1], [0, 0, 1], [1, 1, 1]),
        ([1, 1, 0], [0, 1, 0], [1, 1, 0]),  # right-padded after an end
        ([1, 1, 0], [0, 0, 0], [1, 0, 0]),
        ([0, 1, 1], [0, 0, 0], [0, 1, 0]),  # left-padded
        ([0, 0, 0], [1, 1, 1], [0, 0, 0]),
    ],
)
def test_which_steps_have_a_target(mask, ends, expected) -> None:
    found = td_weights(torch.tensor([ends]).bool(), torch.tensor([mask]).bool())
    assert found.tolist() == [[bool(one) for one in expected]]


def losses(predicted, actions, targets, weights, mask):
    """Of an ensemble of one, whose logits give the distributions ``predicted``; the targets are where they stay."""
    still = torch.zeros(actions.shape), torch.ones(actions.shape)
    return critic_losses(predicted.log()[None], actions, targets, *still, weights, mask, LOW, HIGH)


def test_td_step_by_step() -> None:
    torch.manual_seed(2)
    predicted, actions = draw(2, 3), torch.randint(A, (2, 3))
    targets, weights = torch.rand(2, 3, Z).softmax(-1), torch.tensor([[True, False, True], [False, False, True]])
    terms = [
        -(targets[r, s] * (predicted[r, s, actions[r, s]] + 1e-8).log()).sum() for r, s in weights.nonzero().tolist()
    ]
    torch.testing.assert_close(losses(predicted, actions, targets, weights, weights)[0], torch.stack(terms).mean())
    assert losses(predicted, actions, targets, torch.zeros_like(weights), weights)[0] == 0


def test_the_ensemble_is_averaged_as_distributions() -> None:
    members = torch.stack([draw(1, 2, seed) for seed in range(3)])
    actions, targets, all_steps = torch.zeros(1, 2).long(), draw(1, 2, 9)[:, :, 0], torch.ones(1, 2).bool()
    still = torch.zeros(1, 2), torch.ones(1, 2)
    found = critic_losses(members.log(), actions, targets, *still, all_steps, all_steps, LOW, HIGH)
    expected = losses(members.mean(0), actions, targets, all_steps, all_steps)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected))


def test_a_probability_of_zero_is_finite() -> None:
    predicted, one = torch.eye(Z)[0].expand(1, 1, A, Z), torch.ones(1, 1).bool()
    td, _ = losses(predicted, torch.zeros(1, 1).long(), torch.eye(Z)[5].view(1, 1, Z), one, one)
    assert td.item() == pytest.approx(-math.log(1e-8), rel=1e-4)


def test_the_conservative_term_by_hand() -> None:
    predicted = torch.zeros(1, 3, A, Z)
    predicted[:] = torch.eye(Z)[15]  # every action is worth 2
    predicted[0, 0, 4] = predicted[0, 1, 4] = torch.eye(Z)[20]  # and this one 6
    actions, mask = torch.tensor([[4, 0, 0]]), torch.tensor([[True, True, False]])
    targets = torch.full((1, 3, Z), 1 / Z)
    spread = math.log(17 * math.exp(2.0) + math.exp(6.0))  # over all 18 actions, legal or not
    _, cql = losses(predicted, actions, targets, mask, mask)
    assert cql.item() == pytest.approx(((spread - 6.0) + (spread - 2.0)) / 2, rel=1e-5)
    assert losses(predicted, actions, targets, mask, torch.zeros_like(mask))[1] == 0
