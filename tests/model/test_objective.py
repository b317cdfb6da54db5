"""The objective: what is added up, and where gradients go."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jowa.config import ModelConfig, ObjectiveConfig
from jowa.losses import critic_losses, end_loss, frame_loss, reward_loss, td_successors, td_weights
from jowa.model import WorldActionModel
from jowa.model.heads import q_distribution
from jowa.model.objective import Objective, target_counts
from jowa.types import Batch

SMALL = ModelConfig(
    layers=1, heads=2, width=16, q_width=12, q_ensemble=2, vocab_size=20, context_steps=4, num_tasks=5, dropout=0.0,
    q_dropout=0.0,
)  # fmt: skip


@pytest.fixture
def model() -> WorldActionModel:
    torch.manual_seed(0)
    model = WorldActionModel(SMALL)
    with torch.no_grad():
        for parameter in model.q_head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # away from the target head
    return model


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(1)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]]).bool()
    ends = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]).bool()
    legal = torch.rand(3, 18) < 0.5
    legal[:, 0] = True
    return Batch(
        None, torch.randint(20, (3, 4, 36)), torch.randint(18, (3, 4)), torch.randn(3, 4).clamp(-1, 1), ends, mask,
        torch.tensor([0, 1, 4]), legal,
    )  # fmt: skip


def test_stage_one_is_the_world_alone(model: WorldActionModel, batch: Batch) -> None:
    losses = Objective(model, ObjectiveConfig())(batch, critic=False)
    p = model(batch.tokens, batch.actions, batch.tasks)
    assert set(losses) == {"frame", "reward", "end"}
    torch.testing.assert_close(losses["frame"], frame_loss(p.frames, batch.tokens, batch.mask))
    torch.testing.assert_close(losses["reward"], reward_loss(p.rewards, batch.rewards, batch.mask))
    torch.testing.assert_close(losses["end"], end_loss(p.ends, batch.ends, batch.mask))


def test_stage_two_weighs_td_cql_and_the_world(model: WorldActionModel, batch: Batch) -> None:
    losses = Objective(model, ObjectiveConfig(world_weight=0.5, cql_weight=0.2, gamma=0.9))(batch, critic=True)
    world = Objective(model, ObjectiveConfig())(batch, critic=False)
    for name in world:
        torch.testing.assert_close(losses[name], 0.5 * world[name])
    p = model(batch.tokens, batch.actions, batch.tasks, target=True)
    successor, discounts = td_successors(q_distribution(p.q_target), batch.legal, -10.0, 30.0), 0.9 * (~batch.ends)
    weights = td_weights(batch.ends, batch.mask)
    td, penalty = critic_losses(
        p.q, batch.actions, successor, batch.rewards, discounts.float(), weights, batch.mask, -10.0, 30.0
    )
    torch.testing.assert_close(losses["td"], td)
    torch.testing.assert_close(losses["cql"], 0.2 * penalty)
    assert set(losses) == {"frame", "reward", "end", "td", "cql"}


class NoWaiting(TorchDispatchMode):
    """Refuses operations whose result's size, or whose number, a GPU would have to be waited for."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        masks = function.overloadpacket is aten.index and [
            i for i in args[1] if i is not None and i.dtype == torch.bool
        ]
        if masks or function.overloadpacket in (aten.nonzero, aten.masked_select, aten._local_scalar_dense):
            raise AssertionError(f"{function} waits for the device")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("noisy", [None, torch.tensor([True, False, True])])
def test_nothing_waits_for_the_device(model: WorldActionModel, batch: Batch, noisy: torch.Tensor | None) -> None:
    objective, batch = Objective(model, ObjectiveConfig()), dataclasses.replace(batch, noisy=noisy)
    counts = target_counts(batch, critic=True)
    with NoWaiting():
        torch.stack(list(objective(batch, critic=True, counts=counts).values())).sum().backward()
        with pytest.raises(AssertionError, match="waits for the device"):
            batch.rewards[batch.mask]


def test_without_cql(model: WorldActionModel, batch: Batch) -> None:
    assert "cql" not in Objective(model, ObjectiveConfig(cql_weight=0.0))(batch, critic=True)


@pytest.mark.parametrize("detach", [False, True])
def test_where_the_td_gradient_goes(model: WorldActionModel, batch: Batch, detach: bool) -> None:
    """Into the Q head, into the backbone unless detached, and never into the target."""
    Objective(model, ObjectiveConfig(detach_q=detach))(batch, critic=True)["td"].backward()
    assert all(parameter.grad is None for parameter in model.q_target_head.parameters())
    assert model.q_head.linear1.weight.grad.abs().sum() > 0
    backbone = model.frame_embedding.weight.grad
    assert (backbone is None or backbone.abs().sum() == 0) if detach else backbone.abs().sum() > 0
    assert model.frame_head[0].weight.grad is None


def test_the_gradient_does_not_pass_through_the_target(model: WorldActionModel, batch: Batch) -> None:
    """Only steps whose own distribution is in the loss pull: the bootstrapped one stands still."""
    one = dataclasses.replace(
        batch, mask=torch.tensor([[1, 1, 0, 0]] * 3).bool(), ends=torch.zeros(3, 4, dtype=torch.bool)
    )
    found = {}
    forward = model.forward

    def watched(*arguments: object, **options: object) -> object:
        found["p"] = forward(*arguments, **options)  # type: ignore[arg-type]
        found["p"].q.retain_grad()
        return found["p"]

    model.forward = watched  # type: ignore[method-assign]
    Objective(model, ObjectiveConfig())(one, critic=True)["td"].backward()
    assert not found["p"].q_target.requires_grad
    per_step = found["p"].q.grad.abs().sum((0, 1, 3, 4))
    assert per_step[0] > 0 and (per_step[1:] == 0).all()
