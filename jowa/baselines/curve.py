"""The learning curve of a run: a line of JSON for each reading of its metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from jowa.errors import CheckpointError
from jowa.files import atomic_write_text


class Curve:
    """Points with ``step``, ``seconds`` of training until then, and metrics; on the disk after each :meth:`save`."""

    def __init__(self, path: Path, step: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Go on at ``step``: what an earlier run of the same file noted after it is dropped.

        Raises :class:`CheckpointError` when the file is damaged.
        """
        self.path, self._clock = path, clock
        self.points = [point for point in read_curve(path) if point["step"] <= step] if path.exists() and step else []
        before = self.points[-1]["seconds"] if self.points else 0.0
        self._began = clock() - before

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those of earlier runs that are still of use included."""
        return self._clock() - self._began

    def note(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point."""
        self.points.append({"step": step, "seconds": round(self.seconds, 3), **metrics})

    def save(self) -> None:
        """Write all points, atomically."""
        atomic_write_text(self.path, "".join(json.dumps(point) + "\n" for point in self.points))


def read_curve(path: Path) -> list[dict[str, float]]:
    """The points of a curve, oldest first; :class:`CheckpointError` when the file is damaged."""
    try:
        points = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise CheckpointError(f"{path} is no curve ({error}): delete it, or start anew with --restart") from error
    if not all(isinstance(point, dict) and {"step", "seconds"} <= set(point) for point in points):
        raise CheckpointError(f"{path} has lines without step and seconds: delete it, or start anew with --restart")
    return points
