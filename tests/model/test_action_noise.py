"""The option that hides remembered actions from the critic."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from jowa.config import ModelConfig, ObjectiveConfig
from jowa.model import WorldActionModel
from jowa.model.objective import Objective
from jowa.types import Batch

SIZES = ModelConfig(layers=1, heads=2, width=16, q_width=16, q_ensemble=1, vocab_size=32, dropout=0.0, q_dropout=0.0)


def make_batch(noise: float, rows: int = 4, steps: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    legal = torch.zeros(rows, 18, dtype=torch.bool)
    legal[:, [0, 3, 4]] = True
    return Batch(
        frames=None,
        tokens=torch.randint(0, 32, (rows, steps, 36), generator=generator),
        actions=torch.full((rows, steps), 3),
        rewards=torch.ones(rows, steps),
        ends=torch.zeros(rows, steps, dtype=torch.bool),
        mask=torch.ones(rows, steps, dtype=torch.bool),
        tasks=torch.zeros(rows, dtype=torch.long),
        legal=legal,
        noisy=torch.arange(rows) < round(noise * rows) if noise else None,
    )


def losses(batch: Batch, seed: int = 0) -> dict[str, float]:
    torch.manual_seed(1)
    objective = Objective(WorldActionModel(SIZES), ObjectiveConfig()).train()
    torch.manual_seed(seed)
    return {name: value.item() for name, value in objective(batch, critic=True).items()}


def seen_actions(batch: Batch, critic: bool, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """The actions that the model is shown."""
    seen = []
    forward = WorldActionModel.forward

    def spy(self, tokens, actions, *rest, **options):  # type: ignore[no-untyped-def]
        seen.append(actions)
        return forward(self, tokens, actions, *rest, **options)

    monkeypatch.setattr(WorldActionModel, "forward", spy)
    Objective(WorldActionModel(SIZES), ObjectiveConfig())(batch, critic=critic)
    return seen[0]


def test_only_the_share_of_rows_is_noisy_and_with_legal_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch(0.75, rows=8, steps=8)
    shown = seen_actions(batch, True, monkeypatch)
    assert torch.equal(shown[6:], batch.actions[6:])
    assert (shown[:6] != 3).any() and torch.isin(shown, torch.tensor([0, 3, 4])).all()


@pytest.mark.parametrize(("noise", "critic"), [(0.0, True), (0.75, False)])
def test_stage_one_and_the_published_setting_see_the_real_actions(
    noise: float, critic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(noise)
    assert torch.equal(seen_actions(batch, critic, monkeypatch), batch.actions)


def test_critic_learns_from_the_noisy_rows_and_the_world_from_the_others() -> None:
    batch = make_batch(0.5)
    base = losses(batch)
    changed_rewards = batch.rewards.clone()
    changed_rewards[:2] = -1
    noisy_rows = losses(dataclasses.replace(batch, rewards=changed_rewards))
    assert noisy_rows["td"] != base["td"] and noisy_rows["reward"] == base["reward"]
    changed_rewards = batch.rewards.clone()
    changed_rewards[2:] = -1
    clean_rows = losses(dataclasses.replace(batch, rewards=changed_rewards))
    assert clean_rows["td"] == base["td"] and clean_rows["reward"] != base["reward"]


def test_drawn_actions_follow_from_the_seed() -> None:
    batch = make_batch(0.75)
    assert losses(batch, seed=5) == losses(batch, seed=5)
    assert losses(batch, seed=5)["td"] != losses(batch, seed=6)["td"]


def test_the_targets_keep_the_data_s_own_actions() -> None:
    """CQL pulls up the action of the data (3), not the drawn one: with one step of context nothing else differs."""
    noisy, plain = (losses(make_batch(noise, steps=1)) for noise in (1.0, 0.0))
    assert noisy["cql"] == pytest.approx(plain["cql"], rel=1e-6)
