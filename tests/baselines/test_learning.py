"""What the rivals' losses teach, on batches made up so that the right answer is known; and what padding must not do."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from jowa.baselines.config import CriticObjective
from jowa.baselines.feed import Transitions, transitions_of
from jowa.baselines.objective import CloningObjective, ConservativeObjective
from jowa.games import get_game
from jowa.rivals import ConvConfig, ConvCritic, Playing, Rival, SequenceConfig, SequencePolicy, stack_frames
from jowa.rivals.sequence import return_tokens
from jowa.types import Batch

SMALL = SequenceConfig(layers=1, heads=2, width=32)
LEGAL = torch.from_numpy(get_game("Pong").action_mask)
LEFT, RIGHT = get_game("Pong").legal_actions[-2:]


def batch_of(tokens: torch.Tensor, actions: torch.Tensor, rewards: torch.Tensor | None = None) -> Batch:
    rows = len(actions)
    return Batch(
        frames=None, tokens=tokens, actions=actions,
        rewards=torch.zeros(actions.shape) if rewards is None else rewards,
        ends=torch.zeros(actions.shape, dtype=torch.bool), mask=torch.ones(actions.shape, dtype=torch.bool),
        tasks=torch.full((rows,), 39), legal=LEGAL.expand(rows, -1),
    )  # fmt: skip


def cued(seed: int, rows: int = 32) -> Batch:
    """Token 20 of each frame says which action is right; everything else is noise."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, 8, (rows, 2, 36), generator=generator)
    cue = torch.randint(0, 2, (rows, 2), generator=generator)
    tokens[:, :, 20] = cue
    return batch_of(tokens, torch.where(cue == 1, RIGHT, LEFT))


def train(objective: Any, steps: int, make: Any, rate: float = 3e-3) -> torch.Tensor:
    """Adam for some steps; the agreement on a batch that was not trained on."""
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=rate)
    for step in range(steps):
        optimizer.zero_grad()
        losses, _ = objective(*make(step))
        sum(losses.values()).backward()
        optimizer.step()
    return objective(*make(10_000))[1]


def test_cloning_finds_what_the_action_follows_from() -> None:
    torch.manual_seed(0)
    objective = CloningObjective(SequencePolicy(SMALL, 8, conditioned=False))
    assert objective(cued(1), None)[1] < 0.2
    assert train(objective, 60, lambda step: (cued(step), None)) > 0.95


def bandit(step: int, rows: int = 32) -> tuple[Batch, torch.Tensor]:
    """Half of the players go left and earn 12 in the end, half go right and lose 12; the frames do not tell."""
    generator = torch.Generator().manual_seed(step)
    good = torch.rand(rows, generator=generator) < 0.5
    actions = torch.where(good, LEFT, RIGHT)[:, None].expand(-1, 2)
    returns = torch.where(good, 12.0, -12.0)[:, None].expand(-1, 2)
    return batch_of(torch.zeros(rows, 2, 36, dtype=torch.int64), actions), returns


class SameTokens(torch.nn.Module):
    """A tokenizer for which all frames are alike."""

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(frames), 36, dtype=torch.int64)


def test_the_decision_transformer_does_what_earns_when_it_asks_for_much() -> None:
    torch.manual_seed(0)
    model = SequencePolicy(SMALL, 8, conditioned=True)
    train(CloningObjective(model), 60, bandit)
    rival = Rival("mgdt", "S", model, SameTokens(), {"Pong": 39})  # type: ignore[arg-type]
    games = ["Pong"] * 100
    chosen = {}
    for kappa in (0.0, 40.0):
        generators = [np.random.default_rng(number) for number in range(100)]
        player = rival.player(games, generators, Playing(kappa=kappa))
        actions = player.decide(range(100), np.zeros((100, 84, 84), np.uint8))
        assert set(actions.tolist()) <= {LEFT, RIGHT}
        chosen[kappa] = (actions == LEFT).mean()
    assert 0.3 < chosen[0.0] < 0.7, "without a preference: as the data"
    assert chosen[40.0] > 0.95


def rewarded(step: int, rows: int = 32) -> tuple[Transitions]:
    """Left earns where the square is left, right where it is right; the data are random. Every step is the last."""
    generator = torch.Generator().manual_seed(step)
    side = torch.randint(0, 2, (rows,), generator=generator)
    frames = torch.zeros(rows, 4, 84, 84, dtype=torch.uint8)
    for row, where in enumerate(side.tolist()):
        frames[row, :, 30:50, 60 * where : 60 * where + 20] = 255
    actions = torch.where(torch.rand(rows, generator=generator) < 0.5, LEFT, RIGHT)
    everywhere = torch.ones(rows, dtype=torch.bool)
    right_side = torch.where(side == 1, RIGHT, LEFT)
    rewards = torch.where(actions == right_side, 1.0, -1.0)
    return (
        Transitions(
            frames, frames, actions, rewards, torch.zeros(rows), everywhere, everywhere, torch.full((rows,), 39),
            LEGAL.expand(rows, -1),
        ),
    )  # fmt: skip


