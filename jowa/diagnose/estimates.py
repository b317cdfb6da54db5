"""Figures with intervals: a bootstrap over units that are taken to be independent (episodes, or stretches of them).

Letters: N observations, U units, S sums, B resamples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
NORMAL_95 = 1.959964

Floats = NDArray[np.float64]
Numbers = NDArray[np.number] | NDArray[np.bool_]
Statistic = Callable[[Floats], Floats]
"""From sums (..., S) to a figure (...); NaN where it is not defined."""


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95% interval, and what it rests on; None where there was nothing to measure it by."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Observations (of a share: what it is a share of), each counted once whatever its weight."""


class Resampler:
    """Draws the units anew; every figure of one set of observations is resampled in the same way."""

    def __init__(self, units: NDArray[np.int64], seed: int = 0) -> None:
        """``units`` int64 (N,): which unit each observation belongs to."""
        names, self._index = np.unique(units, return_inverse=True)
        self.units = len(names)
        generator = np.random.default_rng(seed)
        shares = np.full(max(self.units, 1), 1 / max(self.units, 1))
        drawn = generator.multinomial(self.units, shares, size=RESAMPLES)
        self._drawn = drawn[:, : self.units].astype(np.float64)

    def estimate(self, columns: Floats, statistic: Statistic, n: int, share: bool = False) -> Estimate:
        """``statistic`` of the sums of ``columns`` (N, S), of which the last is the denominator if it is a share.

        Where all units say the same (one unit, or a share of none or of all), resampling says nothing: a share gets
        Wilson's interval with the units as trials, anything else none.
        """
        sums = np.zeros((self.units, columns.shape[1]))
        np.add.at(sums, self._index, columns)
        with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)
            value = float(statistic(sums.sum(0)))
            if not np.isfinite(value):
                return Estimate(None, None, None, n)
            low, high = np.nanpercentile(statistic(self._drawn @ sums), [2.5, 97.5])
        if high - low > 1e-9 * abs(value):
            return Estimate(value, float(low), float(high), n)
        if share:
            return Estimate(value, *wilson(min(max(value, 0.0), 1.0), int((sums[:, -1] > 0).sum())), n)
        return Estimate(value, None, None, n)

    def ratio(self, above: Numbers, below: Numbers, weights: Floats | None = None) -> Estimate:
        """Σ w ``above`` / Σ w ``below``, each (N,)."""
        return self._ratio(above, below, weights, share=False, n=int(np.sum(below)))

    def share(self, hits: Numbers, of: Numbers, weights: Floats | None = None) -> Estimate:
        """How much of ``of`` are ``hits``, both (N,) counts; between 0 and 1."""
        return self._ratio(hits, of, weights, share=True, n=int(np.sum(of)))

    def mean(self, values: Numbers) -> Estimate:
        """Of ``values`` (N,)."""
        return self.ratio(values, np.ones(len(values)))

    def _ratio(self, above: Numbers, below: Numbers, weights: Floats | None, share: bool, n: int) -> Estimate:
        columns = np.stack([above, below], 1).astype(np.float64)
        if weights is not None:
            columns *= weights[:, None]
        return self.estimate(columns, lambda sums: sums[..., 0] / sums[..., 1], n, share)


def wilson(share: float, trials: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share seen in so many independent trials."""
    z2 = NORMAL_95**2 / trials
    centre = (share + z2 / 2) / (1 + z2)
    half = NORMAL_95 / (1 + z2) * (share * (1 - share) / trials + z2 / (4 * trials)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def correlation(sums: Floats) -> Floats:
    """Pearson's, from sums (..., 6) of 1, x, y, x², y², xy; NaN where x or y does not vary."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread = np.maximum(xx - x * x / n, 0) * np.maximum(yy - y * y / n, 0)
    tiny = 1e-12 * np.maximum(xx, 1e-300) * np.maximum(yy, 1e-300)
    return np.where(spread > tiny, (xy - x * y / n) / np.sqrt(np.maximum(spread, 1e-300)), np.nan)


def products(x: Floats, y: Floats) -> Floats:
    """Columns (N, 6) for :func:`correlation`; x and y (N,) are centred first, which changes nothing but rounding."""
    x, y = x - x.mean(), y - y.mean()
    return np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], 1)


def quantile_bins(values: Floats, bins: int = 10) -> NDArray[np.int64]:
    """int64 (N,): the bin of each of ``values`` (N,), of at most ``bins`` equally full ones; equal values share one."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, max(len(edges) - 2, 0))
