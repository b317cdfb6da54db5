"""The environment against a slow reference made by hand, its seeds, its ends, and many at once."""

from __future__ import annotations

import numpy as np
import pytest
from ale_py import Action, ALEInterface, roms
from gymnasium.utils.env_checker import check_env

from jowa.env.atari import AtariEnv, AtariOptions, AtariVector, seed_of_emulator
from jowa.errors import UsageError
from jowa.games import get_game

REFERENCE_GAMES = ("Pong", "Breakout", "AirRaid", "Freeway", "Atlantis", "Seaquest", "Carnival")
"""AirRaid and Carnival have screens of other heights."""


def overlap(cells: int, pixels: int) -> np.ndarray:
    """float64 (cells, pixels): the share of each cell that each pixel covers, both laid over one length."""
    edges = np.arange(cells + 1)[:, None] * pixels / cells
    pixel = np.arange(pixels)
    covered = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    return np.maximum(covered, 0.0) * cells / pixels


class SlowReference:
    """Spec's preprocessing word for word: every emulator frame's screen is kept, areas are averaged in float64."""

    def __init__(self, game: str, options: AtariOptions, seed: int) -> None:
        self.ale = ALEInterface()
        self.ale.setFloat("repeat_action_probability", options.sticky)
        self.ale.setInt("random_seed", seed_of_emulator(seed))
        self.ale.loadROM(roms.get_rom_path(get_game(game).rom))
        self.ale.reset_game()
        height, width = self.ale.getScreenDims()
        self.rows, self.columns = overlap(84, height), overlap(84, width)

    def resize(self, screen: np.ndarray) -> np.ndarray:
        return self.rows @ screen.astype(np.float64) @ self.columns.T

    def step(self, action: int) -> tuple[np.ndarray, float, bool]:
        screens, reward = [], 0.0
        for _ in range(4):
            reward += self.ale.act(Action(action))
            screens.append(self.ale.getScreenGrayscale().copy())
        return self.resize(np.maximum(screens[2], screens[3])), reward, self.ale.game_over()


def assert_same_pixels(frame: np.ndarray, exact: np.ndarray) -> None:
    """Equal after rounding to the nearest; only an exact tie (in float32 arithmetic) may go either way."""
    nearest = np.rint(exact)
    tie = np.abs(exact - np.floor(exact) - 0.5) < 1e-3
    wrong = (frame != nearest) & ~(tie & (np.abs(frame - exact) <= 0.5 + 1e-3))
    assert not wrong.any(), f"{wrong.sum()} pixels differ from the reference"


@pytest.mark.parametrize("game", REFERENCE_GAMES)
def test_pixels_rewards_and_ends_equal_the_slow_reference(game: str) -> None:
    options = AtariOptions()
    environment, reference = AtariEnv(game, options), SlowReference(game, options, seed=11)
    frame, _ = environment.reset(seed=11)
    assert_same_pixels(frame, reference.resize(reference.ale.getScreenGrayscale()))
    generator = np.random.default_rng(5)
    changed = 0
    for _ in range(100):
        action = int(generator.choice(environment.legal_actions))
        previous = frame
        frame, reward, terminated, truncated, _ = environment.step(action)
        expected, expected_reward, over = reference.step(action)
        assert_same_pixels(frame, expected)
        assert (reward, terminated, truncated) == (expected_reward, over, False)
        changed += not np.array_equal(frame, previous)
        if over:
            break
    assert changed > 30, "the game must have moved for this test to mean anything"


def play(environment: AtariEnv, seed: int, steps: int) -> list[tuple[bytes, float]]:
    """Frames and rewards of random play that depends on ``seed`` alone."""
    generator = np.random.default_rng(seed)
    frame, _ = environment.reset(seed=seed)
    played = [(frame.tobytes(), 0.0)]
    for _ in range(steps):
        frame, reward, terminated, truncated, _ = environment.step(int(generator.choice(environment.legal_actions)))
        played.append((frame.tobytes(), reward))
        if terminated or truncated:
            break
    return played


def test_a_seed_decides_everything_whatever_was_played_before() -> None:
    used, fresh = AtariEnv("Breakout"), AtariEnv("Breakout")
    play(used, 1, 90)
    assert play(used, 7, 120) == play(fresh, 7, 120)
    assert play(fresh, 7, 120) != play(fresh, 8, 120)


def test_sticky_actions_follow_the_seed_and_the_setting() -> None:
    def ups(seed: int, sticky: float) -> bytes:
        environment = AtariEnv("Breakout", AtariOptions(sticky=sticky))
        environment.reset(seed=seed)
        for step in range(60):
            environment.step((1, 3, 4, 0)[step % 4])
        return environment.ram.tobytes()

    assert len({ups(seed, 0.0) for seed in range(3)}) == 1
    assert len({ups(seed, 0.25) for seed in range(3)}) == 3


