"""rliable's statistics (Agarwal et al. 2021), with intervals over seeds and the episodes within them.

rliable resamples runs within each game and takes each run's score for exact.  Here a run's score is the mean of some
ten episodes, so its episodes are resampled too: an interval then holds what another training and other games of chance
would change, and one seed alone still has an interval, that of its episodes.

All resamples are computed at once: rliable calls a function for each, which took minutes for a table.  Tests hold the
statistics, and the intervals of single episodes, against rliable's own.

Letters: N runs (seeds), M games, E episodes, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

RESAMPLES = 2000
COVERAGE = 0.95


@dataclass(frozen=True)
class Interval:
    """A number with the ends of its 95% interval."""

    value: float
    low: float
    high: float


def run_scores(scores: Floats) -> Floats:
    """(N, M), the mean over episodes of ``scores`` (N, M, E), NaN behind the last episode of a cell."""
    return np.nanmean(scores, axis=2)


def resampled(scores: Floats, seed: int = 0, tied: int = 1) -> Floats:
    """Run scores (R, N, M) of resamples of ``scores`` (N, M, E): seeds within each game, episodes within each seed.

    ``tied``: so many parts side by side along M are the same runs, played in other ways: they are drawn together.
    """
    generator = np.random.default_rng(seed)
    runs, games, episodes = scores.shape
    chosen = np.tile(generator.integers(runs, size=(RESAMPLES, runs, games // tied, 1)), (1, 1, tied, 1))
    columns = np.arange(games)[:, None]
    counts, place = (~np.isnan(scores)).sum(axis=2)[chosen, columns], np.arange(episodes)
    drawn = (generator.random((RESAMPLES, runs, games, episodes)) * counts).astype(np.int64)
    kept = place < counts  # a cell is drawn as often as it has episodes
    return np.where(kept, scores[chosen, columns, np.where(kept, drawn, 0)], 0.0).sum(axis=3) / counts[..., 0]


def intervals(statistic: Callable[[Floats], Floats], scores: Floats, seed: int = 0, tied: int = 1) -> list[Interval]:
    """Percentile intervals of ``statistic``, which maps run scores (..., N, M) to numbers (..., S), of ``scores``
    (N, M, E); ``tied`` as in :func:`resampled`."""
    return _intervals(statistic(run_scores(scores)), statistic(resampled(scores, seed, tied)))


def intervals_between(
    statistic: Callable[[Floats, Floats], Floats], x: Floats, y: Floats, seed: int = 0
) -> list[Interval]:
    """The same for a ``statistic`` of two methods' run scores, drawn independently of each other."""
    drawn = statistic(resampled(x, 2 * seed), resampled(y, 2 * seed + 1))
    return _intervals(statistic(run_scores(x), run_scores(y)), drawn)


def _intervals(points: Floats, drawn: Floats) -> list[Interval]:
    """Of statistics (S,) and what they are in the resamples (R, S)."""
    ends = np.quantile(drawn, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0)
    return [Interval(float(value), float(low), float(high)) for value, low, high in zip(points, *ends, strict=True)]


def iqm(scores: Floats) -> Floats:
    """Interquartile mean over runs and games of run scores (..., N, M)."""
    return np.asarray(stats.trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1))


def mean(scores: Floats) -> Floats:
    """Mean over runs and games of run scores (..., N, M)."""
    return np.asarray(scores.mean(axis=(-2, -1)))


def median(scores: Floats) -> Floats:
    """Median over games of the mean over runs, of run scores (..., N, M)."""
    return np.asarray(np.median(scores.mean(axis=-2), axis=-1))


def optimality_gap(scores: Floats) -> Floats:
    """Mean of what run scores (..., N, M) fall short of 1; what lies above does not make up for it."""
    return np.asarray(1.0 - np.minimum(scores, 1.0).mean(axis=(-2, -1)))


def profile(scores: Floats, taus: Floats) -> Floats:
    """(..., T): share of runs and games of (..., N, M) above each of ``taus`` (T,)."""
    return np.stack([(scores > tau).mean(axis=(-2, -1)) for tau in taus], axis=-1)


def probability_of_improvement(x: Floats, y: Floats) -> Floats:
    """Mean over games of the probability that a run of x (..., N, M) beats one of y (..., N', M); ties count half."""
    one, other = x[..., :, None, :], y[..., None, :, :]
    return np.asarray(((one > other) + 0.5 * (one == other)).mean(axis=(-3, -2, -1)))
