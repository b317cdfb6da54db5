"""Aggregates against arithmetic by hand and against rliable itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rliable import library, metrics

from jowa.errors import DataError
from jowa.games import get_game
from jowa.suite import GamePlayed, Planned, Result, Training, Transfer
from jowa.suite.aggregate import Comparison, Contender, compare, compare_group, summary_document
from jowa.suite.bootstrap import (
    Floats,
    intervals,
    intervals_between,
    iqm,
    mean,
    median,
    optimality_gap,
    probability_of_improvement,
    profile,
    resampled,
)
from jowa.suite.results import Method, describe_planned

GAMES = ("Boxing", "Breakout", "Freeway", "Pong")


def a_result(
    method: Method = "jowa", seed: int = 0, hns: tuple[float, ...] = (0.5,) * 10, games: tuple[str, ...] = GAMES,
    planned: Planned | None = None, variant: str = "", transfer: Transfer | None = None, group: str = "methods",
) -> Result:  # fmt: skip
    """Episodes of the human-normalised scores ``hns`` in each of ``games``."""
    scores = {game: get_game(game).scores for game in games}
    played = {
        game: GamePlayed(tuple(known.random + one * (known.human - known.random) for one in hns))
        for game, known in scores.items() if known is not None
    }  # fmt: skip
    name = f"{method}-{variant}-{seed}-{planned}-{transfer}".replace("/", "")
    return Result(
        name, (group,), method, played, "" if method in ("random", "data") else "M", seed, variant,
        planned or Planned(), transfer, Training(seconds=60.0 * (seed + 1), parameters=7),
    )  # fmt: skip


def around(centre: float, seed: int) -> tuple[float, ...]:
    return tuple((centre + 0.1 * np.random.default_rng(seed).standard_normal(10)).tolist())


def only(comparison: Comparison, contender: Contender) -> tuple[float, float, float]:
    (found,) = [each for each in comparison.standings if each.contender == contender]
    return found.iqm.value, found.iqm.low, found.iqm.high


def test_statistics_by_hand() -> None:
    scores = np.array([[0.0, 1.0, 2.0, 9.0], [0.5, 1.5, 3.0, 8.0]])
    assert iqm(scores) == pytest.approx((1.0 + 1.5 + 2.0 + 3.0) / 4), "two of eight cut at each end"
    assert mean(scores) == pytest.approx(25 / 8)
    assert median(scores) == pytest.approx((1.25 + 2.5) / 2)
    assert optimality_gap(scores) == pytest.approx((1.0 + 0.5) / 8)
    assert profile(scores, np.array([0.0, 1.0, 8.5])).tolist() == [7 / 8, 5 / 8, 1 / 8]
    other = np.array([[0.0, 2.0, 2.0, 9.0]])
    assert probability_of_improvement(scores, other) == pytest.approx((0.75 + 0.0 + 0.75 + 0.25) / 4)


def test_statistics_are_those_of_rliable() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(0.4, 0.5, (2, 3, 5)), generator.normal(0.3, 0.5, (2, 4, 5))
    y[1, 0] = x[1, 0]  # ties
    for row in range(2):
        assert iqm(x)[row] == pytest.approx(metrics.aggregate_iqm(x[row]), abs=1e-12)
        assert mean(x)[row] == pytest.approx(metrics.aggregate_mean(x[row]), abs=1e-12)
        assert median(x)[row] == pytest.approx(metrics.aggregate_median(x[row]), abs=1e-12)
        assert optimality_gap(x)[row] == pytest.approx(metrics.aggregate_optimality_gap(x[row]), abs=1e-12)
        taus = np.array([0.0, 0.2, 1.0])
        assert profile(x, taus)[row] == pytest.approx(library.score_distributions(x[row], taus), abs=1e-12)
        expected = metrics.probability_of_improvement(x[row], y[row])
        assert probability_of_improvement(x, y)[row] == pytest.approx(expected, abs=1e-12)


def test_intervals_of_single_episodes_are_those_of_rliable() -> None:
    scores = np.random.default_rng(2).normal(0.5, 0.3, (5, 4, 1))
    (ours,) = intervals(lambda runs: mean(runs)[..., None], scores)
    # any statistic would do; rliable's own takes milliseconds a call
    _, theirs = library.get_interval_estimates(
        {"x": scores[..., 0]}, lambda runs: np.array([metrics.aggregate_mean(runs)]), reps=2000
    )
    width = ours.high - ours.low
    assert ours.value == pytest.approx(float(scores.mean()))
    assert (ours.low, ours.high) == pytest.approx(theirs["x"][:, 0].tolist(), abs=0.1 * width)


def test_both_levels_are_resampled() -> None:
    """The variance of a mean over n seeds of m episodes each: that of the drawn seeds' means and of their episodes."""
    seeds, episodes = np.array([0.0, 1.0, 2.0, 3.0]), np.array([-1.0, 1.0])
    scores: Floats = (seeds[:, None, None] + episodes[None, None, :]).astype(np.float64)
    drawn = resampled(scores).mean(axis=(1, 2))
    assert drawn.var() == pytest.approx(seeds.var() / 4 + episodes.var() / 2 / 4, rel=0.1)
    alone = resampled(scores[:1]).mean(axis=(1, 2))
    assert alone.var() == pytest.approx(episodes.var() / 2, rel=0.1), "one seed still has its episodes"


