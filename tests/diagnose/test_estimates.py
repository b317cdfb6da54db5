"""Figures and intervals against arithmetic by hand and against known distributions."""

from __future__ import annotations

import numpy as np
import pytest

from jowa.diagnose.estimates import Resampler, correlation, products, quantile_bins, wilson


def test_weighted_ratios_are_the_quotient_of_the_sums() -> None:
    resampler = Resampler(np.array([0, 0, 1, 2]))
    found = resampler.share(np.array([1, 0, 1, 0]), np.array([1, 1, 1, 1]), np.array([1.0, 1.0, 4.0, 2.0]))
    assert found.value == pytest.approx(5 / 8) and found.n == 4
    assert resampler.ratio(np.array([3, 1, 0, 2]), np.array([1, 1, 1, 0])).value == pytest.approx(6 / 3)


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(1).normal(size=400)
    found = Resampler(np.arange(400)).mean(values)
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)


def test_units_are_resampled_and_not_observations() -> None:
    """Ten copies of each observation add nothing when they are one unit."""
    values = np.random.default_rng(2).normal(size=30)
    alone = Resampler(np.arange(30)).mean(values)
    copied = Resampler(np.repeat(np.arange(30), 10)).mean(np.repeat(values, 10))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    assert copied.n == 300


def test_wilsons_interval() -> None:
    # 10 trials, none: z² / (n + z²); 4 of 10: 0.168 to 0.687 (Brown, Cai and DasGupta 2001).
    assert wilson(0.0, 10) == pytest.approx((0.0, 1.959964**2 / (10 + 1.959964**2)))
    assert wilson(0.4, 10) == pytest.approx((0.168, 0.687), abs=5e-4)


def test_where_all_units_agree_a_share_gets_wilsons_interval() -> None:
    units = np.array([0, 0, 1, 2, 3])
    none = Resampler(units).share(np.zeros(5), np.array([1, 1, 1, 1, 0]))
    assert (none.value, none.low, none.n) == (0.0, 0.0, 4)
    assert none.high == pytest.approx(wilson(0.0, 3)[1]), "three units hold something to be a share of"
    constant = Resampler(units).mean(np.full(5, 2.0))
    assert (constant.value, constant.low, constant.high) == (2.0, None, None)


def test_nothing_to_measure_is_said() -> None:
    nothing = Resampler(np.zeros(0, np.int64)).mean(np.zeros(0))
    assert (nothing.value, nothing.low, nothing.high, nothing.n) == (None, None, None, 0)
    assert Resampler(np.arange(3)).share(np.zeros(3), np.zeros(3)).value is None


def test_correlation() -> None:
    x, y = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 1, 4, 3, 5])
    assert correlation(products(x, y).sum(0)) == pytest.approx(0.8)
    assert np.isnan(correlation(products(x, np.full(5, 0.1)).sum(0)))


def test_bins_are_equally_full_and_equal_values_share_one() -> None:
    assert np.bincount(quantile_bins(np.arange(100.0))).tolist() == [10] * 10
    tied = quantile_bins(np.array([0.0] * 90 + list(range(1, 11))))
    assert len(set(tied[:90].tolist())) == 1 and tied[-1] > tied[0]
    assert quantile_bins(np.ones(7)).tolist() == [0] * 7
