"""What has become of a study's jobs: one small file each, from which the same command goes on."""

from __future__ import annotations

import dataclasses
import datetime
import fcntl
import json
import os
import shutil
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jowa.errors import DataError, UsageError
from jowa.files import atomic_write_text
from jowa.suite.jobs import Job, fingerprints

State = Literal["done", "begun", "failed", "to do"]
JOBS, LOGS, RESULTS, SUPERSEDED, SETTINGS, LOCK = "jobs", "logs", "results", "superseded", "study.json", "suite.lock"


@dataclass(frozen=True)
class Entry:
    """What is kept of a job."""

    fingerprint: str
    """Of the settings it was begun with."""
    finished: bool = False
    code: int | None = None
    """Exit code of the last try that ended by itself; None before, or when it was asked to stop."""
    seconds: float = 0.0
    """Of the clock, all tries together."""
    date: str = ""
    command: str = ""


class Ledger:
    """The jobs of a study and their entries on the disk."""

    def __init__(self, out: Path, jobs: Sequence[Job]) -> None:
        self.out, self.jobs = out, {job.name: job for job in jobs}
        self.fingerprints = fingerprints(jobs)

    def log(self, name: str) -> Path:
        """Where the output of a job goes."""
        return self.out / LOGS / f"{name}.log"

    def entry(self, name: str) -> Entry | None:
        """What is kept of a job, of whatever settings; None before its first try."""
        path = self._path(name)
        if not path.exists():
            return None
        try:
            return Entry(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error}): delete it, and the job {name} is done again") from error

    def state(self, name: str) -> State:
        """How far a job is with the present settings."""
        entry = self.entry(name)
        if entry is None or entry.fingerprint != self.fingerprints[name]:
            return "to do"
        if entry.finished and all((self.out / path).exists() for path in self.jobs[name].outputs):
            return "done"
        return "failed" if entry.code else "begun"

    def begin(self, name: str) -> None:
        """Note that a job starts, after moving away what it made with other settings."""
        self._supersede(name)
        before = self.entry(name) or Entry(self.fingerprints[name])
        self._write(
            name, dataclasses.replace(before, finished=False, code=None, command=self.jobs[name].line(self.out))
        )

    def end(self, name: str, seconds: float, code: int | None) -> State:
        """Note how a try ended (``code`` None: it was stopped); what a finished job leaves behind is tidied up."""
        job, before = self.jobs[name], self.entry(name) or Entry(self.fingerprints[name])
        there = all((self.out / path).exists() for path in job.outputs)
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        # A training that was stopped from outside ends well and without its agent: it is begun, no failure.
        finished = code == 0 and there
        entry = dataclasses.replace(
            before,
            finished=finished,
            code=code if code or finished else None,
            seconds=before.seconds + seconds,
            date=date,
        )
        self._write(name, entry)
        if finished:
            for path in job.discard:
                shutil.rmtree(self.out / path, ignore_errors=True)
        return self.state(name)

    def supersede(self) -> list[str]:
        """Move away what jobs made with other settings than the present ones; returns their names."""
        return [name for name in self.jobs if self._supersede(name)]

    def _supersede(self, name: str) -> bool:
        entry = self.entry(name)
        if entry is None or entry.fingerprint == self.fingerprints[name]:
            return False
        job = self.jobs[name]
        kept = self.out / SUPERSEDED / f"{name}-{entry.fingerprint}"
        own = [job.makes] if job.measured is None else [job.makes, f"{RESULTS}/{job.measured.id}.json"]
        for path in own:
            if (self.out / path).exists():
                target = kept / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(target, ignore_errors=True)
                (self.out / path).replace(target)
        self._path(name).unlink()
        return True

    def minutes(self) -> dict[str, float]:
        """By name: how long each job takes or took.

        Measured for a finished one; for others the mean of finished ones of its kind, failing that its estimate, by as
        much as the estimates of other finished jobs were off.
        """
        measured: dict[str, float] = {}
        kinds: dict[str, list[float]] = defaultdict(list)
        for name, job in self.jobs.items():
            entry = self.entry(name) if self.state(name) == "done" else None
            if entry is not None:
                measured[name] = entry.seconds / 60
                kinds[job.kind].append(measured[name])
        ratios = [
            minutes / self.jobs[name].minutes for name, minutes in measured.items() if self.jobs[name].minutes > 0
        ]
        ratio = statistics.median(ratios) if ratios else 1.0
        expected = {}
        for name, job in self.jobs.items():
            usual = statistics.mean(kinds[job.kind]) if kinds[job.kind] else job.minutes * ratio
            expected[name] = measured.get(name, usual)
        return expected

    def _path(self, name: str) -> Path:
        return self.out / JOBS / f"{name}.json"

    def _write(self, name: str, entry: Entry) -> None:
        atomic_write_text(self._path(name), json.dumps(dataclasses.asdict(entry), indent=1) + "\n")


def note_study(out: Path, settings: dict[str, Any]) -> None:
    """Note a study's settings in its folder; as :func:`check_same_study` if it was begun with others."""
    check_same_study(out, settings)
    if not (out / SETTINGS).exists():
        atomic_write_text(out / SETTINGS, json.dumps(settings, indent=1) + "\n")


def check_same_study(out: Path, settings: dict[str, Any]) -> None:
    """Raise :class:`UsageError` if the study in ``out``, where there is one, was begun with other settings."""
    path = out / SETTINGS
    if not path.exists():
        return
    try:
        before: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): choose another --out, or restore it") from error
    for name, value in settings.items():
        if before.get(name) != value:
            raise UsageError(
                f"the study in {out} was begun with {name} {_plain(before.get(name))}, now it is {_plain(value)}: "
                "use the same, or choose another --out"
            )


def _plain(value: Any) -> str:
    return (" ".join(map(str, value)) or "none named") if isinstance(value, list) else str(value)


@contextmanager
def only_one(out: Path) -> Iterator[int]:
    """Hold the study in ``out``; yields the lock's descriptor, which children inherit and hold as long as they live.

    Raises :class:`DataError` when another run of the suite, or a job that one left running, has it.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(
                f"{out} is in use: another run of the suite works there, or a job of one that was killed; wait until "
                "it ends, or choose another --out"
            ) from None
        yield lock
    finally:
        os.close(lock)
