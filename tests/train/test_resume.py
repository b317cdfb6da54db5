"""A run that was stopped anywhere and resumed is, bit for bit, one that never stopped."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import jowa.train.checkpoint as checkpoint_module
from jowa.errors import CheckpointError
from jowa.train.checkpoint import checkpoints, load_checkpoint, remove_leftovers, save_checkpoint
from jowa.train.loop import Trainer


def test_stopped_after_any_step_and_resumed(
    small_config: Any, run_trainer: Any, assert_same_state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "KEPT", 100)
    config = small_config({"checkpoint_every": 1, "stage2.target_every": 2, "log_every": 3})
    whole = run_trainer(config)
    saved = checkpoints(config.out / "checkpoints")
    assert len(saved) == whole.total == 8 and config.model.dropout > 0 and config.model.q_dropout > 0
    final = load_checkpoint(saved[-1])
    assert final["step"] == 8
    for stopped in saved[:-1]:
        again = dataclasses.replace(config, out=tmp_path / stopped.stem, checkpoint_every=100)
        (again.out / "checkpoints").mkdir(parents=True)
        shutil.copy(stopped, again.out / "checkpoints")
        resumed = run_trainer(again)
        assert resumed.step == 8
        assert_same_state(load_checkpoint(checkpoints(again.out / "checkpoints")[-1]), final)


def test_saving_changes_nothing(small_config: Any, run_trainer: Any, assert_same_state: Any, tmp_path: Path) -> None:
    often = run_trainer(small_config({"out": tmp_path / "often", "checkpoint_every": 1}))
    never = run_trainer(small_config({"out": tmp_path / "never", "checkpoint_every": 1000, "log_every": 1000}))
    assert_same_state(often._state(), never._state())
    assert [p.name for p in checkpoints(tmp_path / "often" / "checkpoints")] == ["step-00000007.pt", "step-00000008.pt"]


@pytest.mark.slow
def test_killed_for_real(
    small_config: Any, as_arguments: Any, command: Any, assert_same_state: Any, tmp_path: Path
) -> None:
    config = small_config({"stage2.steps": 150, "checkpoint_every": 5, "log_every": 10})
    whole = dataclasses.replace(config, out=tmp_path / "whole")
    assert command("jowa.train", *as_arguments(whole)).returncode == 0
    arguments = [sys.executable, "-m", "jowa.train", *as_arguments(config)]
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    folder = config.out / "checkpoints"
    while process.poll() is None and not (folder / "step-00000020.pt").exists():
        time.sleep(0.003)
    process.kill()
    assert process.wait() == -9
    reached = load_checkpoint(checkpoints(folder)[-1])["step"]
    assert 20 <= reached < 154
    (folder / ".step-00000025.pt.half").write_bytes(b"what a kill in the middle of a write leaves")
    done = command("jowa.train", *as_arguments(config))
    assert done.returncode == 0 and f"at step {reached} of 154" in done.stdout, done.stderr
    last = [load_checkpoint(checkpoints(out / "checkpoints")[-1]) for out in (config.out, whole.out)]
    assert_same_state(*last)
    for name in ("model", "tokenizer"):
        agents = [(out / "agent" / f"{name}.safetensors").read_bytes() for out in (config.out, whole.out)]
        assert agents[0] == agents[1]
    assert not list(folder.glob(".*"))


def test_a_checkpoint_of_other_sizes_is_refused(small_config: Any, run_trainer: Any, alone: Any) -> None:
    run_trainer(small_config({"stage2.steps": 0}))
    with pytest.raises(CheckpointError, match=r"model\.width = 32, now it is 64: .*--restart"):
        Trainer(small_config({"model.width": 64}), alone).resume()


@pytest.mark.parametrize("damage", ["truncated", "another file", "a list", "keys", "shapes"])
def test_a_damaged_checkpoint_is_named(small_config: Any, run_trainer: Any, alone: Any, damage: str) -> None:
    config = small_config({"stage2.steps": 0})
    run_trainer(config)
    path = checkpoints(config.out / "checkpoints")[-1]
    state = load_checkpoint(path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "another file":
        path.write_text("not a checkpoint")
    elif damage == "a list":
        torch.save([1, 2], path)
    elif damage == "keys":
        torch.save({"step": 3}, path)
    else:
        state["model"].popitem()
        torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        Trainer(config, alone).resume()
    assert str(path) in str(caught.value) and "--restart" in str(caught.value) and "\n" not in str(caught.value)


def small_state(step: int) -> dict[str, Any]:
    parts: dict[str, Any] = {key: {} for key in checkpoint_module.CONTENTS}
    return {**parts, "step": step, "model": {"weight": torch.zeros(1000)}}


def test_the_last_two_are_kept_and_a_failed_write_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (98, 99, 100):
        save_checkpoint(tmp_path, small_state(step))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert list(before) and sorted(before) == ["step-00000099.pt", "step-00000100.pt"]

    def fail(state: Any, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\nframe #0: ...")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(CheckpointError, match=r"step-00000101\.pt could not be written .*disk full") as caught:
        save_checkpoint(tmp_path, small_state(101))
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_leftovers_go_and_checkpoints_stay(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, small_state(1))
    (tmp_path / ".step-00000002.pt.abc").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "step-00000001.pt"]
