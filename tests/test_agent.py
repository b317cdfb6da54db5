"""The agent folder and what a player remembers."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from jowa.agent import Agent, Planning
from jowa.config import ModelConfig, TokenizerConfig
from jowa.errors import CheckpointError, UsageError
from jowa.games import BORROWED_TASK, GAMES, get_game
from jowa.model import WorldActionModel
from jowa.planner import Context, PlannerConfig
from jowa.tokenizer import Tokenizer

TOKENS = TokenizerConfig("local", vocab_size=20, code_dim=4, channels=8)
SMALL = ModelConfig(layers=1, heads=2, width=16, q_width=12, q_ensemble=2, vocab_size=20, context_steps=5)


@pytest.fixture
def agent() -> Agent:
    torch.manual_seed(0)
    model = WorldActionModel(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(15)
    tokenizer = Tokenizer(TOKENS)
    tokenizer.embedding.weight.data.mul_(20)
    planning = Planning(PlannerConfig("beam", 2, 1), context=3)
    return Agent(tokenizer, model, {"Pong": 39, "Robotank": 37}, planning=planning)


@pytest.fixture
def folder(agent: Agent, tmp_path: Path) -> Path:
    agent.save(tmp_path / "agent")
    return tmp_path / "agent"


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 84, 84), dtype=np.uint8)


def test_save_and_load(agent: Agent, folder: Path) -> None:
    loaded = Agent.load(folder, device="cpu")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.safetensors",
    ]
    assert loaded.tasks == agent.tasks and loaded.planning == agent.planning and loaded.autocast is None
    assert loaded.tokenizer.config == TOKENS and loaded.model.config == SMALL
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.tokenizer.fingerprint() == agent.tokenizer.fingerprint()
    plans = []
    for one in (agent, loaded):
        player = one.player(["Pong", "Breakout"], PlannerConfig("beam", 2, 2), 2)
        plans.append(player.decide([0, 1], frames(2)))
    np.testing.assert_array_equal(plans[0].actions, plans[1].actions)
    np.testing.assert_array_equal(plans[0].candidate_scores, plans[1].candidate_scores)


def test_half_the_bytes(agent: Agent, tmp_path: Path) -> None:
    """What is loaded are the rounded weights, in float32, and the files name the tokenizer that they are of."""
    agent.save(tmp_path / "whole")
    agent.save(tmp_path / "half", half=True)
    loaded = Agent.load(tmp_path / "half", device="cpu")
    for name, value in agent.model.state_dict().items():
        found = loaded.model.state_dict()[name]
        assert found.dtype == value.dtype and torch.equal(found, value.half().float()), name
    with safe_open(tmp_path / "half" / "model.safetensors", framework="pt") as file:
        assert file.metadata()["tokenizer_fingerprint"] == loaded.tokenizer.fingerprint()
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    assert loaded.tokenizer.fingerprint() != agent.tokenizer.fingerprint()
    agent.model.reward_head[0].bias.data[0] = 1e5
    with pytest.raises(CheckpointError, match=r"reward_head\.0\.bias has values that float16 cannot hold"):
        agent.save(tmp_path / "half", half=True)


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        room, _, name = key.partition("__")
        if name:
            config[room][name] = value
        elif value is None:
            del config[room]
        else:
            config[room] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__width": 32}, r"model\.safetensors: .* has shape .* config\.json asks for"),
        ({"model__layers": 2}, "missing transformer.blocks.1"),
        ({"tokenizer__channels": 12}, r"tokenizer\.safetensors: .* has shape"),
        ({"model__wdith": 16}, "unknown key 'wdith' in ModelConfig"),
        ({"model__width": "wide"}, "width is 'wide', expected int"),
        ({"model__width": True}, "width is True, expected int"),
        ({"model__q_init": "low"}, "q_init is 'low'"),
        ({"model__heads": 3}, "impossible networks"),
        ({"model__heads": 0}, "impossible networks"),
        ({"model__layers": -1}, "surplus transformer"),
        ({"tokenizer__encoder": "wide"}, "encoder is 'wide', expected 'published' or 'local'"),
        ({"tokenizer": [1]}, "TokenizerConfig is"),
        ({"tasks": ["Pong"]}, "tasks is"),
        ({"tasks": {"Pong": 60}}, "task id of Pong is 60, expected 0 to 59"),
        ({"tasks": None}, "lacks 'tasks'"),
        ({"planning": {}}, "planning is"),
        ({"planning__context": 0}, "context is 0"),
        ({"planning__games": ["Pong"]}, "games of planning is"),
        ({"planning__games": {"Pong": {"context": 2}}}, "planning of Pong is"),
        ({"planning__games": {"Pong": {"context": 0, "horizon": 0}}}, "Pong is planned with context 0"),
        ({"planning__games": {"Pong": {"context": "2", "horizon": 0}}}, "context is '2', expected int"),
        ({"planning__games": {"Pnog": {"context": 2, "horizon": 0}}}, "Pnog"),
        ({"planning__planner": {"width": 0}}, "beam width is 0"),
        ({"planning__planner": {"name": "mtcs"}}, "name is 'mtcs'"),
        ({"format": 99}, "has format 99, this version reads 1"),
    ],
)
def test_a_folder_that_does_not_fit_is_one_sentence(folder: Path, changes: dict[str, object], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=message) as error:
        Agent.load(folder, device="cpu")
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"null"])
def test_a_damaged_config(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json (is not valid JSON|holds no JSON object)"):
        Agent.load(folder, device="cpu")


def test_a_save_that_was_killed_between_the_weights_is_noticed(agent: Agent, folder: Path) -> None:
    with torch.no_grad():
        agent.tokenizer.embedding.weight.add_(1)
    later = folder.parent / "later"
    agent.save(later)
    (folder / "tokenizer.safetensors").write_bytes((later / "tokenizer.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="tokenizer and the model of different agents"):
        Agent.load(folder, device="cpu")


@pytest.mark.parametrize("name", ["tokenizer", "model"])
def test_damaged_and_missing_weights(folder: Path, name: str) -> None:
    path = folder / f"{name}.safetensors"
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:100], whole[:4], b"", b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{name}\.safetensors cannot be read"):
            Agent.load(folder, device="cpu")
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"{name}\.safetensors cannot be read"):
        Agent.load(folder, device="cpu")


def test_no_agent_there(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match=r"is not an agent: it has no config\.json; train one with"):
            Agent.load(folder)


def test_tokenizer_and_model_must_belong_together(agent: Agent) -> None:
    other = Tokenizer(TokenizerConfig("local", vocab_size=21, code_dim=4, channels=8))
    with pytest.raises(CheckpointError, match="21 tokens and the model expects 20"):
        Agent(other, agent.model)


def test_task_id_is_the_one_that_was_trained(agent: Agent) -> None:
    """Training's choice first; else the paper's borrowed id; else the game's own."""
    assert agent.task_id("Robotank") == 37
    retrained = Agent(agent.tokenizer, agent.model, {"Robotank": get_game("Robotank").task_id})
    assert retrained.task_id("Robotank") == 45
    untrained = Agent(agent.tokenizer, agent.model)
    for game in GAMES:
        assert untrained.task_id(game.name) == get_game(BORROWED_TASK.get(game.name, game.name)).task_id
    with pytest.raises(UsageError, match="unknown game 'Pnog'"):
        agent.task_id("Pnog")


