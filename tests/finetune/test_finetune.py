"""The command from an agent and a data set to a new agent, and every mistake that it may be called with."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jowa.agent import Agent
from jowa.config import WEIGHT_FREE, ModelConfig, TokenizerConfig, TokenizerLossConfig
from jowa.evaluate.play import PROTOCOLS, Protocol
from jowa.finetune.config import FinetuneConfig, TokenizerLossOptions, in_own_names
from jowa.train.checks import check_split
from jowa.train.config import CheckpointConfig
from jowa.train.run import run

QUICK = {
    "--device": "cpu", "--transitions": 30, "--steps": 4, "--batch-size": 4, "--tokenizer-batch": 16,
    "--checkpoint.every": 2, "--log-every": 1, "--draft.moments": 3, "--draft.steps": 2, "--evaluation.episodes": 0,
}  # fmt: skip


@pytest.fixture
def arguments(finished_run: Path, sprite_store: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Options of a very small run on a third game; ``changes`` to None leave one out."""

    def make(changes: dict[str, Any] | None = None, agent: Path | None = None) -> list[str]:
        options = {"--game": "Robotank", "--data": sprite_store, "--out": tmp_path / "fine"} | QUICK | (changes or {})
        given = [str(part) for option in options.items() if option[1] is not None for part in option]
        return [str(finished_run / "agent" if agent is None else agent), *given]

    return make


def only_error(done: Any, code: int) -> str:
    assert done.returncode == code, (done.stdout, done.stderr)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    return str(line)


def test_from_an_agent_to_an_agent(arguments: Any, command: Any, finished_run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in (finished_run / "agent").iterdir()}
    imagined = {"--imagined": "half", "--imagined-from": 2}
    done = command("jowa.finetune", *arguments(imagined))
    assert done.returncode == 0, done.stderr
    agent = Agent.load(tmp_path / "fine" / "agent", "cpu")
    assert agent.tasks == {"Breakout": 13, "Pong": 39, "Robotank": 37} and agent.draft_head is not None
    assert {path: path.read_bytes() for path in (finished_run / "agent").iterdir()} == before
    settings = json.loads((tmp_path / "fine" / "config.json").read_text())
    assert (settings["data"]["transitions"], settings["stage2"]["train_tokenizer"]) == (30, True)
    weights = (tmp_path / "fine" / "agent" / "model.safetensors").read_bytes()

    shutil.rmtree(tmp_path / "fine" / "checkpoints" / "step-00000004")
    again = command("jowa.finetune", *arguments(imagined))
    assert again.returncode == 0 and "at step 2 of 4" in again.stdout, again.stderr
    assert (tmp_path / "fine" / "agent" / "model.safetensors").read_bytes() == weights
    assert "transitions = 30, now it is 29" in only_error(
        command("jowa.finetune", *arguments(imagined | {"--transitions": 29})), 2
    )


