"""The agent that comes with the package."""

from __future__ import annotations

import pytest

from jowa.agent import Agent
from jowa.env.atari import AtariEnv
from jowa.games import get_game
from jowa.hub import SHIPPED

pytestmark = pytest.mark.skipif(not SHIPPED.is_dir(), reason="this checkout ships no agent")


@pytest.fixture(scope="module")
def agent() -> Agent:
    return Agent.from_pretrained("demo", device="cpu")


def test_it_is_small_and_its_card_says_how_it_plays(agent: Agent) -> None:
    assert {path.suffix for path in SHIPPED.iterdir()} <= {".safetensors", ".json", ".md"}
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 12 * 2**20
    card = (SHIPPED / "README.md").read_text()
    scored = card.partition("## Scores")[2].partition("\n## ")[0]
    for game in agent.tasks:
        assert f"| {game} | random |" in scored and f"| {game} | data |" in scored and f"| {game} | agent, " in scored


def test_it_decides_in_each_of_its_games(agent: Agent) -> None:
    for game in agent.tasks:
        env = AtariEnv(game)
        agent.reset(game)
        frame, _ = env.reset(seed=1)
        for _ in range(3):
            action = agent.act(frame)
            assert action in get_game(game).legal_actions
            frame = env.step(action)[0]


def test_its_chicken_crosses_the_road(agent: Agent) -> None:
    """700 of Freeway's 2,048 steps; random play never crosses."""
    env = AtariEnv("Freeway")
    agent.reset("Freeway")
    frame, _ = env.reset(seed=5)
    crossed = 0.0
    for _ in range(700):
        frame, reward, *_ = env.step(agent.act(frame))
        crossed += reward
    assert crossed >= 4
