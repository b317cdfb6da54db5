"""A decision's time, for one environment and for many, beside the plain planner and what the machine could do.

How often guesses miss is recorded from a trained agent (benchmarks/misses.npz, by ``python -m benchmarks.misses``):
there is no trained agent of the published sizes, so the engine is given guesses of its own frames that are wrong where
that agent's draft head was, and as sure of themselves.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.plain_planner import PlainPlanner
from jowa.config import PRESETS, ModelConfig
from jowa.model import WorldActionModel
from jowa.planner import BeamPlanner, Context, MCTSPlanner, PlannerConfig
from jowa.planner.engine import Drafts, Imagined, Level
from jowa.planner.native_engine import native_engine_available
from jowa.planner.tree import native_available

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_CPU = DEVICE.type == "cpu"
WIDTH, HORIZON, STEPS = 4, 2, 6
CONFIG = PlannerConfig("beam", WIDTH, HORIZON, respect_ends=False, draft="off")
MISSES = Path(__file__).parent / "misses.npz"
needs_native = pytest.mark.skipif(not native_engine_available(), reason="the native core is not built")


def sizes(name: str) -> ModelConfig:
    """The preset, with room for six steps of context and two imagined ones."""
    return dataclasses.replace(PRESETS[name].model, context_steps=8)


def contexts(roots: int, steps: int, vocabulary: int) -> Context:
    """Random contexts of equal length."""
    generator = torch.Generator().manual_seed(0)
    return Context(
        torch.randint(0, vocabulary, (roots, steps, 36), generator=generator).to(DEVICE),
        torch.randint(0, 18, (roots, steps), generator=generator).to(DEVICE),
        torch.full((roots,), steps, device=DEVICE),
        torch.zeros(roots, dtype=torch.long, device=DEVICE),
        torch.ones(roots, 18, dtype=torch.bool, device=DEVICE),
    )


def make_model(name: str) -> WorldActionModel:
    torch.manual_seed(0)
    return WorldActionModel(sizes(name)).eval().to(DEVICE)


def seconds_of(call: Callable[[], object], runs: int) -> float:
    """The median, after one call to warm up."""
    call()
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        if not ON_CPU:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def part(context: Context, root: int) -> Context:
    """One root alone."""
    return Context(*(getattr(context, field.name)[root : root + 1] for field in dataclasses.fields(context)))


def resident_mib() -> float:
    """Memory that this process holds now, in MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def pages_of_a_decision(planner: BeamPlanner | MCTSPlanner, context: Context) -> tuple[int, int]:
    """Steps of keys and values that a decision for one root fills, its context's included; and those that it would
    fill if each imagined step brought copies of its context and ancestors."""
    named: set[int] = set()
    copied = steps = int(context.lengths[0])
    imagine = planner.rollout.imagine

    def watched(level: Level, *others: object) -> Imagined:
        nonlocal copied
        for depth, table in zip(level.depths.flatten().tolist(), level.page_table.flatten(0, 1).tolist(), strict=True):
            if depth >= 0:
                named.update(table[: depth + 1])
                copied += steps + depth + 1
        return imagine(level, *others)  # type: ignore[arg-type]

    planner.rollout.imagine = watched  # type: ignore[method-assign, assignment]
    planner.plan(context)
    planner.rollout.imagine = imagine  # type: ignore[method-assign]
    return steps + len(named), copied


class RecordedGuesses:
    """Guesses of the frames that a decision imagines, which miss as a recorded draft head's did."""

    def __init__(self, game: str, vocabulary: int) -> None:
        recorded = np.load(MISSES)
        self.misses = torch.from_numpy(recorded[f"{game}_misses"]).to(DEVICE)
        self.sureness = torch.from_numpy(recorded[f"{game}_sureness"].astype(np.float32)).to(DEVICE)
        self.vocabulary = vocabulary
        self.outcomes: list[Tensor] = []
        self.next = -1
        """-1: take down what is imagined; else the level that is guessed next."""

    def propose(self, tokens: Tensor, actions: Tensor, tasks: Tensor) -> Drafts:
        del actions, tasks
        if self.next < 0:
            return Drafts(torch.full_like(tokens, -1))
        right = self.outcomes[self.next % len(self.outcomes)]
        count = right.shape[0] * right.shape[1]
        chosen = (torch.arange(count, device=DEVICE) + 31 * self.next) % len(self.misses)
        self.next += 1
        wrong = self.misses[chosen].view(*right.shape)
        return Drafts(
            torch.where(wrong, (right + 1) % self.vocabulary, right), self.sureness[chosen].view(*right.shape)
        )

    def learn(self, tokens: Tensor, actions: Tensor, tasks: Tensor, live: Tensor, outcome: Tensor) -> None:
        if self.next < 0:
            self.outcomes.append(outcome.clone())


