"""The native core's side of these kernels (csrc/kernels), for CPUs: is it there, and how it is called."""

from __future__ import annotations

import torch
from torch import Tensor

try:
    from jowa import _native
except ImportError:
    _native = None  # type: ignore[assignment]

native = _native


def native_runs(tensor: Tensor) -> bool:
    """True for tensors in a CPU's memory, when the native core was built and imports."""
    return native is not None and tensor.device.type == "cpu"


def threads() -> int:
    """As many as torch's own operations take."""
    return torch.get_num_threads()