MISTAKES = {
    "an unknown game": ({"--game": "Robotan"}, 2, "did you mean Robotank"),
    "a game that the store lacks": ({"--game": "Zaxxon"}, 1, "not Zaxxon"),
    "too few transitions": ({"--transitions": 50}, 1, "holds 49 agent steps of Robotank, expected at least the 50"),
    "segments longer than the context": (
        {"--segment-length": 5},
        2,
        "outside 2..4, the model's context: set",
    ),
    "a batch of none": ({"--batch-size": 0}, 2, "batch_size is 0, expected at least 1: set --batch-size"),
    "no steps": ({"--steps": 0}, 2, "no steps to train: set --steps"),
    "a horizon without room": ({"--imagined": "half", "--imagined-horizon": 4}, 2, "set --imagined-horizon below"),
    "imagined segments that never begin": (
        {"--imagined": "half"},
        2,
        "from step 20000 of the stage on (imagined_from), but it ends after 4 steps (steps)",
    ),
    "COMBO without imagined steps": ({"--objective.conservative": "combo"}, 2, "set --imagined half"),
    "the other kind of critic": ({"--objective.critic": "mse"}, 2, "as the agent was trained"),
    "a data set that is not there": ({"--data": "nowhere"}, 1, "or set --data"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(arguments: Any, command: Any, mistake: str, tmp_path: Path) -> None:
    changes, code, said = MISTAKES[mistake]
    message = only_error(command("jowa.finetune", *arguments(changes)), code)
    assert said in message and "stage2." not in message and "data." not in message, message
    assert not (tmp_path / "fine" / "agent").exists()


def test_no_agent_there(arguments: Any, command: Any, tmp_path: Path) -> None:
    assert "is not an agent" in only_error(command("jowa.finetune", *arguments(agent=tmp_path)), 1)


def test_from_scratch_with_a_frozen_tokenizer_is_refused(arguments: Any, command: Any) -> None:
    done = command("jowa.finetune", *arguments({"--tokenizer": "frozen"}), "--from-scratch")
    assert "--tokenizer train" in only_error(done, 2)


def test_it_never_writes_over_another_agent(arguments: Any, command: Any, finished_run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(finished_run / "agent", tmp_path / "other")
    assert "such as an agent" in only_error(command("jowa.finetune", *arguments({"--out": other})), 2)


def test_it_never_writes_over_the_agent(arguments: Any, command: Any, finished_run: Path) -> None:
    agent = finished_run / "agent"
    before = {path: path.read_bytes() for path in agent.iterdir()}
    for out, where in ((agent, "is"), (finished_run, "lies in")):
        message = only_error(command("jowa.finetune", *arguments({"--out": out}), "--restart"), 2)
        assert f"error: agent {agent} {where} the folder {out} that the run writes to" in message
    assert {path: path.read_bytes() for path in agent.iterdir()} == before


def test_the_papers_numbers() -> None:
    config = FinetuneConfig(Path("agent"), "Gravitar", Path("data"))._training(TokenizerConfig(), ModelConfig())
    one, two = config.stage1, config.stage2
    assert (config.data.transitions, one.steps, two.steps) == (5_000, 0, 50_000)
    assert (config.data.segment_length, config.data.segment_stride) == (8, 1)
    assert (two.batch_size, two.learning_rate, two.target_every, two.target_rate) == (32, 5e-5, 1000, 1.0)
    assert (two.train_tokenizer, one.tokenizer_batch, one.tokenizer_learning_rate) == (True, 128, 1e-4)
    assert (one.motion_weight, one.revive_every) == (0.0, 0)
    assert config.tokenizer_loss == TokenizerLossConfig()
    objective = config.objective
    assert (objective.world_weight, objective.cql_weight, objective.gamma) == (0.5, 0.1, 0.99)
    optimizer = config.optimizer
    assert (optimizer.weight_decay, optimizer.gradient_clip) == (0.01, 1.0)
    assert (optimizer.warmup_steps, optimizer.final_fraction) == (0, 1.0)
    assert (two.imagined, two.imagined_from, two.imagined_width, two.imagined_horizon) == ("none", 20_000, 2, 2)
    check_split(config, 1)


def test_a_local_tokenizer_keeps_its_weight_on_motion() -> None:
    config = FinetuneConfig(Path("agent"), "Gravitar", Path("data"))
    local = TokenizerConfig(encoder="local")
    assert config._training(local, ModelConfig()).stage1.motion_weight == 800.0
    plain = dataclasses.replace(config, motion_weight=0.0)
    assert plain._training(local, ModelConfig()).stage1.motion_weight == 0.0


def test_the_tokenizers_loss_is_that_of_its_kind() -> None:
    config = FinetuneConfig(Path("agent"), "Gravitar", Path("data"))
    local = TokenizerConfig(encoder="local")
    assert config._training(local, ModelConfig()).tokenizer_loss == WEIGHT_FREE
    changed = dataclasses.replace(config, tokenizer_loss=TokenizerLossOptions(square_weight=0.5))
    wanted = dataclasses.replace(WEIGHT_FREE, square_weight=0.5)
    assert changed._training(local, ModelConfig()).tokenizer_loss == wanted
    names = [field.name for field in dataclasses.fields(TokenizerLossConfig)]
    assert [field.name for field in dataclasses.fields(TokenizerLossOptions)] == names


def test_help_explains_every_option(command: Any) -> None:
    done = command("jowa.finetune", "--help", env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr
    for field in dataclasses.fields(FinetuneConfig):
        nested = field.name in (
            "tokenizer_loss",
            "checkpoint",
            "objective",
            "optimizer",
            "parallel",
            "health",
            "draft",
            "evaluation",
        )
        name = "AGENT" if field.name == "agent" else f"--{field.name.replace('_', '-')}{'.' * nested}"
        assert name.lower() in done.stdout.lower(), name


def test_errors_name_options_that_exist() -> None:
    assert in_own_names("data.transitions is -1: set --data.transitions") == "transitions is -1: set --transitions"
    assert in_own_names("the data. stage2 is") == "the data. stage2 is"
    assert in_own_names("set --data.segment-length or --stage2.batch-size.") == "set --segment-length or --batch-size."
    assert in_own_names("set --stage1.steps or --stage2.steps") == "set --steps"
    assert in_own_names("data.path x: set --data.path") == "data x: set --data"


@pytest.mark.parametrize(
    "path",
    [
        "/mnt/data.v2/x",
        "/mnt/data.path/x",
        "data.path/x",
        "stage2.v1",
        "old-data.path",
        "old.data.games",
        "/mnt/stage2.steps",
    ],
)
def test_errors_leave_paths_as_they_are(path: str) -> None:
    assert in_own_names(f"no data set at {path}: set --data.path") == f"no data set at {path}: set --data"


def test_a_dry_run_prints_and_writes_nothing(arguments: Any, command: Any, tmp_path: Path) -> None:
    done = command("jowa.finetune", *arguments({"--dry-run-gpu": "A100"}), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "model, all" in done.stdout and "A100" in done.stdout
    assert not (tmp_path / "fine").exists()


def test_the_rest_of_the_settings_is_passed_on() -> None:
    config = FinetuneConfig(
        Path("agent"), "Gravitar", Path("data"), profile_steps=3, checkpoint=CheckpointConfig(every=7, keep=1)
    )
    made = config._training(TokenizerConfig(), ModelConfig())
    assert (made.profile_steps, made.checkpoint) == (3, CheckpointConfig(every=7, keep=1))


def test_the_table_has_the_agent_before(
    finished_run: Path, sprite_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from jowa.train.config import DraftHeadConfig, EvaluationConfig

    monkeypatch.setitem(PROTOCOLS, "sticky", Protocol("sticky", 0.25, max_steps=12, random_action=0.0))
    config = FinetuneConfig(
        finished_run / "agent", "Robotank", sprite_store, transitions=25, steps=2, out=tmp_path / "fine", device="cpu",
        batch_size=4, tokenizer_batch=16, draft=DraftHeadConfig(steps=0), evaluation=EvaluationConfig(episodes=2),
    )  # fmt: skip
    run(config.training())
    rows = json.loads((tmp_path / "fine" / "results.json").read_text())["rows"]
    assert set(rows) == {"random", "data", "agent before", "agent", "agent + beam search"}
    assert len(rows["agent before"][0]["scores"]) == 2
    assert len(rows["data"][0]["scores"]) == 2, "25 of 21 + 13 + 15 steps: two episodes, however they are drawn"
    assert "agent before" in capsys.readouterr().out
