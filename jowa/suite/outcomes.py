"""From what finished jobs wrote to results."""

from __future__ import annotations

import json
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import safe_open

from jowa.errors import DataError
from jowa.suite.curves import learning_curve
from jowa.suite.jobs import Job, Measured
from jowa.suite.ledger import RESULTS, Ledger
from jowa.suite.results import GamePlayed, Result, Training, write_result

TARGET = "target"
"""In the names of weights that are copies of others, and are not trained themselves."""


def keep_result(ledger: Ledger, job: Job) -> Path | None:
    """Write the result of a finished ``job``; None where it plays nothing.

    Raises :class:`DataError` when what the job wrote is damaged.
    """
    if job.measured is None:
        return None
    return write_result(ledger.out / RESULTS, result_of(ledger, job, job.measured))


def keep_missing_results(ledger: Ledger) -> None:
    """Write what is absent of the results of finished jobs, or says otherwise which comparisons they are for."""
    for name, job in ledger.jobs.items():
        if job.measured is not None and ledger.state(name) == "done" and not _up_to_date(ledger.out, job.measured):
            keep_result(ledger, job)


def _up_to_date(out: Path, measured: Measured) -> bool:
    path = out / RESULTS / f"{measured.id}.json"
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["groups"] == list(measured.groups))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def result_of(ledger: Ledger, job: Job, measured: Measured) -> Result:
    """The result of a finished ``job``."""
    path = ledger.out / job.outputs[0]
    document = _read(path)
    trainer = ledger.jobs[measured.trained_by] if measured.trained_by else None
    try:
        steps = document.get("steps", {})
        games = {
            one["game"]: GamePlayed(tuple(map(float, one["scores"])), tuple(steps.get(one["game"], ())))
            for one in document["games"]
        }
        settings = document["settings"]
        machine = {key: document[key] for key in ("jowa", "device", "torch", "date") if key in document}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} holds no scores ({error}): delete it and run the suite again") from error
    jobs = [job] if trainer is None else [trainer, job]
    return Result(
        id=measured.id,
        groups=measured.groups,
        method=measured.method,
        games=games,
        size=measured.size,
        seed=measured.seed,
        variant=measured.variant,
        planned=measured.planned,
        transfer=measured.transfer,
        training=Training() if trainer is None else _training(ledger, trainer, measured.steps),
        protocol=settings.get("protocol", {}) | {"seed": settings.get("seed"), "episodes": settings.get("episodes")},
        settings={} if trainer is None else _read(ledger.out / trainer.makes / "config.json"),
        command="\n".join(each.line(ledger.out) for each in jobs),
        machine=machine | _machine(),
    )


def _training(ledger: Ledger, trainer: Job, steps: int) -> Training:
    folder = ledger.out / trainer.makes
    entry = ledger.entry(trainer.name)
    curve = learning_curve(folder)
    seconds = 0.0 if entry is None else entry.seconds
    return Training(seconds, steps, parameters(folder / "agent"), tuple(curve))


def parameters(agent: Path) -> int:
    """Trained numbers of an agent or rival, tokenizer included and copies for targets not."""
    count = 0
    for path in (agent / "model.safetensors", agent / "tokenizer.safetensors"):
        if path.exists():
            with safe_open(path, framework="numpy") as weights:
                shapes = [weights.get_slice(name).get_shape() for name in weights.keys() if TARGET not in name]  # noqa: SIM118
            count += sum(_product(shape) for shape in shapes)
    return count


def _product(shape: list[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


@cache
def _machine() -> dict[str, Any]:
    from jowa.train.state import code_version

    version = code_version()
    return {"commit": version["commit"], "python": version["python"], "cores": os.cpu_count(), "cpu": _cpu()}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _read(path: Path) -> dict[str, Any]:
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): delete it and run the suite again") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} holds no JSON object: delete it and run the suite again")
    return document
