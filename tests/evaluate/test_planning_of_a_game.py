"""Which context and width each game is played with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jowa.agent import Planning
from jowa.config import PRESETS
from jowa.errors import UsageError
from jowa.evaluate.__main__ import EvaluateConfig, planning_of
from jowa.options import parse_options
from jowa.planner import PlannerConfig

OWN = Planning(PlannerConfig("none", 3, 1), context=5)


def agent_of(preset: str, planning: Planning = OWN) -> Any:
    return SimpleNamespace(model=SimpleNamespace(config=PRESETS[preset].model), planning=planning)


def planned(preset: str, game: str, **options: Any) -> tuple[str, int, int, int]:
    planning = planning_of(EvaluateConfig(agent=Path("unused"), **options), agent_of(preset), game)
    return planning.planner.name, planning.planner.width, planning.planner.horizon, planning.context


@pytest.mark.parametrize(
    ("preset", "game", "width", "context"),  # the paper's table of contexts and widths
    [("150M", "Centipede", 4, 6), ("70M", "Centipede", 4, 1), ("40M", "TimePilot", 4, 6), ("150M", "Assault", 2, 4)],
)
def test_the_published_protocol_takes_the_papers_settings(preset: str, game: str, width: int, context: int) -> None:
    assert planned(preset, game, protocol="published", planner="beam", horizon=2) == ("beam", width, 2, context)
    chosen = planned(preset, game, protocol="published", planner="beam", width=7, context=2)
    assert chosen == ("beam", 7, 1, 2), "what the call names goes first"


def test_otherwise_the_agents_own() -> None:
    assert planned("150M", "Centipede") == ("none", 3, 1, 5)
    assert planned("150M", "Pong", protocol="published") == ("none", 3, 1, 5), "the paper has no settings for it"
    assert planned("tiny", "Centipede", protocol="published") == ("none", 3, 1, 5)


def test_gumbel_is_a_plain_flag() -> None:
    """It turns on what the agent does not do by itself, and leaves alone one that does."""
    for given, gumbel in (([], False), (["--gumbel"], True)):
        config = parse_options(EvaluateConfig, "evaluate", arguments=["unused", "--planner", "mcts", *given])
        assert planning_of(config, agent_of("tiny"), "Pong").planner.gumbel == gumbel
    own = PlannerConfig("mcts", gumbel=True)
    assert planning_of(EvaluateConfig(Path("unused")), agent_of("tiny", Planning(own)), "Pong").planner == own


def test_ends_are_ignored_when_asked() -> None:
    for given, respected in (([], True), (["--ignore-ends"], False)):
        config = parse_options(EvaluateConfig, "evaluate", arguments=["unused", "--planner", "beam", *given])
        assert planning_of(config, agent_of("tiny"), "Pong").planner.respect_ends == respected


def test_episodes_may_be_cut_off_before_the_protocol_does() -> None:
    rules = [EvaluateConfig(Path("unused"), max_steps=steps).rules().max_steps for steps in (None, 40, 50_000)]
    assert rules == [27_000, 40, 27_000]
    with pytest.raises(UsageError, match="max_steps is 0, expected at least 1: set --max-steps"):
        EvaluateConfig(Path("unused"), max_steps=0).check()


def test_a_lambda_is_given_or_the_agents_own() -> None:
    own = agent_of("tiny", Planning(PlannerConfig("beam", td_lambda=0.5)))
    for given, expected in ((["--td-lambda", "0.25"], 0.25), ([], 0.5), (["--td-lambda", "0"], 0.0)):
        config = parse_options(EvaluateConfig, "evaluate", arguments=["unused", *given])
        assert planning_of(config, own, "Pong").planner.td_lambda == expected
