"""Each kernel against its oracle at random shapes, on a device: ``python -m benchmarks.random_shapes``.

Needs torch, NumPy and, on a GPU, Triton.  A failure prints the seed that repeats it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from jowa.kernels.attention import HEAD_SIZES, causal_attention_reference, fused_causal_attention
from jowa.kernels.c51_loss import c51_loss, c51_loss_reference
from jowa.kernels.linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_reference
from jowa.kernels.tree_attention import tree_attention, tree_attention_reference
from jowa.kernels.vq_lookup import nearest_codes, vq_lookup, vq_lookup_reference

PAGE = 37
"""Tokens of a page: a frame's 36 and the action's."""
Check = Callable[[torch.Generator, torch.device], None]


def integer(generator: torch.Generator, low: int, high: int) -> int:
    """One of ``low`` to ``high``, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def normal(generator: torch.Generator, device: torch.device, *shape: int, scale: float = 1.0) -> torch.Tensor:
    """Normal float32 numbers on ``device``, the same on every device for the same generator."""
    return (torch.randn(shape, generator=generator) * scale).to(device)


def check_vq_lookup(generator: torch.Generator, device: torch.device) -> None:
    """The same tokens, ties and magnitudes included."""
    codes, width = integer(generator, 1, 2100), integer(generator, 1, 513)
    # The oracle holds all differences in float64: a hundred megabytes at most, on a CPU what its caches take.
    most = 13_000_000 if device.type == "cuda" else 1_000_000
    count, scale = integer(generator, 0, min(3000, most // (codes * width))), 10.0 ** integer(generator, -3, 3)
    latents, codebook = normal(generator, device, count, width, scale=scale), normal(generator, device, codes, width)
    codebook *= scale
    if integer(generator, 0, 1):  # few levels: exact ties
        latents, codebook = (latents / scale).round() * scale, (codebook / scale).round() * scale
    tokens, chosen = nearest_codes(latents, codebook)
    assert torch.equal(tokens, vq_lookup_reference(latents, codebook)) and torch.equal(chosen, codebook[tokens])
    assert torch.equal(vq_lookup(latents, codebook), tokens)


def check_linear_cross_entropy(generator: torch.Generator, device: torch.device) -> None:
    """The loss and three gradients, in float32 and in bfloat16, some rows not counted."""
    rows, width, classes = integer(generator, 0, 300), integer(generator, 1, 130), integer(generator, 1, 2100)
    dtype = torch.bfloat16 if integer(generator, 0, 1) else torch.float32
    shapes = ((rows, width), (classes, width), (classes,))
    tensors = [normal(generator, device, *shape, scale=0.5).to(dtype).requires_grad_() for shape in shapes]
    targets = torch.randint(classes, (rows,), generator=generator)
    targets = targets.masked_fill(torch.rand(rows, generator=generator) < 0.2, -100).to(device)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    found, expected = linear_cross_entropy(*tensors, targets), linear_cross_entropy_reference(*exact, targets)
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(found.double(), expected.double(), rtol=tolerance, atol=tolerance)
    gradients = (torch.autograd.grad(total, leaves) for total, leaves in ((found, tensors), (expected, exact)))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)


def check_c51_loss(generator: torch.Generator, device: torch.device) -> None:
    """Losses and gradients, in float32 and in bfloat16."""
    members, steps = integer(generator, 1, 4), integer(generator, 0, 300)
    actions, atoms = integer(generator, 1, 18), integer(generator, 2, 64)
    dtype = torch.bfloat16 if integer(generator, 0, 1) else torch.float32
    logits = normal(generator, device, members, steps, actions, atoms, scale=3.0).to(dtype).requires_grad_()
    chosen = torch.randint(actions, (steps,), generator=generator).to(device)
    successor, rewards = normal(generator, device, steps, atoms).softmax(-1), normal(generator, device, steps, scale=9)
    discounts = torch.rand(steps, generator=generator).to(device) * (normal(generator, device, steps) > -1)
    weights = normal(generator, device, 2, steps)
    found = torch.stack(c51_loss(logits, chosen, successor, rewards, discounts, -10.0, 30.0))
    expected = torch.stack(c51_loss_reference(logits, chosen, successor, rewards, discounts, -10.0, 30.0))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad((values * weights).sum(), logits)[0].float() for values in (found, expected)]
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(*gradients, rtol=tolerance, atol=tolerance)


