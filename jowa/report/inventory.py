"""The sections of the report that lay out what was run: learning curves, published scores, machines, all results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jowa.games import GAMES, get_game
from jowa.report.comparisons import SERIES, allotted, missing
from jowa.report.document import Block, Cell, Code, Commands, Figure, Key, Link, Section, Table, Text
from jowa.report.drawing import Curve, curves_drawing
from jowa.report.evidence import Evidence, in_game, result_href
from jowa.report.published import IQM_NOTE, IQMS, JOWA_150M, SCALE, SOURCE
from jowa.report.tables import EMPTY, interval_cell
from jowa.report.wording import METHODS, counted, duration, ends, label, parameters, points
from jowa.suite.aggregate import Contender
from jowa.suite.results import Result

AXES = ("step", "seconds")
"""What a point of a learning curve is placed by; the rest are its metrics."""
HEALTH = ("speed", "memory", "skipped", "gradient", "learning_rate")
"""Parts of the names of what watches over a training; its curves are not what was learnt."""
MOST_PANELS = 12


def trainings(results: Sequence[Result]) -> list[Result]:
    """One result of each training, that with the most points of its curve; players without weights have none."""
    found: dict[tuple[object, ...], Result] = {}
    for result in results:
        if result.training.steps or result.training.curve:
            key = (result.method, result.size, result.variant, result.seed, result.transfer)
            if key not in found or len(result.training.curve) > len(found[key].training.curve):
                found[key] = result
    return list(found.values())


def curves_section(evidence: Evidence) -> Section:
    """Every metric that training kept, a line a training of the agent and its rivals."""
    title = "Learning curves"
    drawn = [
        result for result in trainings(evidence.results)
        if result.training.curve and not result.variant and result.transfer is None
    ]  # fmt: skip
    names = dict.fromkeys(name for r in drawn for point in r.training.curve for name in point if name not in AXES)
    metrics = [name for name in names if not any(part in name for part in HEALTH)]
    if not metrics:
        return Section("learning", title, (missing("methods", "learning curves"),))
    groups = list(dict.fromkeys((r.method, r.size) for r in drawn))
    colours = allotted({group: 0 if group[0] == "jowa" else SERIES[group[0]] for group in groups})
    drawings = []
    for metric in metrics[:MOST_PANELS]:
        curves = [curve for r in drawn if (curve := _curve(r, metric, colours[r.method, r.size]))]
        alt = f"{metric} by optimizer step: {', '.join(dict.fromkeys(curve.label for curve in curves))}"
        drawings.append(curves_drawing(curves, "optimizer steps", "", alt, metric))
    keys = tuple(Key(_trained(method, size), f"series-{colours[method, size]}", "━") for method, size in groups)
    seeds = len({result.seed for result in drawn})
    caption: tuple[str | Link, ...] = (
        f"Losses by optimizer step, a line a training: {counted(len(drawn), 'training')} of "
        f"{counted(seeds, 'seed')}. Stages follow one another on one axis. Not drawn, but in the JSON: ablations, "
        "transfers, speed and health of the trainings.",
    )
    if len(metrics) > MOST_PANELS:
        caption = (*caption, f" Nor are {len(metrics) - MOST_PANELS} further losses drawn.")
    return Section("learning", title, (Figure("learning-curves", caption, tuple(drawings), keys),))


def _trained(method: str, size: str) -> str:
    return f"{METHODS[method]} {size}".strip()


def _curve(result: Result, metric: str, series: int) -> Curve | None:
    points_ = [(p["step"], p[metric]) for p in result.training.curve if metric in p and "step" in p]
    if not points_:
        return None
    x, y = zip(*points_, strict=True)
    return Curve(f"{_trained(result.method, result.size)}, seed {result.seed}", x, y, series, marks=False)


def published_section(evidence: Evidence) -> Section:
    """The paper's numbers, marked as of another scale, beside those of here."""
    warning = (
        f"Another scale. The published agents were trained on {SCALE}. Those of this report are far smaller, trained "
        "on other games and data under other rules: the two stand side by side for orientation, and neither confirms "
        "nor refutes the other.",
    )  # fmt: skip
    blocks: tuple[Block, ...] = (
        Text(warning, warning=True),
        _iqm_table(evidence),
        _scores_table(evidence),
        Text((IQM_NOTE,)),
    )
    return Section("published", "Published numbers", blocks)


def _iqm_table(evidence: Evidence) -> Table:
    def cell(value: float | None) -> Cell:
        return EMPTY if value is None else Cell(((f"{value:.3f}",),), quiet=True)

    rows = [
        (
            Cell(((f"{p.agent}-{p.size}",),), quiet=True), Cell((("published, 15 games",),), quiet=True),
            cell(p.greedy), cell(p.planned),
        ) for p in IQMS
    ]  # fmt: skip
    comparison = evidence.comparisons.get("methods")
    for standing in () if comparison is None else comparison.standings:
        who = standing.contender
        if who.method in ("random", "data"):
            continue
        assert comparison is not None
        value = interval_cell(standing.iqm, evidence.href("methods", who, standing.results))
        planned = who.planned.name != "none"
        here = f"this report, {counted(len(comparison.games), 'game')}"
        rows.append(
            (Cell(((label(who),),)), Cell(((here,),)), EMPTY if planned else value, value if planned else EMPTY)
        )
    caption = (f"IQM of human-normalised scores. Published: {SOURCE}, without intervals; ours with 95% intervals.",)
    return Table(caption, ("Agent", "Where", "IQM without planning", "IQM with planning"), tuple(rows), text_columns=2)


