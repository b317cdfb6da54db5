"""The engines against plain imagination: levels, pages, drafts, sampling, and what they refuse."""

from __future__ import annotations

import copy

import pytest
import torch
from planner_cases import draw_context
from torch import Tensor

from jowa.model import WorldActionModel
from jowa.planner import Context, Imagination
from jowa.planner.engine import Drafts, Engine, Imagined, Level, Sampling, uniform
from jowa.planner.native_engine import NativeEngine, native_engine_available
from jowa.planner.torch_engine import TorchEngine

needs_native = pytest.mark.skipif(not native_engine_available(), reason="the native core was not built")


@pytest.fixture(params=[TorchEngine, pytest.param(NativeEngine, marks=needs_native)])
def engine(request, model) -> Engine:
    engine = request.param(model)
    engine.reserve(4, 24)
    return engine


def level_of(actions: list[list[int]], pages: list[list[list[int]]], idle: tuple[tuple[int, int], ...] = ()) -> Level:
    """Rows whose page table is ``pages``, padded with -1."""
    slots = max(len(row) for root in pages for row in root)
    table = torch.tensor([[row + [-1] * (slots - len(row)) for row in root] for root in pages], dtype=torch.int32)
    depths = torch.tensor([[len(row) - 1 for row in root] for root in pages], dtype=torch.int32)
    for root, row in idle:
        depths[root, row] = -1
    return Level(torch.tensor(actions), table, depths)


FIRST = level_of([[3, 8], [0, 17], [5, 5]], [[[0], [1]], [[9], [4]], [[20], [7]]])
SECOND = level_of([[1, 2], [9, 9], [11, 4]], [[[1, 2], [0, 3]], [[4, 10], [9, 12]], [[20, 21], [20, 5]]])
PARENTS = torch.tensor([[1, 0], [1, 0], [0, 0]])


def assert_same(found: Imagined, expected: Imagined) -> None:
    """Equal choices, close values."""
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.rewards, expected.rewards) and torch.equal(found.ends, expected.ends)
    torch.testing.assert_close(found.q, expected.q, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.spread, expected.spread, rtol=1e-3, atol=1e-4)


def test_equals_plain_imagination(engine: Engine, model: WorldActionModel) -> None:
    context = draw_context([1, 3, 2])
    plain = Imagination(model)
    roots = plain.encode(context)
    values = engine.encode(context)
    torch.testing.assert_close(values.q, roots.q, rtol=1e-4, atol=1e-4)
    rows = None
    for level, parents in ((FIRST, torch.zeros(3, 2, dtype=torch.int64)), (SECOND, PARENTS)):
        rows = plain.step(roots, rows, parents, level.actions)
        found = engine.imagine(level)
        assert torch.equal(found.tokens, rows.tokens)
        assert torch.equal(found.rewards, rows.rewards) and torch.equal(found.ends, rows.ends)
        torch.testing.assert_close(found.q, rows.q, rtol=1e-4, atol=1e-4)
        assert (found.spread > 0).all()


@pytest.mark.parametrize("head", ["frame_head", "reward_head", "end_head"])
def test_nan_of_a_head_is_not_hidden_by_the_most_likely_class(model: WorldActionModel, head: str) -> None:
    """Plain imagination says so as the engines do: reward and Q are NaN."""
    broken, context = copy.deepcopy(model), draw_context([1, 3, 2])
    with torch.no_grad():
        getattr(broken, head)[2].bias[1] = torch.nan
    plain = Imagination(broken)
    rows = plain.step(plain.encode(context), None, torch.zeros_like(FIRST.actions), FIRST.actions)
    assert rows.rewards.isnan().all() and rows.q.isnan().all()
    for make in [TorchEngine, *([NativeEngine] if native_engine_available() else [])]:
        engine = make(broken)
        engine.reserve(4, 24)
        engine.encode(context)
        found = engine.imagine(FIRST)
        assert torch.equal(found.rewards.isnan(), rows.rewards.isnan())
        assert torch.equal(found.q.isnan(), rows.q.isnan())