def check_causal_attention(generator: torch.Generator, device: torch.device) -> None:
    """Values and gradients of strided projections, in float32 and in bfloat16."""
    batch, heads, length = integer(generator, 0, 4), integer(generator, 1, 4), integer(generator, 1, 296)
    size = HEAD_SIZES[integer(generator, 0, len(HEAD_SIZES) - 1)]
    dtype = torch.bfloat16 if integer(generator, 0, 1) else torch.float32
    shape = (batch, length, heads, size)
    tensors = [normal(generator, device, *shape).to(dtype).transpose(1, 2).requires_grad_() for _ in range(3)]
    weights = normal(generator, device, *shape).transpose(1, 2)
    results = []
    for function in (fused_causal_attention, causal_attention_reference):
        out = function(*(tensor.float() for tensor in tensors)) if dtype == torch.float32 else function(*tensors)
        results.append([out.float(), *torch.autograd.grad((out.float() * weights).sum(), tensors)])
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found.float(), expected.float(), rtol=tolerance, atol=tolerance)


def check_tree_attention(generator: torch.Generator, device: torch.device) -> None:
    """Ragged levels with pages in any order, in float32 and in bfloat16."""
    roots, rows, slots = integer(generator, 0, 5), integer(generator, 1, 16), integer(generator, 1, 4)
    heads, queries, context = integer(generator, 1, 4), integer(generator, 1, PAGE), integer(generator, 1, 260)
    size = (16, 32, 64)[integer(generator, 0, 2)]
    dtype = torch.bfloat16 if integer(generator, 0, 1) else torch.float32
    pages = max(roots * rows * slots, 1)
    table = torch.randperm(pages, generator=generator)[: roots * rows * slots].view(roots, rows, slots).int()
    full = torch.randint(slots, (roots, rows), generator=generator)
    own = torch.randint(queries, PAGE + 1, (roots, rows), generator=generator)
    arguments = [
        normal(generator, device, roots, rows, heads, queries, size).to(dtype),
        *(normal(generator, device, roots, heads, context, size).to(dtype) for _ in range(2)),
        torch.randint(1, context + 1, (roots,), generator=generator).int().to(device),
        *(normal(generator, device, pages, heads, PAGE, size).to(dtype) for _ in range(2)),
        table.to(device), (full * PAGE + own).int().to(device),
    ]  # fmt: skip
    found, expected = tree_attention(*arguments), tree_attention_reference(*arguments)
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(found.float(), expected.float(), rtol=tolerance, atol=tolerance)


CHECKS: dict[str, Check] = {
    "vq_lookup": check_vq_lookup,
    "c51_loss": check_c51_loss,
    "linear_cross_entropy": check_linear_cross_entropy,
    "causal_attention": check_causal_attention,
    "tree_attention": check_tree_attention,
}


def run(name: str, count: int, device: torch.device, first_seed: int = 0) -> float:
    """``count`` random cases of kernel ``name``; returns the seconds they took.

    Raises AssertionError naming the seed of the first case that fails.
    """
    began = time.monotonic()
    for seed in range(first_seed, first_seed + count):
        try:
            CHECKS[name](torch.Generator().manual_seed(seed), device)
        except Exception as error:
            raise AssertionError(
                f"{name} fails at seed {seed}; repeat it with: python -m benchmarks.random_shapes --kernels {name} "
                f"--first-seed {seed} --count 1 --device {device}\n{error}"
            ) from error
    return time.monotonic() - began


def main() -> None:
    """Check the kernels that are named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.random_shapes", description=__doc__)
    parser.add_argument("--kernels", nargs="+", default=list(CHECKS), choices=list(CHECKS))
    parser.add_argument("--count", type=int, default=1000, help="cases a kernel")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    for name in options.kernels:
        seconds = run(name, options.count, torch.device(options.device), options.first_seed)
        print(f"{name}: {options.count} random shapes agree, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
