"""Triton kernels against their oracles at random shapes, strides, dtypes and magnitudes, interpreted; a script.

Tree attention's are among those of interpreted_tree_attention.py.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from jowa.kernels import attention
from jowa.kernels import c51_loss as c51
from jowa.kernels import linear_cross_entropy as linear
from jowa.kernels import vq_lookup as vq
from jowa.kernels.linear_cross_entropy_triton import losses_in_place

CASES = 12
"""A kernel."""
EDGES = (1, 36, 37, 38, 295, 296)
"""Sizes at which every other case stands."""


def integer(generator: Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def size(generator: Generator, case: int, high: int) -> int:
    edges = [edge for edge in EDGES if edge <= high]
    return edges[case // 2 % len(edges)] if case % 2 else integer(generator, 1, high)


def strided(tensor: Tensor) -> Tensor:
    """The same numbers as a view that no stride divides, NaN in between and behind: nobody may look there."""
    room = torch.full((*(2 * length for length in tensor.shape[:-1]), tensor.shape[-1] + 3), math.nan).to(tensor.dtype)
    view = room[(*(slice(None, None, 2) for _ in tensor.shape[:-1]), slice(tensor.shape[-1]))]
    return view.copy_(tensor)


def random_codes(generator: Generator, case: int) -> str:
    """Latents of 16 or 32 bits; codes that are equal, of one tenth or a thousand times their size."""
    vq._runs_triton = lambda latents: True
    count, codes, width = size(generator, case, 300), size(generator, case + 2, 300), integer(generator, 1, 130)
    scale, dtype = 10.0 ** integer(generator, -1, 3), (torch.float32, torch.float16)[case % 2]
    latents = torch.randn(count, width, generator=generator).mul(scale).to(dtype)
    codebook = torch.randn(codes, width, generator=generator).mul(scale)
    if case % 3 == 0:  # few levels: exact ties
        latents, codebook = (latents / scale).round() * scale, (codebook / scale).round() * scale
    found, chosen = vq.nearest_codes(strided(latents), strided(codebook))
    assert torch.equal(found, vq.vq_lookup_reference(latents, codebook)), (count, codes, width, scale)
    assert torch.equal(chosen.float(), codebook[found])
    return f"{count} x {codes} x {width} {dtype} times {scale:g}"


def random_critics(generator: Generator, case: int) -> str:
    """Logits up to hundreds, some of them -inf; rewards beyond the atoms; ends."""
    c51._runs_triton = lambda logits: True
    members, steps = integer(generator, 1, 3), integer(generator, 1, 5)
    actions, atoms = integer(generator, 1, 18), integer(generator, 2, 64)
    dtype, scale = (torch.float32, torch.float16)[case % 2], (1.0, 30.0, 300.0)[case % 3]
    logits = torch.randn(members, steps, actions, atoms, generator=generator).mul(scale)
    hidden = torch.rand(logits.shape, generator=generator) < 0.1
    hidden[..., 0] = False
    logits = logits.masked_fill(hidden, -math.inf).to(dtype)
    chosen = torch.randint(actions, (steps,), generator=generator)
    successor = torch.randn(steps, atoms, generator=generator).softmax(-1)
    rewards = torch.randn(steps, generator=generator) * 20
    discounts = torch.rand(steps, generator=generator) * (torch.rand(steps, generator=generator) < 0.7)
    weights = torch.randn(2, steps, generator=generator)
    others = chosen, strided(successor), strided(rewards[:, None])[:, 0], strided(discounts[:, None])[:, 0]
    results = []
    for function in (c51.c51_loss, c51.c51_loss_reference):
        leaf = strided(logits).requires_grad_()
        found = torch.stack(function(leaf, *others, -10.0, 30.0))
        assert found.isfinite().all()
        results.append((found.detach(), torch.autograd.grad((found * weights).sum(), leaf)[0].float()))
    close = 1e-4 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(*results, rtol=close, atol=close)
    return f"{members} x {steps} x {actions} x {atoms} {dtype} times {scale:g}"


def random_cross_entropies(generator: Generator, case: int) -> str:
    """Rows that do not count hold NaN; classes that cannot be have -inf."""
    rows, classes = size(generator, case, 300), size(generator, case + 4, 2100)
    dtype, scale = (torch.float32, torch.float16)[case % 2], 10.0 ** (case % 4 - 1)
    logits = torch.randn(rows, classes, generator=generator).mul(scale).to(dtype)
    targets = torch.randint(classes, (rows,), generator=generator)
    hidden = torch.rand(rows, classes, generator=generator) < 0.1
    logits.masked_fill_(hidden.scatter(1, targets[:, None], False), -math.inf)
    targets.masked_fill_(torch.rand(rows, generator=generator) < 0.3, linear.IGNORED)
    logits[targets == linear.IGNORED] = math.nan
    leaf = logits.double().nan_to_num(0.0, neginf=-math.inf).requires_grad_()
    expected = torch.nn.functional.cross_entropy(leaf, targets, reduction="none")
    losses = losses_in_place(logits, strided(targets[:, None].float())[:, 0].long(), True)
    torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-4, atol=1e-4)
    close = 1e-5 if dtype == torch.float32 else 1e-3
    torch.testing.assert_close(logits.double(), torch.autograd.grad(expected.sum(), leaf)[0], rtol=close, atol=close)
    return f"{rows} x {classes} {dtype} times {scale:g}"


def random_attention(generator: Generator, case: int) -> str:
    """Heads of all sizes, values of any magnitude, and what lies around the tensors is NaN."""
    batch, heads, length = integer(generator, 1, 2), integer(generator, 1, 3), size(generator, case, 120)
    width, dtype = attention.HEAD_SIZES[case % 4], (torch.float32, torch.float16)[case // 2 % 2]
    scale, dropout = 10.0 ** integer(generator, -2, 1), (0.0, 0.25)[case % 2]
    shape = (batch, heads, length, width)
    inputs = [torch.randn(shape, generator=generator).mul(scale).to(dtype) for _ in range(3)]
    gradient = torch.randn(shape, generator=generator).to(dtype)
    seed = torch.randint(-(2**31), 2**31, (2,), generator=generator)
    leaves = [strided(tensor).requires_grad_() for tensor in inputs]
    out, _ = torch.ops.jowa.causal_attention(*leaves, dropout, seed)
    exact = [tensor.double().requires_grad_() for tensor in inputs]
    kept = attention.dropout_mask(seed, batch, heads, length, dropout) if dropout else None
    expected = attention.causal_attention_reference(*exact, kept, dropout)
    found = (out, *torch.autograd.grad(out, leaves, strided(gradient)))
    wanted = (expected, *torch.autograd.grad(expected, exact, gradient.double()))
    close = 1e-4 if dtype == torch.float32 else 2e-2
    for one, other in zip(found, wanted, strict=True):
        bound = max(1.0, float(other.detach().abs().max()))
        torch.testing.assert_close(one.double() / bound, other.detach() / bound, rtol=close, atol=close)
    return f"{shape} {dtype} times {scale:g}, dropout {dropout}"


CHECKS: tuple[Callable[[Generator, int], str], ...] = (
    random_codes, random_critics, random_cross_entropies, random_attention,
)  # fmt: skip

if __name__ == "__main__":
    attention._runs_triton = lambda queries: True
    for check in CHECKS:
        for case in range(CASES):
            try:
                what = check(Generator().manual_seed(case), case)
            except BaseException:
                print(f"failed: {check.__name__}, case {case}", flush=True)
                raise
            print(f"passed: {check.__name__}, case {case}: {what}", flush=True)
