"""Guesses of imagined frames: the drafters, the draft head's training, its place in the agent, and the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from jowa.agent import Agent
from jowa.config import ModelConfig, TokenizerConfig
from jowa.data.store import EpisodeStore
from jowa.draft import Moments, Pairs, imagine_pairs, measure, recorded_pairs, train_head
from jowa.draft.__main__ import DraftConfig, run
from jowa.errors import DataError, UsageError
from jowa.model import WorldActionModel
from jowa.planner import DraftHead, Imagination, PlannerConfig
from jowa.planner.drafts import CopyDrafter, LastChangeDrafter
from jowa.planner.imagination import Context
from jowa.tokenizer import Tokenizer

SMALL = ModelConfig(layers=1, heads=2, width=16, q_width=12, q_ensemble=2, vocab_size=20, context_steps=4)
GAMES = ("Breakout", "Pong")


@pytest.fixture
def agent() -> Agent:
    torch.manual_seed(0)
    model = WorldActionModel(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)
    tokenizer = Tokenizer(TokenizerConfig("local", vocab_size=20, code_dim=4, channels=8))
    return Agent(tokenizer, model, {game: index for index, game in enumerate(GAMES)})


def pairs_of(count: int, rule: str) -> Pairs:
    """Frames whose tokens all move on by one (``shift``), or by the action (``action``)."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(20, (count, 36), generator=generator)
    actions = torch.randint(18, (count,), generator=generator)
    step = actions[:, None] if rule == "action" else 1
    return Pairs(tokens, actions, torch.zeros(count, dtype=torch.int64), (tokens + step) % 20)


def test_copying_guesses_that_nothing_changes() -> None:
    tokens = torch.randint(20, (2, 3, 36))
    assert torch.equal(CopyDrafter().propose(tokens, tokens[..., 0], tokens[:, 0, 0]).tokens, tokens)


def test_the_last_change_is_remembered_by_game_and_place() -> None:
    drafter = LastChangeDrafter(SMALL, torch.device("cpu"))
    tokens, tasks = torch.full((1, 1, 36), 7), torch.tensor([0])
    actions, live = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
    assert torch.equal(drafter.propose(tokens, actions, tasks).tokens, tokens)
    outcome = tokens.clone()
    outcome[0, 0, 4] = 9
    drafter.learn(tokens, actions, tasks, live, outcome)
    assert torch.equal(drafter.propose(tokens, actions, tasks).tokens, outcome)
    assert torch.equal(drafter.propose(tokens, actions, tasks + 1).tokens, tokens), "another game knows nothing of it"
    other = torch.full_like(tokens, 8)
    assert torch.equal(drafter.propose(other, actions, tasks).tokens, other)
    drafter.learn(tokens, actions, tasks, ~live, other)
    assert torch.equal(drafter.propose(tokens, actions, tasks).tokens, outcome), "idle rows teach nothing"


def test_a_draft_head_learns_what_it_is_shown(agent: Agent) -> None:
    """A rule that needs the token and the action; the guesses are sure where they are right."""
    shown, kept = pairs_of(4000, "action"), pairs_of(4200, "action")
    kept = Pairs(kept.tokens[4000:], kept.actions[4000:], kept.tasks[4000:], kept.outcomes[4000:])
    head = train_head(agent, shown, 700, seed=1)
    guess = head.propose(kept.tokens[None], kept.actions[None], torch.tensor([0]))
    right = (guess.tokens[0] == kept.outcomes).float()
    assert float(right.mean()) > 0.9
    assert guess.sureness is not None and ((guess.sureness >= 0) & (guess.sureness <= 1)).all()
    assert float(guess.sureness[0][right > 0].mean()) > float(guess.sureness[0][right == 0].mean())
    again = train_head(agent, shown, 3, seed=1)
    once_more = train_head(agent, shown, 3, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), once_more.parameters(), strict=True))


def test_a_neighbourhood_is_what_surrounds_a_token() -> None:
    head = DraftHead(SMALL)
    around = head._buffers["_around"]
    assert around is not None and around[0].tolist() == [36, 36, 36, 36, 0, 1, 36, 6, 7]
    assert around[14].tolist() == [7, 8, 9, 13, 14, 15, 19, 20, 21] and around[35].tolist()[4:6] == [35, 36]


def test_measuring_counts_passes(agent: Agent) -> None:
    """One miss in every frame costs one more pass; the last change learns a rule of single tokens at once."""
    pairs = pairs_of(400, "shift")
    pairs.outcomes[:, 1:] = pairs.tokens[:, 1:]  # only the first token changes
    found = measure(agent, pairs)
    assert set(found) == {"copy", "last-change"}
    assert found["copy"].passes == 2 and found["copy"].accepted == pytest.approx(35 / 36) and found["copy"].changed == 1
    assert found["last-change"].passes < 1.2
    agent.add_draft_head(DraftHead(SMALL))
    assert set(measure(agent, pairs)) == {"copy", "last-change", "head"}


