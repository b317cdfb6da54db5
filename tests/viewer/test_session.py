"""The session without Qt: who plays what, going back, modes, failures."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jowa.agent import Agent, GamePlanning, Planning
from jowa.data.store import EpisodeStore
from jowa.env.atari import AtariOptions
from jowa.planner import PlannerConfig
from jowa.viewer import commands as told
from jowa.viewer.events import Distributions, Failed, Moment, Notice, State
from jowa.viewer.session import Session

Drive = Callable[..., "Driver"]  # noqa: F821


def test_it_decides_at_once_and_steps(drive: Drive, agent: Agent) -> None:
    driver = drive()
    first = driver.first
    assert (first.index, first.step, first.taken, first.who) == (0, 0, None, "agent")
    assert first.screen.shape == (210, 160, 3) and np.ptp(first.screen.astype(int)) > 0
    assert np.array_equal(first.reconstruction, agent.decode(agent.encode(first.frame.copy()).numpy()))
    assert first.legal[first.advice] and np.isneginf(first.q[~first.legal]).all()
    second = driver.moment(told.Step())
    assert (second.index, second.step) == (1, 1)
    assert not driver.session.state.running
    back = driver.moment(told.Back())
    assert back.index == 0 and back.taken == first.advice
    assert np.array_equal(back.q, first.q) and np.array_equal(back.screen, first.screen)


def test_the_tree_shows_kept_and_pruned_plans(drive: Drive) -> None:
    driver = drive()
    moment = driver.moment(told.SetPlanner.to(name="beam", width=3, horizon=2, respect_ends=False))
    tree = moment.tree
    kept = [path for path in tree.paths if path.rank >= 0]
    pruned = [path for path in tree.paths if path.rank < 0]
    assert [path.rank for path in kept] == [0, 1, 2] and kept[0].actions[0] == moment.advice
    assert kept[0].score == moment.plan_score
    assert len(pruned) == 6  # of 3 + 9 nodes nine are leaves
    for path in tree.paths:
        assert [int(tree.action[node]) for node in path.nodes] == list(path.actions)
        assert [int(tree.parent[node]) for node in path.nodes] == [-1, *path.nodes[:-1]]
        assert all(tree.frame(node) is not None for node in path.nodes)


def test_monte_carlo_trees_show_visits_and_greedy_shows_no_tree(drive: Drive) -> None:
    driver = drive()
    tree = driver.moment(told.SetPlanner.to(name="mcts", simulations=12, horizon=3)).tree
    assert tree.visits.sum() >= 12 and tree.paths[0].visits == max(path.visits for path in tree.paths)
    assert tree.depth.min() == 1
    greedy = driver.moment(told.SetPlanner.to(name="none"))
    assert greedy.tree is None and greedy.advice == greedy.greedy and not greedy.changed


def test_what_was_imagined_is_compared_with_what_happened(drive: Drive) -> None:
    driver = drive()
    driver.moment(told.SetPlanner.to(name="beam", width=6, horizon=2))
    before = driver.moment(told.Step())
    moment = driver.moment(told.Step())
    found = {look.steps: look for look in moment.hindsight}
    node = next(n for n in range(len(before.tree.parent)) if before.tree.parent[n] < 0
                and before.tree.action[n] == before.advice)  # fmt: skip
    assert np.array_equal(found[1].frame, before.tree.frame(node))
    assert 0 <= found[1].came_true <= 1
    assert found[1].mean == pytest.approx((found[1].came_true + before.hindsight[0].came_true) / 2)


def test_going_on_from_an_old_moment_repeats_what_followed(drive: Drive) -> None:
    driver = drive(sticky=0.25)
    seen = [driver.first, *(driver.moment(told.Step()) for _ in range(12))]
    old = driver.moment(told.GoTo(4))
    assert (old.index, old.newest) == (4, 12)
    driver.session.send(told.SetSpeed(None), told.Run())
    driver.wait(Moment, lambda moment: moment.newest >= 12 and moment.index >= 12)
    driver.session.send(told.Pause())
    driver.state(lambda state: not state.running)
    for index in (5, 9, 12):
        again = driver.moment(told.GoTo(index))
        assert np.array_equal(again.screen, seen[index].screen) and again.advice == seen[index].advice
        assert again.score == seen[index].score and again.step == seen[index].step


def test_a_thousand_moments_are_remembered(drive: Drive) -> None:
    from jowa.viewer.history import History

    assert History()._records.maxlen == 1000
    driver = drive()
    driver.session._play.history = history = History(length=10, tree_bytes=3_000)
    driver.session.send(told.SetGame("Pong"))
    for _ in range(25):
        driver.moment(told.Step())
    assert len(history) == 10 and history.newest - history.oldest == 9
    assert sum(record.tree_bytes for record in history) <= 3_000
    assert driver.moment(told.GoTo(0)).index == history.oldest
    assert driver.moment(told.GoTo(history.newest)).tree is not None


def test_the_person_plays_and_is_advised(drive: Drive) -> None:
    driver = drive(sticky=0.0)
    driver.moment(told.SetMode("take over"))
    held = driver.moment(told.Press(3))
    assert (held.who, held.action, held.taken) == ("person", 3, None)  # before the step, not after it
    driver.moment(told.Step())
    assert driver.moment(told.Back()).taken == 3
    driver.session.send(told.GoTo(), told.Press(17))  # not legal in Pong
    driver.moment(told.Step())
    moment = driver.moment(told.Back())
    assert moment.taken == 0 and moment.who == "person" and moment.legal[moment.advice]


def test_a_dream_begins_here_and_the_game_waits(drive: Drive) -> None:
    driver = drive()
    for _ in range(5):
        real = driver.moment(told.Step())
    dream = driver.moment(told.SetMode("dream"))
    assert dream.mode == "dream" and dream.step == 0
    assert np.array_equal(dream.frame, real.reconstruction)
    assert dream.screen.shape == (84, 84, 3)
    driver.session.send(told.SetPerson(True), told.Press(4))
    dreamt = driver.moment(told.Step())
    assert driver.moment(told.Back()).taken == 4
    driver.session.send(told.SetPerson(False))
    driver.moment(told.Step())
    driver.moment(told.GoTo(dream.index))
    driver.session.send(told.SetPerson(True), told.Run())
    driver.wait(Moment, lambda moment: moment.newest >= dreamt.index and moment.index > dream.index)
    driver.session.send(told.Pause())
    again = driver.moment(told.GoTo(dreamt.index))
    assert np.array_equal(again.frame, dreamt.frame)  # chance is the same again
    driver.session.send(told.Pause())
    awake = driver.moment(told.SetMode("play"))
    while awake.mode != "play":
        awake = driver.wait(Moment)
    assert (awake.step, awake.episode, awake.score) == (real.step, real.episode, real.score)
    assert np.array_equal(awake.screen, real.screen) and awake.advice == real.advice


def test_who_takes_over_dreams_on_and_wakes_up_to_it(drive: Drive) -> None:
    driver = drive()
    driver.moment(told.SetMode("take over"))
    driver.moment(told.Step())
    assert driver.moment(told.Jump()).mode == "dream" and driver.session.state.person
    driver.session.send(told.Press(3))
    driver.moment(told.Step())
    assert driver.moment(told.Back()).taken == 3
    awake = driver.moment(told.Jump())
    assert (awake.mode, awake.step) == ("take over", 1) and driver.session.state.person
    driver.moment(told.SetMode("play"))
    assert driver.moment(told.Jump()).mode == "dream" and not driver.session.state.person
    assert driver.moment(told.Jump()).mode == "play" and not driver.session.state.person


def test_a_recording_is_replayed_with_the_agents_view(drive: Drive, sprite_store: Path) -> None:
    driver = drive()
    real = driver.moment(told.Step())
    driver.moment(told.OpenRecording(sprite_store, "Breakout", 1))
    recorded = EpisodeStore.open(sprite_store).read_episode("Breakout", 1)
    for step in range(1, 5):
        moment = driver.moment(told.Step())
        assert np.array_equal(moment.frame, recorded.frames[step]) and moment.reward == recorded.rewards[step - 1]
        assert moment.who == "recording" and moment.tree is not None
        assert moment.action == recorded.actions[step] and moment.taken is None
    assert driver.moment(told.Back()).taken == recorded.actions[3]
    driver.session.send(told.SetMode("play"))
    awake = driver.wait(Moment, lambda moment: moment.mode == "play")
    assert awake.step == real.step and np.array_equal(awake.screen, real.screen)


def test_any_moment_of_a_recording_is_reached(drive: Drive, sprite_store: Path) -> None:
    driver = drive()
    driver.moment(told.OpenRecording(sprite_store, "Pong", 0))
    walked = [driver.moment(told.Seek(0)), *(driver.moment(told.Step()) for _ in range(19))]
    recorded = EpisodeStore.open(sprite_store).read_episode("Pong", 0)
    driver.moment(told.OpenRecording(sprite_store, "Pong", 0))
    for step in (17, 15, 16, 3):
        moment = driver.moment(told.Seek(step))
        assert moment.step == step and np.array_equal(moment.frame, recorded.frames[step])
        assert np.array_equal(moment.recorded, recorded.rewards) and moment.score == recorded.rewards[:step].sum()
        assert moment.reward == recorded.rewards[step - 1] and moment.who == "recording"
        assert np.array_equal(moment.q, walked[step].q) and moment.advice == walked[step].advice  # the same memory
    back = [driver.moment(told.Back()).step for _ in range(4)]
    assert back == [2, 1, 0, 0]
    assert all(look.came_true is None for look in driver.moment(told.Seek(2)).hindsight)  # nobody looked ahead to it
    last = driver.moment(told.Seek())
    assert last.ended and last.step == len(recorded) - 1
    assert driver.moment(told.Seek(-5)).step == 0 and driver.moment(told.Seek(999)).step == last.step
    driver.session.send(told.SetMode("play"), told.Seek(1))
    assert "no recording" in driver.wait(Failed).text


def test_rewards_of_a_recording_are_found(drive: Drive, sprite_store: Path) -> None:
    driver = drive()
    driver.moment(told.OpenRecording(sprite_store, "Pong", 0))
    rewards = EpisodeStore.open(sprite_store).read_episode("Pong", 0).rewards
    places = [step for step in range(1, len(rewards)) if rewards[step - 1]]
    assert len(places) > 1
    found = [driver.moment(told.Find("reward")).step for _ in places]
    assert found == places
    assert driver.moment(told.Find("reward", forward=False)).step == places[-2]


def test_of_many_moments_asked_for_at_once_the_last_is_shown(drive: Drive, sprite_store: Path) -> None:
    driver = drive()
    driver.moment(told.OpenRecording(sprite_store, "Pong", 0))
    shown: list[int] = []
    driver.session.subscribe(lambda event: shown.append(event.step) if isinstance(event, Moment) else None)
    with driver.session._commands.mutex:  # the session cannot take one before all are there
        driver.session._commands.queue.extend(told.Seek(step) for step in range(2, 12))
        driver.session._commands.unfinished_tasks += 10
        driver.session._commands.not_empty.notify()
    driver.settle()
    assert shown == [11]


@pytest.mark.parametrize("sticky", [0.25, 0.6])
def test_a_session_that_was_kept_is_replayed_in_colour(drive: Drive, tmp_path: Path, sticky: float) -> None:
    driver = drive("Freeway", sticky=sticky)
    played = [driver.first, *(driver.moment(told.Step()) for _ in range(20))]
    driver.session.send(told.SaveEpisode(tmp_path / "kept"))
    driver.wait(Notice)
    driver.moment(told.OpenRecording(tmp_path / "kept"))
    for step in (5, 6, 2, 7, 0):
        moment = driver.moment(told.Seek(step))
        assert moment.mode == "replay" and np.array_equal(moment.screen, played[step].screen)
        assert np.array_equal(moment.frame, played[step].frame)


def test_a_recording_that_cannot_be_played_again_is_grey(drive: Drive, sprite_store: Path) -> None:
    driver = drive()
    driver.session.send(told.OpenRecording(sprite_store, "Breakout", 1))
    assert "grey" in driver.wait(Notice).text
    assert driver.moment(told.Seek(1)).screen.shape == (84, 84, 3)


@pytest.mark.parametrize("game", ["Pong", "Freeway"])
def test_a_whole_episode_is_played(drive: Drive, game: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from jowa.viewer import worlds

    monkeypatch.setattr(worlds, "AtariOptions", lambda sticky: AtariOptions(sticky, max_steps=40))
    driver = drive(game)
    driver.session.send(told.SetSpeed(None), told.Run())
    assert "after 40 decisions" in driver.wait(Notice).text
    driver.session.send(told.Pause())
    driver.settle()
    ended = driver.moment(told.GoTo(40))
    assert (ended.game, ended.step, ended.ended, ended.episode) == (game, 40, True, 1)
    after = driver.moment(told.GoTo(), told.Step())
    assert after.episode >= 2 and not after.ended


def test_a_session_is_kept_as_an_episode_that_training_reads(drive: Drive, tmp_path: Path) -> None:
    driver = drive()
    frames = [driver.first.frame, *(driver.moment(told.Step()).frame for _ in range(6))]
    driver.session.send(told.SaveEpisode(tmp_path / "kept"))
    assert "6 steps" in driver.wait(Notice).text
    episode = EpisodeStore.open(tmp_path / "kept").read_episode("Pong", 0)
    assert np.array_equal(episode.frames, frames[:6]) and not episode.terminal
    assert episode.policy == "viewer:agent"


def test_a_decision_is_exported(drive: Drive, tmp_path: Path) -> None:
    driver = drive()
    driver.session.send(told.ExportMoment(tmp_path / "moment.json"))
    driver.wait(Notice)
    exported = json.loads((tmp_path / "moment.json").read_text())
    assert exported["advice"] == driver.first.advice and exported["planner"]["name"] == "beam"
    assert exported["tree"]["paths"][0]["rank"] == 0
    for _ in range(3):
        driver.moment(told.Step())
    driver.session.send(told.ExportMoment(tmp_path / "moment.json", 1))  # pictured before the session went on
    driver.wait(Notice)
    assert json.loads((tmp_path / "moment.json").read_text())["index"] == 1


def test_distributions_come_when_asked_for(drive: Drive) -> None:
    driver = drive()
    driver.session.send(told.AskDistributions())
    found = driver.wait(Distributions)
    assert found.probabilities.shape == (2, 18, 51)
    expected = (found.probabilities.mean(0) @ found.atoms)[driver.first.legal]
    assert np.allclose(expected, driver.first.q[driver.first.legal], atol=1e-3)


@pytest.mark.parametrize("source", ["demo", "nowhere/at/all", "owner/agent"])
def test_a_missing_agent_is_reported_and_the_session_lives(
    drive: Drive, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    driver = drive()
    driver.session.send(told.SetSpeed(None), told.Run(), told.LoadAgent(source))
    failed = driver.wait(Failed)
    assert driver.session.state.running  # what runs goes on
    driver.wait(Moment, lambda moment: moment.index > 3)
    driver.session.send(told.Pause(), told.GoTo(0))
    assert failed.title == "The agent cannot be used" and ("jowa.train" in failed.text or "hub" in failed.text)
    assert driver.moment(told.Step()).index == 1


def test_a_broken_agent_is_reported_and_the_session_lives(drive: Drive, agent: Agent, tmp_path: Path) -> None:
    agent.save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    driver = drive()
    driver.session.send(told.LoadAgent(str(tmp_path)))
    assert "model.safetensors" in driver.wait(Failed).text
    assert driver.session.state.agent == "test agent" and driver.session.state.busy is None
    assert driver.moment(told.Step()).index == 1


def test_an_agent_is_loaded_into_an_empty_session(
    drive: Drive, agent: Agent, tmp_path: Path, sprite_store: Path
) -> None:
    agent.save(tmp_path / "run" / "agent")
    driver = drive(with_agent=False)
    driver.session.send(told.Run(), told.Step(), told.Back(), told.Reset(), told.SetMode("dream"))
    driver.session.send(told.OpenRecording(sprite_store), told.Find("changed"))
    assert "no agent" in driver.wait(Failed).text and driver.session.state.mode == "play"
    moment = driver.moment(told.LoadAgent(str(tmp_path / "run")))
    assert moment.step == 0 and driver.session.state.agent_games == ("Pong", "Freeway")


def test_an_episode_outlives_a_change_of_agent(drive: Drive, agent: Agent, tmp_path: Path) -> None:
    agent.save(tmp_path)
    driver = drive()
    before = driver.moment(told.Step())
    driver.moment(told.LoadAgent(str(tmp_path)))
    after = driver.moment(told.Step())
    assert (after.episode, after.step) == (before.episode, before.step + 1)


@pytest.mark.parametrize(
    ("command", "title"),
    [
        (told.SetPlanner.to(horizon=9), "These settings do not work"),
        (told.SetPlanner.to(width=0), "These settings do not work"),
        (told.SetContext(0), "These settings do not work"),
        (told.OpenRecording(Path("nowhere")), "The recording cannot be opened"),
        (told.Seek(3), "Not possible"),
        (told.SetMode("replay"), "The mode cannot be entered"),
        (told.SetGame("Tetris"), "The game cannot be played"),
        (told.SaveEpisode(Path("kept")), "The episode was not saved"),
    ],
)
def test_what_cannot_be_done_changes_nothing(drive: Drive, command: told.Command, title: str) -> None:
    driver = drive()
    before = driver.session.state
    driver.session.send(command)
    assert driver.wait(Failed).title == title
    driver.moment(told.Step())
    assert dataclasses.replace(driver.session.state, rate=0.0) == dataclasses.replace(before, rate=0.0)


def test_steps_of_width_and_horizon_add_up_and_end(drive: Drive) -> None:
    driver = drive()
    driver.session.send(*[told.Adjust("width", 1)] * 3, *[told.Adjust("horizon", 1)] * 30)
    driver.settle()
    planner = driver.session.state.planner
    assert (planner.width, planner.horizon) == (5, driver.session.state.longest_context - 1)
    driver.session.send(*[told.Adjust("width", -1)] * 30, *[told.Adjust("horizon", -1)] * 30)
    driver.settle()
    assert (driver.session.state.planner.width, driver.session.state.planner.horizon) == (1, 1)


def test_a_fault_while_playing_pauses_and_is_told(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = drive()
    monkeypatch.setattr(driver.session._play, "advance", lambda *_: 1 / 0)
    driver.session.send(told.Run())
    assert "ZeroDivisionError" in driver.wait(Failed).text and not driver.session.state.running


def test_each_game_is_planned_for_in_the_agents_own_way(drive: Drive, agent: Agent) -> None:
    """As ``python -m jowa.tune`` chose, until the person chooses otherwise, which outlives a change of game."""
    games = {"Freeway": GamePlanning(context=3, horizon=0), "Pong": GamePlanning(context=2, horizon=3, td_lambda=0.5)}
    own = Planning(PlannerConfig("beam", horizon=1), context=1, games=games)
    tuned = Agent(agent.tokenizer, agent.model, agent.tasks, planning=own)
    driver = drive(with_agent=False)
    driver.session._play.use(tuned, "tuned")

    def way(moment: Moment) -> tuple[str, int, float, int]:
        state = driver.session.state
        assert state.planner == moment.planner
        return moment.planner.name, moment.planner.horizon, moment.planner.td_lambda, state.context

    assert way(driver.moment(told.SetGame("Pong"))) == ("beam", 3, 0.5, 2)
    assert way(driver.moment(told.SetGame("Freeway"))) == ("none", 1, 1.0, 3)
    assert way(driver.moment(told.SetGame("Boxing"))) == ("beam", 1, 1.0, 1)
    assert way(driver.moment(told.SetPlanner({"name": "mcts"}), told.SetContext(4))) == ("mcts", 1, 1.0, 4)
    assert way(driver.moment(told.SetGame("Freeway"))) == ("mcts", 1, 1.0, 4)
    assert way(driver.moment(told.SetGame("Pong"))) == ("mcts", 3, 0.5, 4)


def test_pause_takes_effect_after_the_decision_under_way(drive: Drive, slow_agent: Agent) -> None:
    driver = drive(with_agent=False)
    driver.session._play.use(slow_agent, "slow")
    driver.session.send(told.SetGame("Pong"))
    driver.wait(Moment)
    driver.session.send(told.Run())
    driver.wait(State, lambda state: state.running)
    driver.session.send(told.Pause())
    driver.wait(State, lambda state: not state.running)
    newest = driver.moment(told.GoTo()).newest
    time.sleep(0.1)
    assert driver.moment(told.GoTo()).newest == newest


def test_closing_in_the_midst_of_a_search_does_not_wait(agent: Agent, slow_agent: Agent) -> None:
    slow_agent.seconds = 120
    session = Session()
    session.use(slow_agent, "slow")
    session.start()
    time.sleep(0.05)
    assert not session.close(0.1)
    slow_agent.enough = True
    session._thread.join(30)
    assert session.close()


def test_an_ended_episode_is_told_and_a_new_one_begins(drive: Drive, sprite_store: Path) -> None:
    driver = drive()
    driver.session.send(told.OpenRecording(sprite_store, "Pong", 0), told.SetSpeed(None), told.Run())
    driver.wait(Notice, lambda notice: "Episode over" in notice.text)
    first = driver.wait(Moment, lambda moment: moment.ended).episode
    assert driver.wait(Moment, lambda moment: moment.episode > first).step < 20


def test_thinking_while_the_person_plays_is_short(drive: Drive, slow_agent: Agent) -> None:
    driver = drive(with_agent=False)
    driver.session._play.use(slow_agent, "slow")
    driver.session.send(told.SetGame("Pong"))
    slow = driver.wait(Moment)
    assert slow.seconds > 0.5 and slow.planner.milliseconds is None
    driver.session.send(told.SetMode("take over"))
    driver.wait(Moment)
    assert driver.moment(told.Step()).planner.milliseconds == 50