def floor(config: ModelConfig, flops: float, bandwidth: float, bytes_a_weight: int) -> tuple[float, float]:
    """The least seconds that a decision can take token by token, and its floating-point operations.

    Each pass reads the weights or multiplies by them, whichever takes longer; encoding multiplies only.
    """
    block, head = 12 * config.width**2 * config.layers, config.width**2 + config.width * config.vocab_size
    seconds = 2.0 * block * (37 * STEPS - 1) / flops
    operations = 2.0 * block * (37 * STEPS - 1)
    for rows in (WIDTH, WIDTH**2):
        for weights in (block + head,) * 36 + (block,):
            seconds += max(2 * rows * weights / flops, weights * bytes_a_weight / bandwidth)
            operations += 2 * rows * weights
    return seconds, operations


@pytest.fixture(scope="module")
def ceilings() -> dict[str, float]:
    """What is reached here: float32 and bfloat16 operations a second, bytes a second from memory.

    Operations by torch, or by multiply-adds in registers alone where those are faster (on a CPU).
    """
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = (torch.randn(2048, 2048, device=DEVICE).to(dtype) for _ in range(2))
        found[name] = 2 * 2048**3 / seconds_of(lambda a=a, b=b: a @ b, 5)
        if ON_CPU and native_engine_available():
            from jowa import _native

            found[name] = max(found[name], *(2 * _native.peak(dtype == torch.bfloat16) for _ in range(5)))
    numbers = torch.zeros(100_000_000, device=DEVICE)
    found["bandwidth"] = 4 * numbers.numel() / seconds_of(numbers.sum, 5)
    return found


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["40M", "150M"])
def test_latency_of_a_decision(compare, ceilings, name: str, precision: str) -> None:
    model, context = make_model(name), contexts(1, STEPS, 2048)
    autocast = None if precision == "float32" else torch.bfloat16
    planner, plain = BeamPlanner(model, CONFIG, autocast), PlainPlanner(model, CONFIG, autocast)
    if autocast is None:
        assert int(planner.plan(context).actions[0]) == plain.plan(context)[0]
    shape = f"{name}, {precision}, width {WIDTH}, horizon {HORIZON}, context {STEPS}"
    compare(
        "a decision against the plain planner", shape, lambda: planner.plan(context), lambda: plain.plan(context), 3
    )
    least, operations = floor(
        model.config, ceilings[precision], ceilings["bandwidth"], 4 if precision == "float32" else 2
    )
    seconds = seconds_of(lambda: planner.plan(context), 5)
    compare.note(
        "a decision, token by token", shape, milliseconds=seconds * 1e3, least_milliseconds=least * 1e3,
        times_the_least=seconds / least, gflop=operations / 1e9, gflop_s=operations / seconds / 1e9,
        possible_gflop_s=ceilings[precision] / 1e9, possible_gb_s=ceilings["bandwidth"] / 1e9,
    )  # fmt: skip
    if ON_CPU and precision == "float32":
        assert seconds < 2 * least


@needs_native
@pytest.mark.skipif(not MISSES.exists(), reason="record misses.npz with python -m benchmarks.misses")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("width", [2, WIDTH])
@pytest.mark.parametrize("game", ["Freeway", "Pong"])
def test_guesses_make_a_decision_shorter(compare, ceilings, game: str, width: int, precision: str) -> None:
    model, context = make_model("150M"), contexts(1, STEPS, 2048)
    config = dataclasses.replace(CONFIG, width=width)
    autocast = None if precision == "float32" else torch.bfloat16
    planner = BeamPlanner(model, config, autocast)
    guesses = RecordedGuesses(game, 2048)
    planner.rollout._drafter = guesses
    plain = planner.plan(context, keep_frames=True)
    guesses.next = 0
    guessed = planner.plan(context, keep_frames=True)
    if ON_CPU:  # elsewhere near-ties may fall otherwise
        assert np.array_equal(plain.frames, guessed.frames) and plain.scores[0] == guessed.scores[0]
    counters = planner.rollout.engine.counters
    before = dataclasses.replace(counters)

    def without() -> None:
        planner.rollout._drafter = None
        planner.plan(context)

    def with_guesses() -> None:
        planner.rollout._drafter = guesses
        planner.plan(context)

    shape = f"150M, {precision}, width {width}, horizon {HORIZON}, context {STEPS}, misses of {game}"
    compare("guessed frames against token by token", shape, with_guesses, without, 3)
    before = dataclasses.replace(counters)
    seconds = seconds_of(with_guesses, 5)
    frames = counters.frames - before.frames
    figures = {"milliseconds": seconds * 1e3}
    if width == WIDTH:
        least, _ = floor(model.config, ceilings[precision], ceilings["bandwidth"], 4 if autocast is None else 2)
        figures |= {"least_milliseconds_token_by_token": least * 1e3, "times_that": seconds / least}
    if frames:  # a decision that stays on a GPU is not counted
        figures |= {
            "passes_a_frame": (counters.row_passes - before.row_passes) / frames,
            "fed_a_frame": (counters.fed - before.fed) / frames,
            "accepted": (counters.accepted - before.accepted) / max(counters.guessed - before.guessed, 1),
        }
    compare.note("a decision with guesses", shape, **figures)


