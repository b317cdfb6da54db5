"""What the suite says, in sentences that are computed from its numbers."""

from __future__ import annotations

from collections.abc import Iterator

from jowa.report.document import Items, Line, Link, Piece, Section, Text
from jowa.report.evidence import Evidence, beside, contenders, standing_of, usual
from jowa.report.wording import counted, label, listed, overlap, parameters, verdict, with_ends
from jowa.suite.aggregate import Comparison, Contender, Pair, Standing
from jowa.suite.bootstrap import Interval

HOW = (
    "Scores are human-normalised: 0 is random play, 1 the published human. IQM: interquartile mean over seeds and "
    "games. Brackets are 95% intervals from a stratified bootstrap over seeds and episodes. Every linked number leads "
    "to the JSON that it comes from."
)


def summary_section(evidence: Evidence) -> Section:
    """A sentence or two for each question that has an answer."""
    lines = [*_methods(evidence), *_planning(evidence), *_scale(evidence), *_ablations(evidence), *_transfer(evidence)]
    if not lines:
        lines = [("No comparison has results of two players in common games yet.",)]
    return Section("summary", "Summary", (Items(tuple(lines)), Text((HOW,))))


def _methods(evidence: Evidence) -> Iterator[Line]:
    comparison = evidence.comparisons.get("methods")
    if comparison is None:
        return
    agent = [each for each in comparison.standings if each.contender.method == "jowa"]
    if not agent:
        return
    best = max(agent, key=lambda each: each.iqm.value)
    over = f"{counted(len(comparison.games), 'game')} ({listed(comparison.games)})"
    yield (
        f"{label(best.contender)} reaches an IQM of ", _link(evidence, "methods", best, with_ends(best.iqm)),
        f" over {over}, from {counted(len(best.seeds), 'seed')} of at least "
        f"{counted(best.episodes, 'episode')} a game.",
    )  # fmt: skip
    others = [each for each in comparison.standings if each.contender.method not in ("jowa", "random")]
    if others:
        pieces: list[Piece] = ["Beside that: "]
        for number, each in enumerate(others):
            name = "the data that it was trained on" if each.contender.method == "data" else label(each.contender)
            link = _link(evidence, "methods", each, with_ends(each.iqm))
            pieces += ["; " if number else "", f"{name} ", link, f", {_where(each.iqm, best.iqm)}"]
        yield (*pieces, ".")


def _where(one: Interval, other: Interval) -> str:
    """Where the first interval lies."""
    if overlap(one, other):
        return "the intervals overlap"
    return "its interval lies below" if one.value < other.value else "its interval lies above"


def _link(evidence: Evidence, name: str, standing: Standing, text: str) -> Link:
    return Link(text, evidence.href(name, standing.contender, standing.results))


def _pair_of(evidence: Evidence, name: str) -> tuple[Comparison, Contender] | None:
    comparison = evidence.comparisons.get(name)
    against = None if comparison is None else usual(name, comparison)
    return None if comparison is None or against is None else (comparison, against)


def _planning(evidence: Evidence) -> Iterator[Line]:
    """The best of the planners if they were studied, else the one of the methods' table."""
    name = "planning" if _pair_of(evidence, "planning") else "methods"
    found = _pair_of(evidence, name)
    if found is None:
        return
    comparison, greedy = found
    planned = [
        pair for one in contenders(comparison)
        if one.method == "jowa" and one.planned.name != "none" and one.size == greedy.size
        and (pair := beside(comparison, one, greedy))
    ]  # fmt: skip
    if not planned:
        return
    best = max(planned, key=lambda pair: pair.gain.value)
    among = f"Of {counted(len(planned), 'planner')}, " if len(planned) > 1 else ""
    yield (
        f"{among}{label(best.x)} {'gains most over' if among else 'gains over'} greedy play of the same agents: IQM ",
        _gain_link(evidence, name, comparison, best), f"; {verdict(best.gain)}.",
        *((" The best of several is flattered by being picked.",) if among else ()),
    )  # fmt: skip


def _gain_link(evidence: Evidence, name: str, comparison: Comparison, pair: Pair) -> Link:
    standing = standing_of(comparison, pair.x)
    assert standing is not None, "only standings are paired"
    return Link(with_ends(pair.gain, "signed"), evidence.href(name, pair.x, standing.results))


def _scale(evidence: Evidence) -> Iterator[Line]:
    comparison = evidence.comparisons.get("scale")
    standings = () if comparison is None else comparison.standings
    for planned in (False, True):
        sizes = sorted(
            (s for s in standings if s.contender.method == "jowa" and (s.contender.planned.name != "none") == planned),
            key=lambda each: each.parameters,
        )
        if len(sizes) < 2:
            continue
        small, large = sizes[0], sizes[-1]
        overlapping = "the intervals overlap" if overlap(small.iqm, large.iqm) else "the intervals do not overlap"
        yield (
            f"{'With' if planned else 'Without'} planning, IQM goes from ",
            _link(evidence, "scale", small, with_ends(small.iqm)),
            f" at {parameters(small.parameters)} parameters to ", _link(evidence, "scale", large, with_ends(large.iqm)),
            f" at {parameters(large.parameters)}: {overlapping}.",
        )  # fmt: skip


def _ablations(evidence: Evidence) -> Iterator[Line]:
    found = _pair_of(evidence, "ablations")
    if found is None:
        return
    comparison, whole = found
    pairs = [pair for one in contenders(comparison) if (pair := beside(comparison, one, whole))]
    if not pairs:
        return
    worst = min(pairs, key=lambda pair: pair.gain.value)
    clear = sum(_excludes_zero(pair.gain) for pair in pairs)
    yield (
        f"Of {counted(len(pairs), 'ablation')}, {label(worst.x)} is lowest beside {label(whole)}: IQM ",
        _gain_link(evidence, "ablations", comparison, worst),
        f"; {verdict(worst.gain)}. For {clear} of {len(pairs)} the interval of the difference excludes 0.",
    )


def _excludes_zero(interval: Interval) -> bool:
    return interval.low > 0 or interval.high < 0


def _transfer(evidence: Evidence) -> Iterator[Line]:
    for quality in ("expert", "mixed", "weak"):
        found = _pair_of(evidence, f"transfer/{quality}")
        if found is None:
            continue
        comparison, tuned = found
        fresh = next((one for one in contenders(comparison) if one.method == "jowa" and one.pretrained is False), None)
        pair = None if fresh is None else beside(comparison, tuned, fresh)
        if pair is not None:
            yield (
                f"On {quality} transitions of {listed(comparison.games)}, pretraining changes IQM by ",
                _gain_link(evidence, f"transfer/{quality}", comparison, pair),
                f" beside the same fine-tuning from random weights; {verdict(pair.gain)}.",
            )
