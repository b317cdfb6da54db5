"""The Triton kernels where there is no GPU: interpreted, and compiled for A100 and H100."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def run(script: str, cache: Path) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name(script)],
        capture_output=True, text=True, check=False, env={**environment, "TRITON_CACHE_DIR": str(cache)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_kernels_agree_with_their_oracles_in_the_interpreter(tmp_path: Path) -> None:
    assert run("interpreted.py", tmp_path) == [
        "passed: vq_scores_and_runner_up",
        "passed: vq_tokens_are_the_oracles_ties_included",
        "passed: vq_of_nothing_is_nothing",
        "passed: c51_losses_and_gradients",
        "passed: c51_in_half_precision",
        "passed: c51_of_nothing_is_nothing",
    ]


@pytest.mark.slow
def test_kernels_compile_for_the_target_hardware(tmp_path: Path) -> None:
    lines = run("compiled.py", tmp_path)
    assert [line.split(",")[0] for line in lines] == [
        f"compiled: {kernel} for sm_{capability}"
        for kernel in ("vq_lookup", "c51_loss forward", "c51_loss backward")
        for capability in (80, 90)
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
    assert [line.split(",")[0] for line in lines] == [
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
    ]
