"""The sections of the report that put players beside one another."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from jowa.report.document import Block, Drawing, Figure, Items, Key, Missing, Section, Text
from jowa.report.drawing import SIGNS, Curve, Mark, curves_drawing, rows_drawing
from jowa.report.evidence import (
    Evidence,
    beside,
    contenders,
    games_of,
    in_game,
    protocol_of,
    standing_of,
    usual,
)
from jowa.report.tables import INTERVALS, aggregates_caption, aggregates_table, games_counted, games_table, sample
from jowa.report.wording import human, label, parameters, with_ends
from jowa.suite.aggregate import Comparison, Contender, Standing

SERIES = {"mtbc": 2, "mgdt": 3, "scaled-ql": 4, "random": 6, "data": 7}
"""Colours of the methods; the agent has two, planned and not."""
COLOURS = 8
Name = TypeVar("Name", bound=Hashable)
SUITE = "python -m jowa.suite --only"


def series_of(contender: Contender) -> int:
    """The colour of a method."""
    if contender.method == "jowa":
        return 1 if contender.planned.name == "none" else 0
    return SERIES[contender.method]


def allotted(wanted: Mapping[Name, int]) -> dict[Name, int]:
    """A colour for each name: the wanted one, or where that is taken the next free one."""
    given: dict[Name, int] = {}
    for name, first in wanted.items():
        nearest = [(first + step) % COLOURS for step in range(COLOURS)]
        given[name] = next((one for one in nearest if one not in given.values()), first)
    return given


def missing(group: str, what: str) -> Missing:
    """Say which part of the suite makes it."""
    return Missing(what, f"{SUITE} {group}")


def methods_section(evidence: Evidence) -> Section:
    """The agent, its rivals, random play and the data, by game and over games."""
    title = "Methods"
    if "methods" not in evidence.comparisons:
        return Section("methods", title, (missing("methods", "the agent and its rivals by game"),))
    comparison, protocol = evidence.comparisons["methods"], protocol_of(evidence.of_group("methods"))
    caption = "Mean score in game points, its interval, and the human-normalised score (HNS: 0 random, 1 human)."
    blocks: list[Block] = [
        games_table(evidence, "methods", (f"{caption} {sample(comparison, protocol)}",), references=True),
        _games_figure(evidence, comparison, protocol),
    ]
    if comparison.standings:
        blocks += [
            aggregates_table(evidence, "methods", aggregates_caption(comparison, "Aggregates.", protocol), costs=True),
            _iqm_figure(evidence, "methods", "Interquartile mean (IQM).", protocol),
            _profile_figure(comparison, protocol),
        ]
    if comparison.pairs:
        blocks.append(_improvement_figure(evidence, comparison))
    return Section("methods", title, (*blocks, *notes(comparison)))


def notes(comparison: Comparison) -> tuple[Block, ...]:
    """What the comparison says is missing."""
    return (Items(tuple((note,) for note in comparison.notes)),) if comparison.notes else ()


def _games_figure(evidence: Evidence, comparison: Comparison, protocol: str) -> Figure:
    drawings = []
    for game in games_of(comparison):
        found = [(one, in_game(comparison, one, game)) for one in contenders(comparison)]
        marks = [
            Mark(
                label(one), each.score, series_of(one), f"{label(one)}, {game}: {with_ends(each.score, 'points')}",
                evidence.href("methods", one, each.results),
            )
            for one, each in found if each is not None
        ]  # fmt: skip
        said = "; ".join(mark.tip for mark in marks)
        drawings.append(rows_drawing(marks, "game points", said, human(game), title=game, wide=False))
    caption = f"Mean score by game; the dashed line is the published human score. {sample(comparison, protocol)}"
    return Figure("scores-by-game", (caption,), tuple(drawings))


def _iqm_figure(evidence: Evidence, name: str, before: str, protocol: str, bars: bool = False) -> Figure:
    comparison = evidence.comparisons[name]
    reference = usual(name, comparison)
    line = standing_of(comparison, reference) if reference is not None and bars else None
    marks = [
        Mark(
            label(each.contender), each.iqm, 0 if bars and line is each else 1 if bars else series_of(each.contender),
            f"{label(each.contender)}: {with_ends(each.iqm)}", evidence.href(name, each.contender, each.results),
        )
        for each in comparison.standings
    ]  # fmt: skip
    said = "; ".join(mark.tip for mark in marks)
    at = None if line is None else line.iqm.value
    drawing = rows_drawing(marks, "IQM of human-normalised scores", f"IQM. {said}", at, bars)
    return Figure(f"{name}-iqm", aggregates_caption(comparison, before, protocol), (drawing,))


def _profile_figure(comparison: Comparison, protocol: str) -> Figure:
    curves, keys = [], []
    for each in comparison.standings:
        number = series_of(each.contender)
        curves.append(
            Curve(
                label(each.contender), comparison.taus, [point.value for point in each.profile], number,
                [point.low for point in each.profile], [point.high for point in each.profile], band=True, marks=False,
                dash=_dash(number),
            )
        )  # fmt: skip
        keys.append(Key(label(each.contender), f"series-{number}", "━"))
    drawing = curves_drawing(
        curves, "human-normalised score τ", "share of runs above τ", "Performance profiles, as in the table of IQMs.",
        wide=True, from_zero=True,
    )  # fmt: skip
    caption = "Performance profiles: the share of seeds and games whose mean score is above τ; higher is better."
    return Figure("performance-profiles", aggregates_caption(comparison, caption, protocol), (drawing,), tuple(keys))


def _dash(series: int) -> int:
    return {0: 0, 1: 1, 2: 2, 3: 3, 4: 1, 6: 2, 7: 3}.get(series, 0)


def _improvement_figure(evidence: Evidence, comparison: Comparison) -> Figure:
    marks = []
    for pair in comparison.pairs:
        planned = pair.y.method == "jowa" and pair.y.planned.name != "none"
        turned = beside(comparison, pair.y, pair.x) if planned else pair
        assert turned is not None, "a pair can be turned"
        words = f"{label(turned.x)} > {label(turned.y)}"
        standing = standing_of(comparison, pair.y)
        href = evidence.href("methods", pair.y, standing.results) if standing else ""
        tip = f"{words}: {with_ends(turned.improvement)}"
        marks.append(Mark(words, turned.improvement, series_of(pair.y), tip, href))
    said = "; ".join(mark.tip for mark in marks)
    drawing = rows_drawing(marks, "probability of improvement", said, 0.5, limits=(-0.02, 1.02))
    caption = (
        "Probability that a run of the first beats a run of the second in a game, mean over "
        f"{games_counted(comparison)}; ties count half. {INTERVALS}."
    )
    return Figure("probability-of-improvement", (caption,), (drawing,))


def scale_section(evidence: Evidence) -> Section:
    """IQM by number of parameters."""
    title = "Scaling"
    comparison = evidence.comparisons.get("scale")
    if comparison is None or not comparison.standings:
        return Section("scaling", title, (missing("scale", "the agent in several sizes"),))
    protocol = protocol_of(evidence.of_group("scale"))
    lines: dict[tuple[str, bool], list[Standing]] = {}
    for each in sorted(comparison.standings, key=lambda standing: standing.parameters):
        if each.parameters:
            lines.setdefault((each.contender.method, each.contender.planned.name == "none"), []).append(each)
    blocks: list[Block] = []
    if lines:
        blocks.append(_scale_figure(evidence, comparison, list(lines.values()), protocol))
    blocks.append(aggregates_table(evidence, "scale", aggregates_caption(comparison, "Sizes.", protocol), costs=True))
    return Section("scaling", title, (*blocks, *notes(comparison)))


def _scale_figure(
    evidence: Evidence, comparison: Comparison, lines: Sequence[Sequence[Standing]], protocol: str
) -> Figure:
    curves, keys = [], []
    ticks: dict[float, str] = {}
    for line in lines:
        first = line[0].contender
        number = series_of(first)
        name = f"{label(first).split()[0]}{', planned' if first.planned.name != 'none' else ''}"
        curves.append(
            Curve(
                name, [each.parameters for each in line], [each.iqm.value for each in line], number,
                [each.iqm.low for each in line], [each.iqm.high for each in line],
                tips=[f"{label(s.contender)}, {parameters(s.parameters)}: {with_ends(s.iqm)}" for s in line],
                hrefs=[evidence.href("scale", each.contender, each.results) for each in line],
            )
        )  # fmt: skip
        keys.append(Key(name, f"series-{number}", SIGNS[number]))
        ticks |= {
            each.parameters: f"{each.contender.size} · {parameters(each.parameters)}"
            for each in line
            if first.method == "jowa"
        }
    said = "; ".join(tip for curve in curves for tip in curve.tips)
    drawing = curves_drawing(
        curves, "parameters (logarithmic)", "IQM of human-normalised scores", said, log=True, wide=True,
        x_ticks=sorted(ticks.items()),
    )  # fmt: skip
    caption = aggregates_caption(comparison, "Scaling curve: IQM by number of trained parameters.", protocol)
    return Figure("scaling", caption, (drawing,), tuple(keys))


def ablations_section(evidence: Evidence) -> Section:
    """What each part is good for."""
    title = "Ablations"
    comparison = evidence.comparisons.get("ablations")
    if comparison is None or not comparison.standings:
        return Section("ablations", title, (missing("ablations", "the agent with one part changed at a time"),))
    protocol = protocol_of(evidence.of_group("ablations"))
    before = "Ablations: one thing is changed at a time; the dashed line is the agent as it is."
    blocks: list[Block] = [
        _iqm_figure(evidence, "ablations", before, protocol, bars=True),
        aggregates_table(evidence, "ablations", aggregates_caption(comparison, "Ablations.", protocol)),
    ]
    return Section("ablations", title, (*blocks, *notes(comparison)))


def planning_section(evidence: Evidence) -> Section:
    """What imagining more is worth."""
    title = "Planning"
    comparison = evidence.comparisons.get("planning")
    if comparison is None or not comparison.standings:
        return Section("planning", title, (missing("planning", "the same agents under planners of several budgets"),))
    protocol = protocol_of(evidence.of_group("planning"))
    blocks: list[Block] = []
    against = usual("planning", comparison)
    if against is not None:
        blocks.append(_budget_figure(evidence, comparison, against, protocol))
    else:
        blocks.append(Text(("Without the same agents playing greedily there is nothing to measure a gain against.",)))
    blocks.append(aggregates_table(evidence, "planning", aggregates_caption(comparison, "Planners.", protocol)))
    return Section("planning", title, (*blocks, *notes(comparison)))


def imagined_steps(contender: Contender) -> int:
    """Steps that a decision imagines at most: one a simulation, or K + K^2 (H - 1) of beam search."""
    planned = contender.planned
    if planned.name == "mcts":
        return planned.simulations
    return (
        0
        if planned.horizon == 0 or planned.name == "none"
        else planned.width + planned.width**2 * (planned.horizon - 1)
    )


def _budget_figure(evidence: Evidence, comparison: Comparison, against: Contender, protocol: str) -> Figure:
    families: dict[str, list[tuple[Contender, Standing]]] = {}
    for each in comparison.standings:
        one = each.contender
        if imagined_steps(one):
            families.setdefault(_family(one, against), []).append((one, each))
    curves, keys = [], []
    for number, (name, members) in enumerate(families.items()):
        aside = 1.03 ** (number - (len(families) - 1) / 2)  # points of one budget stand beside one another
        members.sort(key=lambda member: imagined_steps(member[0]))
        gains = [(one, each, pair.gain) for one, each in members if (pair := beside(comparison, one, against))]
        curves.append(
            Curve(
                name, [aside * imagined_steps(one) for one, _, _ in gains], [gain.value for *_, gain in gains],
                number % COLOURS, [gain.low for *_, gain in gains], [gain.high for *_, gain in gains],
                tips=[f"{label(one)}: {with_ends(gain, 'signed')}" for one, _, gain in gains],
                hrefs=[evidence.href("planning", one, each.results) for one, each, _ in gains],
            )
        )  # fmt: skip
        keys.append(Key(name, f"series-{number % COLOURS}", SIGNS[number % COLOURS]))
    said = "; ".join(tip for curve in curves for tip in curve.tips)
    ticks = [
        (float(budget), str(budget))
        for budget in sorted({imagined_steps(one) for members in families.values() for one, _ in members})
    ]
    drawing = curves_drawing(
        curves, "imagined steps a decision (logarithmic)", f"IQM less that of {label(against)}", said, log=True,
        wide=True, reference=0.0, x_ticks=ticks,
    )  # fmt: skip
    before = (
        "Planning gain against budget. A beam of width K and horizon H imagines at most K + K²(H − 1) steps a "
        "decision, MCTS one a simulation; the dashed line is greedy play of the same agents."
    )
    return Figure("planning-gain", aggregates_caption(comparison, before, protocol), (drawing,), tuple(keys))


def _family(contender: Contender, against: Contender) -> str:
    """What one line of the figure has in common."""
    planned = contender.planned
    words = ["Beam search" if planned.name == "beam" else "MCTS"]
    words += [] if planned.ends else ["without ends"]
    words += [f"uncertainty {planned.uncertainty:g}"] if planned.uncertainty else []
    words += [f"lambda {planned.td_lambda:g}"] if planned.td_lambda != 1 else []
    words += [f"memory {planned.context}"] if planned.context != against.planned.context else []
    base = " ".join(word for word in (contender.size, contender.variant) if word)
    words += [base] if (contender.size, contender.variant) != (against.size, against.variant) else []
    return ", ".join(words)


QUALITIES = ("weak", "mixed", "expert")


def transfer_section(evidence: Evidence) -> Section:
    """What pretraining is worth in games that it never saw."""
    title = "Transfer"
    names = [f"transfer/{quality}" for quality in QUALITIES if f"transfer/{quality}" in evidence.comparisons]
    if not names:
        return Section("transfer", title, (missing("transfer", "held-out games from few transitions"),))
    protocol = protocol_of(evidence.of_group("transfer"))
    counts = sorted({r.transfer.transitions for r in evidence.of_group("transfer") if r.transfer is not None})
    told = " or ".join(f"{count:,}" for count in counts)
    blocks: list[Block] = [_transfer_figure(evidence, names, told, protocol)]
    said: list[Block] = []
    for name in names:
        comparison, quality = evidence.comparisons[name], name.partition("/")[2]
        caption = f"From {told} transitions of {quality} play. Mean score in game points, its interval, and HNS. "
        blocks.append(
            games_table(evidence, name, (caption + sample(comparison, protocol),), references=name == names[-1])
        )
        if comparison.standings:
            before = f"From {quality} data, aggregates."
            blocks.append(aggregates_table(evidence, name, aggregates_caption(comparison, before, protocol)))
        said += notes(comparison)
    return Section("transfer", title, (*blocks, *dict.fromkeys(said)))


def _transfer_figure(evidence: Evidence, names: Sequence[str], told: str, protocol: str) -> Figure:
    """Scores by quality of the data, one drawing a game."""
    lines: dict[str, list[Contender]] = {}
    for name in names:
        for one in contenders(evidence.comparisons[name]):
            same = lines.setdefault(label(one), [])
            if one not in same:
                same.append(one)
    games = sorted({game for name in names for game in games_of(evidence.comparisons[name])})
    colours = allotted({name: _transfer_series(members[0]) for name, members in lines.items()})
    drawings = [_transfer_drawing(evidence, names, lines, game, colours) for game in games]
    keys = tuple(Key(name, f"series-{number}", SIGNS[number]) for name, number in colours.items())
    caption = (
        f"Held-out games after training on {told} transitions, by quality of the data; the dashed line is the "
        f"published human score. {sample(evidence.comparisons[names[0]], protocol)}"
    )
    return Figure("transfer", (caption,), tuple(drawings), keys)


def _transfer_series(contender: Contender) -> int:
    """As elsewhere; the agent from random weights has a colour of its own."""
    return 5 if contender.pretrained is False and contender.method == "jowa" else series_of(contender)


def _transfer_drawing(
    evidence: Evidence, names: Sequence[str], lines: dict[str, list[Contender]], game: str, colours: Mapping[str, int]
) -> Drawing:
    qualities, curves = [name.partition("/")[2] for name in names], []
    for row, (line, members) in enumerate(lines.items()):
        found = [
            (place, name, one, each)
            for place, name in enumerate(names) for one in members
            if (each := in_game(evidence.comparisons[name], one, game)) is not None
        ]  # fmt: skip
        aside = 0.07 * (row - (len(lines) - 1) / 2)
        curves.append(
            Curve(
                line, [place + aside for place, *_ in found], [each.score.value for *_, each in found], colours[line],
                [each.score.low for *_, each in found], [each.score.high for *_, each in found],
                tips=[
                    f"{line}, {qualities[place]} data: {with_ends(each.score, 'points')}" for place, _, _, each in found
                ],
                hrefs=[evidence.href(name, one, each.results) for _, name, one, each in found],
            )
        )  # fmt: skip
    said = f"{game}. " + "; ".join(tip for curve in curves for tip in curve.tips)
    ticks = [(float(place), quality) for place, quality in enumerate(qualities)]
    return curves_drawing(curves, "data", "game points", said, game, x_ticks=ticks, reference=human(game))
