"""Search trees in tensors against those in NumPy arrays: on the CPU, and on a GPU where there is one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from search_cases import assert_same, draw_floats, draw_legal, needs_native

from jowa.planner.device_trees import DeviceBeamTree, DeviceMCTSTree
from jowa.planner.tree import MCTSSettings, NativeBeamTree, NativeMCTSTree
from jowa.planner.tree_state import native

pytestmark = needs_native
gpu = pytest.mark.skipif(
    not (native and native.cuda_available_in_build and torch.cuda.is_available()), reason="needs CUDA, and a build with"
)
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, gpu])])


def host(tensors: Any) -> list[Any]:
    return [tensor.cpu().numpy() for tensor in tensors]


@devices
@pytest.mark.parametrize("respect_ends", [False, True])
@pytest.mark.parametrize("td_lambda", [1.0, 0.25])
@pytest.mark.parametrize("seed", range(5))
def test_beam_search_in_tensors(device, seed, td_lambda, respect_ends):
    rng = np.random.default_rng(seed)
    widths, horizons, legal = rng.integers(1, 5, 7), rng.integers(0, 4, 7), draw_legal(rng, 7, 6)
    plain = NativeBeamTree(widths, horizons, 6, 0.9, respect_ends, td_lambda)
    tree = DeviceBeamTree(widths, horizons, 6, 0.9, respect_ends, device, td_lambda)
    assert tree.pages_per_root == plain.pages_per_root
    for _ in range(2):
        slots = 1
        while not plain.finished():
            q = draw_floats(rng, (7, slots, 6))
            q[6, 0] = np.nan if slots > 1 else 0
            expansion = plain.expand(q, legal)
            to = [torch.from_numpy(array).to(device) for array in (q, legal)]
            assert_same(host(tree.expand(*to)), expansion)
            rewards, values = draw_floats(rng, (2, *expansion.valid.shape))
            ends = rng.random(values.shape) < 0.2
            kept = plain.keep(rewards, ends, values)
            to = [torch.from_numpy(array).to(device) for array in (rewards, ends, values)]
            assert_same(host(tree.keep(*to)), kept)
            assert_same(host(tree.best()), plain.best())
            slots = plain.width
        assert_same(tree.nodes(), plain.nodes())
        assert_same(tree.beam(), plain.beam())
        assert tree.failed.tolist() == plain.failed.tolist()
        tree.reset()
        plain.reset()


@devices
@pytest.mark.parametrize("gumbel", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_monte_carlo_search_in_tensors(device, seed, gumbel):
    """A GPU's exponential may differ in the last bit: there, only that priors are close and answers are the same."""
    rng = np.random.default_rng(seed)
    settings, legal = MCTSSettings(gumbel=gumbel), draw_legal(rng, 7, 6)
    plain = NativeMCTSTree(7, 30, 6, settings)
    tree = DeviceMCTSTree(7, 30, 6, settings, max_leaves=4, max_depth=5, device=device)
    q = rng.normal(size=(7, 6)).astype(np.float32)
    arguments = [np.arange(7) != 3, q, legal, rng.integers(0, 6, 7)]
    arguments += [None, rng.gumbel(size=(7, 6)).astype(np.float32), np.full(7, 25), np.full(7, 4)]
    arguments[3][0] = 5

    def to(array: Any) -> Any:
        return None if array is None else torch.from_numpy(array).to(device)

    plain.start(*arguments)
    tree.start(*map(to, arguments))
    for step in range(8):
        leaves = np.full(7, 4)
        selection = plain.select(leaves)
        assert_same(host(tree.select(to(leaves))), selection)
        rewards, values = rng.normal(size=(7, 4)).astype(np.float32), rng.normal(size=(7, 4, 6)).astype(np.float32)
        values[6] = np.nan if step == 3 else values[6]
        ends = rng.random((7, 4)) < 0.2
        plain.backup(rewards, ends, values)
        tree.backup(*map(to, (rewards, ends, values)))
        best = plain.best()
        assert_same(host(tree.best()), best)
        if step == 4:
            mask, noise = rng.random(7) < 0.7, rng.gumbel(size=(7, 6)).astype(np.float32)
            kept = plain.advance(mask, best[0], noise)
            assert_same(host([tree.advance(*map(to, (mask, best[0], noise)))]), [kept])
    exhausted = host([tree.failed.long(), tree.exhausted, tree.simulations()])
    assert_same(exhausted, [plain.failed, plain.exhausted, plain.simulations()])
    close = dict.fromkeys(("prior", "priors"), 1e-6 if device == "cuda" else 0.0)
    for mine, theirs in ((tree.nodes(), plain.nodes()), (tree.root_children(), plain.root_children())):
        for name, values in theirs.items():
            np.testing.assert_allclose(mine[name], values, rtol=close.get(name, 0.0), err_msg=name)


def test_wrong_tensors_are_named():
    sizes = np.full(2, 2)
    tree = DeviceBeamTree(sizes, sizes, 3)
    q, legal = torch.zeros(2, 1, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(TypeError, match=r"q must be a tensor of torch.float32, got torch.float64"):
        tree.expand(q.double(), legal)
    with pytest.raises(TypeError, match=r"legal must be a tensor of torch.bool, got ndarray"):
        tree.expand(q, legal.numpy())
    with pytest.raises(ValueError, match=r"q must have shape \(2, 1, 3\), got \(2, 3\)"):
        tree.expand(q[:, 0], legal)
    with pytest.raises(ValueError, match="contiguous"):
        tree.expand(torch.zeros(2, 1, 6)[:, :, ::2], legal)
    for name, options in (("max_leaves", {"max_leaves": 0}), ("max_depth", {"max_depth": 0})):
        with pytest.raises(ValueError, match=name):
            DeviceMCTSTree(1, 1, 1, **options)
    with pytest.raises(ValueError, match="cpu or cuda"):
        DeviceBeamTree(sizes, sizes, 3, device="meta")


@pytest.mark.skipif(native is None or native.cuda_available_in_build, reason="built with CUDA")
def test_a_build_without_cuda_says_so():
    tree = native.BeamTree([1], [1], 2, 0.9, True, True)
    with pytest.raises(RuntimeError, match="built without CUDA"):
        tree.reset()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_the_kernels_compile_without_spilling(architecture, tmp_path):
    source = Path(__file__).parents[2] / "csrc" / "cuda" / "trees.cu"
    options = ["-std=c++20", "-O3", "--fmad=false", "--expt-relaxed-constexpr", "-Xptxas", "-v", "-cubin"]
    # A sanitizer's library that is loaded before this process's own is none of the compiler's.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        ["nvcc", f"-arch={architecture}", *options, "-o", str(tmp_path / "trees.cubin"), str(source)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    spilled = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr + done.stdout)
    assert len(spilled) == 10 and set(spilled) == {("0", "0")}, done.stderr + done.stdout
