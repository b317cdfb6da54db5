"""The critic's losses, forward and backward, in one kernel each way, against PyTorch's own operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from jowa.kernels.c51_loss import c51_loss, c51_loss_reference

STEPS = 512 * 8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="waits for a GPU: a CPU runs the rival")
@pytest.mark.parametrize("compiled", [False, True])
def test_c51_loss(compare, compiled: bool) -> None:
    logits = torch.randn(3, STEPS, 18, 51, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    actions, successor = torch.randint(18, (STEPS,), device="cuda"), torch.rand(STEPS, 51, device="cuda").softmax(-1)
    others = actions, successor, torch.randn(STEPS, device="cuda").sign(), torch.full((STEPS,), 0.99, device="cuda")

    def both_ways(function: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        td, gap = function(logits, *others, -10.0, 30.0)
        return torch.autograd.grad(td.mean() + gap.mean(), logits)[0]

    rival = torch.compile(c51_loss_reference) if compiled else c51_loss_reference
    compare(
        f"projection, C51 and CQL, forward and backward, against {'torch.compile' if compiled else 'eager'}",
        f"{STEPS} steps, 3 members, 18 actions, 51 atoms, bfloat16 logits",
        lambda: both_ways(c51_loss), lambda: both_ways(rival), runs=30,
    )  # fmt: skip
    peaks = []
    for function in (c51_loss, rival):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        both_ways(function)
        peaks.append((torch.cuda.max_memory_allocated() - before) / 2**20)
    compare.note(
        f"peak memory of projection, C51 and CQL, against {'torch.compile' if compiled else 'eager'}",
        f"{STEPS} steps, 3 members, 18 actions, 51 atoms, bfloat16 logits", ours_MiB=peaks[0], rival_MiB=peaks[1],
    )  # fmt: skip
    assert peaks[0] < peaks[1]
