"""The frame head's last layer and its cross-entropy, forward and backward, against the two one after the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks.ceilings import add_rates
from jowa.kernels.linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
WAITS = pytest.mark.skipif(DEVICE == "cpu", reason="waits for a GPU")


def both_ways(function: Callable[..., torch.Tensor], rows: int, width: int, classes: int) -> Callable[[], object]:
    """Loss and gradients of random numbers."""
    torch.manual_seed(0)
    hidden, weight = (
        torch.randn(count, width, device=DEVICE, dtype=DTYPE).div_(width**0.5).requires_grad_()
        for count in (rows, classes)
    )
    bias = torch.zeros(classes, device=DEVICE, dtype=DTYPE, requires_grad=True)
    targets = torch.randint(classes, (rows,), device=DEVICE)
    return lambda: torch.autograd.grad(function(hidden, weight, bias, targets) / rows, (hidden, weight, bias))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(
    ("segments", "width", "classes"),
    [(12 * 2, 128, 512), (8 * 8, 512, 2048), pytest.param(512 * 8, 768, 2048, marks=[pytest.mark.gpu, WAITS])],
)
def test_linear_cross_entropy(compare, segments: int, width: int, classes: int, compiled: bool) -> None:
    rows, name = 36 * segments, "torch.compile" if compiled else "eager"
    reference = linear_cross_entropy_reference
    rival = torch.compile(reference, dynamic=False) if compiled else reference
    calls = [both_ways(function, rows, width, classes) for function in (linear_cross_entropy, rival)]
    close = 2e-2 if DEVICE == "cuda" else 1e-5
    torch.testing.assert_close(*(call() for call in calls), rtol=close, atol=close)
    shapes = f"{rows} rows, width {width}, {classes} classes, {str(DTYPE)[6:]}, {DEVICE}"
    compare(f"frame head and cross-entropy, forward and backward, against {name}", shapes, *calls)
    traffic = (2 * rows * width + 2 * classes * width) * DTYPE.itemsize
    add_rates(compare.rows[-1], 6 * rows * width * classes, traffic, DEVICE, DTYPE)
    if DEVICE == "cuda":
        peaks = []
        for call in calls:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            peaks.append((torch.cuda.max_memory_allocated() - before) / 2**20)
        compare.note(f"peak memory of the frame head and its cross-entropy, against {name}", shapes,
                     ours_MiB=peaks[0], rival_MiB=peaks[1])  # fmt: skip
        assert peaks[0] < peaks[1]