def test_the_critic_finds_what_earns_though_the_data_do_not_prefer_it() -> None:
    torch.manual_seed(0)
    sizes = ConvConfig(channels=8, blocks=1, features=32, q_width=32, v_min=-2.0, v_max=2.0)
    objective = ConservativeObjective(ConvCritic(sizes), CriticObjective(cql_weight=0.1))
    train(objective, 60, rewarded, rate=2e-3)
    (batch,) = rewarded(10_000)
    values = objective.model.values(batch.frames, batch.tasks)
    right_side = torch.where(batch.frames[:, 0, 40, 70] > 0, RIGHT, LEFT)
    best = values[:, [LEFT, RIGHT]].argmax(-1)
    assert ((best == 1) == (right_side == RIGHT)).float().mean() > 0.9


@pytest.mark.parametrize("conditioned", [False, True])
def test_padding_changes_neither_losses_nor_gradients(conditioned: bool) -> None:
    torch.manual_seed(0)
    objective = CloningObjective(SequencePolicy(SMALL, 8, conditioned))
    mask = torch.ones(6, 2, dtype=torch.bool)
    mask[4:, 1] = False
    found = []
    for fill in (0, 3):
        batch = cued(0, rows=6)
        spoilt = {
            "tokens": torch.where(mask[..., None], batch.tokens, fill),
            "actions": torch.where(mask, batch.actions, fill), "rewards": torch.where(mask, 1.0, fill - 1.0),
        }  # fmt: skip
        returns = torch.where(mask, 5.0, 7.0 * fill) if conditioned else None
        objective.zero_grad()
        losses, agreement = objective(dataclasses.replace(batch, mask=mask, **spoilt), returns)
        sum(losses.values()).backward()
        found.append([agreement, *losses.values(), *(p.grad for p in objective.parameters() if p.grad is not None)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_policy_never_sees_what_it_predicts() -> None:
    torch.manual_seed(0)
    model = SequencePolicy(SMALL, 8, conditioned=True).eval()
    batch = cued(0, rows=1)
    returns, signs = torch.tensor([[30, 40]]), torch.tensor([[1, 2]])

    def ask(**changes: torch.Tensor) -> Any:
        given = {"actions": batch.actions, "returns": returns, "rewards": signs} | changes
        return model(batch.tokens, given["actions"], batch.tasks, given["returns"], given["rewards"])

    plain = ask()
    other_action = ask(actions=torch.tensor([[batch.actions[0, 0], 0]]))
    assert torch.equal(plain.actions, other_action.actions) and not torch.equal(plain.rewards, other_action.rewards)
    other_return = ask(returns=torch.tensor([[30, 99]]))
    assert torch.equal(plain.returns, other_return.returns)
    assert not torch.equal(plain.actions[:, 1], other_return.actions[:, 1])
    other_reward = ask(rewards=torch.tensor([[2, 2]]))
    assert torch.equal(plain.rewards[:, 0], other_reward.rewards[:, 0])
    assert not torch.equal(plain.returns[:, 1], other_reward.returns[:, 1])


def test_return_tokens_are_the_nearest() -> None:
    wanted = torch.tensor([0, 0, 20, 21, 120, 120])
    assert torch.equal(return_tokens(torch.tensor([-50.0, -20.0, 0.2, 0.9, 100.0, 400.0])), wanted)


def test_stacks_repeat_the_first_frame() -> None:
    frames = torch.arange(6, dtype=torch.uint8).view(1, 6, 1, 1).expand(2, 6, 84, 84)
    stacks = stack_frames(frames, torch.tensor([1, 4]))[:, :, 0, 0]
    assert stacks.tolist() == [[0, 0, 0, 1], [1, 2, 3, 4]]


def test_transitions_add_up_rewards_and_stop_at_ends() -> None:
    frames = torch.arange(6, dtype=torch.uint8).view(1, 6, 1, 1).expand(4, 6, 84, 84)
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[1, 5] = mask[2, 5] = False
    mask[3, 3:] = False
    ends = torch.zeros(4, 6, dtype=torch.bool)
    ends[1, 4] = True  # row 1 ends the game, row 2 is cut off there, row 3 has nothing to learn from
    rewards = torch.arange(6.0).expand(4, 6) * mask
    batch = dataclasses.replace(
        batch_of(torch.zeros(4, 6, 36), torch.arange(6).expand(4, 6), rewards), frames=frames, mask=mask, ends=ends
    )
    found = transitions_of(batch, torch.tensor([3, 3, 3, 3]), n_step=2, gamma=0.5)
    assert found.actions.tolist() == [3, 3, 3, 3]
    assert found.rewards.tolist() == [5.0, 5.0, 5.0, 0.0]
    assert found.discounts.tolist() == [0.25, 0.0, 0.25, 0.25]
    assert found.known.tolist() == [True, True, False, False]
    assert found.mask.tolist() == [True, True, True, False]
    assert found.later[0, :, 0, 0].tolist() == [2, 3, 4, 5]
