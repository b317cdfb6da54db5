"""Playing: repeatable, independent of the batch, true to the protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jowa.agent import Agent, Planning
from jowa.config import PlannerName
from jowa.errors import UsageError
from jowa.evaluate import PROTOCOLS, Played, Protocol, agent_player, get_protocol, play, random_player
from jowa.evaluate.play import Decider
from jowa.games import get_game
from jowa.model import WorldActionModel
from jowa.planner import PlannerConfig
from jowa.tokenizer import Tokenizer

GAMES = ("Breakout", "Pong")
SHORT = Protocol("short", sticky=0.25, max_steps=40, random_action=0.0)


@pytest.fixture
def agent(small_config: Any) -> Agent:
    config = small_config()
    torch.manual_seed(0)
    tokenizer, model = Tokenizer(config.tokenizer), WorldActionModel(config.model)
    for parameter in model.q_head.parameters():  # clear preferences: no near ties
        parameter.data += torch.randn(parameter.shape)
    return Agent(tokenizer, model, {game: get_game(game).task_id for game in GAMES})


class Always:
    """Does one thing, and keeps what it saw and did."""

    def __init__(self, action: int) -> None:
        self.action = action
        self.frames: list[NDArray[np.uint8]] = []
        self.told: list[int] = []

    def __call__(self, jobs: Sequence[tuple[str, int]]) -> Decider:
        def decide(slots: NDArray[np.int64], frames: NDArray[np.uint8]) -> NDArray[np.int64]:
            self.frames.append(frames.copy())
            return np.full(len(slots), self.action)

        return Decider(decide, lambda slots, actions: self.told.extend(actions.tolist()))


def test_the_protocols_are_the_specified_ones() -> None:
    published, sticky = get_protocol("published"), get_protocol("sticky")
    assert (published.sticky, published.max_steps, published.random_action) == (0.0, 108_000, 0.001)
    assert (sticky.sticky, sticky.max_steps, sticky.random_action) == (0.25, 27_000, 0.0)
    assert set(PROTOCOLS) == {"published", "sticky"}
    with pytest.raises(UsageError, match="unknown protocol 'stick': did you mean sticky"):
        get_protocol("stick")


def test_random_play_is_repeatable_and_does_not_depend_on_the_batch() -> None:
    protocol = dataclasses.replace(SHORT, max_steps=400)
    whole = play(random_player(3), GAMES, 3, protocol, seed=3)
    assert [(p.game, p.episode) for p in whole] == [(game, number) for game in GAMES for number in range(3)]
    assert whole == play(random_player(3), GAMES, 3, protocol, seed=3)
    for batch in (1, 4):
        assert whole == play(random_player(3), GAMES, 3, protocol, seed=3, batch=batch)
    assert whole != play(random_player(4), GAMES, 3, protocol, seed=4)
    assert len({p.score for p in whole}) > 1 and all(0 < p.steps <= 400 for p in whole)


@pytest.mark.parametrize("name", ["none", "beam", "mcts"])
def test_an_agents_play_does_not_depend_on_the_batch(agent: Agent, name: PlannerName) -> None:
    planner = PlannerConfig(name, width=2, horizon=2)
    actions = []
    for batch in (64, 1, 3):
        make = agent_player(agent, dict.fromkeys(GAMES, Planning(planner, 2)))
        log: dict[tuple[str, int], list[int]] = {}

        def recording(jobs: Any, make: Any = make, log: Any = log) -> Decider:
            decider = make(jobs)

            def watched(slots: NDArray[np.int64], frames: NDArray[np.uint8]) -> NDArray[np.int64]:
                chosen = decider.choose(slots, frames)
                for slot, action in zip(slots, chosen, strict=True):
                    log.setdefault(jobs[slot], []).append(int(action))
                return chosen

            return Decider(watched, decider.took)

        played = play(recording, GAMES, 2, dataclasses.replace(SHORT, max_steps=12), seed=1, batch=batch)
        actions.append((log, played))
    assert actions[0] == actions[1] == actions[2]
    for (game, _), taken in actions[0][0].items():
        assert len(taken) == 12 and set(taken) <= set(get_game(game).legal_actions)


def test_sticky_actions_and_seeds_change_what_is_seen() -> None:
    def seen(protocol: Protocol, seed: int) -> NDArray[np.uint8]:
        always = Always(get_game("Pong").legal_actions[2])
        play(always, ["Pong"], 1, protocol, seed)
        return np.stack(always.frames)

    plain = dataclasses.replace(SHORT, sticky=0.0, max_steps=120)
    sticky = dataclasses.replace(plain, sticky=0.9)
    assert not np.array_equal(seen(plain, 0), seen(sticky, 0))
    assert np.array_equal(seen(sticky, 0), seen(sticky, 0))
    assert not np.array_equal(seen(sticky, 0), seen(sticky, 1))


def test_random_actions_are_legal_taken_and_remembered() -> None:
    always = Always(0)
    play(always, ["Pong"], 2, Protocol("noisy", 0.0, 50, random_action=0.5), seed=0)
    told = np.array(always.told)
    assert 0.2 < (told != 0).mean() < 0.7
    assert set(told.tolist()) <= set(get_game("Pong").legal_actions)
    never = Always(0)
    play(never, ["Pong"], 2, Protocol("plain", 0.0, 50, random_action=0.0), seed=0)
    assert not any(never.told)


def test_episodes_are_cut_off_and_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    played = play(random_player(0), GAMES, 2, SHORT, batch=3, on_progress=lambda *numbers: told.append(numbers))
    assert [p.steps for p in played] == [40] * 4
    assert told[-1] == (4, 160) and told == sorted(told)


def test_a_game_may_end_before_others() -> None:
    # Random Breakout is over within some hundred steps; its slots wait while Pong goes on.
    played = play(random_player(0), ["Breakout", "Pong"], 1, dataclasses.replace(SHORT, max_steps=500), seed=1)
    steps = {p.game: p.steps for p in played}
    assert steps["Breakout"] < steps["Pong"] == 500
    assert isinstance(played[0], Played) and played[0].score >= 0
