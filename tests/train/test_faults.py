"""Processes killed at random moments, by hand and under torchrun, end where an undisturbed run ends, bit for bit.

``JOWA_KILLS`` is how many of them there are; ``make faults`` sets 20.
"""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jowa.data.loader import Prefetcher
from jowa.errors import DataError
from jowa.train.checkpoint import checkpoints, step_of
from jowa.train.feed import Feed
from jowa.train.loop import Trainer

KILLS = int(os.environ.get("JOWA_KILLS", "4"))
LONGER = {"stage1.steps": 10, "stage2.steps": 30, "checkpoint.every": 3, "draft.steps": 0}


@pytest.fixture
def train_two(command: Any, as_arguments: Any, process_environments: Any) -> Callable[..., list[Any]]:
    """Run the command as two processes; ``kills``: (rank, seconds after the start at which it is killed)."""

    def train(config: Any, kills: list[tuple[int, float]]) -> list[Any]:
        arguments = as_arguments(config)
        jobs = [{"run": "jowa.train", "arguments": arguments, "env": env} for env in process_environments(2)]
        for rank, seconds in kills:
            jobs[rank]["signals"] = [[signal.SIGKILL, "/", seconds]]
        done: list[Any] = command.together(jobs)
        return done

    return train


@pytest.mark.slow
@pytest.mark.timeout(300 + 60 * KILLS)
def test_killed_at_random_moments(
    small_config: Any, train_two: Any, assert_same_state: Any, read_state: Any, tmp_path: Path
) -> None:
    config = small_config(LONGER | {"out": tmp_path / "undisturbed"})
    began = time.monotonic()
    for done in train_two(config, []):
        assert done.returncode == 0, done.stderr
    duration = time.monotonic() - began
    expected = read_state(checkpoints(config.out / "checkpoints")[-1])
    chance, killed, runs = random.Random(0), 0, 0
    while killed < KILLS:
        runs += 1
        config = dataclasses.replace(config, out=tmp_path / f"disturbed-{runs}")
        finished = False
        while not finished:
            moment, victims = chance.uniform(0, min(0.9 * duration, 60.0)), chance.choice([(0,), (1,), (0, 1)])
            done = train_two(config, [(rank, moment) for rank in victims] if killed < KILLS else [])
            codes = [each.returncode for each in done]
            struck = -signal.SIGKILL in codes
            finished = codes == [0, 0] or (killed >= KILLS and not struck)
            assert finished or struck, done[0].stderr + done[1].stderr
            killed += struck
            print(f"kill {killed}: after {moment:.1f} s of {victims}, exit codes {codes}, run {runs}")
        assert codes == [0, 0], done[0].stderr + done[1].stderr
        assert_same_state(read_state(checkpoints(config.out / "checkpoints")[-1]), expected)
        agents = [(out / "agent" / "model.safetensors").read_bytes() for out in (config.out, tmp_path / "undisturbed")]
        assert agents[0] == agents[1]
        assert not list((config.out / "checkpoints").glob(".*")), "leftovers are removed"


@pytest.fixture
def torchrun(as_arguments: Any) -> Callable[..., subprocess.Popen[str]]:
    def start(config: Any, *options: str) -> subprocess.Popen[str]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
        return subprocess.Popen(
            [*launcher, "-m", "jowa.train", *as_arguments(config)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return start


def wait_for_step(process: subprocess.Popen[str], config: Any, step: int) -> None:
    """Until a checkpoint of ``step`` or later is there."""
    deadline = time.monotonic() + 200
    while not any(step_of(path) >= step for path in checkpoints(config.out / "checkpoints")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate(timeout=60)
        time.sleep(0.005)


def worker_of(process: subprocess.Popen[str], rank: int) -> int:
    """The process that torchrun started as ``rank``."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (folder / "environ").read_bytes().split(b"\0") if parent == process.pid else []
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
        if b"RANK=%d" % rank in environment:
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


on_linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")


@pytest.mark.slow
@on_linux
def test_torchrun_starts_all_anew_when_one_is_killed(
    small_config: Any, torchrun: Any, train_two: Any, assert_same_state: Any, read_state: Any, tmp_path: Path
) -> None:
    """With ``--restart`` among the options too, which must not delete what the killed processes have done."""
    expected = small_config(LONGER | {"stage2.steps": 90, "checkpoint.every": 8, "out": tmp_path / "undisturbed"})
    assert [done.returncode for done in train_two(expected, [])] == [0, 0]
    config = dataclasses.replace(expected, out=tmp_path / "disturbed", restart=True)
    process = torchrun(config, "--max-restarts", "2")
    wait_for_step(process, config, 10)
    os.kill(worker_of(process, 1), signal.SIGKILL)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    assert out.count("reusing the run in") == 1 and out.count("agent: ") == 1
    states = [read_state(checkpoints(each.out / "checkpoints")[-1]) for each in (config, expected)]
    assert_same_state(*states)


@pytest.mark.slow
def test_torchrun_forwards_sigterm(small_config: Any, torchrun: Any) -> None:
    config = small_config(LONGER | {"stage2.steps": 4000})
    process = torchrun(config)
    wait_for_step(process, config, 15)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 1 and "got signal: 15" in err, "what torchrun makes of it"
    (line,) = [line for line in out.splitlines() if line.startswith("stopped at step ")]
    step = int(line.split()[3])
    assert 15 <= step < 4000 and step_of(checkpoints(config.out / "checkpoints")[-1]) == step


def test_a_data_set_that_changes_under_the_run_is_an_error(
    small_config: Any, run_trainer: Any, tmp_path: Path, sprite_store: Path
) -> None:
    store = Path(shutil.copytree(sprite_store, tmp_path / "store"))
    file = next(path for path in (store / "Pong" / "frames" / "c").rglob("*") if path.is_file())
    config = small_config({"data.path": store})

    def watch(trainer: Any, step: int, metrics: dict[str, float]) -> None:
        if step == 5:
            file.write_bytes(file.read_bytes())

    with pytest.raises(DataError, match=r"Pong/frames/c/.* was changed while the data set was in use: .*run the same"):
        run_trainer(config, watch)
    assert [step_of(path) for path in checkpoints(config.out / "checkpoints")] == [2, 4]
    assert run_trainer(config).step == 8


def test_a_reader_that_dies_under_the_run_is_an_error(
    small_config: Any, run_trainer: Any, alone: Any, assert_same_state: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The thread that reads ahead where a GPU computes; the run goes on from its checkpoint with the same batches."""
    whole = run_trainer(small_config({"out": tmp_path / "undisturbed"}))
    config = small_config({"checkpoint.every": 1})
    read, reads = Prefetcher._run, []

    def die(self: Any, first: int) -> None:
        reads.append(first)
        for number in range(first, first + 3):
            self._ready.put((number, self._make(number)))

    with monkeypatch.context() as patched, closing(Feed(config, alone)) as feed:
        patched.setattr("jowa.data.loader._LOOK_EVERY", 0.01)
        patched.setattr(Prefetcher, "_run", die)
        feed._ahead = 2
        with pytest.raises(DataError, match=r"thread that reads ahead died .*: run the same command again"):
            Trainer(config, alone).run(feed, lambda step, metrics: None)
    assert reads and [step_of(path) for path in checkpoints(config.out / "checkpoints")] == [2, 3]
    assert Prefetcher._run is read
    assert_same_state(run_trainer(config)._state(), whole._state())