def test_pairs_are_what_the_model_imagines(agent: Agent, sprite_store: Path) -> None:
    store = EpisodeStore.open(sprite_store)
    generator = np.random.default_rng(3)
    moments = Moments.draw(store, "Pong", range(store.num_episodes("Pong")), 2, 5, generator)
    pairs = imagine_pairs(agent, moments, generator)
    assert len(pairs) == 5 * 2, "two steps from each moment"
    seen = agent.encode(moments.frames)
    assert torch.equal(pairs.tokens[:5], seen[:, -1]) and torch.equal(pairs.tokens[5:], pairs.outcomes[:5])
    plain = Imagination(agent.model)
    context = Context(
        seen, torch.from_numpy(moments.actions), torch.full((5,), 2), pairs.tasks[:5], torch.ones(5, 18).bool()
    )
    start = torch.zeros(5, 1, dtype=torch.int64)
    roots = plain.encode(context)
    first = plain.step(roots, None, start, pairs.actions[:5, None])
    second = plain.step(roots, first, start, pairs.actions[5:, None])
    assert torch.equal(first.tokens[:, 0], pairs.outcomes[:5]) and torch.equal(second.tokens[:, 0], pairs.outcomes[5:])
    with pytest.raises(DataError, match="no episode of 5000 steps"):
        Moments.draw(store, "Pong", [0], 5000, 1, generator)
    long = Moments.draw(store, "Pong", [0, 1], 4, 2, generator)
    with pytest.raises(UsageError, match="at most 3"):
        imagine_pairs(agent, long, generator)


def test_the_command_adds_a_head_that_changes_no_decision(
    agent: Agent, sprite_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "agent"
    agent.save(folder)
    run(DraftConfig(folder, sprite_store, moments=20, steps=5, context=2, device="cpu"))
    printed = capsys.readouterr().out
    assert "last-change" in printed and "head" in printed and "37 passes" in printed
    loaded = Agent.load(folder, device="cpu")
    assert loaded.draft_head is not None
    seen = np.random.default_rng(0).integers(0, 256, (3, 84, 84), dtype=np.uint8)
    plans = []
    for draft in ("off", "copy", "last-change", "head", None):
        player = loaded.player(["Pong"] * 3, PlannerConfig("beam", 3, 2, draft=draft), 2)
        plans.append(player.decide([0, 1, 2], seen, keep_frames=True))
    for plan in plans[1:]:
        assert plan.actions.tolist() == plans[0].actions.tolist()
        np.testing.assert_array_equal(plan.frames, plans[0].frames)
        np.testing.assert_allclose(plan.scores, plans[0].scores, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="no draft head"):
        agent.player(["Pong"], PlannerConfig("beam", draft="head"), 2)
    agent.save(folder)
    assert not (folder / "draft.safetensors").exists(), "an agent saved without a head has none"


def test_an_agent_that_is_not_the_users_is_copied(
    agent: Agent, sprite_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jowa.hub.SHIPPED", tmp_path / "site" / "demo")
    agent.save(tmp_path / "site" / "demo")
    run(DraftConfig(Path("demo"), sprite_store, moments=20, steps=2, context=2, device="cpu"))
    assert not (tmp_path / "site" / "demo" / "draft.safetensors").exists()
    assert Agent.load("runs/played/demo", "cpu").draft_head is not None


def test_recorded_frames_are_measured_and_nothing_is_saved(
    agent: Agent, sprite_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = EpisodeStore.open(sprite_store)
    moments = Moments.draw(store, "Pong", range(store.num_episodes("Pong")), 2, 5, np.random.default_rng(0))
    pairs = recorded_pairs(agent, moments)
    seen = agent.encode(moments.frames)
    assert torch.equal(pairs.tokens, seen[:, 0]) and torch.equal(pairs.outcomes, seen[:, 1])
    assert pairs.actions.tolist() == moments.actions[:, 0].tolist()
    agent.save(tmp_path / "agent")
    run(DraftConfig(tmp_path / "agent", sprite_store, moments=20, steps=3, recorded=True, device="cpu"))
    assert "held-out recorded frames" in capsys.readouterr().out
    assert not (tmp_path / "agent" / "draft.safetensors").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("moments", 0), ("steps", -1), ("held_out", 1.0), ("games", ("Boxing",))]
)
def test_impossible_options_are_named(agent: Agent, sprite_store: Path, tmp_path: Path, option: str, value) -> None:
    agent.save(tmp_path / "agent")
    with pytest.raises((UsageError, DataError), match=option.rstrip("s") if option != "games" else "Boxing"):
        run(DraftConfig(tmp_path / "agent", sprite_store, device="cpu", **{option: value}))
