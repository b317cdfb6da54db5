"""Nearest codes, exact, against the product and argmin that everybody writes."""

from __future__ import annotations

import pytest
import torch

from jowa.kernels.vq_lookup import vq_lookup

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def product_and_argmin(latents: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Float32, not exact: rounding decides near-ties."""
    return torch.addmm((codebook * codebook).sum(1), latents, codebook.T, alpha=-2.0).argmin(1)


@pytest.mark.parametrize("frames", [1, 64, 512, pytest.param(4096, marks=pytest.mark.gpu)])
@pytest.mark.parametrize(("codes", "width"), [(512, 64), (2048, 512)])
def test_vq_lookup(compare, frames: int, codes: int, width: int) -> None:
    if frames == 4096 and DEVICE == "cpu":
        pytest.skip("waits for a GPU")
    generator = torch.Generator().manual_seed(0)
    codebook = torch.randn(codes, width, generator=generator).to(DEVICE)
    latents = torch.randn(36 * frames, width, generator=generator).to(DEVICE)
    # A GPU's rival is compiled, a CPU's is not: there compiling gains nothing on a product of this size.
    rival = torch.compile(product_and_argmin) if DEVICE == "cuda" else product_and_argmin
    same = (vq_lookup(latents, codebook) == rival(latents, codebook)).float().mean().item()
    assert same > 0.99, "both search for the same thing"
    with torch.inference_mode():
        compare(
            "nearest codes, exact, against product and argmin",
            f"{36 * frames} latents, {codes} codes of {width}, float32",
            lambda: vq_lookup(latents, codebook), lambda: rival(latents, codebook),
        )  # fmt: skip
