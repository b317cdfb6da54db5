"""A second run reuses what belongs to it, and refuses to mix with what does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import jowa.train.session as session
from jowa.data.writer import EpisodeWriter
from jowa.errors import CheckpointError, UsageError
from jowa.evaluate.play import PROTOCOLS, Protocol
from jowa.train.__main__ import preset_named_in
from jowa.train.folder import begin, read_results, write_settings
from jowa.train.run import run


@pytest.fixture
def in_folder(small_config: Any, finished_run: Path, tmp_path: Path) -> Any:
    """A configuration whose output folder holds a finished run of the unchanged one."""
    shutil.copytree(finished_run, tmp_path / "run")
    return small_config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 1),
        ("precision", "bfloat16"),
        ("data.games", ("Pong",)),
        ("data.segment_length", 3),
        ("model.width", 64),
        ("objective.cql_weight", 0.5),
        ("stage1.steps", 5),
        ("stage2.learning_rate", 1.5e-4),
        ("optimizer.gradient_clip", 2.0),
    ],
)
def test_another_setting_is_refused_by_name(in_folder: Any, name: str, value: object) -> None:
    config = in_folder({name: value})
    before = {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()}
    with pytest.raises(UsageError) as caught:
        begin(config)
    message = str(caught.value)
    assert f"{name} = " in message and "another --out" in message and "--restart" in message and "\n" not in message
    assert {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()} == before


def test_settings_that_do_not_matter_may_change(in_folder: Any) -> None:
    begin(
        in_folder(
            {
                "checkpoint.every": 7,
                "checkpoint.asynchronous": False,
                "log_every": 9,
                "device": "auto",
                "evaluation.episodes": 3,
            }
        )
    )


def test_restart_deletes_the_run_and_nothing_else(in_folder: Any) -> None:
    config = in_folder({"restart": True, "stage2.learning_rate": 1e-5})
    (config.out / "notes.txt").write_text("mine")
    begin(config)
    assert [path.name for path in config.out.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("damage", ["absent", "not JSON", "a list"])
def test_checkpoints_without_their_settings_are_refused(in_folder: Any, damage: str) -> None:
    config = in_folder()
    path = config.out / "config.json"
    path.unlink() if damage == "absent" else path.write_text("[1]" if damage == "a list" else "{")
    with pytest.raises(CheckpointError, match="--restart"):
        begin(config)


def test_a_data_set_that_grew_is_refused(
    in_folder: Any, sprite_store: Path, make_sprite_episode: Any, tmp_path: Path
) -> None:
    shutil.copytree(sprite_store, tmp_path / "store")
    stored = json.loads((in_folder().out / "config.json").read_text())
    stored["data"]["path"] = str(tmp_path / "store")
    (in_folder().out / "config.json").write_text(json.dumps(stored))
    config = in_folder({"data.path": tmp_path / "store"})
    begin(config)
    write_settings(config)
    with EpisodeWriter.open(config.data.path) as writer:
        writer.append(make_sprite_episode("Pong", 12, 9))
    with pytest.raises(UsageError, match=r"recorded_steps\.Pong = 49, now it is 61"):
        write_settings(config)


def results(config: Any) -> dict[str, Any]:
    evaluation = {k: getattr(config.evaluation, k) for k in type(config.evaluation).__dataclass_fields__}
    return {"step": config.stage1.steps + config.stage2.steps, "settings": evaluation, "rows": {}}


def test_scores_belong_to_an_evaluation(small_config: Any) -> None:
    config = small_config()
    assert read_results(config) is None
    config.out.mkdir(parents=True)
    (config.out / "results.json").write_text(json.dumps(results(config)))
    assert read_results(config) == results(config)
    for name, value in (("episodes", 5), ("width", 3), ("protocol", "published"), ("horizon", 1)):
        assert read_results(small_config({f"evaluation.{name}": value})) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"step": 8}'])
def test_damaged_scores_are_named(small_config: Any, text: str) -> None:
    config = small_config()
    config.out.mkdir(parents=True)
    (config.out / "results.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"results\.json .*delete it and run again"):
        read_results(config)


def test_the_whole_path_twice(
    small_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PROTOCOLS, "sticky", Protocol("sticky", 0.25, max_steps=12, random_action=0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # record in this process
    places = {"data.path": tmp_path / "data", "data.games": ("Breakout",), "data.record_steps": 60}
    changes = places | {"evaluation.episodes": 2}
    run(small_config(changes))
    out = capsys.readouterr().out
    assert "recording 60 agent steps" in out and "reusing" not in out
    for row in ("Breakout", "random", "data", "agent", "agent + beam search", "95% interval"):
        assert row in out
    document = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(document["rows"]) == {"random", "data", "agent", "agent + beam search"}
    assert all(len(rows[0]["scores"]) == 2 for name, rows in document["rows"].items() if name != "data")

    with monkeypatch.context() as patched:
        patched.setattr(session, "score", None)
        patched.setattr(session, "record", None)
        patched.setattr(session, "Feed", None)
        run(small_config(changes))
    again = capsys.readouterr().out
    for reused in ("reusing the data set", "finished", "reusing the scores"):
        assert reused in again
    assert "agent + beam search" in again

    run(small_config(changes | {"evaluation.episodes": 3}))
    assert "reusing the scores" not in capsys.readouterr().out
    assert len(json.loads((tmp_path / "run" / "results.json").read_text())["rows"]["agent"][0]["scores"]) == 3


def test_a_data_set_begun_and_not_filled_is_recorded(
    small_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    EpisodeWriter.open(tmp_path / "data").close()  # killed before the first episode was done
    asked = []

    class Recorded:
        def describe(self) -> str:
            return "done"

    monkeypatch.setattr(session, "record", lambda config: asked.append(config) or Recorded())
    session.prepare_data(small_config({"data.path": tmp_path / "data", "data.record_steps": 10}))
    assert asked[0].steps == 10 and asked[0].games == ("Pong", "Breakout")


def test_metrics_go_to_tensorboard_once_each(in_folder: Any, as_arguments: Any, command: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = in_folder()
    shutil.rmtree(config.out / "checkpoints" / "step-00000008")
    done = command("jowa.train", *as_arguments(config))
    assert "at step 6 of 8" in done.stdout
    events = EventAccumulator(str(config.out / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"stage1/reconstruction", "stage1/frame", "stage2/td", "stage2/cql", "speed/steps_per_second"} <= set(tags)
    assert [event.step for event in events.Scalars("stage2/td")] == [5, 6, 7, 8]


def test_the_preset_is_found_among_the_options() -> None:
    assert preset_named_in(["--seed", "1", "--preset", "40M"]) == "40M"
    assert preset_named_in(["--preset=70M"]) == "70M"
    assert preset_named_in(["--preset"]) == preset_named_in([]) == "tiny"
