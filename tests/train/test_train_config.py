"""Settings: the published numbers, what --help says, what is refused."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import jowa.config
import jowa.model.objective
import jowa.tokenizer.losses
import jowa.train.config
from jowa.config import ObjectiveConfig
from jowa.errors import UsageError
from jowa.games import PRETRAINING_GAMES
from jowa.train.checks import LEAST, MOST, check_config, check_split
from jowa.train.config import StageTwoConfig, TrainConfig
from jowa.train.flops import model_flops_per_step
from jowa.train.presets import TRAIN_PRESETS, get_train_preset


@pytest.mark.parametrize("name", ["40M", "70M", "150M", "400M"])
def test_published_presets_have_the_papers_numbers(name: str) -> None:
    config = get_train_preset(name)
    one, two = config.stage1, config.stage2
    assert (one.tokenizer_learning_rate, one.learning_rate, two.learning_rate) == (1e-4, 1e-4, 5e-5)
    assert (one.batch_size, one.tokenizer_batch, two.batch_size) == (512, 2048, 512)
    assert (one.steps, one.steps + two.steps) == (250_000, 1_750_000)
    assert (config.data.segment_length, config.data.segment_stride) == (8, 4)
    assert (config.optimizer.gradient_clip, config.optimizer.weight_decay) == (1.0, 0.01)
    assert (two.target_every, two.target_rate) == (1000, 1.0)
    assert (config.objective.gamma, config.objective.cql_weight, config.objective.world_weight) == (0.99, 0.1, 0.1)
    assert config.objective.detach_q is False
    assert config.data.games == PRETRAINING_GAMES
    # What this project added is off: no motion weight, revival, late start, warm-up, decay.
    assert (one.motion_weight, one.revive_every, one.world_from, one.world_from_codebook) == (0.0, 0, 0, False)
    assert (config.optimizer.warmup_steps, config.optimizer.final_fraction) == (0, 1.0)
    model = config.model
    sizes = {"40M": (4, 8, 512, 768, 1), "70M": (6, 12, 768, 1792, 3), "150M": (12, 12, 768, 1792, 3)}
    sizes["400M"] = (24, 16, 1024, 3072, 3)  # beyond the paper
    assert (model.layers, model.heads, model.width, model.q_width, model.q_ensemble) == sizes[name]
    assert (model.dropout, model.q_dropout, model.context_steps, model.q_init) == (0.1, 0.01, 8, None)
    assert (model.num_atoms, model.v_min, model.v_max) == (51, -10.0, 30.0)
    tokenizer = config.tokenizer
    assert (tokenizer.encoder, tokenizer.vocab_size, tokenizer.code_dim) == ("published", 2048, 512)


def test_looking_at_the_published_agents_takes_less_than_a_hundredth() -> None:
    """As docs/training.md reckons it: decisions at a tenth of training's utilisation, while seven other GPUs wait."""
    for name in ("40M", "70M", "150M", "400M"):
        health, two = get_train_preset(name).health, get_train_preset(name).stage2
        assert two.steps // health.evaluate_every == 3 and two.steps % health.evaluate_every == 0
        assert (two.steps + 250_000) // health.picture_every == 7
    config, decision = get_train_preset("150M"), 220e9
    look = len(config.data.games) * health.evaluate_episodes * health.evaluate_steps * decision
    assert 3 * look * 10 * 8 < 0.01 * model_flops_per_step(config, 2) * config.stage2.steps
    assert get_train_preset("tiny").health.evaluate_every == 0


@pytest.mark.parametrize("name", TRAIN_PRESETS)
def test_every_preset_passes_its_own_checks(name: str) -> None:
    check_config(get_train_preset(name))


def fields_of(value: Any, prefix: str = "") -> Iterator[tuple[type, str, str]]:
    """(dataclass, field, option) of every setting."""
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            yield from fields_of(inner, f"{prefix}{field.name}.")
        else:
            yield type(value), field.name, f"{prefix}{field.name}".replace("_", "-")


def docstrings() -> dict[tuple[str, str], str]:
    """(dataclass, field) to the string under the field in the source."""
    found = {}
    for module in (jowa.train.config, jowa.config, jowa.model.objective, jowa.tokenizer.losses):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.ClassDef):
                for line, after in zip(node.body, [*node.body[1:], None], strict=True):
                    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                        text = after.value if isinstance(after, ast.Expr) else None
                        if isinstance(text, ast.Constant):
                            found[node.name, line.target.id] = str(text.value)
    return found


def squashed(text: str) -> str:
    """Without boxes, line breaks and code marks."""
    return re.sub(r"[│`\s]+", " ", text)


