"""SIGTERM and Ctrl-C at any moment: the run is saved, ends well, and goes on as if nothing had been."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from jowa.train.checkpoint import checkpoints, read_manifest, step_of
from jowa.train.feed import Feed
from jowa.train.stop import Stopped


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_step_under_way_is_finished_and_saved(
    small_config: Any, run_trainer: Any, assert_same_state: Any, tmp_path: Path, number: int
) -> None:
    whole = run_trainer(small_config({"out": tmp_path / "whole"}))
    config = small_config({"checkpoint.every": 1000})
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def interrupt(at: int) -> Any:
        return lambda trainer, step, metrics: os.kill(os.getpid(), number) if step == at else None

    for at in (3, 4, 6):  # in stage 1, at its end, in stage 2
        with pytest.raises(Stopped, match=rf"stopped at step {at} of 8, .*run the same command again"):
            run_trainer(config, interrupt(at))
        assert step_of(checkpoints(config.out / "checkpoints")[-1]) == at
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert_same_state(run_trainer(config)._state(), whole._state())


def test_a_signal_in_the_last_step_stops_before_what_comes_after(small_config: Any, run_trainer: Any) -> None:
    config = small_config({"stage2.steps": 0})
    with pytest.raises(Stopped, match="stopped at step 4 of 4"):
        run_trainer(config, lambda trainer, step, metrics: os.kill(os.getpid(), signal.SIGTERM) if step == 4 else None)
    assert run_trainer(config).step == 4


def test_a_second_interrupt_stops_at_once(small_config: Any, run_trainer: Any) -> None:
    def interrupt(trainer: Any, step: int, metrics: dict[str, float]) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    config = small_config({"checkpoint.every": 1000})
    with pytest.raises(KeyboardInterrupt) as caught:
        run_trainer(config, interrupt)
    assert not isinstance(caught.value, Stopped) and not checkpoints(config.out / "checkpoints")


def test_encoding_the_data_set_stops_at_once(
    small_config: Any, run_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config({"checkpoint.every": 1000})

    def interrupted(self: Feed, *arguments: Any) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return "the signal was not heard"

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(Feed, "encode", interrupted)
        run_trainer(config)
    (saved,) = checkpoints(config.out / "checkpoints")
    assert read_manifest(saved)["step"] == 4, "what is under way to the disk is waited for"
    assert run_trainer(config).step == 8


def test_the_command_ends_with_exit_code_0_and_one_line(command: Any, small_config: Any, as_arguments: Any) -> None:
    config = small_config({"stage2.steps": 2000})
    signals = [[signal.SIGTERM, str(config.out / "checkpoints" / "step-00000006"), 0.0]]
    done = command("jowa.train", *as_arguments(config), signals=signals)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    found = re.search(r"^stopped at step (\d+) of 2004, .*run the same command again to go on$", done.stdout, re.M)
    assert found and done.stdout.rstrip().endswith(found[0])
    saved = checkpoints(config.out / "checkpoints")[-1]
    assert read_manifest(saved)["step"] == int(found[1]) < 2004


def test_recording_stops_at_once_and_is_kept(
    command: Any, small_config: Any, as_arguments: Any, tmp_path: Path
) -> None:
    config = small_config({"data.path": tmp_path / "data", "data.record_steps": 500_000, "data.games": ("Pong",)})
    signals = [[signal.SIGTERM, str(tmp_path / "data" / "zarr.json"), 0.1]]
    done = command("jowa.train", *as_arguments(config), signals=signals)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "run the same command again to go on" in done.stdout.splitlines()[-1]


def test_all_processes_stop_after_the_same_step(
    command: Any, small_config: Any, as_arguments: Any, process_environments: Any
) -> None:
    """Only one of them gets the signal."""
    config = small_config({"stage2.steps": 2000})
    arguments = as_arguments(config)
    jobs = [{"run": "jowa.train", "arguments": arguments, "env": env} for env in process_environments(2)]
    jobs[1]["signals"] = [[signal.SIGTERM, str(config.out / "checkpoints" / "step-00000006"), 0.0]]
    done = command.together(jobs)
    assert [each.returncode for each in done] == [0, 0], done[0].stderr + done[1].stderr
    found = re.search(r"^stopped at step (\d+) of 2004", done[0].stdout, re.M)
    assert found and "stopped" not in done[1].stdout
    saved = read_manifest(checkpoints(config.out / "checkpoints")[-1])
    assert (saved["step"], saved["processes"]) == (int(found[1]), 2)
