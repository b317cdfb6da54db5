"""Which memory and horizon a game is played with, found by playing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from jowa.agent import Agent, GamePlanning, Planning, planning_from_dict
from jowa.config import FRAME_SIZE, ModelConfig, TokenizerConfig
from jowa.errors import CheckpointError, UsageError
from jowa.evaluate.__main__ import EvaluateConfig, planning_of
from jowa.evaluate.play import agent_player
from jowa.model import WorldActionModel
from jowa.planner import PlannerConfig
from jowa.tokenizer import Tokenizer
from jowa.tune import TuneConfig, better, candidates, tune

OWN = {"Pong": GamePlanning(context=3, horizon=0)}


@pytest.fixture
def agent() -> Agent:
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig("patches", vocab_size=32, code_dim=196))
    model = WorldActionModel(
        ModelConfig(
            layers=1, heads=2, width=16, q_width=16, q_ensemble=1, vocab_size=32, context_steps=3, dropout=0.0,
            init="scaled",
        )
    )  # fmt: skip
    planning = Planning(PlannerConfig("beam", 2, 1), context=1, games=OWN)
    return Agent(tokenizer, model, {"Pong": 39, "Freeway": 23}, planning=planning)


def test_each_game_is_played_its_own_way_and_a_folder_remembers_it(agent: Agent, tmp_path: Path) -> None:
    agent.save(tmp_path)
    loaded = Agent.load(tmp_path, device="cpu")
    assert loaded.planning == agent.planning
    pong, freeway = (loaded.planning.of(game) for game in ("Pong", "Freeway"))
    assert (pong.context, pong.planner.horizon, pong.planner.width) == (3, 0, 2)
    assert freeway == Planning(PlannerConfig("beam", 2, 1), context=1)
    assert planning_of(EvaluateConfig(games=("Pong",)), loaded, "Pong") == pong
    assert planning_of(EvaluateConfig(context=2), loaded, "Pong").context == 2
    named = planning_of(EvaluateConfig(planner="beam"), loaded, "Pong")
    assert (named.context, named.planner.horizon) == (1, 1), "a planner that is named is the same in every game"


def test_acting_takes_the_games_own_memory(agent: Agent) -> None:
    """With three steps of memory the past decides, too; with one step it does not."""
    frames = np.random.default_rng(0).integers(0, 256, (40, FRAME_SIZE, FRAME_SIZE), np.uint8)
    last = {}
    for game in ("Pong", "Freeway"):
        player = agent.player([game], agent.planning.of(game).planner, agent.planning.of(game).context)
        agent.reset(game)
        for frame in frames:
            found = agent.act(frame)
            expected = int(player.decide([0], frame[None]).actions[0])
            player.took([0], np.array([expected]))
            assert found == expected
        last[game] = player.decide([0], frames[:1])
    alone = agent.player(["Freeway"], agent.planning.planner, 1).decide([0], frames[:1])
    np.testing.assert_array_equal(last["Freeway"].q, alone.q)
    forgetful = agent.player(["Pong"], agent.planning.of("Pong").planner, 1).decide([0], frames[:1])
    assert not np.array_equal(last["Pong"].q, forgetful.q)


def test_candidates_fill_the_models_context_and_begin_with_the_agents_own(agent: Agent) -> None:
    assert [(way.planner.depth, way.context) for way in candidates(agent)] == [(1, 1), (0, 1), (0, 2), (0, 3), (1, 2)]
    agent.planning = Planning(PlannerConfig("none"), context=2)
    assert [(way.planner.depth, way.context) for way in candidates(agent)] == [(0, 2), (0, 1), (0, 3)]
    agent.planning = Planning(PlannerConfig("beam", 2, 1, td_lambda=0.25), context=1)
    found = [(way.planner.depth, way.planner.td_lambda, way.context) for way in candidates(agent)]
    assert found == [
        (1, 0.25, 1), (0, 0.25, 1), (0, 0.25, 2), (0, 0.25, 3), (1, 0.25, 2), (1, 1.0, 1), (1, 1.0, 2)
    ], "the published score is tried where something is imagined"  # fmt: skip
    agent.planning = Planning(PlannerConfig("mcts", horizon=1, td_lambda=0.25), context=1)
    assert {way.planner.td_lambda for way in candidates(agent)} == {0.25}, "lambda is of beam search alone"


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        ([1.0, 2.0, 3.0], [[10.0, 11.0, 12.0], [20.0, 21.0, 22.0]], 1),
        ([1.0, 2.0, 3.0], [[2.0, 3.0, 4.0]], None),
        ([1.0, 1.0], [[1.0, 1.0]], None),
        ([1.0, 1.0], [[2.0, 2.0]], 0),
        ([5.0, 6.0], [], None),
    ],
)
def test_better_means_by_more_than_chance(own: list[float], others: list[list[float]], expected: int | None) -> None:
    assert better(own, others, margin=2.0) == expected


def test_the_folder_gets_what_was_found(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.save(tmp_path)
    weights = (tmp_path / "model.safetensors").stat().st_mtime_ns
    good = {"Pong": (1, 2), "Freeway": (1, 1)}  # horizon and memory that score

    def scores(agent: Agent, games: list[str], ways: list[Planning], *rest: object) -> dict[str, list[list[float]]]:
        return {
            game: [[10.0, 11.0] if (way.planner.depth, way.context) == good[game] else [0.0, 1.0] for way in ways]
            for game in games
        }

    monkeypatch.setattr("jowa.tune._play_all", scores)
    assert tune(TuneConfig(tmp_path, device="cpu")) == tmp_path
    planning = json.loads((tmp_path / "config.json").read_text())["planning"]
    assert planning["games"] == {"Pong": {"context": 2, "horizon": 1, "td_lambda": None}}, (
        "what was there before is found anew"
    )
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == weights
    assert "Pong beam, horizon 1, lambda 1, memory 2" in capsys.readouterr().out


def test_a_game_remembers_a_score_of_its_own(agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent.planning = Planning(PlannerConfig("beam", 2, 1, td_lambda=0.25), context=1)
    agent.save(tmp_path)

    def scores(agent: Agent, games: list[str], ways: list[Planning], *rest: object) -> dict[str, list[list[float]]]:
        good = (1, 1.0, 1)
        return {
            game: [
                [10.0, 11.0] if (way.planner.depth, way.planner.td_lambda, way.context) == good else [0.0, 1.0]
                for way in ways
            ]
            for game in games
        }

    monkeypatch.setattr("jowa.tune._play_all", scores)
    tune(TuneConfig(tmp_path, games=("Pong",), device="cpu"))
    planning = json.loads((tmp_path / "config.json").read_text())["planning"]
    assert planning["games"] == {"Pong": {"context": 1, "horizon": 1, "td_lambda": 1.0}}
    loaded = Agent.load(tmp_path, device="cpu").planning
    assert (loaded.of("Pong").planner.td_lambda, loaded.of("Freeway").planner.td_lambda) == (1.0, 0.25)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"context": 1}, "expected context and horizon"),
        ({"context": 1, "horizon": 1, "width": 2}, "expected context and horizon"),
        ({"context": 1, "horizon": 1, "td_lambda": 2.0}, "td_lambda 2.0, expected 0 to 1"),
        ({"context": 0, "horizon": 1}, "expected 1 and 0 or more"),
    ],
)
def test_what_cannot_be_played_is_refused(own: dict[str, float], message: str) -> None:
    values = {"planner": dataclasses.asdict(PlannerConfig()), "context": 1, "games": {"Pong": own}}
    with pytest.raises(CheckpointError, match=message):
        planning_from_dict(values, "config.json")


def test_games_of_different_scores_are_played_in_one_batch(agent: Agent) -> None:
    """Each as if it were alone: what cannot share a search is searched one kind after the other."""
    general = Planning(PlannerConfig("beam", 2, 1, td_lambda=0.25), context=1)
    plannings = {"Pong": general, "Freeway": Planning(PlannerConfig("beam", 3, 1, td_lambda=1.0), context=2)}
    jobs = [("Pong", 0), ("Freeway", 0), ("Freeway", 1), ("Pong", 1)]
    together = agent_player(agent, plannings)(jobs)
    alone = {job: agent_player(agent, plannings)([job]) for job in jobs}
    frames = np.random.default_rng(0).integers(0, 256, (6, len(jobs), FRAME_SIZE, FRAME_SIZE), np.uint8)
    differ = False
    for step, seen in enumerate(frames):
        playing = [0, 1, 2, 3] if step % 2 else [3, 0, 2]
        found = together.choose(np.array(playing), seen[playing])
        together.took(playing, found)
        for row, slot in enumerate(playing):
            (expected,) = alone[jobs[slot]].choose(np.array([0]), seen[[slot]])
            alone[jobs[slot]].took([0], np.array([expected]))
            assert found[row] == expected
        differ |= len(set(found.tolist())) > 1
    assert differ, "always the same action would prove nothing"


@pytest.mark.slow
def test_it_plays_real_games(agent: Agent, tmp_path: Path) -> None:
    agent.save(tmp_path)
    tune(TuneConfig(tmp_path, games=("Freeway",), episodes=2, max_steps=20, device="cpu"))
    planning = Agent.load(tmp_path, device="cpu").planning
    assert planning.games == OWN, "nobody scores in twenty steps, and other games stay as they are"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": 1}, "episodes is 1"),
        ({"margin": -1.0}, "margin is -1"),
        ({"games": ("Pnog",)}, "Pnog"),
        ({"games": ("Pong", "Pong")}, "each once"),
    ],
)
def test_bad_settings_are_one_sentence(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tune(dataclasses.replace(TuneConfig(Path("demo")), **changes))  # type: ignore[arg-type]
