"""The learning curve of a finished training, from what it logged."""

from __future__ import annotations

import json
from pathlib import Path

from jowa.errors import DataError

POINTS = 200
"""Most points that are kept of a curve."""
Point = dict[str, float]


def learning_curve(folder: Path) -> list[Point]:
    """Points with ``step``, ``seconds`` of training until then, and the metrics logged; at most :data:`POINTS`.

    From ``curve.jsonl`` where the run wrote one, else from its TensorBoard events; empty without either.
    """
    lines = folder / "curve.jsonl"
    points = _from_lines(lines) if lines.exists() else _from_events(folder / "tensorboard")
    stride = -(-len(points) // POINTS)  # rounded up
    return points[stride - 1 :: stride] if points else []


def _from_lines(path: Path) -> list[Point]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise DataError(f"{path} is no curve ({error}): delete it, and the result goes without one") from error


def _from_events(folder: Path) -> list[Point]:
    """Time goes on from one start of the run to the next; what lay between does not count."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points: dict[int, Point] = {}
    for path in sorted(folder.glob("events.*")):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        values = [(event, tag) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]
        if not values:
            continue
        first, began = min(event.step for event, _ in values), min(event.wall_time for event, _ in values)
        points = {step: point for step, point in points.items() if step < first}  # what was done again
        before = max((point["seconds"] for point in points.values()), default=0.0)
        for event, tag in sorted(values, key=lambda value: value[0].wall_time):
            point = points.setdefault(
                event.step, {"step": event.step, "seconds": round(before + event.wall_time - began, 2)}
            )
            point[tag.removeprefix("stage1/").removeprefix("stage2/")] = float(event.value)
    return [points[step] for step in sorted(points)]
