"""Names of devices and precisions."""

from __future__ import annotations

import pytest
import torch

from jowa.devices import choose_device, choose_precision, device_name
from jowa.errors import UsageError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="shows 0 GPUs: use --device cpu"):
        choose_device("cuda")


def test_each_process_has_its_gpu(gpus: None) -> None:
    assert choose_device("auto", 1) == choose_device("cuda", 1) == torch.device("cuda", 1)
    assert choose_device("cuda:0", 1) == torch.device("cuda", 0)
    with pytest.raises(UsageError, match="2 GPUs"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "CUDA", ""])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(UsageError, match="choose auto, cpu, cuda or cuda:N"):
        choose_device(name)


def test_precisions() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert choose_precision("auto", cpu) is None and choose_precision("auto", gpu) is torch.bfloat16
    assert choose_precision("float32", gpu) is None and choose_precision("bfloat16", cpu) is torch.bfloat16
    with pytest.raises(UsageError, match="unknown precision 'bf16'"):
        choose_precision("bf16", cpu)


def test_results_name_the_processor_and_the_threads() -> None:
    name = device_name(torch.device("cpu"))
    assert name.endswith(f", {torch.get_num_threads()} threads") and len(name) > len(", 1 threads")
