"""Each ablation of the objective: what it changes, and that the default is what it was."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from jowa.config import ModelConfig, ObjectiveConfig
from jowa.losses import critic_losses, td_successors, td_weights
from jowa.model import WorldActionModel
from jowa.model.heads import q_distribution
from jowa.model.objective import TARGETS, Objective, target_counts
from jowa.types import Batch

SMALL = ModelConfig(
    layers=1, heads=2, width=16, q_width=12, q_ensemble=3, vocab_size=20, context_steps=4, num_tasks=5, dropout=0.0,
    q_dropout=0.0,
)  # fmt: skip


def make_model(**changes: Any) -> WorldActionModel:
    torch.manual_seed(0)
    model = WorldActionModel(dataclasses.replace(SMALL, **changes))
    for parameter in model.q_head.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))  # away from the target head
    return model


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(1)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]]).bool()
    ends = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]).bool()
    legal = torch.rand(4, 18) < 0.5
    legal[:, 0] = True
    return Batch(
        None, torch.randint(20, (4, 4, 36)), torch.randint(18, (4, 4)), torch.randn(4, 4).clamp(-1, 1), ends, mask,
        torch.tensor([0, 1, 4, 2]), legal,
    )  # fmt: skip


def losses(model: WorldActionModel, batch: Batch, **config: Any) -> dict[str, torch.Tensor]:
    return Objective(model, ObjectiveConfig(**config))(batch, critic=True)


def test_the_default_is_bit_for_bit_the_fused_loss(batch: Batch) -> None:
    model = make_model()
    found = losses(model, batch)
    p = model(batch.tokens, batch.actions, batch.tasks, target=True)
    successor = td_successors(q_distribution(p.q_target), batch.legal, -10.0, 30.0)
    discounts, weights = 0.99 * (~batch.ends).float(), td_weights(batch.ends, batch.mask)
    td, cql = critic_losses(p.q, batch.actions, successor, batch.rewards, discounts, weights, batch.mask, -10.0, 30.0)
    assert torch.equal(found["td"], td) and torch.equal(found["cql"], 0.1 * cql)
    nothing_imagined = dataclasses.replace(batch, imagined=torch.zeros(4, dtype=torch.bool))
    again = losses(model, nothing_imagined)
    assert found.keys() == again.keys() and all(torch.equal(found[name], again[name]) for name in found)


def test_mse_trains_a_scalar_head(batch: Batch) -> None:
    model = make_model(num_atoms=1)
    found = losses(model, batch, critic="mse", gamma=0.9, cql_weight=0.3)
    p = model(batch.tokens, batch.actions, batch.tasks, target=True)
    assert p.q.shape == (3, 4, 4, 18, 1)
    q, target, errors = p.q[..., 0].mean(0), p.q_target[..., 0].mean(0), []
    for row, step in td_weights(batch.ends, batch.mask).nonzero().tolist():
        wanted = batch.rewards[row, step]
        if not batch.ends[row, step]:
            wanted = wanted + 0.9 * target[row, step + 1][batch.legal[row]].max()
        errors.append((q[row, step, batch.actions[row, step]] - wanted) ** 2)
    torch.testing.assert_close(found["td"], torch.stack(errors).mean())
    gaps = [q[r, s].logsumexp(0) - q[r, s, batch.actions[r, s]] for r, s in batch.mask.nonzero().tolist()]
    torch.testing.assert_close(found["cql"], 0.3 * torch.stack(gaps).mean())


def test_a_scalar_head_starts_where_it_is_told() -> None:
    model = WorldActionModel(dataclasses.replace(SMALL, num_atoms=1, q_init=2.5))
    with torch.no_grad():
        model.q_head.linear3.weight.zero_()
        assert model.q_values(torch.randn(3, 16)).unique().tolist() == [2.5]


def test_rem_mixes_q_and_target_alike(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all weight on one member, the loss is that of a model which has this member alone."""
    model, alone = make_model(), make_model(q_ensemble=1)
    alone.load_state_dict(
        {
            name: value[1:2] if "q_head" in name or "q_target" in name else value
            for name, value in model.state_dict().items()
        }
    )
    monkeypatch.setattr("jowa.model.objective.rem_weights", lambda members, device: torch.eye(members)[1])
    found, expected = losses(model, batch, ensemble="rem"), losses(alone, batch)
    for name in ("td", "cql"):
        torch.testing.assert_close(found[name], expected[name])


def test_rem_draws_anew_and_follows_the_seed(batch: Batch) -> None:
    model = make_model()
    torch.manual_seed(7)
    first, second = (losses(model, batch, ensemble="rem")["td"] for _ in range(2))
    torch.manual_seed(7)
    assert torch.equal(losses(model, batch, ensemble="rem")["td"], first) and not torch.equal(first, second)


def test_without_a_conservative_term(batch: Batch) -> None:
    model = make_model()
    plain, without = losses(model, batch), losses(model, batch, conservative="none")
    assert set(plain) - set(without) == {"cql"} and all(torch.equal(without[name], plain[name]) for name in without)


def test_combo_pulls_up_recorded_steps_alone(batch: Batch) -> None:
    model, imagined = make_model(), torch.tensor([False, True, False, True])
    batch = dataclasses.replace(batch, imagined=imagined)
    found = losses(model, batch, conservative="combo", cql_weight=0.2)
    p = model(batch.tokens, batch.actions, batch.tasks)
    q = (q_distribution(p.q) * torch.linspace(-10, 30, 51)).sum(-1)
    steps = batch.mask.nonzero().tolist()
    down = torch.stack([q[r, s].logsumexp(0) for r, s in steps]).mean()
    up = torch.stack([q[r, s, batch.actions[r, s]] for r, s in steps if not imagined[r]]).mean()
    torch.testing.assert_close(found["push_down"], 0.2 * down)
    torch.testing.assert_close(found["pull_up"], -0.2 * up)
    assert "cql" not in found


def test_combo_without_imagined_rows_is_cql(batch: Batch) -> None:
    model = make_model()
    plain, combo = losses(model, batch), losses(model, batch, conservative="combo")
    torch.testing.assert_close(combo["push_down"] + combo["pull_up"], plain["cql"])


def test_the_world_does_not_learn_from_what_was_imagined(batch: Batch) -> None:
    model, imagined = make_model(), torch.tensor([False, True, False, True])
    with_rows = losses(model, dataclasses.replace(batch, imagined=imagined))
    recorded_alone = losses(model, batch.rows(torch.tensor([0, 2])))
    for name in ("frame", "reward", "end"):
        torch.testing.assert_close(with_rows[name], recorded_alone[name])
    assert not torch.isclose(with_rows["td"], recorded_alone["td"])


@pytest.mark.parametrize("config", [{}, {"conservative": "combo"}, {"critic": "mse"}])
def test_microbatches_add_up(batch: Batch, config: dict[str, Any]) -> None:
    model = make_model(num_atoms=1 if config.get("critic") == "mse" else 51)
    batch = dataclasses.replace(batch, imagined=torch.tensor([False, True, False, False]))
    objective, counts = Objective(model, ObjectiveConfig(**config)), target_counts(batch, True)
    assert len(counts) == len(TARGETS)
    whole = objective(batch, critic=True)
    parts = [objective(batch.rows(rows), critic=True, counts=counts) for rows in (slice(0, 2), slice(2, 4))]
    for name, value in whole.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], value)
