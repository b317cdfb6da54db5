"""A progress bar with a rate and the time left, for anything long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LINE_EVERY = 20.0
"""Seconds after which a log (no terminal) gets a line, even if less than a tenth of the way was made."""


class _Rate(ProgressColumn):
    """Things a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g} {self.unit}/s", style="progress.data.speed")


class _Lines:
    """Progress for a log file: a line every tenth of the way, every 20 seconds, and at the end."""

    def __init__(self, title: str, total: int, unit: str, start: int, console: Console) -> None:
        self.title, self.total, self.unit, self.start, self.console = title, total, unit, start, console
        self.began = self.printed_at = time.monotonic()
        self.printed = start

    def __call__(self, done: int, note: str) -> None:
        now = time.monotonic()
        due = (done - self.printed) * 10 >= self.total or now - self.printed_at >= LINE_EVERY or done == self.total
        if not due or (done == self.printed and now - self.printed_at < LINE_EVERY):
            return
        rate = (done - self.start) / max(now - self.began, 1e-9)
        speed = f", {rate:.3g} {self.unit}/s, {_duration((self.total - done) / rate)} left" if rate else ""
        self.console.print(
            f"{self.title}: {done}/{self.total} {self.unit}{speed}  {note}".rstrip(),
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
        self.printed, self.printed_at = done, now


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _silent(done: int, note: str | None = None) -> None:
    """What to call where nobody looks."""


@contextmanager
def steps_progress(
    title: str, total: int, unit: str, start: int = 0, shown: bool = True
) -> Iterator[Callable[..., None]]:
    """Show progress towards ``total``; yields a function of (how far, note) to call as things advance.

    A note stays until the next one.  Without a terminal, lines are printed instead of a bar; nothing at all
    unless ``shown``.
    """
    if not shown:
        yield _silent
        return
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(unit))
    lines = None if console.is_terminal else _Lines(title, total, unit, start, console)
    with Progress(
        *columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console,
        disable=lines is not None, speed_estimate_period=60.0,
    ) as bars:  # fmt: skip
        bar = bars.add_task(title, total=total, completed=start, note="")
        latest = ""

        def advance(done: int, note: str | None = None) -> None:
            nonlocal latest
            latest = latest if note is None else note
            if lines is None:
                bars.update(bar, completed=done, note=latest)
            else:
                lines(done, latest)

        yield advance
