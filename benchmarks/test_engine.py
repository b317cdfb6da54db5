"""The native engine beside the plain imagination and torch's own products, and its share of what the machine could do.

The least that a pass can take: its weights' bytes at the bandwidth of memory, or its multiply-adds at the peak of the
processor, whichever is longer; both are measured here, in the same minute (of weights that a cache may hold, the
second alone).  Attention and heads come on top.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch

from jowa.config import PRESETS
from jowa.model import WorldActionModel
from jowa.planner import Context, Imagination
from jowa.planner.engine import Drafts, Level
from jowa.planner.native_engine import NativeEngine, native_engine_available

if not native_engine_available():
    pytest.skip("the native core is not built", allow_module_level=True)

from jowa import _native

MODELS = {"tiny": 1, "40M": 6, "150M": 6}
"""Steps of context; the tiny model has two steps in all."""
ROWS = [1, 4, 16, 64]
torch.set_num_threads(_native.num_threads())


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> tuple[str, WorldActionModel]:
    torch.manual_seed(0)
    return request.param, WorldActionModel(PRESETS[request.param].model).eval()


def draw_context(name: str, model: WorldActionModel) -> Context:
    steps = MODELS[name]
    return Context(
        torch.randint(model.config.vocab_size, (1, steps, 36)),
        torch.randint(18, (1, steps)),
        torch.tensor([steps]),
        torch.zeros(1, dtype=torch.int64),
        torch.ones(1, 18, dtype=torch.bool),
    )


def engine_for(name: str, model: WorldActionModel, precision: str) -> tuple[NativeEngine, Context]:
    engine = NativeEngine(model, precision)  # type: ignore[arg-type]
    engine.reserve(1, max(ROWS))
    context = draw_context(name, model)
    engine.encode(context)
    return engine, context


def level_of(rows: int) -> Level:
    actions = torch.arange(rows).view(1, rows) % 18
    pages = torch.arange(rows, dtype=torch.int32).view(1, rows, 1)
    return Level(actions, pages, torch.zeros(1, rows, dtype=torch.int32))


def median_seconds(call: Callable[[], object], runs: int = 5) -> float:
    call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@pytest.fixture(scope="module")
def bandwidth() -> float:
    """Bytes a second that torch reads from memory."""
    numbers = torch.zeros(100_000_000)
    return 4 * numbers.numel() / median_seconds(numbers.sum)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_passes(compare, model, bandwidth: float, precision: str) -> None:
    name, network = model
    engine, context = engine_for(name, network, precision)
    native = engine._engine
    peak = max(_native.peak(precision == "bfloat16") for _ in range(5))
    width = native.pass_bytes / native.pass_products
    cached = native.pass_bytes < 100e6  # the last cache holds much of them: memory is no limit
    for rows in ROWS:
        level = level_of(rows)
        seconds = median_seconds(lambda level=level: engine.imagine(level), 20 if name == "tiny" else 3) / 37
        read = 0.0 if cached else native.pass_bytes / bandwidth
        least = max(read, rows * native.pass_products / peak)
        compare.note(
            f"native engine, a pass, {precision}", f"{name}, {rows} tokens", microseconds=seconds * 1e6,
            least_microseconds=least * 1e6, share_of_what_is_possible=least / seconds,
            gflop_s=2 * rows * native.pass_products / seconds / 1e9, peak_gflop_s=2 * peak / 1e9,
            weights_gb_s=native.pass_bytes / seconds / 1e9, bytes_a_weight=width,
        )  # fmt: skip
        assert seconds > least * 0.5  # else the floor, or the clock, is wrong
    seconds = median_seconds(lambda: engine.encode(context))
    tokens = 37 * MODELS[name] - 1
    # Of the last layer keys and values alone are computed for all tokens: a quarter of its weights without the MLP.
    products = tokens * 12 * network.config.width**2 * (network.config.layers - 10 / 12)
    compare.note(f"native engine, encoding, {precision}", f"{name}, {tokens} tokens", milliseconds=seconds * 1e3,
                 gflop_s=2 * products / seconds / 1e9, share_of_peak=products / seconds / peak)  # fmt: skip


@pytest.mark.parametrize("rows", [1, 16])
def test_against_plain_imagination(compare, model, rows: int) -> None:
    name, network = model
    engine, context = engine_for(name, network, "float32")
    plain, level = Imagination(network), level_of(rows)
    roots, start = plain.encode(context), torch.zeros(1, rows, dtype=torch.int64)
    found, expected = engine.imagine(level), plain.step(roots, None, start, level.actions)
    assert torch.equal(found.tokens, expected.tokens)
    ratio = compare(
        "native engine against plain imagination, float32", f"{name}, {rows} rows, one step",
        lambda: engine.imagine(level), lambda: plain.step(roots, None, start, level.actions), 3,
    )  # fmt: skip
    assert ratio > 1


def test_encoding_against_torch(compare, model) -> None:
    name, network = model
    engine, context = engine_for(name, network, "float32")
    plain = Imagination(network)
    ratio = compare(
        "native engine, encoding, against torch, float32", f"{name}, {37 * MODELS[name] - 1} tokens",
        lambda: engine.encode(context), lambda: plain.encode(context), 5,
    )  # fmt: skip
    # Behind each of its products torch's threads spin for a while, and a call of 0.2 ms has to get past them.
    assert ratio > 1 or name == "tiny"


@pytest.mark.parametrize("rows", [4, 16])
def test_products_against_torch(compare, model, rows: int) -> None:
    """A whole token, attention and all, against nothing but the products of one written the fast way in torch."""
    name, network = model
    engine, _ = engine_for(name, network, "float32")
    level = level_of(rows)
    blocks = network.transformer.blocks
    weights = [p.detach() for p in (*blocks.parameters(), *network.frame_head.parameters()) if p.ndim == 2]
    inputs = {count: torch.randn(count, rows) for count in {w.shape[1] for w in weights}}

    def products() -> None:
        for _ in range(37):
            for weight in weights:
                weight @ inputs[weight.shape[1]]

    compare(
        "native engine, a step, against torch's products alone, float32", f"{name}, {rows} rows",
        lambda: engine.imagine(level), products, 3,
    )  # fmt: skip


@pytest.mark.parametrize("right", [0.8, 0.95])
@pytest.mark.parametrize("rows", [1, 4])
def test_drafts(compare, model, rows: int, right: float) -> None:
    """Guesses of which a share is right, independently of one another; sureness is the engine's own experience."""
    name, network = model
    engine, _ = engine_for(name, network, "float32")
    level = level_of(rows)
    tokens = engine.imagine(level).tokens
    kept = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(1)) < right
    drafts = Drafts(torch.where(kept, tokens, (tokens + 1) % network.config.vocab_size))
    assert torch.equal(engine.imagine(level, drafts).tokens, tokens)
    compare(
        "native engine, with drafts against without, float32", f"{name}, {rows} rows, {right:.0%} right",
        lambda: engine.imagine(level, drafts), lambda: engine.imagine(level), 5,
    )  # fmt: skip
