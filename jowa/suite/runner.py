"""Running jobs as child processes: several at once, stopped and resumed at will, failures kept apart."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

from jowa.suite.jobs import Job, followers
from jowa.suite.ledger import Ledger

POLL = 0.1
"""Seconds between looks at the children."""
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals after which children save and end."""
TAIL = 4096
"""Bytes of a log in which the last line is looked for."""


class Watcher(Protocol):
    """Who is told what happens."""

    def started(self, job: Job) -> None:
        """A job has started."""

    def ended(self, job: Job, seconds: float, state: str, said: str) -> None:
        """A job is ``done``, ``begun`` (stopped) or ``failed``, with the last line that it wrote."""

    def tick(self) -> None:
        """Time goes by."""


@dataclass
class Outcome:
    """What became of the jobs."""

    done: list[str] = field(default_factory=list)
    """Finished now or before."""
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Not tried, because they need one that failed."""
    stopped_by: int | None = None
    """The signal that ended it."""


@dataclass
class _Child:
    job: Job
    process: subprocess.Popen[bytes]
    began: float


class Runner:
    """Runs the jobs of a study that are not done."""

    def __init__(self, ledger: Ledger, jobs: Sequence[Job], width: int, lock: int, watcher: Watcher) -> None:
        """``width``: children at once; ``lock``: the descriptor that they inherit (:func:`only_one`)."""
        self.ledger, self.jobs, self.width, self.lock, self.watcher = ledger, list(jobs), width, lock, watcher
        self.on_done: Callable[[Job], object] = lambda job: None
        """Called with each job that gets done."""
        self._children: list[_Child] = []
        self._stopped_by: int | None = None

    def run(self) -> Outcome:
        """Run until nothing is left that can be done, or a signal of :data:`STOPPING` comes."""
        outcome = Outcome()
        names = {job.name: job for job in self.jobs}
        for name in names:
            if self.ledger.state(name) == "done":
                outcome.done.append(name)
        with self._signals():
            while True:
                lost = followers(names, outcome.failed)
                if self._stopped_by is None:
                    self._start(outcome, lost)
                if not self._children:
                    break
                time.sleep(POLL)
                self._reap(outcome)
                self.watcher.tick()
        outcome.skipped = [name for name in names if name in lost]
        outcome.stopped_by = self._stopped_by
        return outcome

    def _start(self, outcome: Outcome, lost: set[str]) -> None:
        """Start what is ready, in the order of the study, as far as there is room."""
        busy = {child.job.alone for child in self._children if child.job.alone}
        taken = {*outcome.done, *outcome.failed, *lost, *(child.job.name for child in self._children)}
        for job in self.jobs:
            if len(self._children) >= self.width:
                return
            if job.name in taken or job.alone in busy or not set(job.needs) <= set(outcome.done):
                continue
            self._launch(job)
            busy |= {job.alone} - {""}

    def _launch(self, job: Job) -> None:
        self.ledger.begin(job.name)
        out, log = self.ledger.out, self.ledger.log(job.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            file.write(f"$ {job.line(out)}\n".encode())
            file.flush()
            process = subprocess.Popen(
                job.command(out), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                env=child_environment(self.width), pass_fds=(self.lock,),
                start_new_session=True,  # the terminal's Ctrl-C comes to this process alone, which passes it on
            )  # fmt: skip
        self._children.append(_Child(job, process, time.monotonic()))
        self.watcher.started(job)

    def _reap(self, outcome: Outcome) -> None:
        for child in list(self._children):
            code = child.process.poll()
            if code is None:
                continue
            self._children.remove(child)
            job, seconds = child.job, time.monotonic() - child.began
            stopped = self._stopped_by is not None and code != 0
            state = self.ledger.end(job.name, seconds, None if stopped else code)
            said = last_line(self.ledger.log(job.name))
            if code < 0:
                said = f"it was ended by {signal.Signals(-code).name}; its last line: {said}"
            elif state == "begun" and self._stopped_by is None:
                state, said = "failed", f"it ended well but without {' and '.join(job.outputs)}; its last line: {said}"
            if state == "done":
                self.on_done(job)
                outcome.done.append(job.name)
            elif state == "failed":
                outcome.failed.append(job.name)
            self.watcher.ended(job, seconds, state, said)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first of :data:`STOPPING` asks the children to save and end, a second kills them."""

        def stop(number: int, frame: FrameType | None) -> None:
            again = self._stopped_by is not None
            self._stopped_by = self._stopped_by or number
            for child in self._children:
                try:
                    if again:
                        os.killpg(child.process.pid, signal.SIGKILL)
                    else:
                        child.process.send_signal(signal.SIGINT)
                except ProcessLookupError:
                    pass  # it ended just now

        before = {number: signal.signal(number, stop) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def threads_of(width: int) -> int:
    """Threads of each of ``width`` children at once: its share of the cores."""
    return max(1, (os.cpu_count() or 1) // width)


def child_environment(width: int) -> dict[str, str]:
    """The environment of ``width`` children at once; threads are as the caller's environment says, if it does."""
    return {"OMP_NUM_THREADS": str(threads_of(width)), **os.environ, "PYTHONUNBUFFERED": "1"}


def last_line(log: Path) -> str:
    """The last line that a command wrote into its log and that is not empty."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines and not lines[-1].startswith("$ ") else "nothing"
