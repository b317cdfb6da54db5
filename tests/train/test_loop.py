"""What a step does to whom: stages, targets, frozen parts, dropout, numbers that are not."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from typing import Any

import numpy as np
import pytest
import torch

from jowa.agent import Agent
from jowa.data.arrays import ShardWriter
from jowa.data.store import EpisodeStore
from jowa.errors import DataError, NumericalError
from jowa.games import get_game
from jowa.model.objective import Objective
from jowa.planner import PlannerConfig
from jowa.train.checkpoint import checkpoints, step_of
from jowa.train.feed import Feed
from jowa.train.loop import Trainer
from jowa.train.session import train

CONSTANT = {"optimizer.warmup_steps": 0, "optimizer.final_fraction": 1.0}


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(dict(module.state_dict()))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_stage_two_has_fresh_optimizers_and_its_own_rate(small_config: Any, run_trainer: Any) -> None:
    rates, counts = {}, {}

    def watch(trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        optimizer = trainer.world.optimizer
        rates[step] = {group["lr"] for group in optimizer.param_groups}
        counts[step] = {int(state["step"]) for state in optimizer.state.values() if "step" in state}
        assert (trainer.tokenizer_part is None) == (step > 4)
        assert ("td" in metrics) == (step > 4) and ("reconstruction" in metrics) == (step <= 4)

    changes = CONSTANT | {"stage1.world_from": 0, "stage1.learning_rate": 3e-4, "stage2.learning_rate": 7e-5}
    run_trainer(small_config(changes), watch)
    assert rates == {step: {3e-4} if step <= 4 else {7e-5} for step in range(1, 9)}
    assert counts == {step: {step if step <= 4 else step - 4} for step in range(1, 9)}


def test_each_part_trains_in_its_own_stage(small_config: Any, run_trainer: Any) -> None:
    seen: dict[int, tuple[Any, ...]] = {}

    def watch(trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        model = trainer.model
        assert all(p.grad is None for p in model.q_target_head.parameters())
        parts = (trainer.tokenizer, model.transformer, model.q_head, model.q_target_head)
        seen[step] = tuple(weights(part) for part in parts)

    run_trainer(small_config({"stage1.world_from": 2, "stage2.steps": 6, "stage2.target_every": 3}), watch)
    tokenizer, backbone, q_head, target = zip(*(seen[step] for step in range(1, 11)), strict=True)
    moved = lambda part: [step + 1 for step in range(1, 10) if not same(part[step - 1], part[step])]  # noqa: E731
    assert moved(tokenizer) == [2, 3, 4], "the tokenizer is frozen in stage 2"
    assert moved(backbone) == [3, 4, 5, 6, 7, 8, 9, 10], "the Q gradient reaches the backbone in stage 2"
    assert moved(q_head) == [5, 6, 7, 8, 9, 10]
    assert moved(target) == [7, 10], "the target is copied every 3 steps of stage 2"
    assert same(target[6], q_head[6]) and same(target[9], q_head[9]) and same(target[4], q_head[3])


def test_target_rate_moves_the_target_part_of_the_way(small_config: Any, run_trainer: Any) -> None:
    heads = {}

    def watch(trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        heads[step] = (weights(trainer.model.q_head), weights(trainer.model.q_target_head))

    run_trainer(small_config({"stage2.target_every": 1, "stage2.target_rate": 0.25}), watch)
    for name, before in heads[5][1].items():
        torch.testing.assert_close(heads[6][1][name], torch.lerp(before, heads[6][0][name], 0.25))


def test_dropout_is_off_in_the_target_and_in_the_agent(small_config: Any, alone: Any) -> None:
    config = small_config({"model.q_dropout": 0.9, "model.dropout": 0.5, "stage1.steps": 0})
    trainer = Trainer(config, alone)
    model, hidden = trainer.model, torch.randn(5, config.model.width)
    assert model.training and model.q_head.training and not model.q_target_head.training
    assert not torch.equal(model.q_head(hidden), model.q_head(hidden)), "dropout is on in training"
    assert torch.equal(model.q_target_head(hidden), model.q_target_head(hidden))
    agent = Agent(trainer.tokenizer, model)
    assert not any(module.training for module in (*agent.model.modules(), *agent.tokenizer.modules()))
    assert torch.equal(agent.model.q_values(hidden), agent.model.q_values(hidden))


def test_task_and_legal_actions_are_the_same_in_training_and_in_play(small_config: Any, alone: Any) -> None:
    games = ("Pong", "Robotank")  # the paper lends Robotank another game's task id when it is not trained on
    config = small_config({"data.games": games, "stage1.steps": 2, "stage2.steps": 1})
    feed = Feed(config, alone)
    feed.encode(train(config, alone).tokenizer, None)
    player = Agent.load(config.out / "agent", "cpu").player(games, PlannerConfig("none"), 1)
    trained = {}
    for step in range(3):
        for batch in (feed.pixels(step), feed.tokens(step)):
            trained |= {int(task): legal for task, legal in zip(batch.tasks, batch.legal, strict=True)}
    played = {int(task): legal for task, legal in zip(player._tasks, player._legal, strict=True)}
    assert trained.keys() == played.keys() == {get_game(game).task_id for game in games}
    assert all(torch.equal(trained[task], played[task]) for task in played)


@pytest.mark.parametrize("stage", ["tokenizer", "world", "joint"])
def test_a_loss_that_is_no_number_stops_training_and_harms_nothing(
    small_config: Any, run_trainer: Any, stage: str
) -> None:
    poisoned = {"tokenizer": 1, "world": 2, "joint": 6}[stage]
    before: dict[str, torch.Tensor] = {}

    def watch(trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        if step == poisoned:
            part = trainer.tokenizer.decoder if stage == "tokenizer" else trainer.model.frame_head
            next(part.parameters()).data[0] = float("nan")
            before.update(weights(trainer.model))

    config = small_config({"stage1.world_from": 2, "checkpoint.every": 5, "health.bad_steps": 1})
    with pytest.raises(NumericalError, match=rf"step {poisoned}: the {stage} loss or its gradient") as caught:
        run_trainer(config, watch)
    assert "\n" not in str(caught.value) and "learning rate" in str(caught.value)
    kept = checkpoints(config.out / "checkpoints")
    assert [step_of(path) for path in kept] == ([4, 5] if stage == "joint" else [])


def test_a_bad_batch_is_skipped_counted_and_forgotten(
    small_config: Any, run_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of one step is no number: its weights stay, the steps after it train on."""
    config = small_config({"stage1.steps": 0, "stage2.steps": 6, "stage2.target_every": 100, "health.bad_steps": 2})
    plain, states, seen = Objective.forward, {}, {}

    def poison(self: Objective, *arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        losses = plain(self, *arguments, **options)
        bad = len(seen) == 2
        return {name: loss * float("inf") if bad and name == "td" else loss for name, loss in losses.items()}

    def watch(trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        states[step] = weights(trainer.model)
        seen[step] = (metrics["joint_skipped"], metrics["joint_skipped_in_row"])

    monkeypatch.setattr(Objective, "forward", poison)
    run_trainer(config, watch)
    assert [step for step in range(2, 7) if same(states[step - 1], states[step])] == [3]
    # At the reading of step 3 the stretch was under way, so the next reading counts it too.
    assert list(seen.values()) == [(0, 0), (0, 0), (1, 1), (1, 1), (1, 0), (1, 0)]


def test_a_bad_stretch_between_two_readings_stops_the_run_too(
    small_config: Any, run_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config({"stage1.steps": 0, "stage2.steps": 12, "health.bad_steps": 3, "log_every": 10})
    plain, calls = Objective.forward, []

    def poison(self: Objective, *arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        calls.append(len(calls))
        losses = plain(self, *arguments, **options)
        return {name: loss * float("nan") for name, loss in losses.items()} if calls[-1] in (1, 4, 5, 6) else losses

    monkeypatch.setattr(Objective, "forward", poison)
    with pytest.raises(NumericalError, match=r"step 4: .* 2 steps after it"):
        run_trainer(config)
    assert len(calls) == 10
    assert [path.name for path in config.out.glob("bad-batch-*")] == ["bad-batch-joint-step-4-rank-0.npz"]


def test_a_skipped_step_moves_no_code_of_a_moving_codebook(small_config: Any, run_trainer: Any) -> None:
    config = small_config({"tokenizer_loss.codebook": "ema", "stage1.revive_every": 0, "stage1.world_from": 3})
    codes: dict[int, torch.Tensor] = {}

    def watch(trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        codes[step] = trainer.tokenizer.embedding.weight.clone()
        if step == 2:  # the decoder's error is no number, the latents are fine
            next(trainer.tokenizer.decoder.parameters()).data[0] = float("nan")

    run_trainer(config, watch)
    assert not torch.equal(codes[1], codes[2]) and torch.equal(codes[2], codes[3]) and torch.equal(codes[2], codes[4])


def test_the_first_of_the_bad_batches_is_kept(small_config: Any, run_trainer: Any, alone: Any) -> None:
    config = small_config({"stage1.steps": 0, "stage2.steps": 9, "health.bad_steps": 3, "log_every": 2})

    def watch(trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        if step == 2:
            next(trainer.model.frame_head.parameters()).data[0] = float("nan")

    with pytest.raises(NumericalError, match=r"step 2: .* 3 steps after it") as caught:
        run_trainer(config, watch)  # noticed when the metrics of step 6 are read
    (kept,) = config.out.glob("bad-batch-*.npz")
    assert str(kept) in str(caught.value)
    feed = Feed(config, alone)
    feed.encode(Trainer(config, alone).tokenizer, None)
    expected = feed.tokens(2)
    with np.load(kept) as archive:
        assert set(archive) == {"tokens", "actions", "rewards", "ends", "mask", "tasks", "legal", "returns"}
        assert all((archive[name] == getattr(expected, name).numpy()).all() for name in archive)


def test_rewards_that_are_no_numbers_are_a_data_error(
    small_config: Any, alone: Any, sprite_store: Any, tmp_path: Any
) -> None:
    config = small_config({"data.path": shutil.copytree(sprite_store, tmp_path / "store")})
    store = EpisodeStore.open(config.data.path)
    info = store.rows("Pong", "rewards").info
    writer = ShardWriter(info, 0)  # with good checksums: somebody wrote them so
    writer.write(np.full(info.rows, np.nan, np.float32))
    writer.flush()
    with pytest.raises(DataError, match=r"not finite.*verify"):
        Feed(config, alone).pixels(0)


def test_absent_task_embeddings_are_not_waited_for(small_config: Any, run_trainer: Any) -> None:
    trainer = run_trainer(small_config({"model.task_embedding": False}))
    idle = [n for n, p in trainer.model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == [], "a distributed wrapper would wait for the gradients of these"


def test_imagined_codes_start_alike_only_when_asked(small_config: Any, alone: Any) -> None:
    trainers = [Trainer(small_config({"stage1.world_from_codebook": on}), alone) for on in (False, True)]
    plain = weights(trainers[0].model)
    trainers[1]._embed_codes_alike()
    assert same(plain, weights(trainers[0].model))
    before, after = (trainer.model.frame_embedding.weight for trainer in trainers)
    assert not torch.equal(before, after)
    assert after.std().item() == pytest.approx(before.std().item(), rel=1e-3)


def test_the_first_step_of_a_run_does_not_depend_on_what_ran_before(small_config: Any, run_trainer: Any) -> None:
    config = small_config()
    first = run_trainer(dataclasses.replace(config, out=config.out / "a"))
    torch.rand(7)
    second = run_trainer(dataclasses.replace(config, out=config.out / "b"))
    assert same(weights(first.model), weights(second.model))
