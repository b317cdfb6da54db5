"""The critic's losses from logits: what is refused, and on a GPU the kernel against the oracle."""

from __future__ import annotations

import math

import pytest
import torch

from jowa.kernels.c51_loss import c51_loss, c51_loss_reference, fused_c51_loss


def inputs(members: int = 3, steps: int = 7) -> tuple[torch.Tensor, ...]:
    """logits, actions, successor, rewards, discounts; some steps end."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(members, steps, 18, 51, generator=generator)
    actions = torch.randint(18, (steps,), generator=generator)
    successor = torch.rand(steps, 51, generator=generator).softmax(-1)
    rewards = torch.randint(-1, 2, (steps,), generator=generator).float()
    return logits, actions, successor, rewards, 0.99 * (torch.arange(steps) % 3 > 0)


def test_a_cpu_takes_the_oracle() -> None:
    found, expected = c51_loss(*inputs(), -10.0, 30.0), c51_loss_reference(*inputs(), -10.0, 30.0)
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert found[0].shape == (7,) and (found[1] > 0).all(), "logsumexp exceeds every member"


def test_by_hand() -> None:
    """An ensemble of one that is sure of atom 3, an end with reward 1: its mass lies between atoms 13 and 14."""
    logits = torch.full((1, 1, 2, 51), -100.0)
    logits[..., 3] = 0.0
    ended = torch.zeros(1), torch.full((1, 51), 1 / 51), torch.ones(1)
    td, gap = c51_loss(logits, torch.tensor([1]), ended[1], ended[2], ended[0], -10.0, 30.0)
    assert td.item() == pytest.approx(-math.log(1e-8), rel=1e-4) and gap.item() == pytest.approx(math.log(2), rel=1e-5)
    logits[0, 0, 1, 3], logits[0, 0, 1, 13], logits[0, 0, 1, 14] = -100.0, 0.0, math.log(3.0)
    td, _ = c51_loss(logits, torch.tensor([1]), ended[1], ended[2], ended[0], -10.0, 30.0)
    assert td.item() == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75), rel=1e-4)


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (0, lambda logits: logits[0], "must share N and Z"),
        (1, lambda actions: actions[1:], "must share N and Z"),
        (2, lambda successor: successor[:, 1:], "must share N and Z"),
        (3, lambda rewards: rewards[:, None], "must share N and Z"),
        (4, lambda discounts: discounts[1:], "must share N and Z"),
        (0, lambda logits: logits.long(), "logits must be floating"),
        (1, lambda actions: actions.int(), "actions int64"),
        (2, lambda successor: successor.to("meta"), "successor on meta: move them"),
        (4, lambda discounts: discounts.to("meta"), "discounts on meta: move them"),
    ],
)
def test_what_does_not_fit_is_refused(number: int, change, message: str) -> None:
    arguments = list(inputs())
    arguments[number] = change(arguments[number])
    with pytest.raises(ValueError, match=message):
        c51_loss(*arguments, -10.0, 30.0)


def test_the_operation_has_the_oracles_gradient_and_passes_torchs_checks() -> None:
    logits, *others = inputs()
    weights = torch.randn(2, 7, generator=torch.Generator().manual_seed(1))
    gradients = []
    for function in (fused_c51_loss, c51_loss_reference):
        leaf = logits.clone().requires_grad_()
        found = torch.stack(function(leaf, *others, -10.0, 30.0))
        gradients.append((found.detach(), *torch.autograd.grad((found * weights).sum(), leaf)))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)
    arguments = (logits.requires_grad_(), *(tensor.contiguous() for tensor in others), -10.0, 30.0)
    # Without tracing of the backward pass (test_aot_dispatch_dynamic), which takes seconds to import.
    torch.library.opcheck(torch.ops.jowa.c51_loss, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_agrees_with_the_oracle(dtype: torch.dtype) -> None:
    logits, *others = (tensor.cuda() for tensor in inputs(3, 4096))
    results = []
    for function in (c51_loss, c51_loss_reference):
        leaf = logits.to(dtype).requires_grad_()
        td, gap = function(leaf, *others, -10.0, 30.0)
        (gradient,) = torch.autograd.grad(td.mean() + gap.mean(), leaf)
        results.append((td.detach(), gap.detach(), gradient.float()))
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 1e-5}
    torch.testing.assert_close(results[0], results[1], **tolerance)
