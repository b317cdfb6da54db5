"""From episode scores to means, intervals and normalised aggregates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jowa.games import get_game, normalised_score


@dataclass(frozen=True)
class GameScore:
    """One player's scores in one game."""

    game: str
    scores: list[float]
    """Raw points, one an episode."""
    mean: float
    low: float
    high: float
    """Ends of the 95% interval of the mean: Student's t over episodes; the mean itself for one episode."""
    hns: float | None
    """Human-normalised mean, where the game has reference scores."""
    dns: float | None
    """DQN-normalised mean."""


@dataclass(frozen=True)
class Aggregate:
    """Interquartile mean over games of the per-game mean, with a 95% stratified bootstrap interval."""

    iqm: float
    low: float
    high: float
    games: int


def summarise(game: str, scores: Sequence[float]) -> GameScore:
    """Mean, 95% interval and normalised scores of at least one episode."""
    from scipy import stats  # takes most of a second to import

    values = np.asarray(scores, dtype=np.float64)
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    half = float(stats.t.ppf(0.975, len(values) - 1)) * spread if spread > 0 else 0.0
    known = get_game(game)
    hns, dns = (normalised_score(known, mean, kind) if known.scores else None for kind in ("human", "dqn"))
    return GameScore(game, values.tolist(), mean, mean - half, mean + half, hns, dns)


def interquartile_mean_of_games(scores: NDArray[np.float64]) -> float:
    """IQM over games of the per-game mean, for ``scores`` (episodes, games)."""
    from scipy import stats

    return float(stats.trim_mean(scores.mean(axis=0), proportiontocut=0.25))


def aggregate(results: Sequence[GameScore], reference: str, seed: int = 0, resamples: int = 2000) -> Aggregate | None:
    """The IQM over the games that have reference scores (``human`` or ``dqn``); None when there are none.

    Needs the same number of episodes in every game.  The interval resamples episodes within each game
    (rliable, Agarwal et al. 2021).
    """
    from rliable.library import get_interval_estimates

    scored = [result for result in results if get_game(result.game).scores]
    if not scored:
        return None
    columns = [[normalised_score(get_game(r.game), score, reference) for score in r.scores] for r in scored]
    matrix = np.array(columns, dtype=np.float64).T
    point = interquartile_mean_of_games(matrix)
    if len(matrix) == 1:
        return Aggregate(point, point, point, len(scored))
    with _numpy_seed(seed):
        _, intervals = get_interval_estimates(
            {"agent": matrix},
            lambda resampled: np.array([interquartile_mean_of_games(resampled)]),
            reps=resamples,
        )
    low, high = intervals["agent"][:, 0]
    return Aggregate(point, float(low), float(high), len(scored))


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which rliable resamples with whatever ``random_state`` says; then put it back."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