class Watcher:
    """Stands before a player's planner and keeps the contexts it is given."""

    def __init__(self, player) -> None:
        self.inner, self.seen = player.planner, []
        player.planner = self

    def plan(self, context: Context, *others: object):
        self.seen.append(context)
        return self.inner.plan(context, *others)


@pytest.mark.parametrize(("horizon", "asked", "longest"), [(1, 8, 4), (2, 8, 3), (0, 8, 5), (1, 2, 2), (4, 3, 1)])
def test_memory_is_the_least_of_three(agent: Agent, horizon: int, asked: int, longest: int) -> None:
    """min(model context - horizon, steps seen since reset, the context asked for), positions from its first step."""
    player = agent.player(["Pong"], PlannerConfig("beam", 1, horizon), asked)
    watcher = Watcher(player)
    seen, taken = frames(7), np.arange(1, 8) % 18
    tokens = agent.tokenizer.encode(torch.from_numpy(seen))
    for step in range(7):
        player.decide([0], seen[step : step + 1])
        player.took([0], taken[step : step + 1])
        context, n = watcher.seen[-1], min(step + 1, longest)
        assert context.lengths.tolist() == [n] and context.tokens.shape == (1, n, 36)
        assert torch.equal(context.tokens[0], tokens[step + 1 - n : step + 1])
        assert context.actions[0, : n - 1].tolist() == taken[step + 1 - n : step].tolist()
        assert context.tasks.tolist() == [39] and torch.equal(
            context.legal[0], torch.tensor(get_game("Pong").action_mask)
        )
    player.reset(0)
    player.decide([0], seen[:1])
    assert watcher.seen[-1].lengths.tolist() == [1]


