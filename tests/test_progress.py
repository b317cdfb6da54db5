"""Progress in a log: lines with a rate and the time left, no control codes."""

from __future__ import annotations

import re

import pytest

import jowa.progress
from jowa.progress import steps_progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(jowa.progress, "time", clock)
    return clock


def test_lines_with_rate_and_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with steps_progress("training", 100, "steps", start=20) as advance:
        for step in range(21, 101):
            clock.now += 2
            advance(step, f"loss [{step}]" if step % 5 == 0 else None)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 30/100 steps, 0.5 steps/s, 0:02:20 left  loss [30]"
    assert lines[-1] == "training: 100/100 steps, 0.5 steps/s, 0:00:00 left  loss [100]"
    assert len(lines) == 8 and not any("\x1b" in line for line in lines)


def test_a_slow_thing_gets_a_line_now_and_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with steps_progress("playing", 1000, "episodes") as advance:
        for done in (0, 0, 1, 1, 2):
            clock.now += 15
            advance(done, f"{done} of many")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0] == "playing: 0/1000 episodes  0 of many"
    assert re.fullmatch(r"playing: 1/1000 episodes, 0\.0167 episodes/s, 16:39:00 left  1 of many", lines[1])


def test_the_last_note_stays(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with steps_progress("training", 10, "steps") as advance:
        advance(1, "loss 3")
        clock.now += 1
        advance(5)
    assert capsys.readouterr().err.splitlines()[-1].endswith("loss 3")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with steps_progress("training", 4, "steps") as advance:
        for step in range(1, 5):
            advance(step, "loss 3")
    shown = capsys.readouterr().err
    assert "\x1b" in shown and "4/4" in shown and "steps/s" in shown and "loss 3" in shown
