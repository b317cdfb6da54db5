"""A run that starts from an agent: its weights, its task ids, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jowa.agent import Agent
from jowa.data.store import EpisodeStore
from jowa.data.subset import draw_transitions
from jowa.errors import UsageError
from jowa.games import get_game
from jowa.train import session
from jowa.train.checkpoint import checkpoints, step_of
from jowa.train.feed import Feed
from jowa.train.loop import Trainer
from jowa.train.session import train
from jowa.train.start import known_tasks, task_ids

FINE = {
    "stage1.steps": 0, "stage2.train_tokenizer": True, "stage2.imagined": "half", "stage2.imagined_from": 2,
    "data.games": ("Robotank",), "data.transitions": 30, "data.segment_stride": 1,
}  # fmt: skip


@pytest.fixture
def fine(small_config: Any, finished_run: Path) -> Any:
    """A run on a third game that starts from the agent of a run on two."""
    return lambda changes=None: small_config(FINE | {"start_from": finished_run / "agent"} | (changes or {}))


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.state_dict().items())


def test_draft_head_and_picture_see_the_drawn_transitions_alone(fine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 49 recorded steps of Robotank, 30 are drawn."""
    config, seen = fine(), []
    store = EpisodeStore.open(config.data.path)
    table = draw_transitions(store, "Robotank", 30, config.seed)
    drawn = {row for o, n in zip(table["offset"], table["length"], strict=True) for row in range(o, o + n)}
    assert len(drawn) == 30 < store.num_steps("Robotank")
    agent, plain = Agent.load(config.start_from, "cpu"), EpisodeStore.read

    def watched(self: EpisodeStore, game: str, start: int, stop: int) -> Any:
        seen.extend(range(start, stop))
        return plain(self, game, start, stop)

    monkeypatch.setattr(EpisodeStore, "read", watched)
    session._train_draft_head(replace(config, draft=replace(config.draft, moments=200, steps=1)), agent)
    assert set(seen) <= drawn and len(set(seen)) > 20
    monkeypatch.setattr(session, "rollout_picture", lambda agent, chosen, context, steps: (chosen, context, steps))
    shown: Any = session.draw_picture(config, agent)
    ((episode, start),), context, steps = shown
    best = int(np.argmax(table["score"]))
    first = table["offset"][best]
    assert np.array_equal(episode.frames[:1], store.read_frames("Robotank", first, first + 1))
    assert context - 1 <= start and start + steps < table["length"][best]


def test_it_starts_with_the_agents_weights_and_both_parts_train(fine: Any, run_trainer: Any, alone: Any) -> None:
    agent, trainer = Agent.load(fine().start_from, "cpu"), Trainer(fine(), alone)
    assert same(trainer.tokenizer, agent.tokenizer) and same(trainer.model.transformer, agent.model.transformer)
    assert same(trainer.model.q_target_head, agent.model.q_head)
    done = run_trainer(fine())
    assert not same(done.tokenizer, agent.tokenizer) and not same(done.model.transformer, agent.model.transformer)


def test_a_task_that_is_new_to_the_agent_starts_between_those_it_knows(fine: Any, alone: Any) -> None:
    config = fine()
    agent, model = Agent.load(config.start_from, "cpu"), Trainer(config, alone).model
    ((game, new),) = task_ids(config).items()
    known = list(agent.tasks.values())
    assert game not in agent.tasks and new not in known
    for name in ("frame_task_embedding", "action_task_embedding"):
        now, then = getattr(model, name).weight, getattr(agent.model, name).weight
        assert torch.equal(now[new], then[known].mean(0)) and torch.equal(now[known], then[known])