def test_slots_are_independent(agent: Agent) -> None:
    """Slots of other games, lengths and contexts, decided in any grouping, play as each does alone."""
    games, contexts, planner = ["Pong", "Breakout", "Pong"], [3, 1, 2], PlannerConfig("beam", 2, 1)
    together = agent.player(games, planner, contexts)
    singles = [agent.player([game], planner, context) for game, context in zip(games, contexts, strict=True)]
    schedule = [[0, 1, 2], [2, 0], [1], [2, 1, 0], [0]]
    for step, slots in enumerate(schedule):
        seen = frames(3, seed=step)
        if step == 3:
            together.reset(1)
            singles[1].reset(0)
        plan = together.decide(slots, seen[slots])
        together.took(slots, plan.actions)
        for place, slot in enumerate(slots):
            alone = singles[slot].decide([0], seen[slot : slot + 1])
            singles[slot].took([0], alone.actions)
            assert alone.actions[0] == plan.actions[place]
            np.testing.assert_allclose(alone.scores[0], plan.scores[place], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(alone.q[0], plan.q[place], rtol=1e-4, atol=1e-4)


def test_no_pixel_is_decoded_to_decide(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published planner decoded every imagined frame."""

    def refuse(*_: object) -> None:
        raise AssertionError("decoded pixels")

    monkeypatch.setattr(agent.tokenizer, "_decode_codes", refuse)
    monkeypatch.setattr(agent.tokenizer.decoder, "forward", refuse)
    plan = agent.player(["Pong"], PlannerConfig("beam", 2, 2), 2).decide([0], frames(1), keep_frames=True)
    assert plan.frames.shape == (len(plan.nodes["root"]), 36) and 2 in plan.nodes["depth"]


def test_players_made_in_two_threads_share_one_engine(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is still being made when the second is asked for."""
    made: list[object] = []

    def slowly(model: object, autocast: object) -> object:
        time.sleep(0.1)
        made.append(object())
        return made[-1]

    monkeypatch.setattr("jowa.agent.make_engine", slowly)
    with ThreadPoolExecutor(2) as pool:
        engines = list(pool.map(lambda _: agent.engine, range(2)))
    assert len(made) == 1 and engines == made * 2


def test_the_simple_face_is_the_player(agent: Agent) -> None:
    with pytest.raises(UsageError, match="call reset"):
        agent.act(frames(1)[0])
    player = agent.player(["Pong"], agent.planning.planner, agent.planning.context)
    agent.reset("Pong", seed=1)
    for frame in frames(4):
        plan = player.decide([0], frame[None])
        player.took([0], plan.actions)
        assert agent.act(frame) == plan.actions[0]


@pytest.mark.parametrize(
    ("context", "horizon", "message"),
    [(0, 1, "context is 0"), ([1, 0], 1, "context is"), ([1], 1, "2 slots"), (1, 5, "expected at most 4")],
)
def test_mistakes_in_the_call(agent: Agent, context, horizon: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        agent.player(["Pong", "Breakout"], PlannerConfig("beam", 1, horizon), context)


def test_a_runs_folder_is_told_from_its_agents(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    folder.rename(run / "agent")
    (run / "config.json").write_text('{"preset": "tiny", "stage1": {}}')
    with pytest.raises(CheckpointError, match=r"is a training run, not an agent: its agent is .*run.agent"):
        Agent.load(run, device="cpu")
