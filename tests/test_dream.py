"""The world model as Gymnasium environments."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import jowa.dream
from jowa.agent import Agent
from jowa.dream.world import Start
from jowa.errors import NumericalError, UsageError
from jowa.model import WorldActionModel
from jowa.planner import Context, Imagination, PlannerConfig

GAME = "Pong"


@pytest.fixture(scope="module")
def agent(make_tiny_agent: Callable[..., Agent]) -> Agent:
    return make_tiny_agent((GAME,), PlannerConfig())


def dreams(agent: Agent, count: int, **settings: object) -> gymnasium.vector.VectorEnv:
    return gymnasium.make_vec("jowa/Dream-v0", num_envs=count, agent=agent, game=GAME, **settings)


def start(length: int, seed: int = 0) -> Start:
    generator = np.random.default_rng(seed)
    return Start(
        generator.integers(256, size=(length, 84, 84), dtype=np.uint8), generator.choice([0, 1, 3, 4], size=length - 1)
    )


@pytest.mark.parametrize("settings", [{}, {"sample": False, "full_action_space": False, "context": 3}])
def test_the_single_form_passes_gymnasiums_check(agent: Agent, settings: dict) -> None:
    env = gymnasium.make("jowa/Dream-v0", agent=agent, game=GAME, render_mode="rgb_array", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*alternative render modes.*")
        check_env(env.unwrapped, skip_render_check=False)
    env.reset(seed=1)
    assert env.render().shape == (84, 84, 3)


def test_an_environment_of_many_is_the_one_alone(agent: Agent) -> None:
    """Environment i with seed s plays as a single one with seed s + i, also over the end of an episode."""
    many = dreams(agent, 3, max_steps=4)
    ones = [
        gymnasium.make("jowa/Dream-v0", agent=agent, game=GAME, max_steps=4, disable_env_checker=True) for _ in range(3)
    ]
    seen, info = many.reset(seed=10)
    for index, one in enumerate(ones):
        frame, told = one.reset(seed=10 + index)
        np.testing.assert_array_equal(frame, seen[index])
        np.testing.assert_array_equal(told["tokens"], info["tokens"][index])
    generator = np.random.default_rng(0)
    over, ended = np.zeros(3, dtype=bool), 0
    for _ in range(14):
        actions = generator.integers(many.single_action_space.n, size=3)
        seen, rewards, terminated, truncated, _ = many.step(actions)
        for index, one in enumerate(ones):
            if over[index]:
                frame, _ = one.reset()
                assert (rewards[index], terminated[index], truncated[index]) == (0, False, False)
            else:
                frame, *outcome, _ = one.step(actions[index])
                assert outcome == [rewards[index], terminated[index], truncated[index]]
            np.testing.assert_array_equal(frame, seen[index])
        over = terminated | truncated
        ended += int(over.sum())
    assert ended >= 3 and len({frame.tobytes() for frame in seen}) == 3


def test_it_is_what_the_model_imagines(agent: Agent) -> None:
    """Greedily, a step is the plain imagination of the last two frames and the action between them."""
    env = gymnasium.make("jowa/Dream-v0", agent=agent, game=GAME, sample=False).unwrapped
    begin = start(5)
    _, info = env.reset(options={"start": begin})
    tokens = list(agent.encode(begin.frames)[-2:])
    taken = [int(begin.actions[-1])]
    assert info["tokens"].tolist() == tokens[-1].tolist()
    plain = Imagination(agent.model)
    for action in (2, 0, 3, 1):
        taken.append(env.actions[action])
        context = Context(
            torch.stack(tokens[-2:])[None], torch.tensor([[taken[-2], 0]]), torch.tensor([2]), torch.tensor([39]),
            torch.ones(1, 18, dtype=torch.bool),
        )  # fmt: skip
        rows = plain.step(
            plain.encode(context), None, torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[taken[-1]]])
        )
        frame, reward, terminated, _, info = env.step(action)
        assert info["tokens"].tolist() == rows.tokens[0, 0].tolist()
        assert reward == float(rewards := rows.rewards[0, 0]) and rewards in (-1, 0, 1)
        shown = (agent.tokenizer.decode(rows.tokens[0, 0]) * 255).round().byte().numpy()
        np.testing.assert_array_equal(frame, shown)
        tokens.append(rows.tokens[0, 0])
        if terminated:
            break


def test_a_dream_begins_at_a_recorded_moment(agent: Agent, tmp_path: Path) -> None:
    from jowa.data.record import RecordConfig, record

    record(RecordConfig(out=tmp_path / "data", games=(GAME,), steps=60, max_steps=30))
    env = gymnasium.make("jowa/Dream-v0", agent=agent, game=GAME, data=tmp_path / "data").unwrapped
    first, info = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(first, again)
    other = {env.reset()[1]["tokens"].tobytes() for _ in range(8)}
    assert len(other | {info["tokens"].tobytes()}) > 2
    with pytest.raises(UsageError, match="holds no episodes of Breakout"):
        gymnasium.make("jowa/Dream-v0", agent=agent, game="Breakout", data=tmp_path / "data")


def test_wrong_use_is_named(agent: Agent) -> None:
    env = gymnasium.make("jowa/Dream-v0", agent=agent, game=GAME, full_action_space=True).unwrapped
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action 2 is not legal in Pong"):
        env.step(2)
    with pytest.raises(ValueError, match="below 18"):
        env.step(18)
    for settings, message in (
        ({"context": 4}, "context is 4"), ({"temperature": 0.0}, "temperature"), ({"max_steps": 0}, "at least 1"),
        ({"render_mode": "human"}, "render_mode"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            jowa.dream.DreamVectorEnv(agent, GAME, 1, **settings)
    with pytest.raises(ValueError, match="frames must be uint8"):
        env.reset(options={"start": Start(np.zeros((1, 80, 80), np.uint8), np.zeros(0, np.int64))})
    with pytest.raises(ValueError, match="actions must be 1 numbers"):
        env.reset(options={"start": Start(np.zeros((2, 84, 84), np.uint8), np.array([18]))})


def test_a_step_that_fails_leaves_the_dream_where_it_was(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    env = gymnasium.make("jowa/Dream-v0", agent=agent, game=GAME, sample=False).unwrapped
    env.reset(options={"start": start(5)})
    rollout = env._vector.dreams.rollout
    imagine = rollout.imagine

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rollout, "imagine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        env.step(2)
    monkeypatch.setattr(rollout, "imagine", imagine)
    found = env.step(1)[4]["tokens"].tolist()
    env.reset(options={"start": start(5)})
    assert found == env.step(1)[4]["tokens"].tolist()


def test_nan_of_the_model_is_named(agent: Agent) -> None:
    broken = copy.copy(agent)
    broken.model = WorldActionModel(agent.model.config).eval()
    broken._engine = None
    with torch.no_grad():
        broken.model.reward_head[2].bias[1] = torch.nan
    env = gymnasium.make("jowa/Dream-v0", agent=broken, game=GAME).unwrapped
    env.reset(seed=0)
    with pytest.raises(NumericalError, match="the model answers NaN"):
        env.step(0)


def test_copies_share_the_agent(agent: Agent) -> None:
    assert copy.deepcopy(agent) is agent
