"""From results to comparisons: interquartile means, performance profiles, probabilities of improvement.

Statistics are those of rliable (Agarwal et al. 2021), on matrices of runs by games: a run is one training (a seed), its
score in a game the mean over its episodes, normalised.  :mod:`jowa.suite.bootstrap` says where intervals come from.
What is missing is left out and named in the notes, never filled in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jowa.errors import DataError
from jowa.games import get_game, normalised_score
from jowa.suite.bootstrap import (
    Floats,
    Interval,
    intervals,
    intervals_between,
    iqm,
    mean,
    median,
    optimality_gap,
    probability_of_improvement,
    profile,
    run_scores,
)
from jowa.suite.results import Method, Planned, Result
from jowa.suite.results import describe_planned as describe_planned  # for those who name contenders

Reference = Literal["human", "dqn"]
GROUPS = ("methods", "scale", "ablations", "planning", "transfer")
LEAST_SEEDS, LEAST_EPISODES = 3, 10
UNTRAINED = ("random", "data")
"""Methods without a training, which have no seeds to compare."""
PROFILE_POINTS = 41


@dataclass(frozen=True)
class Contender:
    """What is compared: the results that differ in nothing but the seed and the games."""

    method: Method
    size: str = ""
    variant: str = ""
    planned: Planned = dataclasses.field(default_factory=Planned)
    data: str = ""
    """Quality of the transitions of a transfer, else empty."""
    pretrained: bool | None = None
    """Whether a transfer starts from a pretrained agent; None where nothing is trained for one."""
    protocol: str = ""
    """Empty for sticky actions, the usual one."""

    @staticmethod
    def of(result: Result) -> Contender:
        """The contender that ``result`` is of."""
        transfer = result.transfer
        trained = transfer is not None and result.method not in UNTRAINED
        return Contender(
            result.method, result.size, result.variant, result.planned,
            "" if transfer is None else transfer.data, transfer.pretrained if trained and transfer else None,
            str(result.protocol.get("name", "sticky")).replace("sticky", ""),
        )  # fmt: skip

    @property
    def name(self) -> str:
        """For people: ``jowa M``, ``jowa M detach-q``, ``jowa M + beam 2x1``, ``mtbc M fine-tuned``."""
        transfer = {None: "", True: "fine-tuned", False: "from scratch"}[self.pretrained]
        planned = describe_planned(self.planned)
        protocol = f"({self.protocol} protocol)" if self.protocol else ""
        words = (self.method, self.size, self.variant, transfer, f"+ {planned}" if planned else "", protocol)
        return " ".join(word for word in words if word)


@dataclass(frozen=True)
class GameStanding:
    """One contender in one game, all its seeds and episodes."""

    contender: Contender
    game: str
    score: Interval
    """Mean in game points; of one episode alone the interval is the mean itself."""
    normalised: Interval | None
    """The same, normalised; None for a game without reference scores."""
    seeds: int
    episodes: int
    """Of all seeds together."""
    results: tuple[str, ...]
    """Ids of the results that it comes from."""


@dataclass(frozen=True)
class Standing:
    """One contender over the games of a comparison."""

    contender: Contender
    seeds: tuple[int, ...]
    """Those that played every game of the comparison."""
    episodes: int
    """Fewest episodes of a seed in a game."""
    iqm: Interval
    """Interquartile mean of the normalised scores of all runs in all games."""
    mean: Interval
    median: Interval
    """Over games, of the mean over runs."""
    optimality_gap: Interval
    """How far scores fall short of the reference player's, on average; what lies above him does not make up for it."""
    profile: tuple[Interval, ...]
    """Share of runs and games above each of the comparison's ``taus``."""
    parameters: int
    seconds: float
    """Of training, mean over seeds."""
    results: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """Two contenders beside each other."""

    x: Contender
    y: Contender
    improvement: Interval
    """Probability that a run of x beats a run of y in a game, mean over games; ties count half."""
    gain: Interval
    """IQM of x less that of y."""
    same_agents: bool
    """Whether both are the same trained agents, played in two ways: their seeds are then drawn together."""


@dataclass(frozen=True)
class Comparison:
    """Contenders beside one another."""

    reference: Reference
    """Who scores 1 after normalisation."""
    games: tuple[str, ...]
    """Games that all contenders have in common and that can be normalised: what the aggregates are over."""
    taus: tuple[float, ...]
    """Normalised scores at which the profiles are taken."""
    standings: tuple[Standing, ...]
    """In the order of the results; empty where no game is common to all."""
    by_game: tuple[GameStanding, ...]
    """Every contender in every game that it played."""
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]
    """What is missing, in sentences."""


@dataclass(frozen=True)
class Runs:
    """The scores of one contender."""

    contender: Contender
    games: tuple[str, ...]
    seeds: tuple[int, ...]
    scores: Floats
    """float64 (seeds, games, episodes), NaN behind the last episode of a cell."""


