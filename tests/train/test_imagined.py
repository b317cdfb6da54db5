"""Imagined segments: each step holds its own action, reward and end; ends are there, and nothing is behind them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from jowa.config import ModelConfig
from jowa.model import WorldActionModel
from jowa.planner import BeamPlanner, Context
from jowa.train.imagined import Imaginer
from jowa.types import Batch

SIZES = ModelConfig(
    layers=1, heads=2, width=32, q_width=16, q_ensemble=2, vocab_size=20, context_steps=5, num_tasks=60, dropout=0.3,
    q_dropout=0.3,
)  # fmt: skip
LENGTH, HORIZON = 5, 2


@pytest.fixture
def model() -> WorldActionModel:
    """Clear opinions, so that rounding decides nothing; rewards, frames and ends that differ from step to step."""
    torch.manual_seed(2)
    model = WorldActionModel(SIZES)
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape)
    return model.train()


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(3)
    rows = 24
    counts = torch.arange(rows) % LENGTH + 1
    mask = torch.arange(LENGTH) < counts[:, None]
    ends = torch.zeros(rows, LENGTH, dtype=torch.bool)
    ends[::2] = torch.nn.functional.one_hot(counts[::2] - 1, LENGTH).bool()
    legal = torch.rand(rows, 18) < 0.3
    legal[:, 2:4] = True
    return Batch(
        None, torch.randint(20, (rows, LENGTH, 36)) * mask[..., None], torch.randint(18, (rows, LENGTH)) * mask,
        torch.randint(-1, 2, (rows, LENGTH)).float() * mask, ends, mask, torch.arange(rows) % 60, legal,
    )  # fmt: skip


def kept(batch: Batch) -> list[int]:
    """Recorded frames at the beginning of each row."""
    return batch.mask.sum(1).clamp(max=LENGTH - HORIZON).tolist()


def test_every_step_is_what_the_model_says_of_it(model: WorldActionModel, batch: Batch) -> None:
    """The plain oracle: feed the segment to the model, and at every imagined step it answers that segment.

    Pairing frame t with the action and reward of t + 1, as the published code did, fails here.
    """
    made = Imaginer(model, 2, HORIZON, 0.99).segments(batch)
    model.eval()
    with torch.no_grad():
        said = model(made.tokens, made.actions, batch.tasks)
    rewards, ends = said.rewards.argmax(-1) - 1, said.ends.argmax(-1) == 1
    frames = said.frames.argmax(-1)  # prediction i is of token i + 1 of the flattened frames
    compared = 0
    for row, first in enumerate(kept(batch)):
        for step in range(first - 1, int(made.mask[row].sum())):
            assert made.rewards[row, step] == rewards[row, step] and made.ends[row, step] == ends[row, step]
            assert batch.legal[row, made.actions[row, step]]
            if step >= first:
                found = frames[row, 36 * step - 1 : 36 * step + 35]
                assert torch.equal(made.tokens[row, step], found), (row, step)
                compared += 1
    assert compared > len(batch.mask) // 2
    flat = [rewards[row][made.mask[row]].tolist() for row in range(len(rewards))]
    assert any(a[:-1] != a[1:] for a in flat), "all rewards of a segment are alike: an oracle that sees nothing"


def test_recorded_steps_stay(model: WorldActionModel, batch: Batch) -> None:
    made = Imaginer(model, 2, HORIZON, 0.99).segments(batch)
    for row, first in enumerate(kept(batch)):
        assert torch.equal(made.tokens[row, :first], batch.tokens[row, :first])
        assert torch.equal(made.actions[row, : first - 1], batch.actions[row, : first - 1])
        assert torch.equal(made.rewards[row, : first - 1], batch.rewards[row, : first - 1])
    for name in ("tasks", "legal"):
        assert torch.equal(getattr(made, name), getattr(batch, name))


def test_actions_are_those_of_beam_search(model: WorldActionModel, batch: Batch) -> None:
    imaginer = Imaginer(model, 2, HORIZON, 0.99)
    made = imaginer.segments(batch)
    model.eval()
    planner = BeamPlanner(model, imaginer.config)
    for row, first in enumerate(kept(batch)):
        one = slice(row, row + 1)
        context = Context(
            batch.tokens[one, :first], batch.actions[one, :first], torch.tensor([first]), batch.tasks[one],
            batch.legal[one],
        )  # fmt: skip
        plan = planner.plan(context).candidate_actions[0, 0]
        plan = plan[plan >= 0].tolist()
        assert made.actions[row, first - 1 : first - 1 + len(plan)].tolist() == plan


def always(head: torch.nn.Module, answer: int) -> None:
    head[2].weight.data.zero_()  # type: ignore[index, operator]
    head[2].bias.data = torch.nn.functional.one_hot(torch.tensor(answer), len(head[2].bias)).float()  # type: ignore[index, arg-type]


def test_nothing_lies_behind_an_end(model: WorldActionModel, batch: Batch) -> None:
    always(model.end_head, 1)
    made = Imaginer(model, 2, HORIZON, 0.99).segments(batch)
    for row, first in enumerate(kept(batch)):
        assert made.mask[row].tolist() == [step < first for step in range(LENGTH)]
        assert made.ends[row].tolist() == [step == first - 1 for step in range(LENGTH)]
        assert not made.tokens[row, first:].any() and not made.actions[row, first:].any()


def test_without_an_end_the_horizon_is_reached(model: WorldActionModel, batch: Batch) -> None:
    always(model.end_head, 0)
    made = Imaginer(model, 2, HORIZON, 0.99).segments(batch)
    assert made.mask.sum(1).tolist() == [first + HORIZON for first in kept(batch)] and not made.ends.any()


def test_half_of_every_piece_is_imagined(model: WorldActionModel, batch: Batch) -> None:
    imaginer = Imaginer(model, 2, HORIZON, 0.99)
    mixed = imaginer.mix(batch, [slice(0, 12), slice(12, 24)])
    assert mixed.imagined is not None
    chosen = [*range(6, 12), *range(18, 24)]
    assert mixed.imagined.nonzero().flatten().tolist() == chosen
    made = imaginer.segments(batch.rows(torch.tensor(chosen)))
    for name in ("tokens", "actions", "rewards", "ends", "mask"):
        assert torch.equal(getattr(mixed, name)[chosen], getattr(made, name))
        assert torch.equal(getattr(mixed, name)[~mixed.imagined], getattr(batch, name)[~mixed.imagined])


def test_the_present_weights_imagine_without_dropout(model: WorldActionModel, batch: Batch) -> None:
    imaginer = Imaginer(model, 2, HORIZON, 0.99)
    first, again = imaginer.segments(batch), imaginer.segments(batch)
    assert torch.equal(first.tokens, again.tokens) and torch.equal(first.actions, again.actions), "dropout was on"
    assert model.training and not model.q_target_head.training
    always(model.reward_head, 2)
    assert not first.rewards[:, -1].eq(1).all() and imaginer.segments(batch).rewards[:, 2][first.mask[:, 2]].eq(1).any()


def test_every_step_imagines_from_other_rows(small_config: Any, run_trainer: Any, monkeypatch: Any) -> None:
    """The published code drew the same rows again at every step."""
    seen: list[Batch] = []
    plain = Imaginer.segments

    def watched(self: Imaginer, batch: Batch) -> Batch:
        seen.append(batch)
        return plain(self, batch)

    monkeypatch.setattr(Imaginer, "segments", watched)
    changes = {"stage1.steps": 0, "stage2.imagined": "half", "stage2.imagined_from": 2, "stage2.steps": 5}
    run_trainer(small_config(changes))
    assert len(seen) == 3 and all(len(batch.actions) == 2 for batch in seen)
    assert len({tuple(batch.actions.flatten().tolist()) for batch in seen}) == 3
    assert dataclasses.asdict(seen[0])["imagined"] is None
