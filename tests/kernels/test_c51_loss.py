"""The critic's losses from logits: what is refused, and on a GPU the kernel against the oracle."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from jowa.kernels import c51_loss as module
from jowa.kernels import native
from jowa.kernels.c51_loss import c51_loss, c51_loss_reference


def inputs(members: int = 3, steps: int = 7) -> tuple[torch.Tensor, ...]:
    """logits, actions, successor, rewards, discounts; some steps end."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(members, steps, 18, 51, generator=generator)
    actions = torch.randint(18, (steps,), generator=generator)
    successor = torch.rand(steps, 51, generator=generator).softmax(-1)
    rewards = torch.randint(-1, 2, (steps,), generator=generator).float()
    return logits, actions, successor, rewards, 0.99 * (torch.arange(steps) % 3 > 0)


def test_without_native_code_a_cpu_takes_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "native", None)
    found, expected = c51_loss(*inputs(), -10.0, 30.0), c51_loss_reference(*inputs(), -10.0, 30.0)
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert found[0].shape == (7,) and (found[1] > 0).all(), "logsumexp exceeds every member"


@pytest.mark.parametrize(
    ("actions", "atoms", "served"), [(18, 51, True), (32, 64, True), (33, 51, False), (18, 65, False)]
)
def test_a_gpu_takes_its_kernel_for_what_fits_into_registers(
    actions: int, atoms: int, served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_has_triton", lambda: True)
    assert module._runs_triton(SimpleNamespace(is_cuda=True, shape=(3, 7, actions, atoms))) == served
    assert not module._runs_triton(torch.zeros(3, 7, actions, atoms))


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
        (1, lambda actions: actions.int(), "actions must be int64"),
        (2, lambda successor: successor.long(), "successor must be floating"),
        (3, lambda rewards: rewards.long(), "rewards must be floating"),
        (4, lambda discounts: discounts > 0, "discounts must be floating"),
        (1, lambda actions: actions.to("meta"), "actions on meta, logits on cpu: move them"),
        (2, lambda successor: successor.to("meta"), "successor on meta, logits on cpu: move them"),
        (3, lambda rewards: rewards.to("meta"), "rewards on meta, logits on cpu: move them"),
        (4, lambda discounts: discounts.to("meta"), "discounts on meta, logits on cpu: move them"),
        (0, lambda logits: logits[:0], "logits .* at least one member and one action"),
        (0, lambda logits: logits[:, :, :0], "logits .* at least one member and one action"),
    ],
)
def test_what_does_not_fit_is_refused(number: int, change, message: str) -> None:
    arguments = list(inputs())
    arguments[number] = change(arguments[number])
    with pytest.raises(ValueError, match=message):
        c51_loss(*arguments, -10.0, 30.0)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, -2.0), (0.0, math.inf), (math.nan, 1.0)])
def test_atoms_that_are_none_are_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="v_min must be below v_max"):
        c51_loss(*inputs(), low, high)
    logits, actions, successor, *others = inputs()
    with pytest.raises(ValueError, match="logits must have at least 2 atoms, got 1"):
        c51_loss(logits[..., :1], actions, successor[:, :1], *others, -10.0, 30.0)


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
