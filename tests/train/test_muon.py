"""Muon: orthogonal updates for hidden matrices, AdamW for the rest, steps skipped on the device."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jowa.model import WorldActionModel
from jowa.train.config import OptimizerConfig
from jowa.train.muon import MOMENTUM, UPDATE_SIZE, Muon, hidden_matrices, orthogonalise
from jowa.train.optim import world_optimizer


@pytest.fixture
def model(small_config: Any) -> WorldActionModel:
    torch.manual_seed(0)
    return WorldActionModel(small_config().model)


def nearest_orthogonal(matrix: Tensor) -> Tensor:
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (24, 8)])
def test_orthogonalise_keeps_singular_vectors_and_levels_singular_values(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, *shape, generator=generator) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    for matrix, found in zip(matrices, orthogonalise(matrices, 5), strict=True):
        left, singular, right = torch.linalg.svd(matrix, full_matrices=False)
        levels = left.T @ found @ right.T  # diagonal: the same singular vectors
        assert torch.allclose(levels, levels.diag().diag(), atol=1e-3)
        kept = levels.diag()[singular > 0.05 * singular[0]]
        assert bool((kept > 0.6).all() and (kept < 1.3).all()), kept


def test_zero_gradients_stay_zero() -> None:
    assert torch.equal(orthogonalise(torch.zeros(2, 4, 6), 5), torch.zeros(2, 4, 6))


def test_a_step_is_that_of_the_formula() -> None:
    torch.manual_seed(1)
    weight = nn.Parameter(torch.randn(6, 10))
    before = weight.detach().clone()
    optimizer = Muon([{"params": [weight], "orthogonal": True, "weight_decay": 0.1}], lr=0.01, iterations=12)
    first, second = torch.randn(6, 10), torch.randn(6, 10)
    wanted = before
    momentum = torch.zeros(6, 10)
    for gradient in (first, second):
        weight.grad = gradient.clone()
        optimizer.step()
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * gradient
        update = nearest_orthogonal((1 - MOMENTUM) * gradient + MOMENTUM * momentum)
        wanted = wanted * (1 - 0.01 * 0.1) - 0.01 * UPDATE_SIZE * 10**0.5 * update
    moved, expected = weight.detach() - before, wanted - before
    # The iteration stops short of 1 on purpose: the direction agrees, the size nearly.
    assert torch.nn.functional.cosine_similarity(moved.flatten(), expected.flatten(), dim=0) > 0.97
    assert 0.7 < float(moved.norm() / expected.norm()) < 1.2


def test_matrices_of_one_shape_are_updated_as_if_alone(model: WorldActionModel) -> None:
    alone, together = copy.deepcopy(model), model
    config = OptimizerConfig(name="muon")
    generator = torch.Generator().manual_seed(0)
    gradients = {n: torch.randn(p.shape, generator=generator) for n, p in model.named_parameters()}
    for name, parameter in together.named_parameters():
        parameter.grad = gradients[name] if parameter.requires_grad else None
    world_optimizer(together, 1e-2, config).step()
    for module in alone.modules():
        for weight in hidden_matrices(module) if not list(module.children()) else []:
            weight.grad = next(gradients[n] for n, p in alone.named_parameters() if p is weight)
            Muon([{"params": [weight], "orthogonal": True, "weight_decay": 0.01}], 1e-2, 3).step()
    hidden = {id(w) for w in hidden_matrices(alone)}
    pairs = [(a, b) for a, b in zip(alone.parameters(), together.parameters(), strict=True) if id(a) in hidden]
    assert pairs
    for a, b in pairs:
        assert torch.allclose(a, b, atol=1e-6)


def test_embeddings_biases_norms_and_last_layers_are_left_to_adamw(model: WorldActionModel) -> None:
    names = {id(p): name for name, p in model.named_parameters()}
    hidden = {names[id(weight)] for weight in hidden_matrices(model)}
    assert {"frame_head.0.weight", "q_head.linear1.weight", "q_head.linear2.weight"} <= hidden
    assert "transformer.blocks.0.attn.query.weight" in hidden and "transformer.blocks.0.mlp.2.weight" in hidden
    assert not [name for name in hidden if "embedding" in name or "ln" in name or name.endswith("bias")]
    assert not hidden & {"frame_head.2.weight", "reward_head.2.weight", "end_head.2.weight", "q_head.linear3.weight"}
    assert not [name for name in hidden if name.startswith("q_target")]


def test_what_is_not_a_hidden_matrix_moves_as_under_adamw(model: WorldActionModel) -> None:
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (
        world_optimizer(model, 1e-3, OptimizerConfig(name="muon")),
        world_optimizer(twin, 1e-3, OptimizerConfig()),
    )
    hidden = {id(weight) for weight in hidden_matrices(model)}
    for _ in range(3):
        for a, b in zip(model.parameters(), twin.parameters(), strict=True):
            if a.requires_grad:
                a.grad = torch.randn(a.shape, generator=generator)
                b.grad = a.grad.clone()
        ours.step()
        theirs.step()
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b) == (id(a) not in hidden), name


def test_a_step_that_is_not_finite_changes_nothing_and_the_next_one_does(model: WorldActionModel) -> None:
    optimizer = world_optimizer(model, 1e-2, OptimizerConfig(name="muon"))
    trained = [p for p in model.parameters() if p.requires_grad]

    def step(value: float, found: float) -> None:
        for parameter in trained:
            parameter.grad = torch.full_like(parameter, value)
        optimizer.found_inf = torch.tensor(found)
        optimizer.step()

    step(1.0, 0.0)
    before = [p.detach().clone() for p in trained]
    momenta = {k: v["momentum"].clone() for k, v in optimizer.state.items() if "momentum" in v}
    step(float("nan"), 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, trained, strict=True))
    assert momenta and all(torch.equal(v, optimizer.state[k]["momentum"]) for k, v in momenta.items())
    step(1.0, 0.0)
    assert all(not torch.equal(a, b) and bool(b.isfinite().all()) for a, b in zip(before, trained, strict=True))
