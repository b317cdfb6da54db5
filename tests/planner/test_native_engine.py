"""The native engine against the plain oracle, against itself in other company, and against recorded cases."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_cases import (
    ACTIONS,
    CONFIGS,
    LENGTHS,
    PARENTS,
    SMALL,
    TOLERANCE,
    assert_identical,
    build,
    draw_context,
    engine_for,
    levels,
    pick,
    run,
    some_roots,
)
from torch import Tensor

from jowa.model import WorldActionModel
from jowa.model.heads import expectation
from jowa.model.published_checkpoint import read_model
from jowa.planner import Context, Imagination
from jowa.planner.engine import Drafts, Imagined, Level, Sampling, uniform
from jowa.planner.native_engine import NativeEngine, native_engine_available

if not native_engine_available():
    pytest.skip("the native core was not built", allow_module_level=True)

from jowa import _native

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module", params=CONFIGS)
def model(request) -> WorldActionModel:
    return build(CONFIGS[request.param])


@pytest.fixture(scope="module")
def small() -> WorldActionModel:
    return build(SMALL)


@pytest.fixture
def threads() -> Iterator[None]:
    """Whatever the test sets, it was before."""
    before = _native.num_threads()
    yield
    _native.set_num_threads(before)


SETS = ["bf16", "v4", "v3", "portable"]


@pytest.mark.parametrize("instructions", [None, *SETS])
def test_equals_the_plain_imagination(model: WorldActionModel, instructions: str | None) -> None:
    try:
        engine = engine_for(model, instructions=instructions)
    except ValueError:
        pytest.skip(f"this processor has no {instructions}")
    context, plain = draw_context(model, LENGTHS), Imagination(model)
    roots = plain.encode(context)
    values = engine.encode(context)
    torch.testing.assert_close(values.q, roots.q, **TOLERANCE)
    first = plain.step(roots, None, torch.zeros_like(PARENTS), ACTIONS[0])
    second = plain.step(roots, first, PARENTS, ACTIONS[1])
    for expected, level in zip((first, second), levels(), strict=True):
        found = engine.imagine(level)
        assert torch.equal(found.tokens, expected.tokens)
        assert torch.equal(found.rewards, expected.rewards) and torch.equal(found.ends, expected.ends)
        torch.testing.assert_close(found.q, expected.q, **TOLERANCE)
    assert first.tokens.unique().numel() > 3 and first.tokens.flatten(0, 1).unique(dim=0).shape[0] > 6


@torch.no_grad()
def test_spread_is_the_deviation_over_members(model: WorldActionModel) -> None:
    context = draw_context(model, [2])
    logits = model(context.tokens, context.actions, context.tasks).q[:, 0, -1].double()
    members = expectation(logits.softmax(-1), model.config.v_min, model.config.v_max)
    engine = engine_for(model)
    values = engine.encode(context)
    torch.testing.assert_close(values.q[0], members.mean(0).float(), **TOLERANCE)
    torch.testing.assert_close(values.spread[0], members.std(0, unbiased=False).float(), rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_root_alone_gets_what_it_gets_among_others(model: WorldActionModel, precision) -> None:
    context, engine = draw_context(model, LENGTHS), engine_for(model, precision)
    together = run(engine, context)
    for roots in ([0], [1], [2], [3], [3, 1, 0, 2]):
        for outcome, whole in zip(run(engine_for(model, precision), context, roots), together, strict=True):
            assert_identical(outcome, pick(whole, roots))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_threads_do_not_matter(model: WorldActionModel, precision, threads: None) -> None:
    context, outcomes = draw_context(model, LENGTHS), []
    for count in (1, 2, 3):
        _native.set_num_threads(count)
        engine = engine_for(model, precision)
        values = engine.encode(context)
        outcomes.append((values, run(engine, context)))
    for values, both in outcomes[1:]:
        assert torch.equal(values.q, outcomes[0][0].q) and torch.equal(values.spread, outcomes[0][0].spread)
        for outcome, expected in zip(both, outcomes[0][1], strict=True):
            assert_identical(outcome, expected)


def draft_kinds(right: Tensor, vocab: int) -> dict[str, Drafts]:
    generator = torch.Generator().manual_seed(5)
    noise = torch.randint(vocab, right.shape, generator=generator)
    mixed = torch.where(torch.rand(right.shape, generator=generator) < 0.85, right, noise)
    holes = torch.where(torch.rand(right.shape, generator=generator) < 0.1, -1, mixed)
    sure = torch.rand(right.shape, generator=generator)
    return {
        "right": Drafts(right, torch.ones(right.shape)),
        "wrong": Drafts((right + 1) % vocab, torch.ones(right.shape)),
        "random": Drafts(noise),
        "mixed": Drafts(mixed, sure),
        "mixed, unsure": Drafts(mixed),
        "holes": Drafts(holes, torch.full(right.shape, 0.97)),
        "not a number": Drafts(mixed, torch.full(right.shape, torch.nan)),
    }


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_drafts_change_nothing(model: WorldActionModel, precision, sampled: bool) -> None:
    context, engine = draw_context(model, LENGTHS), engine_for(model, precision)
    sampling = Sampling(torch.arange(PARENTS.numel()).view(PARENTS.shape) - 5, 1.3) if sampled else None
    plain = run(engine, context, sampling=sampling)
    for name in draft_kinds(plain[0].tokens, model.config.vocab_size):
        other = engine_for(model, precision)
        other.encode(context)
        for level, expected in zip(levels(), plain, strict=True):
            drafts = draft_kinds(expected.tokens, model.config.vocab_size)[name]
            assert_identical(other.imagine(level, drafts, sampling), expected)


def test_an_engine_made_in_inference_mode_counts_outside_of_it(small: WorldActionModel) -> None:
    context = draw_context(small, LENGTHS)
    with torch.inference_mode():
        engine = engine_for(small)
    engine.encode(context)
    level = levels()[0]
    plain = engine.imagine(level)
    wrong = Drafts((plain.tokens + 1) % small.config.vocab_size, torch.ones(plain.tokens.shape))
    assert_identical(engine.imagine(level, wrong), plain)
    assert engine.counters.misses.sum() > 0


def test_rows_of_mixed_depths_and_slots_in_any_order(small: WorldActionModel) -> None:
    context, engine = draw_context(small, LENGTHS), engine_for(small)
    expected = run(engine, context)
    other = engine_for(small)
    order = [2, 0, 3, 1]
    values = other.encode(some_roots(context, order), torch.tensor(order))
    assert torch.equal(values.q, engine.encode(context).q[order])
    first, second = levels()
    other.imagine(first)
    both = Level(
        torch.cat([first.actions[:, :1], second.actions], 1),
        torch.cat([torch.cat([first.page_table[:, :1]] * 2, 2), second.page_table], 1),
        torch.cat([first.depths[:, :1], second.depths], 1),
    )
    spare = torch.tensor([24, 25, 26, 27], dtype=torch.int32)
    other.reserve(4, 28)  # grows: all is forgotten
    with pytest.raises(ValueError, match="not encoded"):
        other.imagine(first)
    other.encode(context)
    other.imagine(first)
    both.page_table[:, 0, 0] = spare
    found = other.imagine(both)
    assert_identical(pick(Imagined(*(getattr(found, f.name)[:, 1:] for f in dataclasses.fields(found))), [0, 1, 2, 3]),
                     expected[1])  # fmt: skip
    assert torch.equal(found.q[:, 0], expected[0].q[:, 0])


def test_many_rows_are_worked_through_in_turns(small: WorldActionModel) -> None:
    """More rows than a pass feeds."""
    engine = NativeEngine(small)
    engine.reserve(40, 40 * 18)
    context = draw_context(small, [1, 2, 3, 2] * 10)
    engine.encode(context)
    pages = torch.arange(40 * 18, dtype=torch.int32).view(40, 18, 1)
    level = Level(torch.arange(18).expand(40, 18), pages, torch.zeros(40, 18, dtype=torch.int32))
    whole = engine.imagine(level)
    alone = NativeEngine(small)
    alone.reserve(1, 18)
    alone.encode(some_roots(context, [37]))
    one = Level(level.actions[:1], pages[:1], level.depths[:1])
    assert_identical(alone.imagine(one), pick(whole, [37]))
    assert_identical(engine.imagine(level, Drafts(whole.tokens, torch.ones(40, 18, 36))), whole)


@torch.no_grad()
def test_draws_as_the_contract_says(small: WorldActionModel) -> None:
    """Token by token through the whole model, with the contract's numbers."""
    context, engine = draw_context(small, [2]), engine_for(small)
    engine.encode(context)
    seeds = torch.tensor([[11, -3]])
    level = Level(torch.tensor([[3, 3]]), torch.tensor([[[0], [1]]], dtype=torch.int32),
                  torch.zeros(1, 2, dtype=torch.int32))  # fmt: skip
    found = engine.imagine(level, sampling=Sampling(seeds, 2.0))
    assert not torch.equal(found.tokens[0, 0], found.tokens[0, 1])

    def drawn(logits: Tensor, row: int, position: int, temperature: float) -> int:
        cumulative = (logits.double() / temperature).softmax(-1).cumsum(-1)
        return int((cumulative <= float(uniform(seeds[0, row], position))).sum())

    for row in range(2):
        tokens = torch.cat([context.tokens[0], found.tokens[0, row][None]])[None]
        actions = torch.tensor([[int(context.actions[0, 0]), 3, 0]])
        predicted = small(tokens, actions, context.tasks)
        for i in range(36):
            assert int(found.tokens[0, row, i]) == drawn(predicted.frames[0, 72 + i - 1], row, i, 2.0)
        assert float(found.rewards[0, row]) == drawn(predicted.rewards[0, 1], row, 36, 1.0) - 1
        assert bool(found.ends[0, row]) == bool(drawn(predicted.ends[0, 1], row, 37, 1.0))


