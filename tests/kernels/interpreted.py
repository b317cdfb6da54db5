"""Triton kernels against their oracles, in Triton's interpreter; a script, for it is chosen before triton's import."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

from collections.abc import Callable

import torch

from jowa.kernels import c51_loss as c51
from jowa.kernels import linear_cross_entropy as linear
from jowa.kernels import vq_lookup as vq
from jowa.kernels.linear_cross_entropy_triton import losses_in_place
from jowa.kernels.vq_lookup_triton import nearest_two_codes


def vq_scores_and_runner_up() -> None:
    """Sizes around and off the kernel's blocks."""
    generator = torch.Generator().manual_seed(0)
    for count, codes, width in ((1, 1, 1), (5, 7, 3), (128, 64, 16), (140, 130, 64), (36, 513, 33)):
        latents = torch.randn(count, width, generator=generator)
        codebook = torch.randn(codes, width, generator=generator)
        squares = (codebook * codebook).sum(1)
        index, lowest, second, codes_found = nearest_two_codes(latents, codebook, squares, gather=True)
        scores = (squares.double() - 2 * latents.double() @ codebook.double().T).sort(dim=1)
        assert torch.equal(index, scores.indices[:, 0]), (count, codes, width)
        assert torch.equal(codes_found, codebook[index]), (count, codes, width)
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
        found, codes = vq.nearest_codes(latents, codebook)
        assert torch.equal(codes, codebook[found]) and torch.equal(vq.vq_lookup(latents, codebook), found)
        assert torch.equal(found, vq.vq_lookup_reference(latents, codebook)), (levels, scale, far)
        assert found.max() < 70, "of equal codes the first"


def vq_of_numbers_that_are_none() -> None:
    """NaN and infinities, in latents and then in a code: the oracle's choice, and no other latent is touched."""
    vq._runs_triton = lambda latents: True
    latents = torch.randn(40, 17, generator=torch.Generator().manual_seed(5))
    codebook = torch.randn(70, 17, generator=torch.Generator().manual_seed(6))
    latents[3, 2], latents[5], latents[7, 0], latents[8] = torch.nan, torch.inf, -torch.inf, 1e30
    assert torch.equal(vq.vq_lookup(latents, codebook), vq.vq_lookup_reference(latents, codebook))
    for value in (torch.nan, torch.inf, -torch.inf):
        codebook[9, 4] = value
        assert torch.equal(vq.vq_lookup(latents, codebook), vq.vq_lookup_reference(latents, codebook)), value


def vq_of_nothing_is_nothing() -> None:
    vq._runs_triton = lambda latents: True
    assert vq.vq_lookup(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0,)
    assert vq.nearest_codes(torch.zeros(0, 4), torch.zeros(3, 4))[1].shape == (0, 4)


def c51_losses_and_gradients() -> None:
    """Sizes around and off the kernel's blocks, weights of both signs, steps that do not count."""
    generator = torch.Generator().manual_seed(2)
    for members, steps, actions, atoms in ((3, 5, 18, 51), (1, 3, 2, 2), (2, 4, 7, 33), (1, 1, 32, 64)):
        logits = torch.randn(members, steps, actions, atoms, generator=generator).mul(2).requires_grad_()
        chosen = torch.randint(actions, (steps,), generator=generator)
        successor = torch.randn(steps, atoms, generator=generator).softmax(-1)
        rewards = torch.randn(steps, generator=generator) * 20  # some beyond the atoms
        discounts = torch.rand(steps, generator=generator) * (torch.arange(steps) != 1)
        weights = torch.randn(2, steps, generator=generator)
        weights[:, 0] = 0
        results = []
        for fused in (False, True):
            c51._runs_triton = lambda logits, fused=fused: fused
            found = torch.stack(c51.c51_loss(logits, chosen, successor, rewards, discounts, -10.0, 30.0))
            (gradient,) = torch.autograd.grad((found * weights).sum(), logits)
            results.append((found.detach(), gradient))
        torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-4, atol=1e-5)


def c51_in_half_precision() -> None:
    """Half-precision logits are read as they are, and get a gradient of their own type."""
    c51._runs_triton = lambda logits: True
    logits = torch.randn(2, 3, 18, 51, generator=torch.Generator().manual_seed(3)).half().requires_grad_()
    others = torch.tensor([0, 17, 4]), torch.full((3, 51), 1 / 51), torch.tensor([1.0, 0.0, -1.0]), torch.ones(3) * 0.9
    td, gap = c51.c51_loss(logits, *others, -10.0, 30.0)
    expected = c51.c51_loss_reference(logits.detach().float(), *others, -10.0, 30.0)
    torch.testing.assert_close((td.detach(), gap.detach()), expected, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(td.sum() + gap.sum(), logits)
    assert gradient.dtype == torch.float16 and gradient.isfinite().all() and gradient.abs().sum() > 0


def c51_of_nothing_is_nothing() -> None:
    c51._runs_triton = lambda logits: True
    logits = torch.zeros(3, 0, 18, 51, requires_grad=True)
    none = torch.zeros(0)
    td, gap = c51.c51_loss(logits, none.long(), torch.zeros(0, 51), none, none, -10.0, 30.0)
    (td.sum() + gap.sum()).backward()
    assert td.shape == gap.shape == (0,) and logits.grad is not None


def cross_entropies_in_place() -> None:
    """Sizes around and off the block, rows that do not count, large logits, -inf, views with NaN around them."""
    generator = torch.Generator().manual_seed(7)
    for rows, classes in ((1, 1), (5, 2), (36, 51), (37, 64), (9, 2048)):
        for dtype in (torch.float32, torch.float16):
            room = torch.full((rows + 2, classes), torch.nan, dtype=dtype)
            room[1:-1] = torch.randn(rows, classes, generator=generator) * 10.0 ** (rows % 4)
            logits, targets = room[1:-1], torch.randint(classes, (rows,), generator=generator)
            if classes > 2:
                logits[:, 2], targets = -torch.inf, targets.masked_fill(targets == 2, 0)
            targets = targets.masked_fill(torch.arange(rows) % 3 == 2, linear.IGNORED)
            logits[targets == linear.IGNORED] = torch.nan
            leaf = logits.double().nan_to_num(0.0, neginf=-torch.inf).requires_grad_()
            expected = torch.nn.functional.cross_entropy(leaf, targets, reduction="none")
            losses = losses_in_place(logits, targets, False)
            assert torch.equal(losses, losses_in_place(logits, targets, True)), "the first call left the logits alone"
            torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-4, atol=1e-5)
            (gradient,) = torch.autograd.grad(expected.sum(), leaf)
            close = 1e-6 if dtype == torch.float32 else 1e-3
            torch.testing.assert_close(logits.double(), gradient, rtol=close, atol=close)
            assert room[[0, -1]].isnan().all(), "nothing beside the logits is touched"


def cross_entropies_of_nothing() -> None:
    assert losses_in_place(torch.zeros(0, 5), torch.zeros(0).long(), True).shape == (0,)


CASES: tuple[Callable[[], None], ...] = (
    vq_scores_and_runner_up,
    vq_tokens_are_the_oracles_ties_included,
    vq_of_numbers_that_are_none,
    vq_of_nothing_is_nothing,
    c51_losses_and_gradients,
    c51_in_half_precision,
    c51_of_nothing_is_nothing,
    cross_entropies_in_place,
    cross_entropies_of_nothing,
)

if __name__ == "__main__":
    for case in CASES:
        case()
        print(f"passed: {case.__name__}")
