"""Evaluation results as JSON and as a table."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

import jowa
from jowa.devices import device_name
from jowa.errors import UsageError
from jowa.evaluate.scores import GameScore, aggregate
from jowa.files import atomic_write_text


def results_document(settings: dict[str, Any], results: Sequence[GameScore], device: torch.device) -> dict[str, Any]:
    """Everything about an evaluation, ready for JSON."""
    aggregates = {"iqm_hns": aggregate(results, "human"), "iqm_dns": aggregate(results, "dqn")}
    return {
        "jowa": jowa.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device_name(device),
        "torch": torch.__version__,
        "settings": settings,
        "games": [dataclasses.asdict(result) for result in results],
        **{name: None if value is None else dataclasses.asdict(value) for name, value in aggregates.items()},
    }


def own_path(path: Path, settings: dict[str, Any], games: Sequence[str]) -> Path:
    """``path``, or beside it the first of ``-2``, ``-3``, ... that is free, or holds results of these very ``settings``
    and ``games``: what was measured in another way stays."""
    wanted = json.loads(json.dumps(settings)), list(games)
    others = (path.with_stem(f"{path.stem}-{count}") for count in itertools.count(2))
    return next(one for one in itertools.chain([path], others) if not one.exists() or _played(one) == wanted)


def _played(path: Path) -> tuple[object, list[str]] | None:
    """Settings and games of a results file; None where it holds none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return document["settings"], [row["game"] for row in document["games"]]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def check_writable(path: Path) -> None:
    """Raise now what :func:`write_results` would raise after hours of play; leaves ``path`` as it is."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file for the results")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def write_results(path: Path, document: dict[str, Any]) -> None:
    """Write ``document`` as JSON, atomically; a file that is there is replaced."""
    atomic_write_text(path, json.dumps(document, indent=2) + "\n")


def interval(low: float, high: float, episodes: int) -> str:
    """``[low, high]`` with a sensible number of digits; of one episode there is none."""
    return f"[{number(low)}, {number(high)}]" if episodes > 1 else "-"


def number(value: float) -> str:
    """Three digits or so, whatever the size: scores range from 0.1 to millions."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def score_table(title: str, results: Sequence[GameScore], document: dict[str, Any]) -> Table:
    """Per game: mean, 95% interval, episodes, HNS, DNS; below, the interquartile means."""
    table = Table(title=title)
    for name in ("game", "mean", "95% interval", "episodes", "HNS", "DNS"):
        table.add_column(name, justify="left" if name == "game" else "right")
    for r in results:
        normalised = ["-" if value is None else f"{value:.3f}" for value in (r.hns, r.dns)]
        table.add_row(r.game, number(r.mean), interval(r.low, r.high, len(r.scores)), str(len(r.scores)), *normalised)
    human, dqn = document["iqm_hns"], document["iqm_dns"]
    if human and dqn:
        cells = [f"{a['iqm']:.3f} [{a['low']:.3f}, {a['high']:.3f}]" for a in (human, dqn)]
        table.add_section()
        table.add_row(f"IQM over {human['games']}", "", "", "", *cells)
    return table
