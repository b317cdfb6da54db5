"""Tables of a comparison: each player in each game, and each player over all games."""

from __future__ import annotations

from collections.abc import Sequence

from jowa.games import get_game
from jowa.report.document import Cell, Line, Link, Table
from jowa.report.evidence import Evidence, beside, contenders, games_of, in_game, standing_of, usual
from jowa.report.wording import (
    DASH,
    counted,
    duration,
    ends,
    label,
    parameters,
    points,
    share,
    signed,
    spread,
)
from jowa.suite.aggregate import Comparison, Contender, GameStanding, Standing
from jowa.suite.bootstrap import Interval

INTERVALS = "95% intervals: stratified bootstrap over seeds and episodes"
EMPTY = Cell(((DASH,),))


def games_table(evidence: Evidence, name: str, caption: Line, references: bool = False) -> Table:
    """A row a player, a column a game: mean, interval, human-normalised score; the best trained mean stands out.

    ``references``: with rows of the published random, human and DQN scores.
    """
    comparison = evidence.comparisons[name]
    games = games_of(comparison)
    best = {game: _best(comparison, game) for game in games}
    rows = []
    for contender in contenders(comparison):
        found = {game: in_game(comparison, contender, game) for game in games}
        ids = sorted({id for standing in found.values() if standing for id in standing.results})
        cells = [Cell(((label(contender),), evidence.seeds(name, contender, ids)))]
        for game in games:
            standing = found[game]
            cells.append(_game_cell(evidence, name, standing, best[game] == contender) if standing else EMPTY)
        rows.append(tuple(cells))
    if references:
        rows += [_reference_row(kind, words, games) for kind, words in REFERENCES.items()]
    return Table(caption, ("Player", *games), tuple(rows))


REFERENCES = {"random": "Random (published)", "human": "Human (published)", "dqn": "DQN (published)"}


def _best(comparison: Comparison, game: str) -> Contender | None:
    """Who has the highest mean of those that were trained and may be compared: nobody where there is one alone."""
    rivals = [
        each for each in comparison.by_game if each.game == game and each.contender.method not in ("random", "data")
    ]
    return max(rivals, key=lambda each: each.score.value).contender if len(rivals) > 1 else None


def _game_cell(evidence: Evidence, name: str, standing: GameStanding, best: bool) -> Cell:
    href = evidence.href(name, standing.contender, standing.results)
    lines: list[Line] = [(Link(points(standing.score.value), href),), (ends(standing.score, "points"),)]
    if standing.normalised is not None:
        lines.append((f"HNS {share(standing.normalised.value)}",))
    return Cell(tuple(lines), best)


def _reference_row(kind: str, words: str, games: Sequence[str]) -> tuple[Cell, ...]:
    cells = [Cell(((words,),), quiet=True)]
    for game in games:
        scores = get_game(game).scores
        cells.append(EMPTY if scores is None else Cell(((points(getattr(scores, kind)),),), quiet=True))
    return tuple(cells)


def aggregates_table(evidence: Evidence, name: str, caption: Line, gains: bool = True, costs: bool = False) -> Table:
    """A row a player: aggregates over games; ``gains``: beside the usual player; ``costs``: what training took."""
    comparison = evidence.comparisons[name]
    against = usual(name, comparison) if gains else None
    columns = ["Player", "IQM", "Mean", "Median", "Optimality gap"]
    if against is not None:
        columns += [f"IQM minus that of {label(against)}", f"P(better than {label(against)})"]
    columns += ["Parameters", "Training"] if costs else []
    rows = [
        _aggregate_row(evidence, name, standing, against, costs)
        for contender in contenders(comparison)
        if (standing := standing_of(comparison, contender)) is not None
    ]
    return Table(caption, (*columns, "Seeds × episodes"), tuple(rows))


def _aggregate_row(
    evidence: Evidence, name: str, standing: Standing, against: Contender | None, costs: bool
) -> tuple[Cell, ...]:
    who = standing.contender
    href = evidence.href(name, who, standing.results)
    cells = [Cell(((label(who),), evidence.seeds(name, who, standing.results)))]
    for interval in (standing.iqm, standing.mean, standing.median, standing.optimality_gap):
        cells.append(interval_cell(interval, href))
    if against is not None:
        pair = beside(evidence.comparisons[name], who, against)
        if pair is None:
            cells += [Cell((("reference",),)) if who == against else EMPTY] * 2
        else:
            cells += [interval_cell(pair.gain, href, "signed"), interval_cell(pair.improvement, href)]
    if costs:
        cells += [
            Cell(((parameters(standing.parameters),),)),
            Cell(((duration(standing.seconds) if standing.seconds else DASH,),)),
        ]
    return (*cells, Cell(((f"{len(standing.seeds)} × {standing.episodes}",),)))


def interval_cell(interval: Interval, href: str, how: str = "share") -> Cell:
    """A number that leads to its JSON, over its interval."""
    value = signed(interval.value) if how == "signed" else share(interval.value)
    return Cell(((Link(value, href),), (ends(interval, how),)))


def aggregates_caption(comparison: Comparison, before: str, protocol: str) -> Line:
    """What the numbers are, of how many seeds and episodes, under which rules, with which intervals."""
    return (f"{before} Human-normalised scores over {games_counted(comparison)}; {sample(comparison, protocol)}",)


def sample(comparison: Comparison, protocol: str) -> str:
    """Seeds, episodes, protocol and kind of interval, for captions."""
    trained = [each for each in comparison.by_game if each.contender.method not in ("random", "data")]
    each_game = trained or list(comparison.by_game)
    if not each_game:
        return f"{protocol}. {INTERVALS}."
    seeds = spread([standing.seeds for standing in each_game], "seed")
    episodes = spread([standing.episodes for standing in each_game], "episode")
    return f"{seeds} and {episodes} in all for each player in each game; {protocol}. {INTERVALS}."


def games_counted(comparison: Comparison) -> str:
    """``6 games (Atlantis, …)``."""
    return f"{counted(len(comparison.games), 'game')} ({', '.join(comparison.games)})"
