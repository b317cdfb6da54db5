"""Whole runs: what they read and write, stop and go on, start from another, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jowa.agent import Agent
from jowa.baselines.curve import Curve, read_curve
from jowa.baselines.feed import RivalFeed
from jowa.baselines.loop import RivalTrainer
from jowa.baselines.session import run
from jowa.baselines.start import check, default_config
from jowa.data.store import EpisodeStore
from jowa.errors import CheckpointError, NumericalError, UsageError
from jowa.evaluate import PROTOCOLS
from jowa.evaluate.__main__ import EvaluateConfig, evaluate
from jowa.games import get_game
from jowa.rivals import KINDS, Rival
from jowa.train.distributed import Place
from jowa.train.stop import Stopped

ALONE = Place(0, 1, torch.device("cpu"))


def weights(folder: Path) -> bytes:
    return (folder / "agent" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stopped_anywhere_goes_on_bit_for_bit(kind: Any, rival_config: Any, tmp_path: Path) -> None:
    config = rival_config(kind, {"checkpoint.every": 1, "checkpoint.keep": 9})
    run(config, ALONE)
    whole = weights(config.out)
    curve = read_curve(config.out / "curve.jsonl")
    assert [point["step"] for point in curve] == [1, 2, 3, 4, 5, 6] and {"seconds", "agreement"} <= set(curve[0])
    for stopped in (1, 4):
        again = dataclasses.replace(config, out=tmp_path / f"from-{stopped}")
        shutil.copytree(config.out, again.out)
        shutil.rmtree(again.out / "agent")
        for step in range(stopped + 1, 7):
            shutil.rmtree(again.out / "checkpoints" / f"step-{step:08d}")
        run(again, ALONE)
        assert weights(again.out) == whole
        losses = [[point["step"], point["agreement"]] for point in read_curve(again.out / "curve.jsonl")]
        assert losses == [[point["step"], point["agreement"]] for point in curve]


def test_when_asked_to_stop_it_saves_first(rival_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = rival_config("mtbc", {"checkpoint.every": 100})
    monkeypatch.setattr("jowa.baselines.loop.StopRequests.agreed", lambda self, now=False: True)
    with pytest.raises(Stopped, match="stopped at step 1 of 6, which is saved"):
        run(config, ALONE)
    assert [point["step"] for point in read_curve(config.out / "curve.jsonl")] == [1]
    assert (config.out / "checkpoints" / "step-00000001" / "manifest.json").exists()


def test_returns_to_go_are_those_of_the_episodes(rival_config: Any, sprite_store: Path) -> None:
    config = rival_config("mgdt", {"batch_size": 30, "data.games": ("Breakout", "Pong")})
    feed = RivalFeed(config, config.data.games, ALONE, {})
    store = EpisodeStore.open(sprite_store)
    windows, returns = feed.windows(0), feed.returns(0).numpy()
    assert {"padded", "whole"} == {"padded" if count < 2 else "whole" for count in windows.count.tolist()}
    for row, (number, first, count) in enumerate(zip(windows.game, windows.first, windows.count, strict=True)):
        game = feed.games[number]
        (info,) = [one for one in store.episodes(game) if one.offset <= first < one.offset + one.length]
        rewards = store.read_scalars(game, int(first), info.offset + info.length)[1]
        wanted = [rewards[step:].sum() if step < count else 0.0 for step in range(2)]
        np.testing.assert_allclose(returns[row], wanted, atol=1e-6)


def test_the_starts_of_episodes_are_trained_on_too(rival_config: Any) -> None:
    config = rival_config("scaled-ql", {"batch_size": 300})
    feed = RivalFeed(config, config.data.games, ALONE, {})
    begins = feed._begins(0)
    assert 0 < begins.sum() < 40
    for step in range(4):
        found, begins = feed.transitions(step), feed._begins(step)
        alike = (found.frames[:, 0] == found.frames[:, -1]).all(-1).all(-1)
        assert alike[begins].all() if step == 0 else not alike[begins].all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_rival_is_trained_on_from_another_one(kind: Any, rival_config: Any, tmp_path: Path) -> None:
    run(rival_config(kind), ALONE)
    folder = tmp_path / kind / "agent"
    before = Rival.load(folder, "cpu")
    assert before.tasks == {"Pong": get_game("Pong").task_id, "Breakout": get_game("Breakout").task_id}
    tuned = {}
    for name, scratch in (("on", False), ("scratch", True)):
        config = rival_config(kind, {
            "start_from": folder, "from_scratch": scratch, "out": tmp_path / name, "data.games": ("Robotank",),
            "data.transitions": 20, "learning_rate": 0.0,
        })  # fmt: skip
        run(config, ALONE)
        tuned[name] = Rival.load(tmp_path / name / "agent", "cpu")
    borrowed = get_game("Phoenix").task_id
    assert tuned["on"].tasks == before.tasks | {"Robotank": borrowed} and tuned["scratch"].tasks == {
        "Robotank": borrowed
    }
    same = {name: torch.equal(weight(rival), weight(before)) for name, rival in tuned.items()}
    assert same == {"on": True, "scratch": False}, "at a learning rate of 0"


def weight(rival: Rival) -> torch.Tensor:
    return next(p for name, p in rival.model.named_parameters() if name.endswith(("conv1.weight", "query.weight")))


def test_the_command_trains_and_plays_and_evaluate_plays_it_too(
    command: Any, sprite_store: Path, agent_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    small = ["--model.layers", 1, "--model.heads", 2, "--model.width", 16, "--steps", 3, "--batch-size", 4]
    options = [
        "--out", out, "--data.path", sprite_store, "--data.games", "Pong", "--tokenizer-from", agent_folder, "--device",
        "cpu", "--size", "S", *small, "--evaluation.episodes", 1, "--evaluation.max-steps", 12,
    ]  # fmt: skip
    done = command("jowa.baselines", "mgdt", *options)
    assert done.returncode == 0, done.stderr
    document = json.loads((out / "results.json").read_text())
    assert list(document["rows"]) == ["random", "data", "mgdt"] and document["step"] == 3
    assert document["rows"]["data"][0]["scores"] == EpisodeStore.open(sprite_store).table("Pong")["score"].tolist()
    assert "mgdt S: 0.0" in done.stdout and "sticky" in done.stdout
    again = command("jowa.baselines", "mgdt", *options)
    assert "reusing the run" in again.stdout and "reusing the scores" in again.stdout
    other = command("jowa.baselines", "mgdt", *options, "--learning-rate", 0.1)
    assert other.returncode == 2 and "learning_rate = 0.001, now it is 0.1" in other.stderr
    shown = command("jowa.baselines", "mgdt", *options, "--dry-run")
    assert "parameters" in shown.stdout and "passes through 49 of them" in shown.stdout
    short = dataclasses.replace(PROTOCOLS["sticky"], max_steps=9)
    monkeypatch.setitem(PROTOCOLS, "sticky", short)
    evaluate(EvaluateConfig(out / "agent", episodes=1, choice="sampled", device="cpu"))
    found = json.loads((out / "agent" / "evaluation-mgdt-sticky.json").read_text())
    assert found["settings"]["playing"]["choice"] == "sampled" and found["games"][0]["game"] == "Pong"
    assert found["settings"]["rival"] == "mgdt" and len(found["games"][0]["scores"]) == 1


REFUSED = {
    "planner": (["--planner", "beam"], "does not plan: leave out --planner"),
    "several": (["--width", "3", "--gumbel"], "leave out --width, --gumbel"),
    "context": (["--context", "5"], "context is 5, expected 1 to 2"),
}


def test_evaluate_refuses_what_means_nothing_to_a_rival(command: Any, rival_config: Any, tmp_path: Path) -> None:
    run(rival_config("mtbc"), ALONE)
    run(rival_config("scaled-ql"), ALONE)
    for given, said in REFUSED.values():
        done = command("jowa.evaluate", tmp_path / "mtbc" / "agent", *given)
        assert done.returncode == 2 and said in done.stderr, done.stderr
    done = command("jowa.evaluate", tmp_path / "scaled-ql" / "agent", "--choice", "likely")
    assert done.returncode == 2 and "highest value: leave out --choice" in done.stderr
    with pytest.raises(CheckpointError, match=r"holds a rival, mtbc, not an agent: python -m jowa\.evaluate plays it"):
        Agent.load(tmp_path / "mtbc" / "agent")


BAD = {
    "tokenizer": (
        "mtbc",
        {"tokenizer_from": None},
        "mtbc reads tokens, but no tokenizer is named: set --tokenizer-from",
    ),
    "scratch": ("mtbc", {"from_scratch": True}, "none is named: set --start-from"),
    "long": ("mgdt", {"data.segment_length": 3}, r"segment length 3 is outside 1\.\.2"),
    "memory": ("mtbc", {"data.segment_length": 1, "evaluation.context": 2}, "longer than a training segment of 1"),
    "range": (
        "scaled-ql",
        {"objective.gamma": 1.5},
        r"objective.gamma is 1.5, expected at most 1: set --objective.gamma",
    ),
    "steps": ("scaled-ql", {"steps": 0}, "steps is 0, expected at least 1"),
    "atoms": ("scaled-ql", {"model.v_min": 10.0}, "not below model.v_max"),
    "twice": ("scaled-ql", {"data.games": ("Pong", "Pong")}, "name each once"),
    "inside": ("scaled-ql", {"out": Path("data/demo"), "data.path": Path("data/demo/store")}, "choose another --out"),
}


@pytest.mark.parametrize("name", BAD)
def test_settings_that_cannot_work(name: str, rival_config: Any) -> None:
    kind, changes, said = BAD[name]
    with pytest.raises(UsageError, match=said):
        check(rival_config(kind, changes))


def test_rivals_that_do_not_go_together(rival_config: Any, tmp_path: Path) -> None:
    run(rival_config("mtbc"), ALONE)
    folder = tmp_path / "mtbc" / "agent"
    with pytest.raises(UsageError, match="a rival of kind mtbc, expected mgdt"):
        default_config("mgdt", None, folder)
    with pytest.raises(UsageError, match=r"has width = 16, this run 96: leave --size and --model.width out"):
        run(rival_config("mtbc", {"start_from": folder, "out": tmp_path / "b", "model.width": 96}), ALONE)
    assert default_config("mtbc", None, folder).model.width == 16  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="unknown size 'XL'"):
        default_config("mtbc", "XL", None)
    with pytest.raises(UsageError, match="not made at size 40M: choose S, M, L"):
        default_config("scaled-ql", "40M", None)
    with pytest.raises(UsageError, match="expected no torchrun"):
        run(rival_config("mtbc"), Place(0, 2, torch.device("cpu")))


def test_names_on_the_command_line(command: Any) -> None:
    assert "scaled Q-learning" in command("jowa.baselines", "--help").stdout
    assert "--objective.n-step" in command("jowa.baselines", "scaled-ql", "--help").stdout
    assert "unknown rival 'mtbs': did you mean mtbc" in command("jowa.baselines", "mtbs").stderr
    assert "name a rival first: mtbc, mgdt, scaled-ql" in command("jowa.baselines").stderr


def test_a_curve_drops_what_is_trained_again(tmp_path: Path) -> None:
    now = [100.0]
    curve = Curve(tmp_path / "curve.jsonl", 0, lambda: now[0])
    for step in (1, 2, 3):
        now[0] += 10
        curve.note(step, {"td": 1.0 / step})
    curve.save()
    now[0] = 500.0
    again = Curve(tmp_path / "curve.jsonl", 2, lambda: now[0])
    now[0] += 1
    again.note(3, {"td": 0.0})
    assert [(point["step"], point["seconds"]) for point in again.points] == [(1, 10.0), (2, 20.0), (3, 21.0)]
    (tmp_path / "curve.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(CheckpointError, match="without step and seconds"):
        Curve(tmp_path / "curve.jsonl", 2)


def test_bad_losses_stop_the_run_and_keep_the_batch(rival_config: Any) -> None:
    config = rival_config("scaled-ql", {"health.bad_steps": 2})
    trainer = RivalTrainer(config, config.data.games, ALONE)
    with torch.no_grad():
        next(trainer.rival.model.parameters()).fill_(float("nan"))
    with pytest.raises(NumericalError, match="step 0: the scaled-ql loss or its gradient is not finite"):
        trainer.run(RivalFeed(config, config.data.games, ALONE, trainer.rival.tasks), lambda step, metrics: None)
    assert list(config.out.glob("bad-batch-*.npz"))