def test_an_agent_that_names_no_game_gives_no_start_to_new_tasks(fine: Any, alone: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(fine().start_from, tmp_path / "nameless"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tasks": {}}))
    model, before = Trainer(fine({"start_from": folder}), alone).model, Agent.load(folder, "cpu").model
    assert torch.equal(model.frame_task_embedding.weight, before.frame_task_embedding.weight)


def test_a_frozen_tokenizer_stays(fine: Any, run_trainer: Any) -> None:
    config = fine({"stage2.train_tokenizer": False})
    assert same(run_trainer(config).tokenizer, Agent.load(config.start_from, "cpu").tokenizer)


def test_batches_are_encoded_by_the_tokenizer_of_the_moment(
    fine: Any, run_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jowa.model.objective import Objective

    config, plain, stale = (
        fine({"stage2.imagined": "none", "stage1.tokenizer_learning_rate": 0.05}),
        Objective.forward,
        [],
    )

    def watched(self: Objective, batch: Any, critic: bool, counts: Any = None) -> Any:
        assert batch.frames is not None
        now, before = (one.encode(batch.frames) for one in (current[0].tokenizer, agent.tokenizer))
        assert torch.equal(batch.tokens, now)
        stale.append(not torch.equal(now, before))
        return plain(self, batch, critic, counts)

    monkeypatch.setattr(Objective, "forward", watched)
    agent, current = Agent.load(config.start_from, "cpu"), []
    monkeypatch.setattr(Trainer, "run", lambda self, *a, run=Trainer.run: current.append(self) or run(self, *a))
    run_trainer(config)
    assert stale[-1], "the tokenizer did not move: the test sees nothing"


def test_from_scratch_takes_task_ids_alone(fine: Any, alone: Any) -> None:
    config = fine({"from_scratch": True})
    trainer, agent = Trainer(config, alone), Agent.load(config.start_from, "cpu")
    assert not same(trainer.tokenizer, agent.tokenizer) and not same(trainer.model.transformer, agent.model.transformer)
    assert task_ids(config) == task_ids(fine()) and known_tasks(config) == task_ids(config)


@pytest.mark.parametrize(("game", "task"), [("Robotank", "Phoenix"), ("Breakout", "Breakout"), ("Pong", "Pong")])
def test_one_rule_for_task_ids(fine: Any, alone: Any, game: str, task: str) -> None:
    """A held-out game borrows an id where the agent was not trained on it: before, while and after it trains."""
    config = fine({"data.games": (game,), "stage2.steps": 1, "stage2.imagined": "none"})
    wanted = get_game(task).task_id
    before = Agent.load(config.start_from, "cpu")
    assert before.task_id(game) == wanted
    batch = Feed(config, alone).pixels(0, stage=2)
    assert batch.tasks.unique().tolist() == [wanted]
    assert (batch.legal.numpy() == get_game(game).action_mask).all(), "the legal actions are the game's own"
    train(config, alone)
    after = Agent.load(config.out / "agent", "cpu")
    assert after.task_id(game) == wanted == after.tasks[game]
    assert after.tasks == before.tasks | {game: wanted}


def test_a_held_out_game_that_was_pretrained_keeps_its_own(fine: Any, alone: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(fine().start_from, tmp_path / "pretrained"))
    config = json.loads((folder / "config.json").read_text())
    config["tasks"]["Robotank"] = get_game("Robotank").task_id
    (folder / "config.json").write_text(json.dumps(config))
    assert task_ids(fine({"start_from": folder})) == {"Robotank": 45}
    assert task_ids(fine()) == {"Robotank": 37}


def test_a_run_of_its_own_trains_each_game_under_its_own(small_config: Any) -> None:
    config = small_config({"data.games": ("Pong", "Robotank")})
    assert task_ids(config) == known_tasks(config) == {"Pong": 39, "Robotank": 45}


def test_stopped_after_any_step_and_resumed(
    fine: Any, run_trainer: Any, assert_same_state: Any, read_state: Any, tmp_path: Path
) -> None:
    """With a tokenizer that trains, imagined segments and random ensemble mixtures: all of it follows from the step."""
    changes = {
        "checkpoint.every": 1,
        "checkpoint.keep": 100,
        "stage2.target_every": 2,
        "objective.ensemble": "rem",
        "objective.conservative": "combo",
    }
    config = fine(changes)
    run_trainer(config)
    saved = checkpoints(config.out / "checkpoints")
    final = read_state(saved[-1])
    assert [step_of(path) for path in saved] == [1, 2, 3, 4]
    for stopped in saved[:-1]:
        again = fine(changes | {"out": tmp_path / stopped.stem, "checkpoint.every": 100})
        shutil.copytree(stopped, again.out / "checkpoints" / stopped.name)
        assert run_trainer(again).step == 4
        assert_same_state(read_state(checkpoints(again.out / "checkpoints")[-1]), final)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("model.width", 64, "has width = 32, this run 64: set --model.width alike"),
        ("model.num_atoms", 1, "has num_atoms = 51, this run 1"),
        ("tokenizer.code_dim", 4, "has code_dim = 8, this run 4"),
    ],
)
def test_an_agent_of_another_size_is_refused(fine: Any, alone: Any, name: str, value: int, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Trainer(fine({name: value}), alone)


def test_dropout_may_differ(fine: Any, alone: Any) -> None:
    Trainer(fine({"model.dropout": 0.25, "model.q_init": 1.0}), alone)
