"""Imagination with its caches against the whole model run again for every token."""

from __future__ import annotations

import pytest
import torch
from planner_cases import alone, draw_context

from jowa.model import WorldActionModel
from jowa.model.heads import expectation, q_distribution
from jowa.planner import Context, Imagination


@torch.no_grad()
def oracle(
    model: WorldActionModel, tokens: torch.Tensor, actions: torch.Tensor, task: torch.Tensor
) -> tuple[torch.Tensor, float, bool, torch.Tensor]:
    """The step after tokens (n, 36) and actions (n,): (frame (36,), reward, end, Q (18,)), no cache."""
    n = len(tokens)
    tokens = torch.cat([tokens, torch.zeros(1, 36, dtype=torch.int64)])[None]
    actions = torch.cat([actions, torch.zeros(1, dtype=torch.int64)])[None]
    for k in range(36):  # what stands behind a position does not reach it, so zeros may stand there
        tokens[0, n, k] = model(tokens, actions, task).frames[0, n * 36 + k - 1].argmax()
    found = model(tokens, actions, task)
    q = expectation(q_distribution(found.q), model.config.v_min, model.config.v_max)[0, n]
    return tokens[0, n], float(found.rewards[0, n - 1].argmax()) - 1, bool(found.ends[0, n - 1].argmax()), q


@torch.no_grad()
def oracle_q(model: WorldActionModel, context: Context) -> torch.Tensor:
    """Q (18,) at the last frame of one root's context."""
    found = model(context.tokens, context.actions, context.tasks)
    return expectation(q_distribution(found.q), model.config.v_min, model.config.v_max)[0, -1]


def test_equals_the_model_without_caches_for_ragged_roots(model: WorldActionModel) -> None:
    """Three roots of different lengths, two rows each, two levels; the second level swaps its parents."""
    context = draw_context([1, 3, 2])
    imagination = Imagination(model)
    roots = imagination.encode(context)
    actions = [torch.tensor([[3, 8], [0, 17], [5, 5]]), torch.tensor([[1, 2], [9, 9], [11, 4]])]
    parents = torch.tensor([[1, 0], [1, 0], [0, 0]])
    first = imagination.step(roots, None, torch.zeros(3, 2, dtype=torch.int64), actions[0])
    second = imagination.step(roots, first, parents, actions[1])
    for root in range(3):
        one = alone(context, root)
        torch.testing.assert_close(roots.q[root], oracle_q(model, one), rtol=1e-4, atol=1e-4)
        assert torch.equal(roots.tokens[root], one.tokens[0, -1])
        for row in range(2):
            parent = int(parents[root, row])
            tokens, taken = one.tokens[0], one.actions[0].clone()
            for level, (states, at) in enumerate(((first, parent), (second, row))):
                action = actions[level][root, at]
                taken = torch.cat([taken[:-1] if level == 0 else taken, action[None]])
                frame, reward, end, q = oracle(model, tokens, taken, one.tasks)
                assert torch.equal(states.tokens[root, at], frame)
                assert states.rewards[root, at] == reward and bool(states.ends[root, at]) == end
                torch.testing.assert_close(states.q[root, at], q, rtol=1e-4, atol=1e-4)
                tokens = torch.cat([tokens, frame[None]])


def test_a_batch_gives_each_root_what_it_gets_alone(model: WorldActionModel) -> None:
    context = draw_context([2, 4, 1, 3], seed=3)
    imagination = Imagination(model)
    actions = torch.tensor([[2, 7], [2, 7], [0, 1], [5, 6]])
    start = torch.zeros(4, 2, dtype=torch.int64)
    batched = imagination.step(imagination.encode(context), None, start, actions)
    for root in range(4):
        only = imagination.step(imagination.encode(alone(context, root)), None, start[:1], actions[root : root + 1])
        assert torch.equal(only.tokens[0], batched.tokens[root])
        assert torch.equal(only.rewards[0], batched.rewards[root]) and torch.equal(only.ends[0], batched.ends[root])
        torch.testing.assert_close(only.q[0], batched.q[root], rtol=1e-4, atol=1e-4)


def test_what_stands_in_padding_does_not_matter(model: WorldActionModel) -> None:
    context = draw_context([2, 3])
    context.tokens[0, 2], context.actions[0, 2] = 0, 0
    imagination = Imagination(model)
    first = imagination.encode(context)
    step = imagination.step(first, None, torch.zeros(2, 1, dtype=torch.int64), torch.tensor([[4], [4]]))
    context.tokens[0, 2], context.actions[0, 1:], context.actions[1, 2] = 19, 17, 17
    second = imagination.encode(context)
    assert torch.equal(first.q, second.q)
    again = imagination.step(second, None, torch.zeros(2, 1, dtype=torch.int64), torch.tensor([[4], [4]]))
    assert torch.equal(step.tokens, again.tokens) and torch.equal(step.q, again.q)


def test_the_world_answers_differently(model: WorldActionModel) -> None:
    """The fixture is worth testing with: actions matter, and rewards and ends are of several kinds."""
    imagination = Imagination(model)
    roots = imagination.encode(draw_context([2] * 6))
    rows = imagination.step(roots, None, torch.zeros(6, 18, dtype=torch.int64), torch.arange(18).expand(6, -1))
    assert rows.tokens.flatten(0, 1).unique(dim=0).shape[0] > 20
    assert rows.rewards.unique().numel() > 1 and rows.ends.unique().numel() == 2


@pytest.mark.parametrize("steps", [0, 6])
def test_a_context_must_fit(model: WorldActionModel, steps: int) -> None:
    context = Context(
        torch.zeros(1, steps, 36, dtype=torch.int64),
        torch.zeros(1, steps, dtype=torch.int64),
        torch.tensor([steps]),
        torch.zeros(1, dtype=torch.int64),
        torch.ones(1, 18, dtype=torch.bool),
    )
    with pytest.raises(ValueError, match=f"a context holds 1 to 5 steps, got {steps}"):
        Imagination(model).encode(context)
