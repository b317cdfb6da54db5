"""Observed returns in the critic's target."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from jowa.config import ModelConfig, ObjectiveConfig
from jowa.kernels.c51_projection import c51_projection
from jowa.losses import td_successors
from jowa.model import WorldActionModel
from jowa.model.heads import q_distribution
from jowa.model.objective import Objective, target_counts, td_steps
from jowa.types import Batch

SMALL = ModelConfig(
    layers=1, heads=2, width=16, q_width=12, q_ensemble=2, vocab_size=20, context_steps=4, num_tasks=5, dropout=0.0,
    q_dropout=0.0,
)  # fmt: skip
GAMMA = 0.9


@pytest.fixture
def model() -> WorldActionModel:
    torch.manual_seed(0)
    return WorldActionModel(SMALL)


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(1)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    ends = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]]).bool()
    rewards = torch.tensor([[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    returns = torch.tensor([[2.2, 4 / 3, 1.5, 2.5], [0.9, 1.0, 0.0, 0.0]])
    return Batch(
        None, torch.randint(20, (2, 4, 36)), torch.randint(18, (2, 4)), rewards, ends, mask, torch.tensor([0, 4]),
        torch.ones(2, 18).bool(), returns,
    )  # fmt: skip


def td_by_hand(model: WorldActionModel, batch: Batch, share: float) -> torch.Tensor:
    """Step by step: the mixture of both targets, as far as there are both."""
    p = model(batch.tokens, batch.actions, batch.tasks, target=True)
    after = td_successors(q_distribution(p.q_target), batch.legal, -10.0, 30.0)
    chosen = q_distribution(p.q)
    losses = []
    for row, step in batch.mask.nonzero().tolist():
        reward, end = batch.rewards[row, step][None], bool(batch.ends[row, step])
        followed = step + 1 < 4 and bool(batch.mask[row, step + 1])
        seen = c51_projection(after[row, step][None], batch.returns[row, step][None], torch.zeros(1), -10.0, 30.0)
        if end:
            target = c51_projection(after[row, step][None], reward, torch.zeros(1), -10.0, 30.0)
        elif followed:
            guessed = c51_projection(after[row, step][None], reward, torch.full((1,), GAMMA), -10.0, 30.0)
            target = (1 - share) * guessed + share * seen
        else:
            target = seen
        p_action = chosen[row, step, batch.actions[row, step]]
        losses.append(-(target[0] * (p_action + 1e-8).log()).sum())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_target_mixes_what_was_observed_with_what_is_guessed(
    model: WorldActionModel, batch: Batch, share: float
) -> None:
    objective = Objective(model, ObjectiveConfig(gamma=GAMMA, observed_weight=share))
    found = objective(batch, critic=True)["td"]
    # A point between two atoms is projected once as a return, and again after it was discounted: spread a little wider.
    torch.testing.assert_close(found, td_by_hand(model, batch, share), rtol=2e-3, atol=1e-3)


def test_imagined_steps_have_no_observed_return(model: WorldActionModel, batch: Batch) -> None:
    imagined = torch.ones(2).bool()
    plain = dataclasses.replace(batch, returns=None, imagined=imagined)
    without = Objective(model, ObjectiveConfig(gamma=GAMMA))(plain, critic=True)["td"]
    mixed = Objective(model, ObjectiveConfig(gamma=GAMMA, observed_weight=1.0))
    torch.testing.assert_close(mixed(dataclasses.replace(batch, imagined=imagined), critic=True)["td"], without)


def test_a_step_without_successor_counts_too(batch: Batch) -> None:
    assert td_steps(batch, batch.mask).equal(batch.mask)
    assert td_steps(dataclasses.replace(batch, returns=None), batch.mask).sum() == 5
    assert target_counts(batch, critic=True)[3] == 6
