"""Choosing where and in which precision to compute."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from jowa.errors import UsageError, unknown_name


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises :class:`UsageError` for a device that is unknown or not here.
    """
    if name == "auto":
        name = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise UsageError(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:N")
    if kind == "cpu":
        return torch.device("cpu")
    number = int(index) if index else local_rank
    if number >= torch.cuda.device_count():
        raise UsageError(
            f"device {name!r} was asked for, but this machine shows {torch.cuda.device_count()} GPUs: use --device cpu"
        )
    return torch.device("cuda", number)


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """The autocast dtype for ``float32`` (None), ``bfloat16``, or ``auto`` (bfloat16 on a GPU, else None)."""
    if name not in ("auto", "float32", "bfloat16"):
        raise unknown_name("precision", name, ("auto", "float32", "bfloat16"))
    if name == "bfloat16" or (name == "auto" and device.type == "cuda"):
        return torch.bfloat16
    return None


def precision_name(dtype: torch.dtype | None) -> str:
    """``float32`` for None, else the dtype's own name."""
    return "float32" if dtype is None else str(dtype).removeprefix("torch.")


def device_name(device: torch.device) -> str:
    """What results name as their device: the GPU, or the CPU's model and the threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor() or 'cpu'}, {torch.get_num_threads()} threads"
