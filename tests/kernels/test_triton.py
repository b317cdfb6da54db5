"""The Triton kernels where there is no GPU: interpreted, and compiled for A100 and H100."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def run(script: str, cache: Path, *arguments: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name(script), *arguments],
        capture_output=True, text=True, check=False, env={**environment, "TRITON_CACHE_DIR": str(cache)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_kernels_agree_with_their_oracles_in_the_interpreter(tmp_path: Path) -> None:
    assert run("interpreted.py", tmp_path) == [
        "passed: vq_scores_and_runner_up",
        "passed: vq_tokens_are_the_oracles_ties_included",
        "passed: vq_of_numbers_that_are_none",
        "passed: vq_of_nothing_is_nothing",
        "passed: c51_losses_and_gradients",
        "passed: c51_in_half_precision",
        "passed: c51_of_nothing_is_nothing",
        "passed: cross_entropies_in_place",
        "passed: cross_entropies_of_nothing",
    ]


@pytest.mark.slow
def test_kernels_compile_for_the_target_hardware(tmp_path: Path) -> None:
    lines = run("compiled.py", tmp_path)
    assert [line.split(",")[0] for line in lines] == [
        f"compiled: {kernel} for sm_{capability}"
        for kernel in (
            "vq_lookup",
            "vq_lookup with codes",
            *(f"c51_loss {way}{dtype}" for dtype in ("", " in fp16", " in fp32") for way in ("forward", "backward")),
        )
        for capability in (80, 90)
    ] + [
        f"compiled: cross-entropy of {classes} classes in {dtype}{gradient} for sm_{capability}"
        for classes in (512, 2048, 16384)
        for dtype in ("fp32", "fp16", "bf16")
        for gradient in ("", " with gradient")
        for capability in (80, 90)
    ] + [
        f"compiled: {kernel} for sm_{capability}"
        for kernel in (
            *(f"vq_lookup with codes of {width} numbers" for width in (1, 16, 64, 196)),
            *(f"c51_loss {way} in fp32 of {words}" for way in ("forward", "backward")
              for words in ("one member", "the largest critic")),
            *(f"cross-entropy of a block of {1 << power}" for power in range(15) if power not in (9, 11, 14)),
        )
        for capability in (80, 90)
    ]  # fmt: skip


@pytest.mark.slow
def test_attention_agrees_with_its_oracle_in_the_interpreter(tmp_path: Path) -> None:
    assert run("interpreted_attention.py", tmp_path) == [
        "passed: attention_at_every_length",
        "passed: attention_with_dropout",
        "passed: attention_of_every_head_size",
        "passed: attention_of_large_scores",
        "passed: attention_of_views_in_the_midst_of_nan",
        "passed: attention_through_the_operation",
        "passed: attention_of_nothing_is_nothing",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["80", "90"])
def test_attention_compiles_in_every_configuration(tmp_path: Path, capability: str) -> None:
    lines = run("compiled_attention.py", tmp_path, capability)
    assert {line.split(",")[0] for line in lines} == {
        f"compiled: {kernel} {dtype} {size}{words} for sm_{capability}"
        for kernel, sizes in (("forward", (16, 32, 64, 128)), ("backward", (16, 32, 64, 128)), ("rows", (128,)))
        for dtype in ("bf16", "fp16", "fp32")
        for size in sizes
        for words in ("", " with dropout")
    } | {f"compiled: {kernel} of one token for sm_{capability}" for kernel in ("forward", "backward", "rows")}


@pytest.mark.slow
def test_kernels_agree_with_their_oracles_at_random_shapes(tmp_path: Path) -> None:
    checks = ("random_codes", "random_critics", "random_cross_entropies", "random_attention")
    assert [line.rpartition(": ")[0] for line in run("interpreted_random.py", tmp_path)] == [
        f"passed: {check}, case {case}" for check in checks for case in range(12)
    ]


@pytest.mark.slow
def test_tree_attention_agrees_with_its_oracle_in_the_interpreter(tmp_path: Path) -> None:
    assert run("interpreted_tree_attention.py", tmp_path) == [
        "passed: levels_of_all_kinds",
        "passed: levels_with_split_contexts",
        "passed: random_levels",
        "passed: nothing_is_nothing",
        "passed: pages_that_do_not_exist_are_not_read",
    ]


@pytest.mark.slow
def test_tree_attention_compiles_for_the_target_hardware(tmp_path: Path) -> None:
    lines = run("compiled_tree_attention.py", tmp_path)
    assert [line.rsplit(",", 2)[0] for line in lines] == [
        f"compiled: tree_attention {kernel} of {tile} queries in {dtype}{strides} for sm_{capability}"
        for dtype in ("float32", "float16", "bfloat16")
        for kernel in ("context_kernel", "rows_kernel")
        for tile in (16, 32 if dtype == "float32" else 64)
        for strides in ("", " with aligned strides")
        for capability in (80, 90)
    ] + [
        f"compiled: tree_attention {kernel} of ones for sm_{capability}"
        for kernel in ("context_kernel", "rows_kernel")
        for capability in (80, 90)
    ] + [
        f"compiled: tree_attention {kernel} of {tile} queries in {dtype} with aligned strides, heads of {size} "
        f"for sm_{capability}"
        for size in (16, 32)
        for dtype in ("float32", "bfloat16")
        for kernel in ("context_kernel", "rows_kernel")
        for tile in (16, 32 if dtype == "float32" else 64)
        for capability in (80, 90)
    ]
