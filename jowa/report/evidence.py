"""What a report speaks of: the results, their comparisons, and the JSON file behind every number."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from jowa.report.document import Link
from jowa.suite.aggregate import (
    GROUPS,
    Comparison,
    Contender,
    GameStanding,
    Pair,
    Standing,
    compare_group,
    summary_document,
)
from jowa.suite.bootstrap import Interval
from jowa.suite.results import Result

RESULTS, NUMBERS = "results", "numbers"
"""Folders beside the page."""


@dataclass
class Evidence:
    """Results with their comparisons; collects the JSON files that numbers link to."""

    results: Sequence[Result]
    comparisons: dict[str, Comparison]
    """By name: ``methods``, ``scale``, ``ablations``, ``planning``, ``transfer/expert`` …"""
    files: dict[str, str] = field(default_factory=dict)
    """JSON texts by relative path."""

    @staticmethod
    def of(results: Sequence[Result]) -> Evidence:
        """Compare ``results`` within every group that they belong to, in the order that tables show."""
        results = sorted(results, key=_place)
        comparisons: dict[str, Comparison] = {}
        for group in GROUPS:
            comparisons |= compare_group(results, group)
        return Evidence(results, comparisons)

    def of_group(self, group: str) -> list[Result]:
        """The results of one comparison."""
        return [result for result in self.results if group in result.groups]

    def href(self, name: str, contender: Contender, ids: Sequence[str]) -> str:
        """Where a number of ``contender`` in the comparison ``name`` comes from.

        The result's own file if there is one, else a file that lists the results with what became of them.
        """
        if len(ids) == 1:
            return result_href(ids[0])
        comparison = self.comparisons[name]
        place = 1 + list(_contenders(comparison)).index(contender)
        path = f"{NUMBERS}/{name}/{place:02d}-{re.sub(r'[^A-Za-z0-9.]+', '-', contender.name).strip('-')}.json"
        if path not in self.files:
            own = replace(
                comparison,
                standings=tuple(each for each in comparison.standings if each.contender == contender),
                by_game=tuple(each for each in comparison.by_game if each.contender == contender),
                pairs=tuple(pair for pair in comparison.pairs if contender in (pair.x, pair.y)),
            )
            files = [f"{'../' * (path.count('/'))}{result_href(id)}" for id in sorted(_ids(own))]
            document = {"results": files, **summary_document({name: own})[name]}
            self.files[path] = json.dumps(document, indent=1) + "\n"
        return path

    def seeds(self, name: str, contender: Contender, ids: Sequence[str]) -> tuple[str | Link, ...]:
        """``seeds 0 1 2``, each a link to its result; where a seed has several, one link to the list of them."""
        own = sorted((r for r in self.results if r.id in ids), key=lambda r: (r.seed, r.id))
        if len(own) == 1:
            return (Link(f"seed {own[0].seed}" if own[0].training.steps else "result", result_href(own[0].id)),)
        if len({result.seed for result in own}) < len(own):
            return (Link(f"{len(own)} results", self.href(name, contender, ids)),)
        pieces: list[str | Link] = ["seeds"]
        for result in own:
            pieces += [" ", Link(str(result.seed), result_href(result.id))]
        return tuple(pieces)


METHODS = ("random", "data", "mtbc", "mgdt", "scaled-ql", "jowa")
PLANNERS = ("none", "beam", "mcts")


def _place(result: Result) -> tuple[object, ...]:
    """Where ``result`` belongs in a table: rivals first, smaller before larger, as it is before changed."""
    planned, transfer = result.planned, result.transfer
    return (
        METHODS.index(result.method), result.training.parameters, result.size, result.variant,
        transfer is not None and not transfer.pretrained, PLANNERS.index(planned.name), not planned.ends,
        planned.uncertainty, -planned.td_lambda, planned.context, planned.width, planned.horizon, planned.simulations,
        result.seed, result.id,
    )  # fmt: skip


def result_href(id: str) -> str:
    """The copy of a result's file beside the page."""
    return quote(f"{RESULTS}/{id}.json")


def contenders(comparison: Comparison) -> list[Contender]:
    """In the order of the comparison, those without a common game included."""
    return list(_contenders(comparison))


def _contenders(comparison: Comparison) -> dict[Contender, None]:
    ordered = [each.contender for each in comparison.standings] + [each.contender for each in comparison.by_game]
    return dict.fromkeys(ordered)


def _ids(comparison: Comparison) -> set[str]:
    standings: list[Standing | GameStanding] = [*comparison.standings, *comparison.by_game]
    return {id for each in standings for id in each.results}


def in_game(comparison: Comparison, contender: Contender, game: str) -> GameStanding | None:
    """How ``contender`` stands in ``game``; None where it did not play."""
    found = (each for each in comparison.by_game if each.contender == contender and each.game == game)
    return next(found, None)


def games_of(comparison: Comparison) -> list[str]:
    """Every game that somebody played."""
    return sorted({each.game for each in comparison.by_game})


def standing_of(comparison: Comparison, contender: Contender) -> Standing | None:
    """The aggregates of ``contender``; None where it has none."""
    return next((each for each in comparison.standings if each.contender == contender), None)


def beside(comparison: Comparison, x: Contender, y: Contender) -> Pair | None:
    """The pair of ``x`` and ``y`` with ``x`` first, whichever way round it was compared."""
    for pair in comparison.pairs:
        if (pair.x, pair.y) == (x, y):
            return pair
        if (pair.x, pair.y) == (y, x):
            return replace(pair, x=x, y=y, improvement=_turned(pair.improvement, 1.0), gain=_turned(pair.gain, 0.0))
    return None


def _turned(interval: Interval, whole: float) -> Interval:
    """``whole`` less the interval."""
    return Interval(whole - interval.value, whole - interval.high, whole - interval.low)


def usual(name: str, comparison: Comparison) -> Contender | None:
    """The contender that the others of the comparison called ``name`` are paired with."""
    if not comparison.pairs:
        return None
    pair = comparison.pairs[0]
    return pair.x if name == "methods" or name.startswith("transfer") else pair.y


def protocol_of(results: Sequence[Result]) -> str:
    """The rules of play in words; all that were met."""
    said = dict.fromkeys(_protocol(result) for result in results if result.protocol)
    return " / ".join(said) or "protocol not recorded"


def _protocol(result: Result) -> str:
    rules = result.protocol
    words = [f"protocol {rules['name']}"] if "name" in rules else []
    if "sticky" in rules:
        words.append(f"sticky actions {rules['sticky']:g}" if rules["sticky"] else "no sticky actions")
    if "max_steps" in rules:
        words.append(f"at most {rules['max_steps']:,} agent steps")
    return ", ".join(words) or "protocol not recorded"
