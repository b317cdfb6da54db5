"""Looks at the agent while it trains, and where curves go."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jowa.agent import Agent, Planning
from jowa.errors import UsageError
from jowa.planner import PlannerConfig
from jowa.train.feed import Feed
from jowa.train.flops import model_flops_per_step
from jowa.train.folder import METRICS
from jowa.train.loggers import Loggers
from jowa.train.loop import Trainer
from jowa.train.monitor import _Observer, discounted_returns, look, mean_score
from jowa.train.pace import Pace, progress_note
from jowa.train.session import train
from jowa.train.watch import observations


def test_returns_are_discounted_from_each_step_on() -> None:
    assert discounted_returns(np.array([1.0, 0.0, -1.0]), 0.5).tolist() == [0.75, -0.5, -1.0]
    assert discounted_returns(np.array([]), 0.5).tolist() == []


@pytest.mark.parametrize(("limit", "kept"), [(4, 0), (5, 4)])
def test_bias_is_q_minus_the_clipped_return_and_leaves_out_what_was_cut_off(
    finished_run: Any, limit: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent.load(finished_run / "agent", "cpu")
    observer = _Observer(agent, {"Pong": Planning(PlannerConfig("none"), 1)})
    decider = observer([("Pong", 0)])
    expected = []
    for step, reward in enumerate([0.0, 7.0, 0.0, -3.0]):
        frames = np.full((1, 84, 84), 40 * step, np.uint8)
        (q,) = agent.player(["Pong"], PlannerConfig("none"), 1).decide([0], frames).q
        actions = decider.choose(np.array([0]), frames)
        decider.took([0], actions)
        decider.earned([0], np.array([reward]))
        assert actions[0] == q.argmax()
        expected.append(q.max())
    errors = observer.errors(0.5, limit)["Pong"]
    assert len(errors) == kept
    returns = [0 + 0.5 * (1 - 0.25), 1 - 0.25, -0.5, -1.0]
    np.testing.assert_allclose(errors, (np.array(expected) - returns)[:kept], atol=1e-5)


def test_a_look_plays_both_ways(small_config: Any, alone: Any) -> None:
    config = small_config({"health.evaluate_episodes": 1, "health.evaluate_steps": 4})
    found = look(config, Trainer(config, alone).agent(), seed=0)
    names = {f"{how}/{game}" for how in ("greedy", "beam", "planner_gain") for game in ("Pong", "Breakout")}
    assert set(found.metrics) == names | {"greedy/mean", "beam/mean"}, "nothing is known of Q: all was cut off"
    assert found.metrics["planner_gain/Pong"] == found.metrics["beam/Pong"] - found.metrics["greedy/Pong"]
    assert found.score == found.metrics["greedy/mean"] and "greedy/Pong 0" in found.describe()


def test_the_mean_is_of_normalised_scores_where_there_are_any() -> None:
    from jowa.evaluate import summarise

    human = summarise("Pong", [14.6])
    assert mean_score([human, summarise("Zaxxon", [32.5])]) == pytest.approx(0.5)
    unknown = summarise("Solaris", [300.0])
    assert unknown.hns is None and mean_score([unknown]) == 300.0 and mean_score([unknown, human]) == pytest.approx(1.0)


def test_looks_come_when_due_and_change_nothing(
    small_config: Any, alone: Any, assert_same_state: Any, tmp_path: Any
) -> None:
    looks = {"health.evaluate_every": 3, "health.picture_every": 2}
    states, seen = [], []
    for name, changes in (("plain", {}), ("watched", looks)):
        config = small_config(changes | {"out": tmp_path / name})
        trainer = Trainer(config, alone)
        trainer.run(Feed(config, alone), lambda step, metrics: None, lambda step, agent: seen.append(step))
        states.append(trainer._state())
    assert seen == [2, 4, 6, 7, 8], "stage 2 begins after step 4"
    assert [observations(config, step) for step in (6, 7)] == [{"picture"}, {"play"}]
    assert_same_state(*states)


def test_curves_and_pictures_are_logged(small_config: Any, alone: Any) -> None:
    config = small_config({"health.evaluate_every": 4, "health.evaluate_steps": 3, "health.picture_every": 8})
    train(config, alone)
    board = EventAccumulator(str(config.out / METRICS)).Reload()
    tags = board.Tags()
    assert tags["images"] == ["imagined beside real"]
    stage2 = {"td", "cql", "frame", "reward", "end", "joint_gradient_norm", "joint_skipped", "joint_skipped_in_row"}
    wanted = {f"stage2/{name}" for name in stage2} | {"play/greedy/Pong", "play/planner_gain/Pong"}
    assert wanted | {"speed/steps_per_second", "stage1/reconstruction"} <= set(tags["scalars"])
    assert [event.step for event in board.Scalars("play/greedy/Pong")] == [8]


def test_weights_and_biases_gets_the_same(small_config: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []

    class Run:
        def define_metric(self, *names: str, **options: str) -> None:
            calls.append(("define", options))

        def log(self, values: dict[str, Any]) -> None:
            calls.append(("log", values))

        def finish(self, exit_code: int) -> None:
            calls.append(("finish", exit_code))

    def init(**options: Any) -> Run:
        calls.append(("init", options))
        return Run()

    fake = ModuleType("wandb")
    vars(fake).update(init=init, Image=lambda picture: picture.size)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = small_config({"health.wandb": "atari"})
    with Loggers(config, tmp_path, 0) as loggers:
        loggers.scalars(3, {"td": 0.5})
        loggers.scalars(4, {})
        loggers.picture(5, "frames", Image.new("L", (4, 2)))
    names = [name for name, _ in calls]
    assert names == ["init", "define", "log", "log", "finish"]
    assert calls[0][1]["project"] == "atari" and calls[0][1]["config"]["seed"] == config.seed
    assert calls[2][1] == {"td": 0.5, "step": 3} and calls[3][1] == {"frames": (4, 2), "step": 5}
    with pytest.raises(KeyError), Loggers(config, tmp_path, 0):
        raise KeyError
    assert calls[-1] == ("finish", 1)


def test_absent_weights_and_biases_is_a_usage_error(
    small_config: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"pip install wandb"):
        Loggers(small_config({"health.wandb": "atari"}), tmp_path, 0)


def test_pace_is_of_the_steps_between_and_of_one_stage(small_config: Any, alone: Any) -> None:
    times = iter([0.0, 1.0, 3.0, 4.0, 5.0])
    pace = Pace(small_config(), alone, 10, lambda: next(times))
    pace.ceiling = 1e9
    assert pace.measure(12, 1, {}) == {}, "before it there was the start"
    assert pace.measure(16, 1, {"reconstruction": 1.0}) == {"speed/steps_per_second": 2.0}
    assert pace.measure(20, 2, {"frame": 1.0}) == {}, "between the stages data were encoded"
    found = pace.measure(24, 2, {"frame": 1.0})
    assert found["speed/steps_per_second"] == 4.0
    share = model_flops_per_step(small_config(), 2) * 4.0 / 1e9
    assert found["speed/model_flops_utilisation"] == pytest.approx(share)
    note = progress_note(2, {"td": 0.5, "joint_gradient_norm": 3.0, "joint_skipped": 2.0}, found)
    assert note == f"stage 2  td 0.500  skipped 2  MFU {share:.2f}"
