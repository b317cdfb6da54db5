"""What the device at hand can do at most, measured: the shares in the tables are of these."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from jowa.kernels.native import native


def _median(call: Callable[[], object], device: str, runs: int = 9) -> float:
    call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@cache
def flops(device: str, dtype: torch.dtype) -> float:
    """Operations a second of torch's product of two large square matrices; on a CPU, if that is more and the native
    core is there, of multiply-adds out of registers alone."""
    size = 8192 if device == "cuda" else 1536
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    product = 2 * size**3 / _median(lambda: one @ other, device)
    if device == "cpu" and native is not None:
        return max(product, *(2 * native.peak(dtype == torch.bfloat16) for _ in range(9)))
    return product


@cache
def bandwidth(device: str) -> float:
    """Bytes a second of a copy, read and written, far beyond the caches."""
    source = torch.zeros((2**30 if device == "cuda" else 2**27) // 4, device=device)
    out = torch.empty_like(source)
    return 2 * source.numel() * 4 / _median(lambda: out.copy_(source), device)


def add_rates(row: dict[str, Any], work: float, traffic: float, device: str, dtype: torch.dtype) -> None:
    """Into a row of a comparison: rates of its medians, and their shares of the ceilings.

    ``work``: operations of one call; ``traffic``: bytes that it must read and write at least.
    """
    for who, seconds in row["seconds"].items():
        row[f"{who} GFLOP/s"], row[f"{who} GB/s"] = work / seconds / 1e9, traffic / seconds / 1e9
        row[f"{who} of the arithmetic's ceiling"] = work / seconds / flops(device, dtype)
        row[f"{who} of the copy's ceiling"] = traffic / seconds / bandwidth(device)
    told = ", ".join(f"{key} {value:,.3g}" for key, value in row.items() if key.startswith(("ours ", "rival ")))
    print(f"  {told}")