def test_cells_of_fewer_episodes_are_drawn_as_often_as_they_have() -> None:
    scores = np.full((1, 2, 4), np.nan)
    scores[0, 0], scores[0, 1, :1] = (0.0, 0.0, 4.0, 4.0), 7.0
    drawn = resampled(scores)
    assert set(np.unique(drawn[:, 0, 0])) == {0.0, 1.0, 2.0, 3.0, 4.0} and set(np.unique(drawn[:, 0, 1])) == {7.0}


def test_tied_parts_draw_the_same_seeds() -> None:
    one = np.random.default_rng(3).normal(size=(3, 2, 1))
    drawn = resampled(np.concatenate([one, one + 5.0], axis=1), tied=2)
    assert drawn[:, :, 2:] - drawn[:, :, :2] == pytest.approx(np.full((2000, 3, 2), 5.0))


def test_a_comparison_of_methods() -> None:
    results = [a_result(method, seed, around(centre, seed)) for method, centre in METHODS for seed in range(3)]
    results += [a_result("random", hns=(0.0,) * 10)]
    found = compare_group(results, "methods")["methods"]
    assert found.games == GAMES and not found.notes
    assert [each.contender.name for each in found.standings] == ["jowa M", "mtbc M", "random"]
    means = [np.mean(around(0.8, seed)) for seed in range(3)]
    value, low, high = only(found, Contender("jowa", "M"))
    assert value == pytest.approx(metrics.aggregate_iqm(np.repeat(np.array(means)[:, None], 4, axis=1)))
    assert low < value < high and high - low < 0.2
    assert only(found, Contender("random")) == (0.0, 0.0, 0.0)
    standing = found.standings[0]
    assert standing.seeds == (0, 1, 2) and standing.episodes == 10 and standing.parameters == 7
    assert standing.seconds == 120.0 and len(standing.results) == 3
    pairs = {pair.y.name: pair for pair in found.pairs}
    assert set(pairs) == {"mtbc M", "random"} and all(pair.x.name == "jowa M" for pair in found.pairs)
    assert pairs["random"].improvement.value == 1.0 and not pairs["random"].same_agents
    assert pairs["mtbc M"].gain.value == pytest.approx(value - found.standings[1].iqm.value)
    pong = next(each for each in found.by_game if each.game == "Pong" and each.contender.method == "jowa")
    assert (pong.seeds, pong.episodes) == (3, 30) and pong.normalised is not None
    assert pong.score.value == pytest.approx(-20.7 + float(np.mean(means)) * (14.6 + 20.7))
    assert pong.normalised.low == pytest.approx((pong.score.low + 20.7) / (14.6 + 20.7))
    json.dumps(summary_document({"methods": found}))


METHODS: tuple[tuple[Method, float], ...] = (("jowa", 0.8), ("mtbc", 0.4))


