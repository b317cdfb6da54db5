"""The native engine by itself, without torch: its functions against float64, and that it stays within its memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

_native = pytest.importorskip("jowa._native")

SIZES = {
    "layers": 2, "heads": 3, "width": 39, "vocab": 21, "actions": 18, "atoms": 51, "members": 2, "q_width": 35,
    "context_steps": 4, "tasks": 3, "task_embedding": True,
}  # fmt: skip
PADDED_HEAD, PADDED_Q = 16, 64


def sets() -> Iterator[str]:
    """The sets of instructions that this processor and build have."""
    for name in ("bf16", "v4", "v3", "portable"):
        try:
            _native.apply("exp", np.zeros(1, np.float32), name)
        except ValueError:
            continue
        yield name


def arrays(rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Random weights under the engine's names."""
    width, mixed = SIZES["width"], SIZES["heads"] * PADDED_HEAD
    tables = {"frame_embedding": SIZES["vocab"], "action_embedding": 18, "position_embedding": 37 * 4,
              "frame_task_embedding": 3, "action_task_embedding": 3}  # fmt: skip
    for name, rows in tables.items():
        yield name, rng.normal(size=(rows, width))
    yield "atoms", np.linspace(-10, 30, 51)[None]
    linear = {"frame1": (width, width), "frame2": (SIZES["vocab"], width), "outcome1": (2 * width, width),
              "outcome2": (5, 2 * width), "q1": (2 * PADDED_Q, width)}  # fmt: skip
    norms = {"ln_f": width}
    for layer in range(2):
        name = f"blocks.{layer}."
        linear |= {f"{name}qkv": (3 * mixed, width), f"{name}proj": (width, mixed), f"{name}up": (4 * width, width),
                   f"{name}down": (width, 4 * width)}  # fmt: skip
        norms |= {f"{name}ln1": width, f"{name}ln2": width}
    for member in range(2):
        name, hidden = f"q.{member}.", SIZES["q_width"]
        linear |= {f"{name}linear2": (hidden, hidden), f"{name}linear3": (18 * 51, hidden)}
        norms |= {f"{name}norm1": hidden, f"{name}norm2": hidden}
    for name, (outputs, inputs) in linear.items():
        yield f"{name}.weight", rng.normal(size=(outputs, inputs)) * 2 / np.sqrt(inputs)
        yield f"{name}.bias", rng.normal(size=(1, outputs)) / 4
    for name, count in norms.items():
        yield f"{name}.weight", 1 + rng.normal(size=(1, count)) / 4
        yield f"{name}.bias", rng.normal(size=(1, count)) / 4


def build(bfloat16: bool = False, instructions: str | None = None):
    engine = _native.Engine(**SIZES, bfloat16=bfloat16, instructions=instructions)
    for name, array in arrays(np.random.default_rng(0)):
        engine.load(name, np.ascontiguousarray(array, np.float32))
    engine.check_complete()
    engine.reserve(3, 12)
    return engine


def imagine(engine, roots: slice = slice(0, 3), drafts=None, rows: int = 4):
    """Encode three contexts of 1, 3 and 2 steps, and imagine a step of ``roots`` for four actions."""
    rng = np.random.default_rng(1)
    tokens, actions = rng.integers(21, size=(3, 3, 36)), rng.integers(18, size=(3, 3))
    lengths, tasks = np.array([1, 3, 2]), np.array([2, 0, 1])
    values = engine.encode(tokens[roots], actions[roots], lengths[roots], tasks[roots], None)
    taken = rng.integers(18, size=(3, 4))[roots, :rows].copy()
    pages = np.arange(12, dtype=np.int32).reshape(3, 4, 1)[roots, :rows].copy()
    found = engine.imagine(taken, pages, np.zeros_like(taken, np.int32), drafts, None, None, 1.0)
    return [*values, *found[:5]]


@pytest.mark.parametrize("instructions", list(sets()))
@pytest.mark.parametrize("bfloat16", [False, True])
def test_company_threads_and_guesses_do_not_matter(instructions: str, bfloat16: bool) -> None:
    engine = build(bfloat16, instructions)
    whole = imagine(engine)
    before = _native.num_threads()
    try:
        for threads in (1, 2, 3):
            _native.set_num_threads(threads)
            for root in range(3):
                alone = imagine(build(bfloat16, instructions), slice(root, root + 1), rows=2)
                for part, expected in zip(alone[:2], whole[:2], strict=True):
                    np.testing.assert_array_equal(part, expected[root : root + 1])
                for part, expected in zip(alone[2:], whole[2:], strict=True):
                    np.testing.assert_array_equal(part, expected[root : root + 1, :2])
            noise = np.random.default_rng(2).random((3, 4, 36)) < 0.2
            for part, expected in zip(imagine(engine, drafts=(whole[2] + noise) % 21), whole, strict=True):
                np.testing.assert_array_equal(part, expected)
    finally:
        _native.set_num_threads(before)
    assert np.unique(whole[2]).size > 5


EXACT = {
    "exp": math.exp,
    "erfc": math.erfc,
    "gelu": lambda x: x / 2 * math.erfc(-x / math.sqrt(2)),
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
}


@pytest.mark.parametrize("instructions", list(sets()))
@pytest.mark.parametrize("function", EXACT)
def test_functions_against_float64(function: str, instructions: str) -> None:
    low, high = {"exp": (-87, 87), "erfc": (0, 9)}.get(function, (-30, 30))
    x = np.concatenate([np.linspace(low, high, 20001), np.linspace(low / 100, high / 100, 2001)]).astype(np.float32)
    exact = np.array([EXACT[function](float(value)) for value in x])
    found = _native.apply(function, x, instructions).astype(np.float64)
    error = np.abs(found - exact)
    if function == "erfc":
        assert error.max() < 1e-7
    elif function == "exp":
        assert (error / exact).max() < 2e-7
    else:
        assert (error / np.maximum(np.abs(x), 1e-3)).max() < 2e-7


@pytest.mark.parametrize("instructions", list(sets()))
def test_functions_at_their_ends(instructions: str) -> None:
    def of(function: str, *values: float) -> list[float]:
        return _native.apply(function, np.array(values, np.float32), instructions).tolist()

    assert of("exp", 0.0, -math.inf, -88.0) == [1.0, 0.0, 0.0]
    assert of("mish", 0.0, 50.0, -200.0) == [0.0, 50.0, 0.0]
    assert of("gelu", 0.0, 50.0, -50.0) == [0.0, 50.0, 0.0]
    assert all(math.isnan(of(function, math.nan)[0]) for function in EXACT)


def test_arguments_are_checked() -> None:
    engine = build()
    with pytest.raises(ValueError, match="no array called nothing"):
        engine.load("nothing", np.zeros((1, 1), np.float32))
    with pytest.raises(ValueError, match=r"frame1.weight must have shape \(39, 39\), got \(39, 38\)"):
        engine.load("frame1.weight", np.zeros((39, 38), np.float32))
    with pytest.raises(ValueError, match="was not set"):
        _native.Engine(**SIZES, bfloat16=False).check_complete()
    with pytest.raises(ValueError, match="no instructions called mmx"):
        _native.Engine(**SIZES, bfloat16=False, instructions="mmx")
    with pytest.raises(ValueError, match=r"level.actions must be a NumPy array of int64"):
        engine.imagine(np.zeros((1, 1)), None, None, None, None, None, 1.0)
