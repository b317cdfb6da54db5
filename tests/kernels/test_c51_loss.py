"""The critic's losses from logits: what is refused, and on a GPU the kernel against the oracle."""

from __future__ import annotations

import pytest
import torch

from jowa.kernels.c51_loss import c51_loss, c51_loss_reference


def inputs(members: int = 3, steps: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(members, steps, 18, 51, generator=generator)
    return logits, torch.randint(18, (steps,), generator=generator), torch.rand(steps, 51, generator=generator)


def test_a_cpu_takes_the_oracle() -> None:
    found, expected = c51_loss(*inputs(), -10.0, 30.0), c51_loss_reference(*inputs(), -10.0, 30.0)
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert found[0].shape == (7,) and (found[1] > 0).all(), "logsumexp exceeds every member"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits, actions, targets: (logits[0], actions, targets), "must share N and Z"),
        (lambda logits, actions, targets: (logits, actions[1:], targets), "must share N and Z"),
        (lambda logits, actions, targets: (logits, actions, targets[:, 1:]), "must share N and Z"),
        (lambda logits, actions, targets: (logits.long(), actions, targets), "logits must be floating"),
        (lambda logits, actions, targets: (logits, actions.int(), targets), "actions int64"),
        (lambda logits, actions, targets: (logits, actions, targets.to("meta")), "targets on meta: move them"),
    ],
)
def test_what_does_not_fit_is_refused(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        c51_loss(*change(*inputs()), -10.0, 30.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_agrees_with_the_oracle(dtype: torch.dtype) -> None:
    logits, actions, targets = (tensor.cuda() for tensor in inputs(3, 4096))
    results = []
    for function in (c51_loss, c51_loss_reference):
        leaf = logits.to(dtype).requires_grad_()
        td, gap = function(leaf, actions, targets, -10.0, 30.0)
        (gradient,) = torch.autograd.grad(td.mean() + gap.mean(), leaf)
        results.append((td.detach(), gap.detach(), gradient.float()))
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 1e-5}
    torch.testing.assert_close(results[0], results[1], **tolerance)
