"""Quantisation and its two gradients against autograd's."""

from __future__ import annotations

import pytest
import torch

from jowa.kernels.quantize import quantize, quantize_reference


def gradients(function, latents: torch.Tensor, codebook: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
    leaves = [latents.clone().requires_grad_(), codebook.clone().requires_grad_()]
    codes, tokens, commitment = function(*leaves)
    found = torch.autograd.grad((codes * weights).sum() + 0.7 * commitment, leaves)
    return [codes.detach(), tokens, commitment.detach(), *found]


@pytest.mark.parametrize(("count", "codes", "width"), [(1, 1, 1), (72, 20, 8), (500, 3, 16), (5, 200, 33)])
def test_values_and_gradients_are_autograds(count: int, codes: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    latents, codebook = torch.randn(count, width, generator=generator), torch.randn(codes, width, generator=generator)
    weights = torch.randn(count, width, generator=generator)
    for found, expected in zip(
        gradients(quantize, latents, codebook, weights),
        gradients(quantize_reference, latents, codebook, weights),
        strict=True,
    ):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_codes_nobody_uses_get_no_gradient() -> None:
    latents, codebook = torch.zeros(4, 2), torch.tensor([[1.0, 1.0], [9.0, 9.0]])
    _, tokens, _, _, by_codebook = gradients(quantize, latents, codebook, torch.zeros(4, 2))
    assert tokens.tolist() == [0] * 4 and by_codebook[0].abs().sum() > 0 and not by_codebook[1].any()


def test_the_gradient_goes_straight_through() -> None:
    latents, codebook = torch.randn(6, 3), torch.randn(4, 3)
    leaf = latents.requires_grad_()
    codes, tokens, _ = quantize(leaf, codebook)
    assert torch.allclose(codes, codebook[tokens], atol=1e-6)
    (found,) = torch.autograd.grad((codes * torch.arange(18.0).view(6, 3)).sum(), leaf)
    assert torch.equal(found, torch.arange(18.0).view(6, 3))


def test_reduced_precision_keeps_its_types() -> None:
    latents, codebook = torch.randn(9, 4).bfloat16().requires_grad_(), torch.randn(5, 4, requires_grad=True)
    codes, _, commitment = quantize(latents, codebook)
    (codes.float().sum() + commitment).backward()
    assert latents.grad is not None and latents.grad.dtype == torch.bfloat16
    assert codebook.grad is not None and codebook.grad.dtype == torch.float32 and commitment.dtype == torch.float32


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="must share D"):
        quantize(torch.zeros(3, 4), torch.zeros(5, 6))
    codes, tokens, _ = quantize(torch.zeros(0, 4), torch.zeros(3, 4))
    assert codes.shape == (0, 4) and tokens.shape == (0,)
