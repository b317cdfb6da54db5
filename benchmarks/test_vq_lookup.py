"""Nearest codes, exact, against the product and argmin that everybody writes, as it is and compiled."""

from __future__ import annotations

import pytest
import torch

from benchmarks.ceilings import add_rates
from jowa.kernels.vq_lookup import nearest_codes, vq_lookup

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WAITS = pytest.mark.skipif(DEVICE == "cpu", reason="waits for a GPU")


def product_and_argmin(latents: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Float32, not exact: rounding decides near-ties."""
    return torch.addmm((codebook * codebook).sum(1), latents, codebook.T, alpha=-2.0).argmin(1)


def product_argmin_and_gather(latents: torch.Tensor, codebook: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, and the codes."""
    tokens = product_and_argmin(latents, codebook)
    return tokens, codebook[tokens]


def draw(frames: int, codes: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    codebook = torch.randn(codes, width, generator=generator).to(DEVICE)
    return torch.randn(36 * frames, width, generator=generator).to(DEVICE), codebook


def measure(compare, latents: torch.Tensor, codebook: torch.Tensor, against: str, ours, rival) -> None:
    """Both on the same numbers."""
    (count, width), codes = latents.shape, len(codebook)
    compare(
        f"nearest codes, exact, against {against}", f"{count} latents, {codes} codes of {width}, float32, {DEVICE}",
        lambda: ours(latents, codebook), lambda: rival(latents, codebook),
    )  # fmt: skip
    traffic = 4 * (count + codes) * width + 8 * count
    add_rates(compare.rows[-1], 2 * count * codes * width, traffic, DEVICE, torch.float32)


@pytest.mark.parametrize("frames", [1, 8, 64, 512, pytest.param(4096, marks=[pytest.mark.gpu, WAITS])])
@pytest.mark.parametrize(("codes", "width"), [(512, 64), (2048, 512)])
@torch.inference_mode()
def test_vq_lookup(compare, frames: int, codes: int, width: int) -> None:
    latents, codebook = draw(frames, codes, width)
    same = (vq_lookup(latents, codebook) == product_and_argmin(latents, codebook)).float().mean().item()
    assert same > 0.99, "both search for the same thing"
    measure(compare, latents, codebook, "product and argmin", vq_lookup, product_and_argmin)


@pytest.mark.parametrize("frames", [64, pytest.param(4096, marks=[pytest.mark.gpu, WAITS])])
@pytest.mark.parametrize(("codes", "width"), [(512, 64), (2048, 512)])
@torch.inference_mode()
def test_vq_lookup_against_the_compiler(compare, frames: int, codes: int, width: int) -> None:
    latents, codebook = draw(frames, codes, width)
    compiled = torch.compile(product_and_argmin, dynamic=False)
    measure(compare, latents, codebook, "torch.compile of product and argmin", vq_lookup, compiled)


@pytest.mark.parametrize(("codes", "width"), [(512, 64), (2048, 512)])
@torch.inference_mode()
def test_nearest_codes(compare, codes: int, width: int) -> None:
    latents, codebook = draw(64, codes, width)
    measure(compare, latents, codebook, "product, argmin and gather", nearest_codes, product_argmin_and_gather)
