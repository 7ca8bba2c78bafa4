"""Probabilistic and deflated Sharpe ratios: published numbers, laws and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import norm

from drl_ray_tracking.analysis import selection
from drl_ray_tracking.analysis.selection import (
    deflated_sharpe_ratio,
    expected_maximum_sharpe,
    minimum_track_record_length,
    probabilistic_sharpe_ratio,
)
from drl_ray_tracking.errors import DataError

_sharpe = st.floats(-0.5, 0.5)
_trials = st.floats(1, 1e6)


@st.composite
def _shapes(draw):
    skew = draw(st.floats(-3, 3))
    return skew, 1 + skew**2 + draw(st.floats(0.1, 20))


def test_the_public_contract_is_importable_from_selection():
    assert set(selection.__all__) >= {
        "deflated_sharpe_ratio",
        "effective_number_of_trials",
        "expected_maximum_sharpe",
        "minimum_track_record_length",
        "probabilistic_sharpe_ratio",
        "probability_of_backtest_overfitting",
    }
    assert all(hasattr(selection, name) for name in selection.__all__)


def test_the_published_probabilistic_sharpe_ratio():
    psr = probabilistic_sharpe_ratio(1.585 / math.sqrt(12), 24, -2.448, 10.164)
    assert psr == pytest.approx(0.913234307, abs=5e-10)


def test_the_published_deflated_sharpe_ratio():
    assert expected_maximum_sharpe(100, 0.002) == pytest.approx(0.1132, abs=5e-5)
    dsr = deflated_sharpe_ratio(2.5 / math.sqrt(250), 1250, -3, 10, 100, 0.002)
    assert dsr == pytest.approx(0.9003968, abs=5e-8)


def test_the_published_minimum_track_record_length():
    months = minimum_track_record_length(2 / math.sqrt(12), -0.72, 5.78, 1 / math.sqrt(12), 0.95)
    assert months == pytest.approx(59.895, abs=5e-4)


def test_normal_returns_have_the_textbook_variance():
    # V = 1 + SR^2 / 2 for a normal distribution (Lo 2002).
    expected = norm.cdf(0.1 * math.sqrt(99) / math.sqrt(1 + 0.005))
    assert probabilistic_sharpe_ratio(0.1, 100, 0.0, 3.0) == pytest.approx(expected)


def test_the_probabilistic_sharpe_ratio_is_uniform_under_its_null():
    returns = np.random.default_rng(0).normal(0.1, 1.0, size=(4_000, 250))
    sharpes = returns.mean(axis=1) / returns.std(axis=1, ddof=1)
    values = [probabilistic_sharpe_ratio(s, 250, 0.0, 3.0, benchmark=0.1) for s in sharpes]
    assert np.mean(np.array(values) > 0.95) == pytest.approx(0.05, abs=0.012)


@settings(deadline=None)
@given(_sharpe, st.floats(2, 1e5), _shapes(), _sharpe)
def test_the_probabilistic_sharpe_ratio_is_one_half_at_its_benchmark_and_falls_with_it(sharpe, bars, shape, benchmark):
    assert probabilistic_sharpe_ratio(sharpe, bars, *shape, benchmark=sharpe) == 0.5
    at = probabilistic_sharpe_ratio(sharpe, bars, *shape, benchmark=benchmark)
    assert 0.0 <= at <= 1.0
    assert probabilistic_sharpe_ratio(sharpe, bars, *shape, benchmark=benchmark + 0.1) <= at


@settings(deadline=None)
@given(_sharpe, _shapes(), _sharpe, st.floats(0.51, 0.999))
def test_at_the_minimum_length_the_probability_is_the_confidence(sharpe, shape, benchmark, confidence):
    assume(sharpe - benchmark > 1e-3)
    length = minimum_track_record_length(sharpe, *shape, benchmark, confidence)
    assume(length >= 2)
    assert probabilistic_sharpe_ratio(sharpe, length, *shape, benchmark) == pytest.approx(confidence, abs=1e-9)


def test_no_length_shows_a_sharpe_ratio_that_is_not_above_its_benchmark():
    assert minimum_track_record_length(0.1, 0.0, 3.0, benchmark=0.1) == math.inf
    assert minimum_track_record_length(0.1, 0.0, 3.0, benchmark=0.2) == math.inf


def test_one_trial_selects_nothing():
    assert expected_maximum_sharpe(1, 0.5) == 0.0
    assert deflated_sharpe_ratio(0.1, 250, -1.0, 5.0, 1, 0.5) == probabilistic_sharpe_ratio(0.1, 250, -1.0, 5.0)


def test_the_expected_maximum_is_that_of_normal_draws():
    draws = np.random.default_rng(1).normal(0.0, 0.05, size=(20_000, 50)).max(axis=1)
    assert expected_maximum_sharpe(50, 0.05**2) == pytest.approx(draws.mean(), rel=0.02)


@settings(deadline=None)
@given(_trials, _trials, st.floats(0, 1), st.floats(0, 1))
def test_the_hurdle_grows_with_trials_and_their_variance(n_a, n_b, var_a, var_b):
    few, many = sorted((n_a, n_b))
    small, large = sorted((var_a, var_b))
    assert 0.0 <= expected_maximum_sharpe(few, small) <= expected_maximum_sharpe(many, large) + 1e-12
    assert expected_maximum_sharpe(many, 0.0) == 0.0


@settings(deadline=None)
@given(_sharpe, st.floats(2, 1e4), _shapes(), _trials, _trials, st.floats(1e-6, 0.01))
def test_the_deflated_sharpe_ratio_falls_with_the_number_of_trials(sharpe, bars, shape, n_a, n_b, variance):
    few, many = sorted((n_a, n_b))
    lenient = deflated_sharpe_ratio(sharpe, bars, *shape, few, variance)
    assert deflated_sharpe_ratio(sharpe, bars, *shape, many, variance) <= lenient + 1e-12
    assert lenient <= probabilistic_sharpe_ratio(sharpe, bars, *shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: probabilistic_sharpe_ratio(0.1, 1, 0.0, 3.0),
            "n_obs must be finite and at least 2 but got 1",
        ),
        (lambda: probabilistic_sharpe_ratio(math.nan, 100, 0.0, 3.0), "sharpe must be finite but got nan"),
        (lambda: probabilistic_sharpe_ratio(0.1, 100, math.inf, 3.0), "skew must be finite"),
        (lambda: probabilistic_sharpe_ratio(0.1, 100, 0.0, 0.0), r"non-excess kurtosis \(3 for a normal"),
        (
            lambda: probabilistic_sharpe_ratio(0.1, 100, -3.0, 7.0),
            r"at least 1 \+ skew\*\*2 = 10 but got 7.0",
        ),
        (lambda: probabilistic_sharpe_ratio(1.0, 100, 2.0, 5.0), "contradict each other"),
        (
            lambda: probabilistic_sharpe_ratio(0.1, 100, 0.0, 3.0, None),
            "benchmark must be a number but got None",
        ),
        (lambda: expected_maximum_sharpe(0, 0.1), "n_trials must be finite and at least 1 but got 0"),
        (lambda: expected_maximum_sharpe(10, -0.1), "trial_sharpe_variance must be finite and at least 0"),
        (lambda: deflated_sharpe_ratio(0.1, 100, 0.0, 3.0, 10, math.nan), "trial_sharpe_variance"),
        (lambda: minimum_track_record_length(0.1, 0.0, 3.0, confidence=1.0), "confidence must lie strictly"),
        (lambda: minimum_track_record_length(0.1, 0.0, 3.0, confidence=95), "confidence must lie strictly"),
    ],
)
def test_values_out_of_range_are_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_the_shape_of_returns_is_biased_and_not_in_excess():
    returns = np.random.default_rng(0).standard_t(5, size=50)
    expected = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    assert selection.skewness_and_kurtosis(returns) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(DataError, match="its shape is undefined"):
        selection.skewness_and_kurtosis([0.1, 0.1, 0.1])
