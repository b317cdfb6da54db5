"""The distributional projection against its definition."""

from __future__ import annotations

import pytest
import torch

from jowa.kernels.c51_projection import c51_projection, c51_projection_reference

# A machine with a GPU may have nothing beyond torch, triton, NumPy and pytest.
st = pytest.importorskip("hypothesis.strategies")
given, settings = (getattr(pytest.importorskip("hypothesis"), name) for name in ("given", "settings"))


def draw(rows: int, atoms: int, seed: int) -> torch.Tensor:
    return torch.rand(rows, atoms, generator=torch.Generator().manual_seed(seed)).mul(4).exp().log_softmax(1).exp()


@settings(deadline=None, max_examples=80)
@given(
    rewards=st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=6),
    discount=st.floats(0, 1, width=32),
    low=st.floats(-20, 5),
    span=st.floats(0.5, 50),
    atoms=st.integers(2, 60),
    seed=st.integers(0, 2**31),
)
def test_equals_the_definition(rewards, discount, low, span, atoms, seed) -> None:
    probabilities = draw(len(rewards), atoms, seed)
    arguments = (probabilities, torch.tensor(rewards), torch.full((len(rewards),), discount), low, low + span)
    projected = c51_projection(*arguments)
    assert projected.shape == probabilities.shape and projected.dtype == torch.float32
    torch.testing.assert_close(projected, c51_projection_reference(*arguments), rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(projected.sum(1), torch.ones(len(rewards)), rtol=0, atol=1e-5)
    assert (projected >= 0).all()


def test_by_hand() -> None:
    """Five atoms -2, -1, 0, 1, 2."""
    sure = torch.eye(5)
    none, full = torch.zeros(1), torch.ones(1)

    def project(atom: int, reward: float, discount: torch.Tensor) -> list[float]:
        return c51_projection(sure[atom : atom + 1], torch.tensor([reward]), discount, -2.0, 2.0)[0].tolist()

    assert project(3, 0.25, none) == pytest.approx([0, 0, 0.75, 0.25, 0])
    assert project(3, 0.0, full) == pytest.approx([0, 0, 0, 1, 0])
    assert project(3, 0.0, 0.5 * full) == pytest.approx([0, 0, 0.5, 0.5, 0])
    assert project(4, 5.0, full) == pytest.approx([0, 0, 0, 0, 1]), "clamped to the top"
    assert project(0, -5.0, full) == pytest.approx([1, 0, 0, 0, 0]), "clamped to the bottom"


def test_the_mean_moves_as_the_bellman_equation_says() -> None:
    probabilities = torch.zeros(4, 51)
    probabilities[:, 15:30] = draw(4, 15, 1)
    atoms = torch.linspace(-10, 30, 51)
    rewards = torch.tensor([-1.0, 0.0, 0.5, 1.0])
    projected = c51_projection(probabilities, rewards, torch.full((4,), 0.99), -10.0, 30.0)
    torch.testing.assert_close(projected @ atoms, rewards + 0.99 * (probabilities @ atoms), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (0, lambda probabilities: probabilities[0], r"probabilities must be \(N, Z\)"),
        (0, lambda probabilities: probabilities[:, :1], "probabilities must have at least 2 atoms, got 1"),
        (0, lambda probabilities: probabilities.long(), "probabilities must be floating"),
        (1, lambda rewards: rewards[1:], r"rewards must have shape \(4,\)"),
        (2, lambda discounts: discounts[:, None], r"discounts must have shape \(4,\)"),
        (1, lambda rewards: rewards.int(), "rewards must be floating"),
        (2, lambda discounts: discounts.to("meta"), "discounts on meta, probabilities on cpu"),
    ],
)
def test_what_does_not_fit_is_refused(number: int, change, message: str) -> None:
    arguments = [draw(4, 5, 0), torch.zeros(4), torch.ones(4)]
    arguments[number] = change(arguments[number])
    with pytest.raises(ValueError, match=message):
        c51_projection(*arguments, -2.0, 2.0)
    with pytest.raises(ValueError, match="v_min must be below v_max"):
        c51_projection(draw(4, 5, 0), torch.zeros(4), torch.ones(4), 2.0, 2.0)


def test_nothing_is_nothing() -> None:
    assert c51_projection(torch.zeros(0, 5), torch.zeros(0), torch.zeros(0), -2.0, 2.0).shape == (0, 5)
