"""A progress bar with a rate and the time left, for anything long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    """Things a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g} {self.unit}/s", style="progress.data.speed")


@contextmanager
def steps_progress(title: str, total: int, unit: str, start: int = 0) -> Iterator[Callable[..., None]]:
    """Show progress towards ``total``; yields a function of (how far, note) to call as things advance.

    Without a terminal a line is printed about every tenth of the way instead.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(unit))
    with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console) as bars:
        bar = bars.add_task(title, total=total, completed=start, note="")
        printed = start

        def advance(done: int, note: str = "") -> None:
            nonlocal printed
            bars.update(bar, completed=done, note=note)
            if not console.is_terminal and (done - printed) * 10 >= total:
                printed = done
                left = bars.tasks[bar].time_remaining
                remaining = "" if left is None else f", {left:.0f} s left"
                console.print(f"{title}: {done}/{total} {unit}{remaining} {note}", highlight=False)

        yield advance
