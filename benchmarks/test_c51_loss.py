"""The critic's losses, forward and backward, in one kernel each way, against PyTorch's own operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks.ceilings import add_rates
from jowa.kernels.c51_loss import c51_loss, c51_loss_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
WAITS = pytest.mark.skipif(DEVICE == "cpu", reason="waits for a GPU")
ACTIONS, ATOMS = 18, 51
Function = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def both_ways(function: Function, members: int, steps: int) -> Callable[[], torch.Tensor]:
    """Losses of random logits, and their gradient."""
    torch.manual_seed(0)
    logits = torch.randn(members, steps, ACTIONS, ATOMS, device=DEVICE, dtype=DTYPE, requires_grad=True)
    actions = torch.randint(ACTIONS, (steps,), device=DEVICE)
    successor = torch.rand(steps, ATOMS, device=DEVICE).softmax(-1)
    others = actions, successor, torch.randn(steps, device=DEVICE).sign(), torch.full((steps,), 0.99, device=DEVICE)

    def run() -> torch.Tensor:
        td, gap = function(logits, *others, -10.0, 30.0)
        return torch.autograd.grad(td.mean() + gap.mean(), logits)[0]

    return run


def peak(call: Callable[[], object]) -> float:
    """MiB that a call takes at most, on a GPU."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(
    ("members", "steps"),
    [(2, 12 * 2), (3, 64 * 8), pytest.param(3, 512 * 8, marks=[pytest.mark.gpu, WAITS])],
)
def test_c51_loss(compare, members: int, steps: int, compiled: bool) -> None:
    name = "torch.compile" if compiled else "eager"
    rival = torch.compile(c51_loss_reference, dynamic=False) if compiled else c51_loss_reference
    calls = [both_ways(function, members, steps) for function in (c51_loss, rival)]
    close = 2e-2 if DEVICE == "cuda" else 1e-5
    torch.testing.assert_close(*(call() for call in calls), rtol=close, atol=close)
    shapes = f"{steps} steps, {members} members, {ACTIONS} actions, {ATOMS} atoms, {str(DTYPE)[6:]} logits, {DEVICE}"
    compare(f"projection, C51 and CQL, forward and backward, against {name}", shapes, *calls, runs=41)
    # Read forward and backward, and a gradient written; some fifteen operations a logit each way.
    logits = members * steps * ACTIONS * ATOMS
    add_rates(compare.rows[-1], 30 * logits, 3 * logits * DTYPE.itemsize, DEVICE, torch.float32)
    if DEVICE == "cuda":
        peaks = [peak(call) for call in calls]
        compare.note(f"peak memory of projection, C51 and CQL, against {name}", shapes,
                     ours_MiB=peaks[0], rival_MiB=peaks[1])  # fmt: skip
        assert peaks[0] < peaks[1]
