"""A study as a list of jobs: command lines of this package, in the order in which they depend on one another."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jowa.errors import UsageError
from jowa.suite.results import Method, Planned, Transfer

OUT = "{out}"
"""In arguments: the folder of the study, so that a study can be moved."""


@dataclass(frozen=True)
class Measured:
    """What the result of a job that plays will say about who played."""

    id: str
    groups: tuple[str, ...]
    method: Method
    size: str = ""
    seed: int = 0
    variant: str = ""
    planned: Planned = field(default_factory=Planned)
    transfer: Transfer | None = None
    trained_by: str = ""
    """Name of the job that trained the player; empty for players without training."""
    steps: int = 0
    """Optimizer steps of that training, all stages."""


@dataclass(frozen=True)
class Job:
    """One child process."""

    name: str
    """Unique, and the path of its log: ``train/jowa-M-seed0``."""
    module: str
    """``python -m`` this."""
    arguments: tuple[str, ...]
    """With :data:`OUT` for the folder of the study."""
    makes: str
    """The folder or file below the study that is this job's own."""
    outputs: tuple[str, ...]
    """Files below the study that are there when it is finished."""
    needs: tuple[str, ...] = ()
    """Jobs that must be finished first; when they change, this one is done again."""
    kind: str = ""
    """Jobs of one kind take about as long as one another."""
    minutes: float = 0.0
    """Estimate before anything was measured."""
    groups: tuple[str, ...] = ()
    """Comparisons that it is for."""
    alone: str = ""
    """Jobs that share this word never run side by side: they write into one data set."""
    discard: tuple[str, ...] = ()
    """Folders below the study that are of no use once it is finished."""
    free: tuple[str, ...] = ()
    """Further arguments, on which what it makes does not depend."""
    measured: Measured | None = None
    """Set where it plays."""

    def command(self, out: Path) -> list[str]:
        """What is run, for a study in ``out``."""
        return [sys.executable, "-m", self.module, *(part.replace(OUT, str(out)) for part in self._parts())]

    def line(self, out: Path) -> str:
        """The same for people to repeat."""
        return shlex.join(["python", "-m", self.module, *(part.replace(OUT, str(out)) for part in self._parts())])

    def _parts(self) -> tuple[str, ...]:
        return self.arguments + self.free


def fingerprints(jobs: Sequence[Job]) -> dict[str, str]:
    """By name: what each job's outcome follows from, its own settings and those of the jobs that it needs.

    Raises :class:`UsageError` for a job that needs one that does not stand before it, and for a name given twice.
    """
    found: dict[str, str] = {}
    for job in jobs:
        missing = [name for name in job.needs if name not in found]
        if missing or job.name in found:
            what = f"needs {missing[0]}, which does not stand before it" if missing else "is there twice"
            raise UsageError(f"job {job.name} {what}: mend the study")
        text = json.dumps([job.module, job.arguments, [found[name] for name in job.needs]])
        found[job.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def chosen(jobs: Sequence[Job], groups: Iterable[str]) -> list[Job]:
    """The jobs of ``groups`` (none: all) and all that they need, in their order."""
    wanted = set(groups)
    by_name = {job.name: job for job in jobs}
    kept: set[str] = set()
    for job in reversed(jobs):
        if not wanted or wanted & set(job.groups) or job.name in kept:
            kept |= {job.name, *by_name[job.name].needs}
    return [job for job in jobs if job.name in kept]


def followers(jobs: Mapping[str, Job], failed: Iterable[str]) -> set[str]:
    """Names of the jobs that need one of ``failed``, directly or not."""
    lost = set(failed)
    for name, job in jobs.items():
        if lost & set(job.needs):
            lost.add(name)
    return lost - set(failed)