Cells = dict[tuple[int, str], tuple[float, ...]]
"""Raw scores of the episodes by (seed, game)."""


def compare(
    results: Sequence[Result],
    against: Contender | None = None,
    reference: Reference = "human",
    against_first: bool = False,
) -> Comparison:
    """All contenders among ``results``, each paired with ``against`` (none: no pairs), which is the y of each pair, or
    with ``against_first`` the x.

    Raises :class:`DataError` when two results hold the same game of the same contender and seed.
    """
    cells = _gather(results)
    by_game = [standing for contender, own in cells.items() for standing in _by_game(contender, own, results)]
    games, notes = _common_games(cells)
    runs = {}
    for contender, own in cells.items():
        kept, said = _complete(contender, own, games, reference)
        notes += said
        if kept is not None:
            runs[contender] = kept
    taus = _taus(runs.values())
    return Comparison(
        reference, games, tuple(taus.tolist()),
        tuple(_standing(each, taus, results) for each in runs.values()),
        tuple(dataclasses.replace(each, normalised=_normalised(each, reference)) for each in by_game),
        _pairs(runs, against, against_first), tuple(notes),
    )  # fmt: skip


def compare_group(results: Iterable[Result], group: str, reference: Reference = "human") -> dict[str, Comparison]:
    """The comparisons of one of :data:`GROUPS` by name: ``group`` itself, or ``transfer/expert`` and so on.

    Pairs: every rival under the agent as it is (``methods``, ``transfer``); elsewhere every change over it.
    """
    chosen = [result for result in results if group in result.groups]
    if group != "transfer":
        return {group: _compare_with_usual(chosen, group, reference)} if chosen else {}
    qualities = [quality for quality in ("expert", "mixed", "weak") if any(_quality(r) == quality for r in chosen)]
    return {
        f"transfer/{quality}": _compare_with_usual(
            [r for r in chosen if _quality(r) in ("", quality)], group, reference
        )
        for quality in qualities
    }


def _quality(result: Result) -> str:
    return "" if result.transfer is None else result.transfer.data


def _compare_with_usual(results: Sequence[Result], group: str, reference: Reference) -> Comparison:
    """The agent as it is: no variant, greedy, pretrained where there is a choice, of the smallest size there is."""
    cheapest = sorted(results, key=lambda result: result.training.parameters)
    usual = [
        one for one in map(Contender.of, cheapest)
        if one.method == "jowa" and one.planned.name == "none" and one.pretrained is not False and not one.protocol
        and (group == "planning" or not one.variant)
    ]  # fmt: skip
    return compare(results, usual[0] if usual else None, reference, group in ("methods", "transfer"))


def _gather(results: Sequence[Result]) -> dict[Contender, Cells]:
    gathered: dict[Contender, Cells] = {}
    for result in results:
        cells = gathered.setdefault(Contender.of(result), {})
        for game, played in result.games.items():
            if (result.seed, game) in cells:
                raise DataError(
                    f"two results hold {game} of {Contender.of(result).name}, seed {result.seed}, one of them "
                    f"{result.id}: move one away"
                )
            cells[result.seed, game] = played.scores
    return gathered


def _common_games(cells: Mapping[Contender, Cells]) -> tuple[tuple[str, ...], list[str]]:
    """Games with reference scores that every contender played, and what to say about the others."""
    played = {contender: {game for _, game in own} for contender, own in cells.items()}
    everywhere = sorted(set().union(*played.values()))
    games, notes = [], []
    for game in everywhere:
        without = [contender.name for contender, own in played.items() if game not in own]
        if get_game(game).scores is None:
            notes.append(f"{game} has no reference scores: the aggregates leave it out.")
        elif without:
            notes.append(f"{', '.join(without)} did not play {game}: the aggregates leave the game out.")
        else:
            games.append(game)
    if cells and not games:
        notes.append("No game is common to all: there are no aggregates.")
    return tuple(games), notes


def _complete(
    contender: Contender, cells: Cells, games: tuple[str, ...], reference: Reference
) -> tuple[Runs | None, list[str]]:
    """The seeds that played all ``games``, normalised, and what to say about the others; None without games."""
    seeds = sorted({seed for seed, _ in cells})
    kept = [seed for seed in seeds if all((seed, game) in cells for game in games)]
    notes = [
        f"{contender.name}: seed {seed} did not play all games, so the aggregates leave it out."
        for seed in seeds if seed not in kept
    ]  # fmt: skip
    if not games or not kept:
        return None, notes
    if len(kept) < LEAST_SEEDS and contender.method not in UNTRAINED:
        of = "its episodes alone" if len(kept) == 1 else "few trainings"
        notes.append(f"{contender.name} has {len(kept)} of {LEAST_SEEDS} seeds: its intervals are of {of}.")
    fewest = min(len(cells[seed, game]) for seed in kept for game in games)
    if fewest < LEAST_EPISODES:
        notes.append(f"{contender.name} has {fewest} of {LEAST_EPISODES} episodes a game and seed.")
    normalised = {
        (seed, game): tuple(normalised_score(get_game(game), score, reference) for score in cells[seed, game])
        for seed in kept for game in games
    }  # fmt: skip
    return Runs(contender, games, tuple(kept), padded(normalised, kept, games)), notes