def test_refresh_reads_the_weights_again(small: WorldActionModel) -> None:
    model = build(SMALL)
    context, engine = draw_context(model, [2]), engine_for(model)
    before = engine.encode(context).q
    with torch.no_grad():
        model.q_head.linear3.bias.add_(torch.randn_like(model.q_head.linear3.bias))
    assert torch.equal(engine.encode(context).q, before)
    engine.refresh()
    after = engine.encode(context).q
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, Imagination(model).encode(context).q, **TOLERANCE)


def test_nan_in_the_critic_reaches_q(small: WorldActionModel) -> None:
    model = build(SMALL)
    with torch.no_grad():
        model.q_head.linear3.bias.view(2, 18, 51)[:, 4] = torch.nan
    context, engine = draw_context(model, [2]), engine_for(model)
    values = engine.encode(context)
    assert values.q[0].isnan().nonzero().flatten().tolist() == [4]
    found = engine.imagine(levels()[0].__class__(*(x[:1] for x in dataclasses.astuple(levels()[0]))))
    assert found.q.isnan().sum() == 3 and found.rewards.isfinite().all()


def golden_rows() -> list[int]:
    with np.load(GOLDEN / "expected.npz") as file:
        return sorted({int(key.split("/")[1]) for key in file if key.startswith("imagine/")})