def _scores_table(evidence: Evidence) -> Table:
    ours = _ours(evidence)
    names = [game.name for game in GAMES if game.scores is not None]
    columns = (
        "Game",
        "Random",
        "Human",
        "DQN",
        "JOWA-150M, planning",
        "JOWA-150M, without",
        *(f"Ours: {label(c)}" for c in ours),
    )
    rows = []
    for name in names:
        scores = get_game(name).scores
        assert scores is not None
        known = [points(value) for value in (scores.random, scores.human, scores.dqn)]
        known += [points(value) for value in JOWA_150M[name]] if name in JOWA_150M else ["–", "–"]
        cells = [Cell(((name,),)), *(Cell(((text,),), quiet=True) for text in known)]
        for contender in ours:
            standing = in_game(evidence.comparisons["methods"], contender, name)
            if standing is None:
                cells.append(EMPTY)
            else:
                href = evidence.href("methods", contender, standing.results)
                cells.append(Cell(((Link(points(standing.score.value), href),), (ends(standing.score, "points"),))))
        rows.append(tuple(cells))
    caption = (
        f"Mean scores in game points. Published columns: {SOURCE} (no sticky actions, 16 episodes, one seed). Columns "
        "marked ours: this report's agent at its own scale and rules.",
    )
    return Table(caption, columns, tuple(rows))


def _ours(evidence: Evidence) -> list[Contender]:
    comparison = evidence.comparisons.get("methods")
    if comparison is None:
        return []
    ours = dict.fromkeys(each.contender for each in comparison.by_game if each.contender.method == "jowa")
    return sorted(ours, key=lambda one: one.planned.name == "none")


def made_section(evidence: Evidence, facts: Sequence[tuple[str, str]]) -> Section:
    """Machines, versions, commits, dates, cost, commands; ``facts``: of the report itself."""
    trained = trainings(evidence.results)
    seconds = sum(result.training.seconds for result in trained)
    steps = sum(result.training.steps for result in trained)
    rows = [("Trainings", f"{len(trained)}, {duration(seconds)} of the clock in all, {steps:,} optimizer steps")]
    episodes = sum(len(played.scores) for result in evidence.results for played in result.games.values())
    rows.append(("Play", f"{episodes:,} episodes in {counted(len(evidence.results), 'result')}"))
    values: dict[str, dict[str, None]] = {}
    for result in evidence.results:
        for key, value in result.machine.items():
            values.setdefault(key, {})[_plain(value)] = None
    rows += [(key, _several(list(found))) for key, found in values.items()]
    rows += list(facts)
    table = Table(
        ("What made these results. The clock is that of training, with whatever ran beside it.",), ("What", "Recorded"),
        tuple((Cell(((name,),)), Cell(((text,),))) for name, text in rows), text_columns=2,
    )  # fmt: skip
    lines = tuple(
        line for line in dict.fromkeys(
            line.strip() for result in evidence.results for line in result.command.splitlines()
        ) if line
    )  # fmt: skip
    again = Text(
        (
            "To make all of it again: ",
            Code("python -m jowa.suite"),
            ", then ",
            Code("python -m jowa.report RESULTS"),
            ".",
        )
    )
    folded = (Commands(f"{counted(len(lines), 'command line')} of the suite", lines),) if lines else ()
    return Section("made", "How it was made", (table, again, *folded))


def _plain(value: Any) -> str:
    return ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else str(value)


def _several(found: Sequence[str]) -> str:
    """A few values in full, many by the first and the last."""
    if len(found) <= 4:
        return "; ".join(found)
    ordered = sorted(found)
    return f"{ordered[0]} … {ordered[-1]} ({len(found)} different)"


def results_section(evidence: Evidence) -> Section:
    """Every result, with its file."""
    rows = []
    for result in sorted(evidence.results, key=lambda each: each.id):
        episodes = sum(len(played.scores) for played in result.games.values())
        rows.append(
            (
                Cell(((Link(result.id, result_href(result.id)),),)),
                Cell(((label(Contender.of(result)),),)),
                Cell(((", ".join(result.groups),),)),
                Cell(((str(result.seed) if result.training.steps else "–",),)),
                Cell(((str(len(result.games)),),)),
                Cell(((str(episodes),),)),
                Cell(((parameters(result.training.parameters),),)),
                Cell(((duration(result.training.seconds) if result.training.seconds else "–",),)),
            )
        )
    columns = ("Result", "Player", "Comparisons", "Seed", "Games", "Episodes", "Parameters", "Training")
    caption = ("Every result of the suite; each name leads to its JSON, with all scores, settings and commands.",)
    return Section("results", "All results", (Table(caption, columns, tuple(rows), text_columns=3),))