def padded(cells: Cells, seeds: Sequence[int], games: Sequence[str]) -> Floats:
    """float64 (seeds, games, episodes) of complete ``cells``, NaN behind the last episode of each."""
    longest = max(len(cells[seed, game]) for seed in seeds for game in games)
    scores = np.full((len(seeds), len(games), longest), np.nan)
    for row, seed in enumerate(seeds):
        for column, game in enumerate(games):
            episodes = cells[seed, game]
            scores[row, column, : len(episodes)] = episodes
    return scores


def _taus(runs: Iterable[Runs]) -> Floats:
    """From below the lowest run's score to the highest's, at least 0 to 1."""
    means = [run_scores(each.scores) for each in runs]
    low, high = min([0.0, *(float(m.min()) for m in means)]), max([1.0, *(float(m.max()) for m in means)])
    return np.linspace(low, high, PROFILE_POINTS)


def _standing(runs: Runs, taus: Floats, results: Sequence[Result]) -> Standing:
    def statistics(scores: Floats) -> Floats:
        """Of run scores (..., N, M): four aggregates, then the profile."""
        aggregates = np.stack([iqm(scores), mean(scores), median(scores), optimality_gap(scores)], axis=-1)
        return np.concatenate([aggregates, profile(scores, taus)], axis=-1)

    middle, average, typical, gap, *above = intervals(statistics, runs.scores)
    own = [r for r in results if Contender.of(r) == runs.contender and r.seed in runs.seeds]
    trained = {r.seed: r.training for r in own}
    return Standing(
        runs.contender, runs.seeds, int((~np.isnan(runs.scores)).sum(axis=2).min()), middle, average, typical, gap,
        tuple(above), max(t.parameters for t in trained.values()),
        float(np.mean([t.seconds for t in trained.values()])), tuple(sorted(r.id for r in own)),
    )  # fmt: skip


def _by_game(contender: Contender, cells: Cells, results: Sequence[Result]) -> list[GameStanding]:
    found = []
    for game in sorted({game for _, game in cells}):
        seeds = sorted(seed for seed, name in cells if name == game)
        scores = padded(cells, seeds, [game])
        (score,) = intervals(lambda runs: runs.mean(axis=-2), scores)
        ids = tuple(sorted(r.id for r in results if Contender.of(r) == contender and game in r.games))
        found.append(GameStanding(contender, game, score, None, len(seeds), int((~np.isnan(scores)).sum()), ids))
    return found


def _normalised(standing: GameStanding, reference: Reference) -> Interval | None:
    game, score = get_game(standing.game), standing.score
    if game.scores is None:
        return None
    return Interval(*(normalised_score(game, value, reference) for value in (score.value, score.low, score.high)))


def _pairs(runs: Mapping[Contender, Runs], against: Contender | None, first: bool) -> tuple[Pair, ...]:
    if against is None or against not in runs:
        return ()
    others = [one for one in runs if one != against and one.protocol == against.protocol]
    return tuple(_pair(runs[against], runs[one]) if first else _pair(runs[one], runs[against]) for one in others)


def _pair(x: Runs, y: Runs) -> Pair:
    one, other = x.contender, y.contender
    same = dataclasses.replace(one, planned=other.planned) == other and x.seeds == y.seeds
    if same:
        episodes = max(x.scores.shape[2], y.scores.shape[2])
        both = np.concatenate([_widened(x.scores, episodes), _widened(y.scores, episodes)], axis=1)
        games = len(x.games)
        improvement, gain = intervals(lambda drawn: _beside(drawn[..., :games], drawn[..., games:]), both, tied=2)
    else:
        improvement, gain = intervals_between(_beside, x.scores, y.scores)
    return Pair(one, other, improvement, gain, same)


def _widened(scores: Floats, episodes: int) -> Floats:
    return np.pad(scores, ((0, 0), (0, 0), (0, episodes - scores.shape[2])), constant_values=np.nan)


def _beside(x: Floats, y: Floats) -> Floats:
    """(..., 2): probability of improvement and gain in IQM of run scores x (..., N, M) over y (..., N', M)."""
    return np.stack([probability_of_improvement(x, y), iqm(x) - iqm(y)], axis=-1)


def summary_document(comparisons: Mapping[str, Comparison]) -> dict[str, Any]:
    """Ready for JSON; each contender also by its name."""

    def plain(value: Any) -> Any:
        if isinstance(value, Contender):
            return {"name": value.name, **dataclasses.asdict(value)}
        if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return [plain(one) for one in value] if isinstance(value, tuple) else value

    return {name: plain(comparison) for name, comparison in comparisons.items()}
