"""How a run's agent plays the games of its table."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

import jowa.train.scoring as scoring
from jowa.agent import Planning
from jowa.config import PRESETS
from jowa.evaluate.play import Played
from jowa.games import PRETRAINING_GAMES
from jowa.planner import PlannerConfig
from jowa.train.loop import Trainer
from jowa.train.presets import get_train_preset
from jowa.train.scoring import plannings


def agent_of(preset: str) -> Any:
    """What a run of ``preset`` saves, as far as its play is concerned."""
    evaluation = get_train_preset(preset).evaluation
    planner = PlannerConfig(evaluation.planner, evaluation.width, evaluation.horizon)
    model = SimpleNamespace(config=PRESETS[preset].model)
    return SimpleNamespace(model=model, planning=Planning(planner, evaluation.context))


@pytest.mark.parametrize(
    ("preset", "expected"),  # (width, context) of the paper's table
    [
        ("150M", {"Assault": (2, 4), "Berzerk": (4, 1), "Seaquest": (4, 6)}),
        ("70M", {"Assault": (2, 5), "Berzerk": (4, 1), "Seaquest": (4, 6)}),
        ("40M", {"Assault": (2, 3), "Berzerk": (4, 6), "Seaquest": (4, 2)}),
        ("400M", {"Assault": (4, 4), "Berzerk": (4, 4), "Seaquest": (4, 4)}),  # the paper has none
    ],
)
def test_published_presets_play_each_game_as_the_paper_does(preset: str, expected: dict[str, Any]) -> None:
    config, agent = get_train_preset(preset), agent_of(preset)
    for name in ("none", "beam", "mcts"):
        found = plannings(config, agent, name)
        assert tuple(found) == PRETRAINING_GAMES and {p.planner.name for p in found.values()} == {name}
        assert {game: (found[game].planner.width, found[game].context) for game in expected} == expected
        assert all(p.planner.horizon == 2 and p.context + 2 <= 8 for p in found.values())


@pytest.mark.parametrize("change", [{"width": 3}, {"context": 5}, {"protocol": "sticky"}])
def test_what_a_run_is_told_counts_in_every_game(change: dict[str, Any]) -> None:
    config, agent = get_train_preset("150M"), agent_of("150M")
    own = Planning(dataclasses.replace(agent.planning.planner, width=change.get("width", 4)), change.get("context", 4))
    config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, **change))
    agent.planning = own
    assert set(map(str, plannings(config, agent, "beam").values())) == {str(own)}


def test_fine_tuning_plays_as_it_is_told() -> None:
    config = dataclasses.replace(get_train_preset("150M"), preset="finetune")
    assert {(p.planner.width, p.context) for p in plannings(config, agent_of("150M"), "beam").values()} == {(4, 4)}


@pytest.mark.parametrize(("planner", "last"), [("none", "agent + beam search"), ("mcts", "agent + MCTS")])
def test_the_table_has_how_the_agent_plays(
    small_config: Any, alone: Any, monkeypatch: pytest.MonkeyPatch, planner: str, last: str
) -> None:
    config = small_config({"evaluation.planner": planner, "evaluation.episodes": 1})
    played: list[str] = []

    def watched(agent: Any, plannings: Any) -> str:
        return str(next(iter(plannings.values())).planner.name)

    def play(player: Any, games: Any, *others: Any, **options: Any) -> list[Played]:
        played.append(player if isinstance(player, str) else "random")
        return [Played(game, 0, float(len(played)), 5) for game in games]

    monkeypatch.setattr(scoring, "agent_player", watched)
    monkeypatch.setattr(scoring, "play", play)
    document = scoring.score(config, Trainer(config, alone).agent(), 7)
    assert played == ["random", "none", "beam", *(["mcts"] if planner == "mcts" else [])]
    assert list(document["rows"])[-1] == last
    assert document["rows"][last][0]["scores"] == [float(len(played))]
    own = {"width": config.evaluation.width, "context": config.evaluation.context}
    assert document["planning"] == dict.fromkeys(config.data.games, own)


def test_tiny_plays_every_game_alike() -> None:
    config, agent = get_train_preset("tiny"), agent_of("tiny")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, games=("Assault", "Pong")))
    assert [(p.planner.width, p.context) for p in plannings(config, agent, "beam").values()] == [(2, 1)] * 2
