"""From results to the files of a report."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jowa
from jowa.files import atomic_write, atomic_write_text
from jowa.report.comparisons import (
    ablations_section,
    methods_section,
    planning_section,
    scale_section,
    transfer_section,
)
from jowa.report.document import Gallery, Report
from jowa.report.evidence import RESULTS, Evidence
from jowa.report.inventory import curves_section, made_section, published_section, results_section, trainings
from jowa.report.media import media_sections
from jowa.report.page import html_page, markdown_files, markdown_page
from jowa.report.summary import summary_section
from jowa.report.wording import counted, duration
from jowa.suite.results import Result

PAGE, MARKDOWN = "index.html", "report.md"
SUBTITLE = (
    "One transformer as world model and Q-critic, trained offline on many Atari games, that plays by planning in "
    "imagination, beside its rivals at small scale."
)


def results_folder(folder: Path) -> Path:
    """``folder`` itself, or the results in the folder of a suite."""
    return folder / RESULTS if (folder / RESULTS).is_dir() else folder


def build_report(
    results: Sequence[Result], galleries: Sequence[Gallery] = (), title: str = "JOWA", date: str = ""
) -> Report:
    """Everything that the page says about ``results``; ``date``: of the report, today's by default."""
    evidence = Evidence.of(results)
    date = date or datetime.datetime.now(datetime.UTC).date().isoformat()
    made = [("Report", f"jowa {jowa.__version__}, {date}")]
    imagined, play = media_sections(galleries)
    sections = (
        summary_section(evidence), methods_section(evidence), scale_section(evidence), ablations_section(evidence),
        planning_section(evidence), transfer_section(evidence), curves_section(evidence), imagined, play,
        published_section(evidence), made_section(evidence, made), results_section(evidence),
    )  # fmt: skip
    return Report(title, SUBTITLE, _facts(results, date), sections, evidence.files)


def _facts(results: Sequence[Result], date: str) -> tuple[tuple[str, str], ...]:
    games = {game for result in results for game in result.games}
    trained = trainings(results)
    episodes = sum(len(played.scores) for result in results for played in result.games.values())
    return (
        ("Games", str(len(games))),
        ("Trainings", counted(len(trained), "run")),
        ("Seeds", str(len({result.seed for result in trained}))),
        ("Episodes played", f"{episodes:,}"),
        ("Time in training", duration(sum(result.training.seconds for result in trained))),
        ("Report of", date),
    )


def write_report(out: Path, report: Report, results: Sequence[Result], folder: Path) -> Path:
    """Write the page, its Markdown and all that they lead to, each file atomically; returns the page's path.

    ``folder``: where ``results`` were read from; their files are copied.
    """
    for result in results:
        source, copy = folder / f"{result.id}.json", out / RESULTS / f"{result.id}.json"
        if not (copy.exists() and copy.samefile(source)):
            atomic_write(copy, partial(_put, source.read_bytes()))
    for path, text in report.files.items():
        atomic_write_text(out / path, text)
    for path, data in markdown_files(report).items():
        atomic_write(out / path, partial(_put, data))
    atomic_write_text(out / MARKDOWN, markdown_page(report))
    atomic_write_text(out / PAGE, html_page(report))
    return out / PAGE


def _put(data: bytes, path: Path) -> int:
    return path.write_bytes(data)
