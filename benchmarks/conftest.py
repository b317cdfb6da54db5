"""Timing in turns, and the results file."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jowa.devices import device_name

RESULTS = Path(__file__).parent / "results"
# Benchmarks share modules, also when pytest is called by its own name; behind everything else on the path.
sys.path.append(str(Path(__file__).resolve().parent.parent))


class Comparison:
    """Collects rows; one row a pair (ours, rival).  Each is stored at once: a run may be ended before its time."""

    def __init__(self, folder: Path = RESULTS) -> None:
        self.folder, self.rows = folder, list[dict[str, Any]]()

    def __call__(
        self, claim: str, shapes: str, ours: Callable[[], object], rival: Callable[[], object], runs: int = 7,
        pause: float = 0.0,
    ) -> float:  # fmt: skip
        """Time both in turns after one warm-up each; returns rival / ours of the medians (above 1: ours is faster).

        ``pause``: seconds before each and a run off the clock, for the other's threads, which may spin behind what
        they did, to fall asleep.
        """
        ours(), rival()
        seconds: dict[str, list[float]] = {"ours": [], "rival": []}
        for _ in range(runs):
            for name, call in (("ours", ours), ("rival", rival)):
                if pause:
                    time.sleep(pause)
                    call()
                start = time.perf_counter()
                call()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                seconds[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        ratio = medians["rival"] / medians["ours"]
        self.rows.append({"claim": claim, "shapes": shapes, "runs": runs, "seconds": medians, "ratio": ratio})
        self._store()
        print(f"\n{claim} ({shapes}): {medians['ours']:.3g} s against {medians['rival']:.3g} s, ratio {ratio:.2f}")
        return ratio

    def note(self, claim: str, shapes: str, **figures: Any) -> None:
        """Add a row of figures that were measured without a rival, units in their names."""
        self.rows.append({"claim": claim, "shapes": shapes, **figures})
        self._store()
        told = ", ".join(f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value}"
                         for name, value in figures.items())  # fmt: skip
        print(f"\n{claim} ({shapes}): {told}")

    def _store(self) -> None:
        """What another session measured on this day stays, unless it was measured again."""
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        name = device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions["triton"] = importlib.metadata.version("triton")
        path = self.folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}-{date}.json"
        measured = {(row["claim"], row["shapes"]) for row in self.rows}
        before = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
        rows = [row for row in before if (row["claim"], row["shapes"]) not in measured] + self.rows
        self.folder.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(
            json.dumps({"device": name, "date": date, "versions": versions, "rows": rows}, indent=2) + "\n",
            encoding="utf-8",
        )
        partial.replace(path)


@pytest.fixture(scope="session")
def compare() -> Comparison:
    """The session's :class:`Comparison`."""
    return Comparison()