def test_rows_of_one_level_may_stand_at_any_depth(engine: Engine) -> None:
    engine.encode(draw_context([1, 3, 2]))
    engine.imagine(FIRST)
    expected = engine.imagine(SECOND)
    again = engine.imagine(FIRST)
    mixed = level_of([[1, 3], [9, 0], [11, 5]], [[[1, 2], [0]], [[4, 10], [9]], [[20, 21], [7]]], idle=((1, 1),))
    found = engine.imagine(mixed)
    assert torch.equal(found.tokens[:, 0], expected.tokens[:, 0])
    assert torch.equal(found.tokens[0, 1], again.tokens[0, 0]) and torch.equal(found.tokens[2, 1], again.tokens[2, 1])
    for silent in (found.tokens, found.rewards, found.ends, found.q, found.spread):
        assert not silent[1, 1].any()


def test_slots_keep_their_contexts_apart(engine: Engine) -> None:
    context = draw_context([2, 3, 1])
    first = engine.encode(context)
    expected = engine.imagine(FIRST)
    engine.encode(draw_context([5, 5, 5], seed=9))
    order = torch.tensor([2, 0, 1])
    moved = Context(*(getattr(context, name)[order] for name in ("tokens", "actions", "lengths", "tasks", "legal")))
    second = engine.encode(moved, order)
    torch.testing.assert_close(second.q, first.q[order], rtol=1e-4, atol=1e-4)
    assert_same(engine.imagine(FIRST), expected)


def spoiled(tokens: Tensor, rate: float, seed: int) -> Tensor:
    """Guesses of which about ``rate`` are wrong, some of them none at all."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(tokens.shape, generator=generator) < rate
    return torch.where(wrong, torch.randint(-1, 20, tokens.shape, generator=generator), tokens)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("sampled", [False, True])
def test_guesses_change_nothing(engine: Engine, rate: float, sampled: bool) -> None:
    engine.encode(draw_context([1, 3, 2]))
    sampling = Sampling(torch.arange(6).view(3, 2) + 77, temperature=0.7) if sampled else None
    expected = engine.imagine(FIRST, sampling=sampling)
    for seed in range(5):
        engine.counters.__init__()  # type: ignore[misc]
        sure = torch.ones(expected.tokens.shape) if seed % 2 else None
        drafts = Drafts(spoiled(expected.tokens, rate, seed), sure)
        assert_same(engine.imagine(FIRST, drafts, sampling), expected)
        counters = engine.counters
        assert counters.frames == 6 and counters.accepted <= counters.guessed
        if rate == 0 and sure is not None:
            assert counters.accepted == counters.guessed > 0 and counters.row_passes < 6 * 37
        assert counters.row_passes <= 6 * 37
    assert_same(engine.imagine(SECOND, sampling=sampling), engine.imagine(SECOND, sampling=sampling))


def test_guesses_leave_the_same_pages(engine: Engine) -> None:
    """What is imagined from a frame that was guessed in part equals what follows the frame decoded token by token."""
    engine.encode(draw_context([1, 3, 2]))
    plain = engine.imagine(FIRST)
    expected = engine.imagine(SECOND)
    engine.imagine(FIRST, Drafts(spoiled(plain.tokens, 0.3, seed=1)))
    assert_same(engine.imagine(SECOND), expected)


def test_sampling_draws_from_the_distribution(engine: Engine, model: WorldActionModel) -> None:
    """The first token and the reward of many seeds against the model's probabilities (chi-squared), with guesses."""
    context = draw_context([2])
    engine.encode(context)
    taken = torch.tensor([[int(context.actions[0, 0]), 4]])
    with torch.no_grad():
        predicted = model(context.tokens, taken, context.tasks)
    wanted = {"token": (predicted.frames[0, 71] / 0.5).softmax(-1), "reward": predicted.rewards[0, 1].softmax(-1)}
    rows, rounds = 16, 125
    level = level_of([[4] * rows], [[[page] for page in range(rows)]])
    counts = {name: torch.zeros_like(probabilities) for name, probabilities in wanted.items()}
    guess = Drafts(torch.full((1, rows, 36), int(wanted["token"].argmax())))
    for start in range(rounds):
        seeds = torch.arange(rows).view(1, rows) + start * rows
        found = engine.imagine(level, guess, Sampling(seeds, temperature=0.5))
        counts["token"] += torch.bincount(found.tokens[0, :, 0], minlength=20)
        counts["reward"] += torch.bincount(found.rewards[0].long() + 1, minlength=3)
    for name, probabilities in wanted.items():
        expected = probabilities * rows * rounds
        likely = expected > 5
        statistic = float(((counts[name] - expected)[likely] ** 2 / expected[likely]).sum())
        assert statistic < 2.5 * int(likely.sum()) + 12, f"{name}: {counts[name]} against {expected}"


