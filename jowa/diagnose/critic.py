"""The critic against the returns that really followed.

The data were played by somebody else, so a return is what that somebody earned after the action, and not what the
greedy policy, whose value Q is meant to be, would have earned: bias and error are relative to the data's policy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jowa.diagnose.estimates import Estimate, Floats, Resampler, correlation, products, quantile_bins


@dataclass(frozen=True)
class CriticMoments:
    """What the critic says at N moments, and what followed; all in clipped reward."""

    q: Floats
    """(N,): Q of the recorded action, the ensemble's mean."""
    spread: Floats
    """(N,): standard deviation of it over the ensemble."""
    gap: Floats
    """(N,): Q of the best legal action less that of the second; 0 in a game with one."""
    agrees: NDArray[np.bool_]
    """(N,): the recorded action is the greedy one."""
    returns: Floats
    """(N,): discounted; NaN where a cut-off hides it."""


@dataclass(frozen=True)
class Bin:
    """Moments of similar return, or of similar spread."""

    n: int
    centre: float
    """Mean return, or mean spread."""
    q: float
    """Mean Q."""
    error: Estimate
    """Mean Q less return where the returns are similar; mean |Q - return| where the spreads are."""


@dataclass(frozen=True)
class CriticFigures:
    """How good the critic is."""

    n: int
    hidden: int
    """Moments left out because a cut-off hides what followed."""
    bias: Estimate
    """Mean of Q - return."""
    rmse: Estimate
    rmse_constant: Estimate
    """Of saying the mean return always."""
    absolute_error: Estimate
    correlation: Estimate
    """Pearson's, of Q and return."""
    spread: Estimate
    """Mean over moments; 0 with an ensemble of one."""
    spread_rank_correlation: Estimate
    """Spearman's, of spread and |Q - return|: 1 if the ensemble knows where it errs, 0 if its doubt says nothing."""
    gap: Estimate
    """Mean of best less second Q."""
    gap_median: float | None
    agreement: Estimate
    """Share of recorded actions that are greedy."""
    by_return: list[Bin]
    by_spread: list[Bin]


def critic_figures(moments: CriticMoments, units: NDArray[np.int64], seed: int) -> CriticFigures:
    """All figures; ``units`` int64 (N,) are resampled for the intervals."""
    known = np.isfinite(moments.returns)
    everywhere, here = Resampler(units, seed), Resampler(units[known], seed)
    q, spread, returns = moments.q[known], moments.spread[known], moments.returns[known]
    error, n = q - returns, int(known.sum())
    ones = np.ones(n)

    def root(values: Floats) -> Estimate:
        return here.estimate(np.stack([values**2, ones], 1), lambda s: np.sqrt(s[..., 0] / s[..., 1]), n)

    def related(x: Floats, y: Floats) -> Estimate:
        return here.estimate(products(x, y), correlation, n) if n else Estimate(None, None, None, 0)

    return CriticFigures(
        n=n,
        hidden=len(known) - n,
        bias=here.mean(error),
        rmse=root(error),
        rmse_constant=root(returns - returns.mean()) if n else Estimate(None, None, None, 0),
        absolute_error=here.mean(np.abs(error)),
        correlation=related(q, returns),
        spread=everywhere.mean(moments.spread),
        spread_rank_correlation=related(_ranks(spread), _ranks(np.abs(error))),
        gap=everywhere.mean(moments.gap),
        gap_median=float(np.median(moments.gap)) if len(moments.gap) else None,
        agreement=everywhere.share(moments.agrees, np.ones(len(known))),
        by_return=_bins(returns, q, error, units[known], seed),
        by_spread=_bins(spread, q, np.abs(error), units[known], seed) if spread.any() else [],
    )


def _ranks(values: Floats) -> Floats:
    """(N,), ties sharing their mean rank."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values), dtype=np.float64)


def _bins(by: Floats, q: Floats, error: Floats, units: NDArray[np.int64], seed: int) -> list[Bin]:
    """At most ten, equally full unless many of ``by`` (N,) are equal."""
    if not len(by):
        return []
    found = []
    places = quantile_bins(by)
    for place in np.unique(places):
        mine = places == place
        estimate = Resampler(units[mine], seed).mean(error[mine])
        found.append(Bin(int(mine.sum()), float(by[mine].mean()), float(q[mine].mean()), estimate))
    return found