def test_help_documents_every_setting(command: Any) -> None:
    done = command("jowa.train", "--help", env={"COLUMNS": "100", "NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr
    help_text, documented = squashed(done.stdout), docstrings()
    for cls, name, option in fields_of(TrainConfig()):
        text = documented.get((cls.__name__, name))
        assert text, f"{cls.__name__}.{name} has no docstring"
        found = re.search(rf"--{re.escape(option)}[ ,].*?\(default: (.*?)\) (?=-|╰)", help_text)
        assert found, f"--{option} is not in --help"
        assert squashed(text).strip() in found[0], f"--help does not explain --{option}"
        assert found[1] == as_shown(cls, name), f"--help gives another default of --{option}"


def as_shown(cls: type, name: str) -> str:
    """The default of a field of the tiny preset, as ``--help`` prints it."""
    config = TrainConfig()
    value = getattr(next(v for v in [config, *vars(config).values()] if type(v) is cls), name)
    return " ".join(map(str, value)) if isinstance(value, tuple) else "''" if value == "" else str(value)


BAD = {
    "a number that is too small": [(name, least - 1, name) for name, least in LEAST.items()],
    "a number that is too large": [(name, most + 1, name) for name, most in MOST.items()],
    "what does not fit together": [
        ("data.games", (), "games"),
        ("data.games", ("Pong", "Pong"), "each once"),
        ("data.games", ("Pongg",), "did you mean Pong"),
        ("data.segment_length", 5, "segment length"),
        ("data.segment_stride", 4, "stride"),
        ("stage1.world_from", 4, "world_from"),
        ("model.v_min", 10.0, "v_min"),
        ("model.q_init", 11.0, "q_init"),
        ("model.vocab_size", 64, "vocab_size"),
        ("model.heads", 3, "multiple"),
        ("evaluation.horizon", 4, "horizon"),
        ("tokenizer_loss.ema_decay", 1.5, "ema_decay"),
        ("stage2.learning_rate", float("nan"), "learning_rate"),
    ],
}


@pytest.mark.parametrize(("name", "value", "named"), [case for cases in BAD.values() for case in cases])
def test_settings_that_cannot_work_are_refused(small_config: Any, name: str, value: object, named: str) -> None:
    with pytest.raises(UsageError, match=re.escape(named)):
        check_config(small_config({name: value}))


COMBO = TrainConfig(
    objective=ObjectiveConfig(conservative="combo"),
    stage2=StageTwoConfig(imagined="half", imagined_from=2000, imagined_horizon=1),
)


def test_what_is_imagined_begins_before_the_stage_ends() -> None:
    """With COMBO at ``tiny`` as docs/ablations.md shows it."""
    check_config(COMBO)
    for last, begins in ((7_999, True), (8_000, False), (20_000, False)):
        config = replace(COMBO, stage2=replace(COMBO.stage2, imagined_from=last))
        if begins:
            check_config(config)
        else:
            with pytest.raises(UsageError, match=rf"from step {last} .* after 8000 steps .*set --stage2"):
                check_config(config)


def test_averages_need_a_codebook_that_has_them(small_config: Any, tmp_path: Path) -> None:
    """An agent's codes would forget what they are in the first step; codes that start or stay as they are may."""
    changes = {"tokenizer_loss.codebook": "ema", "start_from": tmp_path / "agent", "stage1.steps": 0}
    training = changes | {"stage2.train_tokenizer": True}
    for refused in (training, changes | {"stage1.steps": 6}):
        with pytest.raises(UsageError, match=r"set --tokenizer-loss\.codebook gradient"):
            check_config(small_config(refused))
    check_config(small_config(changes))
    check_config(small_config(training | {"from_scratch": True}))
    check_config(small_config(training | {"tokenizer_loss.codebook": "gradient"}))


@pytest.mark.parametrize("name", ["start_from", "tokenizer_from", "data.path", "data.tokens"])
def test_nothing_is_read_from_the_folder_that_is_written(
    small_config: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "run" / "agent", Path("run", "agent"), tmp_path / "link" / "agent"):
        with pytest.raises(UsageError, match=re.escape(f"{name} {place} lies in the folder {tmp_path / 'run'} ")):
            check_config(small_config({name: place}))
    with pytest.raises(UsageError, match=re.escape(f"{name} run is the folder")):
        check_config(small_config({name: Path("run")}))
    check_config(small_config({name: tmp_path / "run-before" / "agent"}))


def test_an_address_lies_in_no_folder(small_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_config(small_config({"out": Path(), "data.path": Path("gs://bucket/store")}))


@pytest.mark.parametrize(
    ("changes", "processes", "named"),
    [
        ({}, 3, "stage1.tokenizer_batch 16 frames make 4 segments, which cannot be split evenly among 3 process(es): "
                "set --stage1.tokenizer-batch to a multiple of 12"),
        ({"stage1.tokenizer_batch": 3}, 1, "to a multiple of 4"),
        ({"stage2.batch_size": 6}, 4, "stage2.batch_size 6 cannot be split evenly among 4 process(es)"),
        ({"stage2.batch_size": 6, "parallel.microbatches": 4}, 2, "cannot be split evenly among 4 microbatches"),
        ({"parallel.microbatches": 3}, 2, "parallel.microbatches 3 cannot be split evenly among 2 process(es)"),
    ],
)  # fmt: skip
def test_batches_must_divide_among_the_processes(
    small_config: Any, changes: dict[str, int], processes: int, named: str
) -> None:
    check_split(small_config(), 4)
    with pytest.raises(UsageError, match=re.escape(named)):
        check_split(small_config(changes), processes)