def test_planning_is_compared_on_the_same_agents() -> None:
    """Seeds differ far more than planning changes: tied, the gain is certain all the same."""
    beam = Planned("beam", width=2, horizon=1)
    results = [
        a_result(seed=seed, hns=(seed + gain,) * 10, planned=planned, group="planning")
        for seed in range(3)
        for planned, gain in ((None, 0.0), (beam, 0.1))
    ]
    (pair,) = compare_group(results, "planning")["planning"].pairs
    assert pair.same_agents and pair.x.planned == beam and pair.y.planned == Planned()
    assert (pair.gain.low, pair.gain.value, pair.gain.high) == pytest.approx((0.1, 0.1, 0.1))
    loose = intervals_between(
        lambda x, y: (iqm(x) - iqm(y))[..., None],
        np.array([[[0.1]], [[1.1]], [[2.1]]]),
        np.array([[[0]], [[1]], [[2.0]]]),
    )[0]
    assert loose.low < -0.5, "drawn apart it is not"


def test_transfer_has_a_comparison_for_each_quality() -> None:
    results = [
        a_result(
            seed=seed, hns=around(0.6 if pretrained else 0.2, seed), games=(game,), group="transfer",
            transfer=Transfer(game, quality, 5000, pretrained),
        )
        for game in ("Boxing", "Pong") for quality in ("expert", "weak") for pretrained in (True, False)
        for seed in range(3)
    ]  # fmt: skip
    results += [a_result("random", hns=(0.0,) * 10, games=("Boxing", "Pong"), group="transfer")]
    data = Transfer("Pong", "weak", 5000, pretrained=False)
    results += [a_result("data", games=("Boxing", "Pong"), group="transfer", transfer=data)]
    found = compare_group(results, "transfer")
    assert list(found) == ["transfer/expert", "transfer/weak"]
    assert [each.contender.name for each in found["transfer/weak"].standings][2:] == ["random", "data"]
    expert = found["transfer/expert"]
    assert [each.contender.name for each in expert.standings] == ["jowa M fine-tuned", "jowa M from scratch", "random"]
    assert expert.games == ("Boxing", "Pong") and next(pair.y.name for pair in expert.pairs) == "jowa M from scratch"


def test_what_is_missing_is_said() -> None:
    results = [a_result(seed=0), a_result(seed=1, games=GAMES[:2]), a_result("mtbc", games=GAMES[:3], hns=(0.4,) * 4)]
    found = compare(results, Contender("jowa", "M"))
    assert found.games == GAMES[:3] and found.standings[0].seeds == (0,)
    said = " ".join(found.notes)
    for part in (
        "mtbc M did not play Pong", "jowa M: seed 1 did not play all games", "jowa M has 1 of 3 seeds",
        "mtbc M has 4 of 10 episodes",
    ):  # fmt: skip
        assert part in said
    assert {each.game for each in found.by_game if each.contender.method == "jowa"} == set(GAMES)


def test_without_a_common_game_there_are_no_aggregates() -> None:
    found = compare([a_result(games=("Pong",)), a_result("mtbc", games=("Boxing",))], Contender("jowa", "M"))
    assert (
        not found.standings and not found.pairs and "No game is common" in found.notes[-1] and len(found.by_game) == 2
    )
    nothing = compare([])
    assert not nothing.by_game and not nothing.notes
    assert compare_group([a_result()], "scale") == {}


def test_a_game_without_reference_scores_is_left_out() -> None:
    odd = Result("odd", ("methods",), "jowa", {"AirRaid": GamePlayed((1.0,)), "Pong": GamePlayed((1.0,))}, "M")
    found = compare([odd])
    assert found.games == ("Pong",) and "AirRaid has no reference scores" in " ".join(found.notes)
    assert [each.normalised is None for each in found.by_game] == [True, False]


def test_the_same_seed_twice_is_refused() -> None:
    with pytest.raises(DataError, match="two results hold Boxing of jowa M, seed 0"):
        compare([a_result(), a_result()])


@pytest.mark.parametrize(
    ("planned", "words"),
    [
        (Planned(), ""),
        (Planned("beam", 3, 2, ends=False), "beam 3x2, without ends"),
        (Planned("mcts", simulations=16, uncertainty=1.0, context=2), "mcts 16, uncertainty 1, memory 2"),
        (Planned("beam", 2, 1, td_lambda=0.25), "beam 2x1, lambda 0.25"),
    ],
)
def test_planned_in_words(planned: Planned, words: str) -> None:
    assert describe_planned(planned) == words
