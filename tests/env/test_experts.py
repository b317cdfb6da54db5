"""Scripted experts play well, noise makes them worse, and specifications are checked."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from jowa.agent import Planning
from jowa.env.atari import AtariEnv, AtariOptions
from jowa.env.experts import EXPERTS, default_mixture, make_policy
from jowa.env.experts.base import fold
from jowa.env.experts.policies import DEFAULT_MIXTURES
from jowa.errors import UsageError
from jowa.games import GAMES, get_game
from jowa.planner import PlannerConfig


def play(game: str, spec: str, seed: int, steps: int) -> tuple[float, list[int]]:
    """Score and actions of the first ``steps`` steps of an episode."""
    environment, policy = AtariEnv(game, AtariOptions(max_steps=steps)), make_policy(spec, game)
    policy.reset(seed)
    frame, _ = environment.reset(seed=seed)
    score, actions, over = 0.0, [], False
    while not over:
        actions.append(policy.act(frame, environment))
        frame, reward, terminated, truncated, _ = environment.step(actions[-1])
        score += reward
        over = terminated or truncated
    return score, actions


@pytest.mark.parametrize(
    ("game", "steps", "at_least"),
    # What play at the scores of docs/dataset.md reaches in so many steps, with room for chance.
    [("Atlantis", 500, 1000), ("Boxing", 500, 6), ("Breakout", 400, 8), ("Freeway", 512, 5), ("Pong", 900, -9)],
)
def test_experts_play_well(game, steps, at_least) -> None:
    assert play(game, "expert", seed=1, steps=steps)[0] >= at_least


@pytest.mark.parametrize(("game", "steps", "at_least"), [("Breakout", 400, 6), ("Pong", 900, -14)])
def test_followers_play_well(game, steps, at_least) -> None:
    assert play(game, "follower", seed=1, steps=steps)[0] >= at_least


@pytest.mark.parametrize(
    ("game", "ball", "own", "larger", "smaller"),
    # RIGHT follows a ball to the right; in Pong it moves the paddle up, towards smaller y.
    [("Breakout", (99, 101), 72, 3, 4), ("Pong", (54, 49), 51, 4, 3)],
)
def test_a_follower_goes_by_the_present_frame_alone(game, ball, own, larger, smaller) -> None:
    policy = make_policy("follower", game)
    policy.reset(0)
    follows, flies = ball
    ram, frame = np.zeros(128, np.uint8), np.zeros((84, 84), np.uint8)
    environment = SimpleNamespace(ram=ram)
    ram[own] = 100
    wanted = []
    for at, in_play in [(150, 1), (60, 1), (150, 0), (108, 1), (150, 1)]:
        ram[follows], ram[flies] = at, in_play
        wanted.append(policy.act(frame, environment))
    assert wanted == [larger, smaller, 1, 1, larger], "fire when there is no ball or nothing to do"


@pytest.mark.parametrize("game", EXPERTS)
def test_a_seed_decides_what_a_policy_plays(game) -> None:
    first = play(game, "expert:0.3", 5, 60)
    assert first == play(game, "expert:0.3", 5, 60)
    assert first[1] != play(game, "expert:0.3", 6, 60)[1]


def test_noise_is_the_share_of_random_actions() -> None:
    environment, frame = SimpleNamespace(ram=np.zeros(128, np.uint8)), np.zeros((84, 84), np.uint8)
    policy = make_policy("expert:0.3", "Freeway")
    policy.reset(0)
    actions = [policy.act(frame, environment) for _ in range(4000)]
    # A third of the random ones are what the expert wants, too.
    assert np.mean(np.array(actions) != 2) == pytest.approx(0.3 * 2 / 3, abs=0.03)
    assert set(actions) == set(get_game("Freeway").legal_actions)
    pure = make_policy("expert", "Freeway")
    pure.reset(0)
    assert {pure.act(frame, environment) for _ in range(50)} == {2}


@pytest.mark.parametrize("game", [game.name for game in GAMES[::7]])
def test_random_play_is_uniform_over_legal_actions(game) -> None:
    policy, environment, frame = make_policy("random", game), AtariEnv(game), np.zeros((84, 84), np.uint8)
    policy.reset(3)
    actions = [policy.act(frame, environment) for _ in range(4000)]
    legal = get_game(game).legal_actions
    assert set(actions) == set(legal)
    assert np.bincount(actions).max() / 4000 == pytest.approx(1 / len(legal), abs=0.04)


def test_every_game_has_a_mixture_that_can_be_made() -> None:
    for game in GAMES:
        mixture = default_mixture(game.name)
        assert [make_policy(spec, game.name) for spec in mixture]
        assert "random" in mixture
        assert game.name not in EXPERTS or len(mixture) > 1
    # Names that are no game's would never be found.
    assert DEFAULT_MIXTURES.keys() <= {game.name for game in GAMES}


@pytest.mark.parametrize(
    ("spec", "game", "message"),
    [
        ("exprt", "Pong", "unknown policy 'exprt': expected random, expert"),
        ("random:1", "Pong", "unknown policy"),
        ("agent:", "Pong", "unknown policy"),
        ("expert:much", "Pong", "between 0 and 1"),
        ("expert:1.2", "Pong", "between 0 and 1"),
        ("expert:nan", "Pong", "between 0 and 1"),
        ("expert", "Seaquest", "Seaquest has no scripted expert, only Atlantis, Boxing"),
        ("follower", "Boxing", "Boxing has no scripted follower, only Breakout, Pong"),
        ("follower:2", "Pong", "between 0 and 1"),
        ("lookahead:often", "Seaquest", "policy 'lookahead:often': expected a share of random actions between 0 and 1"),
        ("lookahead:-0.1", "Seaquest", "between 0 and 1"),
        ("look-ahead", "Seaquest", "unknown policy 'look-ahead': expected .* lookahead, lookahead:NOISE"),
        ("lookahead", "Sequest", "unknown game 'Sequest': did you mean Seaquest"),
        ("random", "Sequest", "unknown game 'Sequest': did you mean Seaquest"),
    ],
)
def test_mistakes_in_a_specification(spec, game, message) -> None:
    with pytest.raises(UsageError, match=message):
        make_policy(spec, game)


@pytest.mark.parametrize(("kind", "planner"), [("agent", "none"), ("agent-beam", "beam"), ("agent-mcts", "mcts")])
def test_a_trained_agent_plays_through_the_same_verbs(monkeypatch, kind: str, planner: str) -> None:
    calls: list[object] = []

    class Player:
        def reset(self, slot: int) -> None:
            calls.append(("reset", slot))

        def decide(self, slots, frames):
            assert frames.shape == (1, 84, 84)
            return SimpleNamespace(actions=np.array([3]))

        def took(self, slots, actions) -> None:
            calls.append(("took", slots, actions.tolist()))

    class Agent:
        planning = Planning(PlannerConfig("beam", 5), context=8)

        @classmethod
        def from_pretrained(cls, name: str):
            calls.append(("found", name))
            return cls()

        def player(self, games, planner, context):
            calls.append(("player", games, planner.name, planner.width, context))
            return Player()

    module = ModuleType("jowa.agent")
    module.Agent = Agent
    monkeypatch.setitem(sys.modules, "jowa.agent", module)
    policy = make_policy(f"{kind}:/some/folder", "Pong")
    policy.reset(9)
    assert policy.act(np.zeros((84, 84), np.uint8), AtariEnv("Pong")) == 3
    assert calls == [("found", "/some/folder"), ("player", ["Pong"], planner, 5, 8), ("reset", 0), ("took", [0], [3])]


def test_fold_bounces_between_walls() -> None:
    assert [fold(x, 0, 10) for x in (3, 10, 12, 19, 21, 25, -4, -14)] == [3, 10, 8, 1, 1, 5, 4, 6]
