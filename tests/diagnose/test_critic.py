"""The critic's figures against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest

from jowa.diagnose.critic import CriticMoments, critic_figures


def moments(q: list[float], returns: list[float], spread: list[float] | None = None) -> CriticMoments:
    n = len(q)
    doubt = np.zeros(n) if spread is None else np.array(spread)
    agrees = np.arange(n) % 2 == 0
    return CriticMoments(np.array(q), doubt, np.linspace(0, 1, n), agrees, np.array(returns))


def test_errors_by_hand() -> None:
    found = critic_figures(moments([1, 2, 3, 9], [0, 2, 5, np.nan]), np.arange(4), seed=0)
    assert (found.n, found.hidden) == (3, 1)
    assert found.bias.value == pytest.approx(-1 / 3)
    assert found.rmse.value == pytest.approx((5 / 3) ** 0.5)
    assert found.absolute_error.value == pytest.approx(1.0)
    assert found.rmse_constant.value == pytest.approx(np.std([0, 2, 5]))
    assert found.correlation.value == pytest.approx(np.corrcoef([1, 2, 3], [0, 2, 5])[0, 1])
    assert found.agreement.value == 0.5 and found.agreement.n == 4
    assert found.gap.value == pytest.approx(0.5) and found.gap_median == pytest.approx(0.5)


def test_an_ensemble_that_knows_where_it_errs() -> None:
    error = np.linspace(0.1, 2, 40)
    known = critic_figures(moments((5 + error).tolist(), [5.0] * 40, (error**3).tolist()), np.arange(40), 0)
    assert known.spread_rank_correlation.value == pytest.approx(1.0)
    assert known.correlation.value is None, "returns that are all the same correlate with nothing"
    assert [b.n for b in known.by_spread] == [4] * 10
    errors = [b.error.value for b in known.by_spread]
    assert errors == sorted(errors) and errors[0] == pytest.approx(error[:4].mean())
    opposite = critic_figures(moments((5 + error).tolist(), [5.0] * 40, (3 - error).tolist()), np.arange(40), 0)
    assert opposite.spread_rank_correlation.value == pytest.approx(-1.0)


def test_an_ensemble_of_one_has_no_spread() -> None:
    found = critic_figures(moments([1, 2, 4], [1, 2, 3]), np.arange(3), 0)
    assert found.spread_rank_correlation.value is None and found.by_spread == []


def test_bins_by_return() -> None:
    returns = np.arange(100.0)
    found = critic_figures(moments((returns * 0.5).tolist(), returns.tolist()), np.arange(100), 0)
    assert [b.centre for b in found.by_return] == pytest.approx((np.arange(10) * 10 + 4.5).tolist())
    assert [b.error.value for b in found.by_return] == pytest.approx((-0.5 * (np.arange(10) * 10 + 4.5)).tolist())


def test_every_return_hidden() -> None:
    found = critic_figures(moments([1, 2], [np.nan, np.nan]), np.arange(2), 0)
    assert (found.n, found.hidden, found.bias.value, found.correlation.value) == (0, 2, None, None)
    assert found.by_return == [] and found.agreement.value == 0.5
