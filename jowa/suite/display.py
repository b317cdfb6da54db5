"""What a study shows while it runs, its list of jobs, and its tables at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from jowa.suite.aggregate import Comparison
from jowa.suite.bootstrap import Interval
from jowa.suite.jobs import Job, chosen
from jowa.suite.ledger import Ledger


def clock(minutes: float) -> str:
    """``2 h 05 min``, ``12 min`` or ``0.4 min``."""
    if minutes < 1:
        return f"{minutes:.1f} min"
    whole = round(minutes)
    return f"{whole} min" if whole < 60 else f"{whole // 60} h {whole % 60:02d} min"


def time_left(jobs: Iterable[Job], minutes: Mapping[str, float], width: int) -> float:
    """Minutes until ``jobs`` are done, ``width`` at once: their sum shared out, but no less than the longest chain."""
    finish: dict[str, float] = {}
    total = 0.0
    for job in jobs:
        total += minutes[job.name]
        finish[job.name] = minutes[job.name] + max((finish.get(name, 0.0) for name in job.needs), default=0.0)
    return max([total / width, *finish.values()])


class Display:
    """Bars on a terminal, a line for each job elsewhere; a watcher of :class:`jowa.suite.runner.Runner`."""

    def __init__(self, ledger: Ledger, jobs: Sequence[Job], width: int) -> None:
        self.ledger, self.width, self.console = ledger, width, Console(stderr=True)
        self.minutes = ledger.minutes()
        done = [job.name for job in jobs if ledger.state(job.name) == "done"]
        self._left = {job.name: job for job in jobs if job.name not in done}
        self._began: dict[str, float] = {}
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"), console=self.console,
        )  # fmt: skip
        self._all = self._bars.add_task("jobs", total=len(jobs), completed=len(done), note="")
        self._rows: dict[str, TaskID] = {}
        self._live = Live(self._bars, console=self.console, refresh_per_second=2) if self.console.is_terminal else None

    def __enter__(self) -> Self:
        self.tick()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, job: Job) -> None:
        """See :class:`jowa.suite.runner.Watcher`."""
        self._began[job.name] = time.monotonic()
        usual = clock(self.minutes[job.name])
        self._rows[job.name] = self._bars.add_task(f"  {job.name}", total=None, note=f"about {usual}")
        if self._live is None:
            self._say(f"started {job.name}, about {usual}")

    def ended(self, job: Job, seconds: float, state: str, said: str) -> None:
        """See :class:`jowa.suite.runner.Watcher`."""
        self._bars.remove_task(self._rows.pop(job.name))
        self._began.pop(job.name)
        if state == "done":
            self._left.pop(job.name)
            self._bars.advance(self._all)
            self.minutes = self.ledger.minutes()
        if state == "failed":
            self._left.pop(job.name)
            self._say(f"failed: {job.name}: {said} (all of it: {self.ledger.log(job.name)})")
        else:
            word = {"begun": "stopped"}.get(state, state)
            self._say(f"{word} {job.name} after {clock(seconds / 60)}, {clock(self._remaining())} left")

    def tick(self) -> None:
        """See :class:`jowa.suite.runner.Watcher`."""
        self._bars.update(self._all, note=f"about {clock(self._remaining())} left")

    def _remaining(self) -> float:
        now = time.monotonic()
        rest = {name: max(0.0, self.minutes[name] - (now - self._began.get(name, now)) / 60) for name in self._left}
        return time_left(self._left.values(), rest, self.width)

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def plan_table(ledger: Ledger, jobs: Sequence[Job]) -> Table:
    """Every job with its state and its minutes, measured for finished ones and estimated for the others."""
    minutes = ledger.minutes()
    table = Table("job", "for", "state", title=f"study in {ledger.out}")
    table.add_column("minutes", justify="right")
    for column in table.columns[:3]:
        column.overflow = "fold"
    for job in jobs:
        state = ledger.state(job.name)
        about = "" if state == "done" else "~"
        table.add_row(job.name, " ".join(job.groups) or "all", state, f"{about}{minutes[job.name]:.1f}")
    return table


def totals_table(ledger: Ledger, jobs: Sequence[Job], width: int) -> Table:
    """A row for each comparison and one for all: jobs, those done, and time left with ``width`` jobs at once.

    A job that several comparisons need counts for each of them.
    """
    minutes = ledger.minutes()
    table = Table("for", title=f"time left, {width} job(s) at once")
    for column in ("jobs", "done", "left"):
        table.add_column(column, justify="right")
    groups = dict.fromkeys(group for job in jobs for group in job.groups)
    for name, own in {**{group: chosen(jobs, [group]) for group in groups}, "all": list(jobs)}.items():
        left = [job for job in own if ledger.state(job.name) != "done"]
        table.add_row(name, str(len(own)), str(len(own) - len(left)), clock(time_left(left, minutes, width)))
    return table


def comparison_table(name: str, comparison: Comparison) -> Table:
    """A row a contender: aggregates, then the mean in each game."""
    table = Table(title=f"{name}: human-normalised scores over {len(comparison.games)} game(s), 95% intervals")
    for column in ("player", "seeds", "IQM", "mean", "optimality gap", *comparison.games):
        table.add_column(column, justify="left" if column == "player" else "right")
    means = {(each.contender, each.game): each.score for each in comparison.by_game}
    for standing in comparison.standings:
        table.add_row(
            standing.contender.name, str(len(standing.seeds)),
            *(_interval(each) for each in (standing.iqm, standing.mean, standing.optimality_gap)),
            *(f"{means[standing.contender, game].value:,.1f}" for game in comparison.games),
        )  # fmt: skip
    return table


def pairs_table(name: str, comparison: Comparison) -> Table:
    """A row a pair: how often x beats y, and by how much."""
    table = Table("x", "y", title=f"{name}: x against y")
    for column in ("P(x > y)", "IQM of x - y"):
        table.add_column(column, justify="right")
    for pair in comparison.pairs:
        table.add_row(pair.x.name, pair.y.name, _interval(pair.improvement), _interval(pair.gain))
    return table


def _interval(one: Interval) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"
