"""Triton kernels against their oracles, in Triton's interpreter; a script, for it is chosen before triton's import."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

from collections.abc import Callable

import torch

from jowa.kernels import vq_lookup as vq
from jowa.kernels.vq_lookup_triton import nearest_two_codes


def vq_scores_and_runner_up() -> None:
    """Sizes around and off the kernel's blocks."""
    generator = torch.Generator().manual_seed(0)
    for count, codes, width in ((1, 1, 1), (5, 7, 3), (128, 64, 16), (140, 130, 64), (36, 513, 33)):
        latents = torch.randn(count, width, generator=generator)
        codebook = torch.randn(codes, width, generator=generator)
        squares = (codebook * codebook).sum(1)
        index, lowest, second = nearest_two_codes(latents, codebook, squares)
        scores = (squares.double() - 2 * latents.double() @ codebook.double().T).sort(dim=1)
        assert torch.equal(index, scores.indices[:, 0]), (count, codes, width)
        torch.testing.assert_close(lowest.double(), scores.values[:, 0], rtol=1e-5, atol=1e-4)
        if codes > 1:
            torch.testing.assert_close(second.double(), scores.values[:, 1], rtol=1e-5, atol=1e-4)
        else:
            assert second.isinf().all()


def vq_tokens_are_the_oracles_ties_included() -> None:
    """Few levels make exact ties and doubled codes common; far from the origin rounding would decide."""
    vq._runs_triton = lambda latents: True
    generator = torch.Generator().manual_seed(1)
    for levels, scale, far in ((2, 1.0, 0.0), (3, 1e3, 0.0), (1000, 1.0, 0.0), (1000, 0.1, 1000.0)):
        latents = far + torch.randint(levels, (90, 17), generator=generator) * (scale / levels)
        codebook = far + torch.randint(levels, (140, 17), generator=generator) * (scale / levels)
        codebook[70:] = codebook[:70].clone()
        found = vq.vq_lookup(latents, codebook)
        assert torch.equal(found, vq.vq_lookup_reference(latents, codebook)), (levels, scale, far)
        assert found.max() < 70, "of equal codes the first"


def vq_of_nothing_is_nothing() -> None:
    vq._runs_triton = lambda latents: True
    assert vq.vq_lookup(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0,)


CASES: tuple[Callable[[], None], ...] = (
    vq_scores_and_runner_up,
    vq_tokens_are_the_oracles_ties_included,
    vq_of_nothing_is_nothing,
)

if __name__ == "__main__":
    for case in CASES:
        case()
        print(f"passed: {case.__name__}")