def test_losing_a_life_does_not_end_the_episode() -> None:
    environment = AtariEnv("Breakout")
    environment.reset(seed=0)
    lives, ended = [], False
    while not ended:
        _, _, ended, truncated, _ = environment.step(1)
        lives.append(int(environment.ram[57]))
        assert not truncated
    assert lives[0] == 5 and lives[-1] == 0 and set(lives) == {0, 1, 2, 3, 4, 5}
    with pytest.raises(RuntimeError, match="call reset"):
        environment.step(0)


def test_episode_cap_truncates() -> None:
    environment = AtariEnv("Pong", AtariOptions(max_steps=5))
    environment.reset(seed=0)
    ends = [environment.step(0)[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]
    with pytest.raises(RuntimeError, match="call reset"):
        environment.step(0)


@pytest.mark.parametrize("action", [2, -1, 18])
def test_illegal_actions_are_refused_and_change_nothing(action: int) -> None:
    environment = AtariEnv("Pong")
    environment.reset(seed=0)
    before = environment.ram
    with pytest.raises(ValueError, match=r"not legal in Pong: choose one of 0 NOOP, 1 FIRE, 3 RIGHT"):
        environment.step(action)
    assert np.array_equal(environment.ram, before)


def test_options_and_games_are_checked() -> None:
    with pytest.raises(UsageError, match=r"sticky is 1\.5"):
        AtariOptions(sticky=1.5)
    with pytest.raises(UsageError, match="max_steps is 0"):
        AtariOptions(max_steps=0)
    with pytest.raises(UsageError, match="did you mean Pong"):
        AtariEnv("Pongg")


@pytest.mark.filterwarnings("ignore:.*render modes.*")
def test_gymnasium_accepts_the_environment() -> None:
    check_env(AtariEnv("Boxing"))  # all 18 actions are legal there, as the checker's random actions need


def test_each_slot_of_a_vector_plays_what_a_single_environment_plays() -> None:
    seeds = [5, 9, 5, 123456789]
    options = AtariOptions(max_steps=60)
    vector = AtariVector("Breakout", 4, options, seeds)
    singles = [AtariEnv("Breakout", options) for _ in seeds]
    generators = [np.random.default_rng(seed) for seed in seeds]
    frames = vector.reset()
    for frame, single, seed in zip(frames, singles, seeds, strict=True):
        assert np.array_equal(frame, single.reset(seed=seed)[0])
    assert np.array_equal(frames[0], frames[2])
    for _ in range(60):
        actions = [int(g.choice(single.legal_actions)) for g, single in zip(generators, singles, strict=True)]
        frames, rewards, terminated, truncated = vector.step(np.array(actions))
        for slot, single in enumerate(singles):
            frame, reward, end, cut, _ = single.step(actions[slot])
            assert np.array_equal(frames[slot], frame)
            assert (rewards[slot], terminated[slot], truncated[slot]) == (reward, end, cut)
    assert truncated.all() and frames.dtype == np.uint8 and rewards.dtype == np.float32
    vector.close()


def test_done_slots_freeze_until_reset_done() -> None:
    # Slot 0 fires all the time and loses its five balls long before slot 1, which never serves.
    vector = AtariVector("Breakout", 2, AtariOptions(), [0, 1])
    vector.reset()
    steps = 0
    while not vector.done[0]:
        frames, rewards, terminated, truncated = vector.step([1, 0])
        steps += 1
        assert steps < 3000
    assert terminated.tolist() == [True, False] and not truncated.any()
    last = frames[0]
    for _ in range(3):
        frames, rewards, terminated, _ = vector.step([17, 0])  # a done slot's action is not even looked at
        assert np.array_equal(frames[0], last) and rewards[0] == 0.0 and terminated.tolist() == [True, False]
    untouched = frames[1]
    with pytest.raises(UsageError, match="2 seeds for 1 finished"):
        vector.reset_done([7, 8])
    frames = vector.reset_done([7])  # its emulator idled for a while: the seed alone must decide
    assert not vector.done.any() and np.array_equal(frames[1], untouched)
    single = AtariEnv("Breakout")
    assert np.array_equal(frames[0], single.reset(seed=7)[0])
    for _ in range(30):
        assert np.array_equal(vector.step([1, 0])[0][0], single.step(1)[0])
    vector.close()


def test_vector_checks_its_arguments() -> None:
    with pytest.raises(UsageError, match="3 environments, 2 seeds"):
        AtariVector("Pong", 3, AtariOptions(), [1, 2])
    vector = AtariVector("Pong", 2, AtariOptions(), [1, 2])
    vector.reset()
    with pytest.raises(ValueError, match="1 actions for 2"):
        vector.step([0])
    with pytest.raises(ValueError, match="not legal in Pong"):
        vector.step([0, 2])
    vector.close()
