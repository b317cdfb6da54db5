"""The native engine refuses what does not fit and changes nothing then; idle rows are free; it counts what it does."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from engine_cases import LENGTHS, SMALL, assert_identical, build, draw_context, engine_for, levels, run, some_roots

from jowa.model import WorldActionModel
from jowa.planner import Context
from jowa.planner.engine import Drafts, Imagined, Level, Sampling
from jowa.planner.native_engine import NativeEngine, native_engine_available

if not native_engine_available():
    pytest.skip("the native core was not built", allow_module_level=True)


@pytest.fixture(scope="module")
def small() -> WorldActionModel:
    return build(SMALL)


def test_right_drafts_finish_a_row_in_one_pass(small: WorldActionModel) -> None:
    context, engine = draw_context(small, [2]), engine_for(small)
    engine.encode(context)
    level = Level(torch.tensor([[4]]), torch.tensor([[[0]]], dtype=torch.int32), torch.zeros(1, 1, dtype=torch.int32))
    plain = engine.imagine(level)
    assert dataclasses.astuple(engine.counters)[:5] == (1, 37, 37, 0, 0)
    engine.imagine(level, Drafts(plain.tokens, torch.ones(1, 1, 36)))
    assert dataclasses.astuple(engine.counters)[:5] == (2, 38, 74, 36, 36)
    wrong = plain.tokens.clone()
    wrong[0, 0, 10] = (wrong[0, 0, 10] + 1) % 20
    engine.imagine(level, Drafts(wrong, torch.ones(1, 1, 36)))
    counters = engine.counters
    assert (counters.frames, counters.row_passes, counters.accepted) == (3, 40, 36 + 35)
    assert counters.misses.nonzero().flatten().tolist() == [10] and counters.misses.sum() == 1
    assert (counters.fed, counters.guessed) == (74 + 37 + 26, 36 + 36 + 25)


def test_idle_rows_are_free_and_zero(small: WorldActionModel) -> None:
    context, engine = draw_context(small, LENGTHS), engine_for(small)
    whole = run(engine, context)[0]
    engine.encode(context)
    first = levels()[0]
    idle = torch.tensor([[0, -1, 0], [-1, -1, -1], [0, 0, -1], [-1, 0, 0]], dtype=torch.int32)
    table, actions = first.page_table.clone(), first.actions.clone()
    table[idle < 0], actions[idle < 0] = 10**6, -7  # what idle rows hold is not looked at
    before = engine.counters.frames
    found = engine.imagine(Level(actions, table, idle))
    assert engine.counters.frames - before == int((idle == 0).sum())
    for field in dataclasses.fields(Imagined):
        live, here, expected = idle == 0, getattr(found, field.name), getattr(whole, field.name)
        assert torch.equal(here[live], expected[live]) and not here[~live].any()
    nothing = engine.imagine(Level(actions, table, torch.full_like(idle, -1)))
    assert not nothing.tokens.any() and not nothing.q.any()
    assert engine.imagine(Level(actions[:0], table[:0], idle[:0])).tokens.shape == (0, 3, 36)
    assert engine.encode(some_roots(context, [])).q.shape == (0, 18)


def level_of(actions, pages, depths) -> Level:
    return Level(torch.tensor(actions), torch.tensor(pages, dtype=torch.int32), torch.tensor(depths, dtype=torch.int32))


GOOD = {"actions": [[1, 2]], "pages": [[[0, 2], [0, 3]]], "depths": [[1, 1]]}
BAD_LEVELS = {
    "level.actions of root 0, row 1 must lie in [0, 18), got 18": {"actions": [[1, 18]]},
    "level.actions of root 0, row 0 must lie in [0, 18), got -1": {"actions": [[-1, 1]]},
    "level.page_table of root 0, row 1 must lie in [0, 24), got 24": {"pages": [[[0, 2], [0, 24]]]},
    "level.page_table of root 0, row 0 must lie in [0, 24), got -1": {"pages": [[[-1, 2], [0, 3]]]},
    "uses page 2, which another row fills": {"pages": [[[0, 2], [0, 2]]]},
    "uses page 3, which another row fills": {"pages": [[[3, 2], [0, 3]]]},
    "level.depths of root 0, row 0 is 2, but level.page_table has 2 slots": {"depths": [[2, 0]]},
    "beyond the model's 5": {"pages": [[[0, 2, 4, 5]] * 2], "depths": [[3, -1]]},
    "level.depths must have shape (1, 2), got (1, 1)": {"depths": [[0]]},
    "level.page_table must have shape (1, 2, -1), got (1, 1, 2)": {"pages": [[[0, 1]]]},
    "level has 5 roots, but 4 are reserved": {key: value * 5 for key, value in GOOD.items()},
}


@pytest.mark.parametrize("message", BAD_LEVELS)
def test_a_level_must_fit_or_nothing_changes(small: WorldActionModel, message: str) -> None:
    context, engine = draw_context(small, [2]), engine_for(small)
    engine.encode(context)
    engine.imagine(level_of([[3]], [[[0]]], [[0]]))
    expected = engine.imagine(level_of(**GOOD))
    counters = dataclasses.replace(engine.counters)
    with pytest.raises(ValueError, match=re.escape(message)):
        engine.imagine(level_of(**(GOOD | BAD_LEVELS[message])))
    assert engine.counters.frames == counters.frames
    assert_identical(engine.imagine(level_of(**GOOD)), expected)


def test_other_arguments_of_imagine_are_checked(small: WorldActionModel) -> None:
    context, engine = draw_context(small, [2]), engine_for(small)
    engine.encode(context)
    level = level_of([[3]], [[[0]]], [[0]])
    with pytest.raises(ValueError, match=r"drafts.tokens must have shape \(1, 1, 36\), got \(1, 36\)"):
        engine.imagine(level, Drafts(torch.zeros(1, 36, dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"drafts.tokens of root 0, row 0 must be less than 20, got 20"):
        engine.imagine(level, Drafts(torch.full((1, 1, 36), 20)))
    with pytest.raises(ValueError, match=r"drafts.sureness must have shape"):
        engine.imagine(level, Drafts(torch.zeros(1, 1, 36, dtype=torch.int64), torch.zeros(1, 1, 35)))
    with pytest.raises(ValueError, match=r"sampling.seeds must have shape \(1, 1\)"):
        engine.imagine(level, sampling=Sampling(torch.zeros(1, 2, dtype=torch.int64)))
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"sampling.temperature must be positive and finite"):
            engine.imagine(level, sampling=Sampling(torch.zeros(1, 1, dtype=torch.int64), temperature))
    with pytest.raises(ValueError, match=r"level.depths must be torch.int32, got torch.int64"):
        engine.imagine(Level(level.actions, level.page_table, level.depths.long()))


def changed(context: Context, name: str, at: tuple[int, ...], value: int) -> Context:
    tensor = getattr(context, name).clone()
    tensor[at] = value
    return dataclasses.replace(context, **{name: tensor})


def test_contexts_are_checked_and_padding_is_not(small: WorldActionModel) -> None:
    context, engine = draw_context(small, [2, 3]), engine_for(small)
    expected = engine.encode(context).q
    for name, at, value, message in [
        ("tokens", (1, 2, 35), 20, "context.tokens of root 1 must lie in [0, 20), got 20"),
        ("actions", (0, 0), 18, "context.actions of root 0 must lie in [0, 18), got 18"),
        ("lengths", (1,), 4, "context.lengths of root 1 must lie in [1, 3], got 4"),
        ("lengths", (0,), 0, "context.lengths of root 0 must lie in [1, 3], got 0"),
        ("tasks", (1,), 4, "context.tasks of root 1 must lie in [0, 4), got 4"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            engine.encode(changed(context, name, at, value))
    for slots, message in [([0, 4], "slots of root 1 must lie in [0, 4), got 4"), ([1, 1], "slots names 1 twice")]:
        with pytest.raises(ValueError, match=re.escape(message)):
            engine.encode(context, torch.tensor(slots))
    for steps in (0, 6):
        empty = Context(torch.zeros(1, steps, 36, dtype=torch.int64), torch.zeros(1, steps, dtype=torch.int64),
                        torch.tensor([steps]), torch.zeros(1, dtype=torch.int64), context.legal[:1])  # fmt: skip
        with pytest.raises(ValueError, match=f"a context holds 1 to 5 steps, got {steps}"):
            engine.encode(empty)
    padded = changed(changed(changed(context, "tokens", (0, 2, 0), 99), "actions", (0, 1), -5), "actions", (1, 2), 99)
    assert torch.equal(engine.encode(padded).q, expected)


def test_reserving_checks_and_never_shrinks(small: WorldActionModel) -> None:
    engine = NativeEngine(small)
    with pytest.raises(ValueError, match="reserve more roots"):
        engine.encode(draw_context(small, [2]))
    with pytest.raises(ValueError, match="pages must not be negative, got -1"):
        engine.reserve(1, -1)
    engine.reserve(2, 3)
    engine.encode(draw_context(small, [2, 1]))
    engine.reserve(1, 1)  # no more than there is: nothing is forgotten
    engine.imagine(level_of([[1], [2]], [[[1]], [[2]]], [[0], [0]]))


def test_precision_and_instructions_have_names(small: WorldActionModel) -> None:
    with pytest.raises(ValueError, match="precision must be 'float32' or 'bfloat16', got 'float16'"):
        NativeEngine(small, "float16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no instructions called mmx"):
        NativeEngine(small, instructions="mmx")