@pytest.mark.parametrize("row", golden_rows())
def test_recorded_imagination(row: int) -> None:
    model = read_model(GOLDEN / "JOWA.pt", heads=4).eval()
    with np.load(GOLDEN / "inputs.npz") as inputs, np.load(GOLDEN / "expected.npz") as expected:
        engine = NativeEngine(model)
        engine.reserve(1, 8)
        context = Context(
            torch.from_numpy(expected["tokens"][row : row + 1, :5].astype(np.int64)),
            torch.from_numpy(inputs["actions"][row : row + 1, :5].astype(np.int64)),
            torch.tensor([5]),
            torch.from_numpy(inputs["tasks"][row : row + 1].astype(np.int64)),
            torch.ones(1, 18, dtype=torch.bool),
        )
        wanted = {key.split("/")[2]: expected[key] for key in expected if key.startswith(f"imagine/{row}/")}
        legal = torch.from_numpy(np.isfinite(wanted["q_root"]).reshape(18))
        found = [engine.encode(context).q]
        table = torch.arange(8, dtype=torch.int32).view(1, 1, 8)
        for depth, action in enumerate(wanted["actions"]):
            level = Level(torch.tensor([[int(action)]]), table, torch.tensor([[depth]], dtype=torch.int32))
            step = engine.imagine(level)
            assert np.array_equal(step.tokens.flatten(), wanted["tokens"][depth].flatten())
            assert float(step.rewards) == wanted["rewards"][depth] and bool(step.ends) == bool(wanted["ends"][depth])
            found.append(step.q[0])
        q = np.concatenate([wanted["q_root"].reshape(1, 18), wanted["q"].reshape(-1, 18)])
        torch.testing.assert_close(torch.cat(found)[:, legal], torch.from_numpy(q)[:, legal].float(), **TOLERANCE)


def test_bfloat16_is_near_float32(model: WorldActionModel) -> None:
    context = draw_context(model, LENGTHS)
    exact, rounded = (engine_for(model, precision).encode(context).q for precision in ("float32", "bfloat16"))
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.5)
