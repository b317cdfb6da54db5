"""The command ``python -m jowa.record`` as a user meets it: options, errors, kill -9."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from jowa.data import EpisodeStore, EpisodeWriter

COMMAND = [sys.executable, "-m", "jowa.record"]
OPTIONS = ["--games", "Pong", "--steps", "600", "--max-steps", "12"]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=250)


def test_records_and_says_what_there_is(tmp_path) -> None:
    done = run("--out", str(tmp_path), *OPTIONS, "--steps", "30", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}: Pong 36 steps in 3 episodes\n" and done.stderr == ""


def test_mistakes_are_one_line_with_exit_code_2(tmp_path) -> None:
    done = run("--out", str(tmp_path / "a"), "--games", "Pnog")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown game 'Pnog': did you mean Pong") and done.stderr.count("\n") == 1
    done = run("--out", str(tmp_path / "a"), "--games", "Pong", "--stepps", "3")
    assert done.returncode == 2 and "stepps" in done.stderr
    assert not (tmp_path / "a").exists()


def test_help_explains_every_option() -> None:
    done = run("--help")
    assert done.returncode == 0
    for option in ("--out", "--games", "--steps", "--policies", "--sticky", "--max-steps", "--seed", "--workers"):
        assert option in done.stdout
    assert "Agent steps per game" in done.stdout and "Probability, per emulator frame" in done.stdout


def test_kill_9_while_recording_then_resume_equals_an_uninterrupted_run(tmp_path) -> None:
    """The command with two players, killed at random moments of its writing, until it is done."""
    assert run("--out", str(tmp_path / "whole"), *OPTIONS, "--workers", "1").returncode == 0
    arguments = ["--out", str(tmp_path / "killed"), *OPTIONS, "--workers", "2"]
    chance, kills = random.Random(4), 0
    for attempt in range(4):
        before = episodes_at(tmp_path / "killed")
        process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if attempt < 3:
            while process.poll() is None and episodes_at(tmp_path / "killed") <= before:
                time.sleep(0.002)
            time.sleep(chance.random() * 0.15)
            process.send_signal(signal.SIGKILL)
        output, errors = process.communicate(timeout=250)  # ends only when the players, too, have died
        kills += process.returncode == -signal.SIGKILL
        assert process.returncode in (0, -signal.SIGKILL), errors
    assert process.returncode == 0 and kills >= 1 and "(reusing " in output
    whole, killed = EpisodeStore.open(tmp_path / "whole"), EpisodeStore.open(tmp_path / "killed")
    assert killed.attributes == whole.attributes
    assert killed.episodes("Pong") == whole.episodes("Pong") and killed.num_episodes("Pong") == 50
    for got, expected in zip(killed.read("Pong", 0, 600), whole.read("Pong", 0, 600), strict=True):
        assert np.array_equal(got, expected)


def episodes_at(path: Path) -> int:
    import json

    document = path / "Pong/zarr.json"
    return json.loads(document.read_text())["attributes"]["num_episodes"] if document.exists() else 0


def test_second_recorder_is_refused(tmp_path) -> None:
    with EpisodeWriter.open(tmp_path):
        done = run("--out", str(tmp_path), *OPTIONS)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {tmp_path} is being written by another process: wait until it is done, or choose another folder\n"
    )
