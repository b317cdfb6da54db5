"""Means, intervals and normalised aggregates against numbers worked out by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from jowa.errors import UsageError
from jowa.evaluate import aggregate, summarise
from jowa.evaluate.scores import interquartile_mean_of_games
from jowa.games import normalised_score

PUBLISHED = {  # the paper's table of scores, JOWA-150M with planning
    "Assault": 1458.6, "Atlantis": 2841262.5, "BeamRider": 2927.0, "Berzerk": 496.9, "Carnival": 4910.0,
    "Centipede": 7117.0, "ChopperCommand": 3925.0, "DemonAttack": 9296.6, "NameThisGame": 9380.0, "Phoenix": 5230.0,
    "Seaquest": 1413.8, "SpaceInvaders": 1036.9, "StarGunner": 53237.5, "TimePilot": 3975.0, "Zaxxon": 331.2,
}  # fmt: skip


def test_the_published_aggregate_comes_out() -> None:
    results = [summarise(game, [score]) for game, score in PUBLISHED.items()]
    found = aggregate(results, "human")
    assert found is not None and found.games == 15
    assert found.iqm == pytest.approx(0.847, abs=0.001)
    assert found.low == found.high == found.iqm, "one episode a game says nothing about the spread"


def test_the_interquartile_mean_is_over_games_of_their_means() -> None:
    # Per-game means 1, 2, 30, 4: the middle half is 2 and 4. Over all episodes it would be something else.
    scores = np.array([[0.0, 2, 60, 4], [2.0, 2, 0, 4]])
    assert interquartile_mean_of_games(scores) == 3.0
    assert interquartile_mean_of_games(np.array([[1.0, 2, 3]])) == 2.0


def test_mean_interval_and_normalised_scores() -> None:
    result = summarise("Pong", [1.0, 3.0, 5.0])
    assert (result.mean, result.scores) == (3.0, [1.0, 3.0, 5.0])
    # Student's t for 2 degrees of freedom is 4.3027; the standard error 2 / sqrt(3).
    assert result.high - result.mean == pytest.approx(4.30265 * 2 / 3**0.5, rel=1e-5)
    assert result.mean - result.low == pytest.approx(result.high - result.mean)
    assert result.hns == pytest.approx((3 + 20.7) / (14.6 + 20.7))
    assert result.dns == pytest.approx((3 + 20.7) / (16.6 + 20.7))


@pytest.mark.parametrize("scores", [[7.0], [7.0, 7.0, 7.0]])
def test_no_spread_no_interval(scores: list[float]) -> None:
    result = summarise("Freeway", scores)
    assert (result.low, result.mean, result.high) == (7.0, 7.0, 7.0)


@pytest.mark.parametrize("seed", range(5))
def test_intervals_contain_the_mean(seed: int) -> None:
    generator = np.random.default_rng(seed)
    games = ["Pong", "Breakout", "Boxing", "Freeway", "Seaquest"]
    results = [summarise(game, generator.exponential(30, 8).tolist()) for game in games]
    assert all(result.low < result.mean < result.high for result in results)
    found = aggregate(results, "human", resamples=300)
    assert found is not None and found.low <= found.iqm <= found.high and found.low < found.high


def test_the_bootstrap_is_stratified_by_game_and_repeatable_and_silent() -> None:
    # Constant games: resampling episodes within a game changes nothing, mixing games would.
    results = [summarise(game, [score] * 4) for game, score in (("Pong", 3.0), ("Breakout", 20.0))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = aggregate(results, "dqn", resamples=100)
    assert found is not None and found.low == found.high == pytest.approx(found.iqm)
    spread = [summarise("Pong", [1.0, 2.0, 8.0])]
    assert aggregate(spread, "dqn", seed=3, resamples=100) == aggregate(spread, "dqn", seed=3, resamples=100)


def test_games_without_reference_scores_are_left_out() -> None:
    unknown = summarise("AirRaid", [100.0])
    assert unknown.hns is None and unknown.dns is None
    assert aggregate([unknown], "human") is None
    both = aggregate([unknown, summarise("Pong", [0.0])], "human")
    assert both is not None and both.games == 1
    from jowa.games import get_game

    assert both.iqm == pytest.approx(normalised_score(get_game("Pong"), 0.0))


def test_unknown_games_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean Pong"):
        summarise("Pongg", [1.0])
