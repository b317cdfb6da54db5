"""Nearest codebook vectors on a GPU; apart, because a machine that has one may lack hypothesis."""

from __future__ import annotations

import pytest
import torch

from jowa.kernels.vq_lookup import vq_lookup


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("coarse", [False, True])
def test_a_gpu_agrees_with_the_cpu(coarse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", coarse)
    torch.manual_seed(0)
    latents, codebook = torch.randn(3000, 64), torch.randn(512, 64)
    assert torch.equal(vq_lookup(latents.cuda(), codebook.cuda()).cpu(), vq_lookup(latents, codebook))
