"""A small model whose answers vary, and contexts for it: what the tests of planners and engines start from."""

from __future__ import annotations

import dataclasses

import torch

from jowa.config import ModelConfig
from jowa.model import WorldActionModel
from jowa.planner import Context

SMALL = ModelConfig(layers=2, heads=2, width=16, q_width=12, q_ensemble=2, vocab_size=20, context_steps=5, num_tasks=4)


def vivid_model(config: ModelConfig = SMALL) -> WorldActionModel:
    """A random model whose weights are large, so that tokens, rewards and ends depend on what was seen."""
    torch.manual_seed(0)
    model = WorldActionModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(15)
    return model.eval()


def ragged_context() -> Context:
    """Four roots of different lengths, tasks and legal actions; the last has a single one."""
    generator = torch.Generator().manual_seed(5)
    legal = torch.rand(4, 18, generator=generator) < 0.4
    legal[3] = False
    legal[:, 6] = True
    return Context(
        torch.randint(20, (4, 3, 36), generator=generator),
        torch.randint(18, (4, 3), generator=generator),
        torch.tensor([1, 3, 2, 3]),
        torch.arange(4),
        legal,
    )


def draw_context(lengths: list[int], seed: int = 0, vocab: int = SMALL.vocab_size) -> Context:
    """Roots of these lengths, to which every action is legal."""
    generator = torch.Generator().manual_seed(seed)
    count, longest = len(lengths), max(lengths)
    return Context(
        torch.randint(vocab, (count, longest, 36), generator=generator),
        torch.randint(18, (count, longest), generator=generator),
        torch.tensor(lengths),
        torch.arange(count) % 4,
        torch.ones(count, 18, dtype=torch.bool),
    )


def alone(context: Context, root: int) -> Context:
    """One root of a batch, without padding."""
    length, one = int(context.lengths[root]), slice(root, root + 1)
    return Context(
        context.tokens[one, :length],
        context.actions[one, :length],
        context.lengths[one],
        context.tasks[one],
        context.legal[one],
    )


def on(context: Context, device: str) -> Context:
    """The same on a device."""
    return Context(*(getattr(context, field.name).to(device) for field in dataclasses.fields(Context)))
