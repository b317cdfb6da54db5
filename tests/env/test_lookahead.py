"""Look-ahead plays well, by its seed alone, without touching the environment or knowing its chance."""

from __future__ import annotations

import pytest

from jowa.env.atari import AtariEnv, AtariOptions
from jowa.env.experts import lookahead, make_policy
from jowa.env.experts.policies import Policy
from jowa.env.simulator import Simulator
from jowa.games import get_game


def play(policy: Policy, game: str, seed: int, steps: int) -> tuple[list[int], list[bytes], list[float]]:
    """Actions, frames and rewards of the first ``steps`` steps of an episode."""
    environment = AtariEnv(game, AtariOptions(max_steps=steps))
    policy.reset(seed)
    frame, _ = environment.reset(seed=seed)
    actions, frames, rewards, over = [], [frame.tobytes()], [], False
    while not over:
        actions.append(policy.act(frame, environment))
        frame, reward, terminated, truncated, _ = environment.step(actions[-1])
        frames.append(frame.tobytes())
        rewards.append(reward)
        over = terminated or truncated
    return actions, frames, rewards


def test_looking_ahead_beats_chance() -> None:
    def score(spec: str) -> float:
        return sum(sum(play(make_policy(spec, "MsPacman"), "MsPacman", seed, 150)[2]) for seed in (0, 1))

    assert score("lookahead") > 2 * score("random")


def test_a_seed_decides_what_it_plays_whatever_was_played_before() -> None:
    used, fresh = make_policy("lookahead:0.1", "Qbert"), make_policy("lookahead:0.1", "Qbert")
    play(used, "Qbert", 4, 30)
    first = play(used, "Qbert", 5, 80)
    assert first == play(fresh, "Qbert", 5, 80)
    assert first[0] != play(fresh, "Qbert", 6, 80)[0]


def test_looking_ahead_leaves_the_environment_as_it_is() -> None:
    actions, frames, rewards = play(make_policy("lookahead", "Assault"), "Assault", 3, 120)
    environment = AtariEnv("Assault")
    frame, _ = environment.reset(seed=3)
    assert frame.tobytes() == frames[0]
    for action, expected_frame, expected_reward in zip(actions, frames[1:], rewards, strict=True):
        frame, reward, *_ = environment.step(action)
        assert (frame.tobytes(), reward) == (expected_frame, expected_reward)
    assert len(set(frames)) > 30, "the game must have moved for this test to mean anything"


@pytest.mark.parametrize("game", ["Atlantis", "Freeway", "Seaquest"])
def test_actions_are_legal_and_none_is_left_out(game) -> None:
    chosen = play(make_policy("lookahead:0.5", game), game, 0, 150)[0]  # the environment refuses illegal ones
    assert set(chosen) == set(get_game(game).legal_actions)


@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_the_simulator_plays_what_the_environment_plays(sticky) -> None:
    environment, simulator = AtariEnv("Breakout", AtariOptions(sticky=sticky)), Simulator(get_game("Breakout"), sticky)
    environment.reset(seed=8)
    simulator.restart(8)
    seen = set()
    for step in range(150):
        action = (1, 3, 3, 4)[step % 4]
        assert environment.step(action)[1] == simulator.step(action)
        assert environment.ram.tobytes() == simulator.ram
        seen.add(simulator.ram)
    assert len(seen) > 100 and not simulator.over


def memories(console: AtariEnv | Simulator, steps: int) -> tuple[bytes, ...]:
    """What the memory is before and after each step of a fixed play."""
    seen = [bytes(console.ram)]
    for step in range(steps):
        console.step((3, 4)[step // 3 % 2])
        seen.append(bytes(console.ram))
    return tuple(seen)


@pytest.mark.parametrize(("sticky", "different"), [(0.0, 1), (0.25, 3)])
def test_a_snapshot_carries_the_state_and_not_the_chance_to_come(sticky, different) -> None:
    environment, simulator = AtariEnv("Breakout", AtariOptions(sticky=sticky)), Simulator(get_game("Breakout"), sticky)
    environment.reset(seed=1)
    simulator.restart(2)
    for _ in range(20):
        environment.step(1)
    snapshot = environment.snapshot()
    futures = [memories(environment, 40)]
    for _ in range(2):
        simulator.restore(snapshot)
        futures.append(memories(simulator, 40))
    assert {future[0] for future in futures} == {futures[0][0]}, "all three begin at the snapshot"
    assert len(set(futures)) == different


class Cliff:
    """Stands for the simulator: RIGHT earns 5 and costs a life, everything else does nothing."""

    def __init__(self, game, sticky: float) -> None:
        self.sticky, self.over = sticky, False

    def restart(self, seed: int) -> None: ...

    def restore(self, snapshot) -> None:
        self.lives = 3

    def step(self, action: int) -> int:
        self.lives -= action == 3
        return 5 * (action == 3)


def test_a_life_is_worth_more_than_the_points_it_earns(monkeypatch) -> None:
    monkeypatch.setattr(lookahead, "Simulator", Cliff)
    actions = play(make_policy("lookahead", "Breakout"), "Breakout", 0, 80)[0]
    assert 3 not in actions
