"""The fused linear layer and cross-entropy against autograd, in one stretch and in many."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jowa.kernels import linear_cross_entropy as module
from jowa.kernels.linear_cross_entropy import IGNORED, linear_cross_entropy, linear_cross_entropy_reference


def draw(rows: int, width: int, classes: int) -> list[Tensor]:
    """hidden, weight, bias, targets, every fifth of which does not count."""
    generator = torch.Generator().manual_seed(rows)
    tensors = [torch.randn(*shape, generator=generator) for shape in ((rows, width), (classes, width), (classes,))]
    targets = torch.randint(classes, (rows,), generator=generator)
    return [*tensors, targets.masked_fill(torch.arange(rows) % 5 == 4, IGNORED)]


def both(function, arguments: list[Tensor], weight: float = 0.7) -> tuple[Tensor, ...]:
    leaves = [tensor.clone().requires_grad_() for tensor in arguments[:3]]
    total = function(*leaves, arguments[3])
    return (total.detach(), *torch.autograd.grad(weight * total, leaves))


@pytest.mark.parametrize("at_once", [1, 100, 1 << 25])
@pytest.mark.parametrize("sizes", [(1, 3, 2), (37, 16, 51), (296, 8, 33), (6, 5, 1)], ids=str)
def test_values_and_gradients_are_autograds(monkeypatch: pytest.MonkeyPatch, at_once: int, sizes) -> None:
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", at_once)
    arguments = draw(*sizes)
    found, expected = both(linear_cross_entropy, arguments), both(linear_cross_entropy_reference, arguments)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_what_needs_no_gradient_gets_none() -> None:
    hidden, weight, bias, targets = draw(9, 4, 7)
    weight.requires_grad_()
    total = linear_cross_entropy(hidden, weight, bias, targets)
    total.backward()
    expected = both(linear_cross_entropy_reference, [hidden, weight.detach(), bias, targets], 1.0)
    torch.testing.assert_close(weight.grad, expected[2])
    assert hidden.grad is None and not linear_cross_entropy(hidden, weight.detach(), bias, targets).requires_grad


def test_in_the_dtype_of_autocast() -> None:
    arguments = draw(40, 16, 30)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = both(linear_cross_entropy, arguments), both(linear_cross_entropy_reference, arguments)
    assert found[0].dtype == torch.float32 and all(gradient.dtype == torch.float32 for gradient in found[1:])
    torch.testing.assert_close(found, expected, rtol=3e-2, atol=3e-2)


def test_large_logits_and_classes_that_cannot_be() -> None:
    hidden, weight, bias, targets = draw(30, 8, 12)
    bias[3] = -torch.inf
    targets[targets == 3] = 4
    arguments = [hidden * 1e3, weight, bias, targets]
    found, expected = both(linear_cross_entropy, arguments), both(linear_cross_entropy_reference, arguments)
    assert found[0].isfinite()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)


def test_rows_that_do_not_count_may_be_anything() -> None:
    hidden, weight, bias, targets = draw(11, 4, 6)
    expected = both(linear_cross_entropy, [hidden, weight, bias, targets])
    hidden[targets == IGNORED] = 1e30
    found = both(linear_cross_entropy, [hidden, weight, bias, targets])
    torch.testing.assert_close(found, expected)
    none = both(linear_cross_entropy, [hidden, weight, bias, torch.full_like(targets, IGNORED)])
    assert none[0] == 0 and not any(gradient.any() for gradient in none[1:])


def test_nothing_is_nothing() -> None:
    total, by_hidden, by_weight, by_bias = both(linear_cross_entropy, draw(0, 4, 6))
    assert total == 0 and by_hidden.shape == (0, 4) and not by_weight.any() and not by_bias.any()


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (0, lambda hidden: hidden[0], "hidden must be floating"),
        (0, lambda hidden: hidden.long(), "hidden must be floating"),
        (1, lambda weight: weight[:, 1:], r"weight must be \(V, 4\)"),
        (1, lambda weight: weight[:0], "V at least 1"),
        (1, lambda weight: weight.half(), "weight must be torch.float32 as hidden is"),
        (2, lambda bias: bias[1:], r"bias must have shape \(6,\)"),
        (2, lambda bias: bias.double(), "bias must be torch.float32"),
        (2, lambda bias: bias.to("meta"), "bias on meta, hidden on cpu"),
        (3, lambda targets: targets[1:], r"targets must have shape \(3,\)"),
        (3, lambda targets: targets.int(), "targets must be int64"),
        (3, lambda targets: targets.to("meta"), "targets on meta, hidden on cpu"),
    ],
)
def test_what_does_not_fit_is_refused(number: int, change, message: str) -> None:
    arguments = draw(3, 4, 6)
    arguments[number] = change(arguments[number])
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(*arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_agrees_with_the_oracle(dtype: torch.dtype) -> None:
    hidden, weight, bias, targets = draw(3000, 64, 2048)
    arguments = [*(tensor.to(dtype) for tensor in (hidden, weight / 8, bias)), targets]
    found = both(linear_cross_entropy, [tensor.cuda() for tensor in arguments])
    expected = both(linear_cross_entropy_reference, [*(tensor.float() for tensor in arguments[:3]), targets])
    close = 1e-3 if dtype == torch.float32 else 5e-2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float().cpu(), other, rtol=close, atol=close)