def test_uniform_is_uniform_and_as_documented() -> None:
    seeds = torch.arange(-5000, 5000)
    draws = torch.stack([uniform(seeds, index) for index in range(38)])
    assert float(draws.min()) >= 0 and float(draws.max()) < 1
    assert abs(float(draws.mean()) - 0.5) < 0.003
    assert abs(float(torch.corrcoef(draws)[0, 1])) < 0.05
    assert float(uniform(torch.tensor([0]), 0)) == (0xE220A8397B1DCDAF >> 11) / 2**53  # splitmix64's first output


def test_what_does_not_fit_is_refused(engine: Engine) -> None:
    engine.encode(draw_context([1, 3, 5]))
    before = engine.imagine(level_of([[3], [1]], [[[0]], [[1]]]))
    bad: dict[str, Level] = {
        "reserved": level_of([[1]] * 5, [[[0]]] * 5),
        "page": level_of([[1]], [[[24]]]),
        "page_table": level_of([[1]], [[[-1]]]),
        "step": level_of([[1]] * 3, [[[2]]] * 3),
    }
    for message, level in bad.items():
        with pytest.raises(ValueError, match=message):
            engine.imagine(level)
    good = level_of([[3], [1]], [[[0]], [[1]]])
    with pytest.raises(ValueError, match=r"drafts.*must have shape"):
        engine.imagine(good, Drafts(torch.zeros(2, 1, 35, dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"seeds.* must be"):
        engine.imagine(good, sampling=Sampling(torch.zeros(2, 1, dtype=torch.int32)))
    with pytest.raises(ValueError, match="temperature"):
        engine.imagine(good, sampling=Sampling(torch.zeros(2, 1, dtype=torch.int64), temperature=0.0))
    with pytest.raises(ValueError, match="slots"):
        engine.encode(draw_context([1]), torch.tensor([4]))
    with pytest.raises(ValueError, match="1 to 5 steps"):
        engine.encode(draw_context([6]))
    assert_same(engine.imagine(good), before)


def test_nothing_to_imagine(engine: Engine) -> None:
    engine.encode(draw_context([1, 2]))
    none = engine.imagine(Level(torch.zeros(2, 0, dtype=torch.int64), *torch.zeros(2, 2, 0, 1, dtype=torch.int32)[:1],
                                torch.zeros(2, 0, dtype=torch.int32)))  # fmt: skip
    assert none.tokens.shape == (2, 0, 36) and none.q.shape == (2, 0, 18)
    idle = engine.imagine(level_of([[1]], [[[0]]], idle=((0, 0),)))
    assert not idle.tokens.any() and not idle.q.any()


@needs_native
def test_thousands_of_frames_are_the_same_to_the_last_bit_however_they_are_guessed(model: WorldActionModel) -> None:
    engine = NativeEngine(model)
    engine.reserve(8, 80)
    pages = torch.arange(80, dtype=torch.int32).view(8, 10, 1)
    generator = torch.Generator().manual_seed(0)
    frames, wrong = 0, 0
    for seed in range(40):
        engine.encode(draw_context([1 + (seed + root) % 4 for root in range(8)], seed))
        actions = torch.randint(18, (8, 10), generator=generator)
        level = Level(actions, pages, torch.zeros(8, 10, dtype=torch.int32))
        sampling = Sampling(torch.randint(2**62, (8, 10), generator=generator), 0.8) if seed % 2 else None
        plain = engine.imagine(level, sampling=sampling)
        rate = float(torch.rand(1, generator=generator))
        drafts = Drafts(spoiled(plain.tokens, rate, seed), torch.ones(8, 10, 36))  # sure, so that they are fed
        guessed = engine.imagine(level, drafts, sampling)
        for name in ("tokens", "rewards", "ends", "q", "spread"):
            assert torch.equal(getattr(guessed, name), getattr(plain, name)), name
        frames += 80
        wrong += int((drafts.tokens != plain.tokens).sum())
    assert frames == 3200 and wrong > 30_000 and engine.counters.accepted > 1000
