"""False discovery rate and the effective number of trials."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from drl_ray_tracking.analysis.multiplicity import benjamini_hochberg, effective_number_of_trials
from drl_ray_tracking.errors import DataError

_METHODS = ["effective_rank", "average_correlation"]


def test_the_example_of_benjamini_and_hochberg():
    # Section 4.1 of the 1995 paper: 15 tests, four rejected at 5 % where Bonferroni rejects three.
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
    p += [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    result = benjamini_hochberg(p[::-1], q=0.05)
    assert result.rejected.sum() == 4
    np.testing.assert_array_equal(result.rejected[-4:], True)
    assert result.q == 0.05


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0.01, 0.5))
def test_adjusted_p_values_are_scipys(p, q):
    result = benjamini_hochberg(p, q)
    np.testing.assert_allclose(result.adjusted, false_discovery_control(p), rtol=1e-12)
    assert (result.adjusted >= np.array(p) - 1e-15).all()
    np.testing.assert_array_equal(result.rejected, result.adjusted <= q)


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        ([], 0.05, "p_values needs at least 1"),
        ([0.1, 1.2], 0.05, "1 do not, the first is"),
        ([-0.1], 0.05, "must lie in"),
        ([math.nan], 0.05, "NaN"),
        ([0.1], 1.0, "q must lie strictly"),
    ],
)
def test_bad_p_values_are_refused(p, q, message):
    with pytest.raises(DataError, match=message):
        benjamini_hochberg(p, q)


@pytest.mark.parametrize("method", _METHODS)
def test_identical_series_are_one_trial_and_independent_ones_about_n(method):
    returns = np.random.default_rng(0).normal(size=(1250, 30))
    assert effective_number_of_trials(returns, method=method) == pytest.approx(30, rel=0.03)
    copies = np.repeat(returns[:, :1], 30, axis=1) * np.linspace(1, 5, 30)
    assert effective_number_of_trials(copies, method=method) == pytest.approx(1.0, abs=1e-9)
    assert effective_number_of_trials(returns[:, :1], method=method) == 1.0


def test_clusters_of_copies_count_once_each():
    returns = np.random.default_rng(1).normal(size=(5000, 4))
    assert effective_number_of_trials(np.tile(returns, 8)) == pytest.approx(4, rel=0.01)


def test_the_effective_rank_of_two_equally_correlated_series_has_a_closed_form():
    # Orthogonal, centred columns mixed to the correlation 0.6: eigenvalues 1.6 and 0.4, shares 0.8 and 0.2.
    a, b = np.tile([1.0, 1.0, -1.0, -1.0], 5), np.tile([1.0, -1.0, 1.0, -1.0], 5)
    returns = np.column_stack([a, 0.6 * a + 0.8 * b])
    expected = math.exp(-(0.8 * math.log(0.8) + 0.2 * math.log(0.2)))
    assert effective_number_of_trials(returns) == pytest.approx(expected)
    assert effective_number_of_trials(returns, method="average_correlation") == pytest.approx(0.6 + 0.4 * 2)


@pytest.mark.parametrize("method", _METHODS)
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    trials=st.integers(1, 12),
    bars=st.integers(3, 40),
    common=st.floats(-3, 3),
)
def test_it_stays_between_one_and_n_whatever_the_order_and_scale(method, seed, trials, bars, common):
    rng = np.random.default_rng(seed)
    returns = rng.normal(size=(bars, trials)) + common * rng.normal(size=(bars, 1))
    value = effective_number_of_trials(returns, method=method)
    assert 1.0 <= value <= trials
    moved = 0.01 * returns[:, rng.permutation(trials)] + 0.002
    assert effective_number_of_trials(moved, method=method) == pytest.approx(value, rel=1e-6)


def test_idle_trials_count_together_as_one():
    returns = np.zeros((2000, 6))
    returns[:, :2] = np.random.default_rng(2).normal(size=(2000, 2))
    returns[:, 5] = 0.1
    value = effective_number_of_trials(returns)
    # Eigenvalues over N: 4/6 for the four idle trials, 1/6 for each of the two others.
    expected = math.exp(-(4 / 6 * math.log(4 / 6) + 2 / 6 * math.log(1 / 6)))
    assert value == pytest.approx(expected, rel=0.01)
    assert effective_number_of_trials(np.zeros((10, 3))) == pytest.approx(1.0)


def test_more_candidates_than_bars_are_counted_from_the_smaller_matrix():
    returns = np.random.default_rng(3).normal(size=(20, 200))
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(returns.T))
    share = eigenvalues[eigenvalues > 1e-9] / 200
    assert effective_number_of_trials(returns) == pytest.approx(math.exp(-(share * np.log(share)).sum()))
    off_diagonal = (np.corrcoef(returns.T).sum() - 200) / (200 * 199)
    expected = off_diagonal + (1 - off_diagonal) * 200
    measured = effective_number_of_trials(returns, method="average_correlation")
    assert measured == pytest.approx(min(200, expected))


def test_bad_returns_are_refused():
    with pytest.raises(DataError, match="at least 3 along the axis 'time' but got 2"):
        effective_number_of_trials(np.ones((2, 2)))
    with pytest.raises(DataError, match="axes"):
        effective_number_of_trials(np.ones(5))
    with pytest.raises(DataError, match="NaN"):
        effective_number_of_trials(np.full((5, 2), np.nan))
    with pytest.raises(DataError, match="method must be 'effective_rank' or"):
        effective_number_of_trials(np.ones((5, 2)), method="onc")
