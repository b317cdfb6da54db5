"""Small random models, contexts and levels, for the tests of what rolls the model forward."""

from __future__ import annotations

import dataclasses

import planner_cases
import torch
from planner_cases import SMALL

from jowa.config import PRESETS, ModelConfig
from jowa.model import WorldActionModel
from jowa.planner import Context
from jowa.planner.engine import Imagined, Level
from jowa.planner.native_engine import NativeEngine

CONFIGS = {
    "heads of 8": SMALL,
    "tiny": dataclasses.replace(PRESETS["tiny"].model, context_steps=5, num_tasks=4, q_init=None),
    "odd sizes": dataclasses.replace(
        SMALL, heads=3, width=75, q_width=41, q_ensemble=3, vocab_size=77, task_embedding=False
    ),
    "one wide head": dataclasses.replace(SMALL, layers=1, heads=1, width=48, q_width=33, q_ensemble=1, vocab_size=50),
}
LENGTHS = [1, 3, 2, 1]
PARENTS = torch.tensor([[1, 0, 2], [1, 0, 0], [2, 2, 1], [0, 1, 2]])
ACTIONS = torch.tensor([[[3, 8, 9], [0, 17, 2], [5, 5, 6], [1, 4, 4]], [[1, 2, 2], [9, 9, 3], [11, 4, 0], [7, 7, 7]]])
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def build(config: ModelConfig) -> WorldActionModel:
    """A random model whose outputs vary."""
    torch.manual_seed(0)
    model = WorldActionModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif not name.startswith("q_"):
                parameter.mul_(15 if config.width < 30 else 6)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def draw_context(model: WorldActionModel, lengths: list[int], seed: int = 0) -> Context:
    return planner_cases.draw_context(lengths, seed, model.config.vocab_size)


def some_roots(context: Context, roots: list[int]) -> Context:
    return Context(*(getattr(context, field.name)[roots] for field in dataclasses.fields(context)))


def engine_for(model: WorldActionModel, precision="float32", instructions: str | None = None) -> NativeEngine:
    engine = NativeEngine(model, precision, instructions)
    engine.reserve(len(LENGTHS), 2 * PARENTS.numel())
    return engine


def levels(roots: list[int] | None = None) -> list[Level]:
    """Two levels of three rows a root, the second of swapped parents; every row has a page of its own."""
    roots = list(range(len(LENGTHS))) if roots is None else roots
    pages = torch.arange(PARENTS.numel(), dtype=torch.int32).view(*PARENTS.shape)[roots]
    parents = pages.gather(1, PARENTS[roots])
    depths = torch.zeros(pages.shape, dtype=torch.int32)
    second = torch.stack([parents, pages + PARENTS.numel()], 2)
    return [Level(ACTIONS[0][roots], pages[:, :, None], depths), Level(ACTIONS[1][roots], second, depths + 1)]


def run(engine: NativeEngine, context: Context, roots: list[int] | None = None, **options) -> list[Imagined]:
    engine.encode(context if roots is None else some_roots(context, roots))
    return [engine.imagine(level, **options) for level in levels(roots)]


def assert_identical(left: Imagined, right: Imagined) -> None:
    for field in dataclasses.fields(Imagined):
        assert torch.equal(getattr(left, field.name), getattr(right, field.name)), field.name


def pick(outcome: Imagined, roots: list[int]) -> Imagined:
    return Imagined(*(getattr(outcome, field.name)[roots] for field in dataclasses.fields(Imagined)))
