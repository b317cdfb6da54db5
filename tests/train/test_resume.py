"""A run that was stopped anywhere and resumed is, bit for bit, one that never stopped."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import jowa
from jowa.errors import CheckpointError, DataError
from jowa.train.checkpoint import checkpoints, read_manifest, remove_leftovers, step_of
from jowa.train.feed import Feed
from jowa.train.loop import Trainer


@pytest.fixture
def saved_run(small_config: Any, run_trainer: Any) -> Any:
    """The settings and checkpoints of a run of stage 1 that is over, saved after steps 3 and 4."""
    config = small_config({"stage2.steps": 0, "checkpoint.every": 1})
    run_trainer(config)
    saved = checkpoints(config.out / "checkpoints")
    assert [step_of(path) for path in saved] == [3, 4]
    return config, saved


def test_stopped_after_any_step_and_resumed(
    small_config: Any, run_trainer: Any, assert_same_state: Any, read_state: Any, tmp_path: Path
) -> None:
    config = small_config({"checkpoint.every": 1, "checkpoint.keep": 100, "stage2.target_every": 2, "log_every": 3})
    whole = run_trainer(config)
    saved = checkpoints(config.out / "checkpoints")
    assert len(saved) == whole.total == 8 and config.model.dropout > 0 and config.model.q_dropout > 0
    final = read_state(saved[-1])
    for stopped in saved[:-1]:
        again = dataclasses.replace(
            config, out=tmp_path / stopped.stem, checkpoint=dataclasses.replace(config.checkpoint, every=100)
        )
        shutil.copytree(stopped, again.out / "checkpoints" / stopped.name)
        resumed = run_trainer(again)
        assert resumed.step == 8
        assert_same_state(read_state(checkpoints(again.out / "checkpoints")[-1]), final)


def test_a_moving_codebook_goes_on_where_it_was(
    small_config: Any, run_trainer: Any, assert_same_state: Any, read_state: Any, tmp_path: Path
) -> None:
    config = small_config({"tokenizer_loss.codebook": "ema", "checkpoint.every": 1, "checkpoint.keep": 100})
    run_trainer(config)
    saved = checkpoints(config.out / "checkpoints")
    again = dataclasses.replace(config, out=tmp_path / "again")
    shutil.copytree(saved[1], again.out / "checkpoints" / saved[1].name)
    run_trainer(again)
    found, expected = (read_state(checkpoints(run.out / "checkpoints")[-1]) for run in (again, config))
    assert_same_state(found, expected)
    assert "embedding.counts" in found["tokenizer"]


def test_saving_changes_nothing(small_config: Any, run_trainer: Any, assert_same_state: Any, tmp_path: Path) -> None:
    often = {"checkpoint.every": 1}
    behind = run_trainer(small_config(often | {"out": tmp_path / "behind"}))
    at_once = run_trainer(small_config(often | {"out": tmp_path / "at once", "checkpoint.asynchronous": False}))
    never = run_trainer(small_config({"out": tmp_path / "never", "checkpoint.every": 1000, "log_every": 1000}))
    assert_same_state(behind._state(), never._state())
    assert_same_state(at_once._state(), never._state())
    for name in ("behind", "at once"):
        assert [step_of(path) for path in checkpoints(tmp_path / name / "checkpoints")] == [7, 8]


def test_the_end_of_stage_one_is_saved_before_the_data_set_is_encoded(
    small_config: Any, run_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config({"checkpoint.every": 1000})

    def fail(self: Feed, *arguments: Any) -> str:
        raise DataError("the data set cannot be read")

    with monkeypatch.context() as patched, pytest.raises(DataError):
        patched.setattr(Feed, "encode", fail)
        run_trainer(config)
    (saved,) = checkpoints(config.out / "checkpoints")
    assert read_manifest(saved)["step"] == config.stage1.steps
    seen: list[int] = []
    run_trainer(config, lambda trainer, step, metrics: seen.append(step))
    assert seen == [5, 6, 7, 8]


def test_a_checkpoint_says_what_it_is(saved_run: Any) -> None:
    config, saved = saved_run
    manifest = read_manifest(saved[-1])
    assert manifest["step"] == 4 and manifest["processes"] == 1 and manifest["optimizers"] == []
    assert read_manifest(saved[0])["optimizers"] == ["tokenizer", "world"]
    assert manifest["settings"]["stage1"]["steps"] == config.stage1.steps
    assert manifest["sizes"]["model"]["width"] == config.model.width
    assert manifest["code"]["jowa"] == jowa.__version__ and manifest["code"]["torch"] == torch.__version__
    assert len(str(manifest["code"]["commit"]).removesuffix("-dirty")) == 40, "the tests run from a checkout"


def test_counts_of_skipped_steps_are_resumed(saved_run: Any, alone: Any) -> None:
    config, saved = saved_run
    shutil.rmtree(saved[-1])
    trainer = Trainer(config, alone)
    assert trainer.resume() and trainer.step == 3
    trainer.world.skipped, trainer.world.skipped_in_row = torch.tensor(5.0), torch.tensor(2.0)
    trainer.save(now=True)
    again = Trainer(config, alone)
    assert again.resume()
    assert (again.world.skipped.item(), again.world.skipped_in_row.item()) == (5.0, 2.0)


def test_a_checkpoint_of_other_sizes_is_refused(small_config: Any, saved_run: Any, alone: Any) -> None:
    with pytest.raises(CheckpointError, match=r"model\.width = 32, now it is 64: .*--restart"):
        Trainer(small_config({"model.width": 64}), alone).resume()


def test_a_checkpoint_of_other_networks_is_refused(saved_run: Any, alone: Any) -> None:
    config, _ = saved_run
    trainer = Trainer(config, alone)
    trainer.model.frame_head.append(torch.nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=r"step-00000004 does not fit these networks .*--restart") as caught:
        trainer.resume()
    assert "\n" not in str(caught.value)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated": (lambda p: (p / "__0_0.distcp").write_bytes((p / "__0_0.distcp").read_bytes()[:-1000]), "bytes"),
    "a flipped bit": (lambda p: flip(p / "__0_0.distcp"), "__0_0.distcp has another checksum"),
    "a flipped bit of the index": (lambda p: flip(p / ".metadata"), ".metadata has another checksum"),
    "a missing file": (lambda p: (p / ".metadata").unlink(), ".metadata is missing"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "manifest.json is missing"),
    "half a manifest": (lambda p: (p / "manifest.json").write_text('{"format": 1, "files'), "manifest.json is damaged"),
    "another manifest": (lambda p: (p / "manifest.json").write_text('{"format": 7}'), "not of format 1"),
    "an empty manifest": (lambda p: (p / "manifest.json").write_text('{"format": 1}'), "manifest.json is damaged"),
}


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    saved_run: Any, alone: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = saved_run
    for number, (damage, said) in enumerate(DAMAGES.values()):
        again = dataclasses.replace(config, out=tmp_path / str(number))
        folder = Path(shutil.copytree(config.out / "checkpoints", again.out / "checkpoints"))
        damage(folder / "step-00000004")
        capsys.readouterr()
        trainer = Trainer(again, alone)
        assert trainer.resume() and trainer.step == 3
        (line,) = capsys.readouterr().out.splitlines()
        assert "step-00000004 is damaged" in line and said in line and "going on from step-00000003" in line
        trainer.run(Feed(again, alone), lambda step, metrics: None)
        assert sorted(path.name for path in folder.iterdir()) == [
            "damaged-step-00000004", "step-00000003", "step-00000004",
        ]  # fmt: skip
        read_manifest(folder / "step-00000004")


def test_when_all_are_damaged_nothing_is_touched(saved_run: Any, alone: Any) -> None:
    config, saved = saved_run
    for path in saved:
        flip(path / "__0_0.distcp")
    with pytest.raises(CheckpointError, match=r"step-00000004 is damaged .*every one before it.*--restart") as caught:
        Trainer(config, alone).resume()
    assert "\n" not in str(caught.value) and checkpoints(config.out / "checkpoints") == saved


def test_files_of_older_versions_are_named(small_config: Any, alone: Any) -> None:
    config = small_config()
    (config.out / "checkpoints").mkdir(parents=True)
    (config.out / "checkpoints" / "step-00000004.pt").write_bytes(b"what torch.save wrote")
    with pytest.raises(CheckpointError, match=r"step-00000004\.pt is a checkpoint of an older version .*--restart"):
        Trainer(config, alone).resume()


def test_leftovers_go_and_checkpoints_stay(saved_run: Any) -> None:
    config, saved = saved_run
    folder = config.out / "checkpoints"
    (folder / ".step-00000005.partial").mkdir()
    (folder / ".step-00000005.partial" / "__0_0.distcp").write_bytes(b"half")
    (folder / ".best.json.abc.partial").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    remove_leftovers(folder)
    assert sorted(folder.iterdir()) == sorted([folder / "notes.txt", *saved])
    json.loads((saved[0] / "manifest.json").read_text())