@pytest.mark.parametrize("kind", ["beam", "mcts"])
@pytest.mark.parametrize("roots", [1, 4, 16, 64, 256])
def test_many_environments(compare, roots: int, kind: str) -> None:
    name = "tiny" if ON_CPU else "150M"
    model, context = make_model(name), contexts(roots, 2, sizes(name).vocab_size)
    config = PlannerConfig(kind, WIDTH, HORIZON, respect_ends=False, simulations=20, leaves=4)
    planner = (BeamPlanner if kind == "beam" else MCTSPlanner)(model, config, None if ON_CPU else torch.bfloat16)
    shape = f"{name}, {kind}, {roots} environments, context 2, width 4, horizon 2 (mcts: 20 simulations)"
    together = planner.plan(context).actions
    some = range(min(roots, 16))
    alone = np.concatenate([planner.plan(part(context, root)).actions for root in some])
    if ON_CPU:
        assert np.array_equal(together[: len(some)], alone)
    seconds = seconds_of(lambda: planner.plan(context), 5)
    one = seconds_of(lambda: planner.plan(part(context, 0)), 5)
    compare.note("decisions a second", shape, decisions_s=roots / seconds, one_at_a_time_s=1 / one,
                 ratio_to_one_at_a_time=roots * one / seconds, milliseconds=seconds * 1e3)  # fmt: skip


@pytest.mark.skipif(not native_available(), reason="the native core is not built")
@pytest.mark.parametrize("kind", ["beam", "mcts"])
def test_the_tree_takes_little_of_a_decision(compare, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The time inside the tree's methods, at the demo's size, and that of imagining; the rest is the planner's own."""
    model, context = make_model("tiny"), contexts(16, 2, 512)
    config = dataclasses.replace(CONFIG, name=kind, draft=None, simulations=20)
    planner = (BeamPlanner if kind == "beam" else MCTSPlanner)(model, config)
    spent = {"tree": 0.0, "imagining": 0.0}

    def timed(name: str, method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            start = time.perf_counter()
            result = method(*arguments, **named)
            spent[name] += time.perf_counter() - start
            return result

        return call

    from jowa.planner.tree import NativeBeamTree, NativeMCTSTree

    tree = NativeBeamTree if kind == "beam" else NativeMCTSTree
    for name in ("__init__", "start", "expand", "select", "keep", "backup", "best", "beam", "nodes", "simulations"):
        if hasattr(tree, name):
            monkeypatch.setattr(tree, name, timed("tree", getattr(tree, name)))
    engine = type(planner.rollout.engine)
    for name in ("encode", "imagine"):
        monkeypatch.setattr(engine, name, timed("imagining", getattr(engine, name)))
    planner.plan(context)
    spent.update(tree=0.0, imagining=0.0)
    start = time.perf_counter()
    for _ in range(20):
        planner.plan(context)
    whole = time.perf_counter() - start
    compare.note(
        "the tree's share of a decision", f"tiny, {kind}, 16 environments, context 2, width 4, horizon 2",
        milliseconds=whole / 20 * 1e3, tree=spent["tree"] / whole, imagining=spent["imagining"] / whole,
    )  # fmt: skip
    assert spent["tree"] < 0.02 * whole


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux how much memory is held")
@pytest.mark.parametrize("kind", ["beam", "mcts"])
def test_memory_stays_flat(compare, kind: str) -> None:
    """10,000 decisions; and the pages in use against the pages that copying caches would fill."""
    tiny = dataclasses.replace(sizes("tiny"), layers=1, heads=2, width=32, q_width=32, vocab_size=64)
    torch.manual_seed(0)
    model, context = WorldActionModel(tiny).eval().to(DEVICE), contexts(4, 2, 64)
    config = PlannerConfig(kind, WIDTH, HORIZON, respect_ends=False, simulations=20, leaves=4)
    planner = (BeamPlanner if kind == "beam" else MCTSPlanner)(model, config)
    used = []
    decisions = 0
    while decisions < 10_000:
        for _ in range(250):
            planner.plan(context, slots=range(4))
            decisions += 4
        used.append(resident_mib())
    growth = used[-1] - used[0]
    shared, copied = pages_of_a_decision(planner, part(context, 0))
    compare.note("memory over 10,000 decisions", f"{kind}, 4 environments", growth_mib=growth, resident_mib=used[-1],
                 pages_of_a_decision=shared, pages_if_copied=copied)  # fmt: skip
    assert growth < 20 and shared < copied
