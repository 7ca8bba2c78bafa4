"""Block length, effective sample size and the block-bootstrap interval of the Sharpe ratio."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from drl_ray_tracking.analysis.bootstrap import (
    automatic_block_length,
    block_bootstrap_sharpe_interval,
    effective_sample_size,
)
from drl_ray_tracking.errors import DataError


def _autoregressive(phi, bars, seed):
    return lfilter([1.0], [1.0, -phi], np.random.default_rng(seed).normal(size=bars))


# Made with arch 8.0's optimal_block_length (stationary), seed 0, 1000 bars.
_ARCH = [(0.3, 6.9862362), (0.8, 21.5217356), (0.95, 47.1584511), (-0.5, 12.0593232)]


@pytest.mark.parametrize(("phi", "expected"), _ARCH)
def test_the_block_length_is_arch_s(phi, expected):
    assert automatic_block_length(_autoregressive(phi, 1000, seed=0)) == pytest.approx(expected, rel=1e-6)


def test_the_block_length_agrees_with_the_installed_arch():
    import arch.bootstrap as arch

    close = []
    for phi in (-0.5, 0.0, 0.3, 0.8, 0.95):
        for seed in range(20):
            series = _autoregressive(phi, 1000, seed)
            theirs = max(1.0, float(arch.optimal_block_length(series)["stationary"].iloc[0]))
            close.append(automatic_block_length(series) == pytest.approx(theirs, rel=1e-9))
    # arch scales each autocorrelation by its own overlap: one at the edge of significance may fall otherwise.
    assert np.mean(close) >= 0.9


def test_the_block_length_grows_with_memory_and_is_bounded():
    lengths = [automatic_block_length(_autoregressive(phi, 2000, seed=1)) for phi in (0.0, 0.5, 0.9)]
    assert lengths == sorted(lengths)
    walk = np.cumsum(np.random.default_rng(2).normal(size=100))
    assert automatic_block_length(walk) <= math.ceil(3 * math.sqrt(100))


@pytest.mark.parametrize("phi", [0.2, 0.5, 0.8])
def test_the_effective_size_of_an_autoregressive_series_is_the_known_one(phi):
    sizes = [effective_sample_size(_autoregressive(phi, 5000, seed)) for seed in range(10)]
    assert np.mean(sizes) == pytest.approx(5000 * (1 - phi) / (1 + phi), rel=0.1)


def test_independent_bars_are_worth_nearly_all_and_alternating_ones_no_more_than_t():
    sizes = [effective_sample_size(_autoregressive(0.0, 5000, seed)) for seed in range(10)]
    assert np.mean(sizes) > 0.95 * 5000
    assert effective_sample_size(_autoregressive(-0.6, 5000, seed=0)) == 5000
    assert effective_sample_size(np.tile([1.0, -1.0], 50)) == 100


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-1, 1, width=16), min_size=10, max_size=60), st.sampled_from([0.25, 64.0]))
def test_sizes_and_lengths_stay_in_their_bounds_and_ignore_the_unit(returns, scale):
    series = np.array(returns)
    assume(np.ptp(series) > 1e-3)
    size = effective_sample_size(series)
    assert 1.0 <= size <= len(series)
    assert effective_sample_size(scale * series) == size
    length = automatic_block_length(series)
    assert 1.0 <= length <= len(series)
    assert automatic_block_length(scale * series) == length


def _interval(returns, seed=0, **changes):
    settings_ = {"n_resamples": 2000, "confidence": 0.95, **changes}
    return block_bootstrap_sharpe_interval(returns, rng=np.random.default_rng(seed), **settings_)


def test_independent_bars_give_the_interval_of_the_normal_theory():
    returns = np.random.default_rng(3).normal(0.05, 1.0, size=1500)
    sharpe = returns.mean() / returns.std(ddof=1)
    low, high = _interval(returns, n_resamples=4000, block_length=1)
    assert low < sharpe < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt((1 + sharpe**2 / 2) / 1500), rel=0.05)


def test_memory_widens_the_interval_by_the_effective_sample_size():
    returns = _autoregressive(0.6, 3000, seed=4)
    low, high = _interval(returns)
    naive_low, naive_high = _interval(returns, block_length=1)
    ratio = (high - low) / (naive_high - naive_low)
    assert ratio == pytest.approx(math.sqrt(3000 / effective_sample_size(returns)), rel=0.15)
    assert ratio > 1.5


def test_blocks_as_long_as_asked_keep_the_order_of_the_bars():
    # With one block a resample is a rotation of the series: its Sharpe ratio does not change.
    returns = np.random.default_rng(5).normal(size=40)
    sharpe = returns.mean() / returns.std(ddof=1)
    low, high = _interval(returns, block_length=40, n_resamples=2000, confidence=0.2)
    assert low == pytest.approx(sharpe, abs=0.03)
    assert high == pytest.approx(sharpe, abs=0.03)
    assert high - low < 0.5 * np.subtract(*_interval(returns, block_length=1, confidence=0.2)[::-1])


def test_the_same_generator_state_repeats_the_interval():
    returns = np.random.default_rng(6).normal(size=800)
    assert _interval(returns, seed=1) == _interval(returns, seed=1)
    assert _interval(returns, seed=1) != _interval(returns, seed=2)


def test_a_series_that_hardly_moves_is_refused():
    returns = np.zeros(50)
    returns[7] = 0.1
    with pytest.raises(DataError, match="moves on too few of its 50 bars"):
        _interval(returns)


@pytest.mark.parametrize(
    ("returns", "changes", "message"),
    [
        (np.full(50, 0.01), {}, "constant"),
        (np.arange(9.0), {}, "at least 10 along the axis 'time' but got 9"),
        (np.ones((20, 2)), {}, r"axes \(time\) but got the shape \(20, 2\)"),
        (np.append(np.arange(20.0), np.nan), {}, "1 of its 21 values are NaN"),
        (np.arange(20.0), {"block_length": 0.5}, "block_length must be finite and at least 1 but got 0.5"),
        (np.arange(20.0), {"block_length": 21}, "at most the 20 bars of returns_T but got 21"),
        (np.arange(20.0), {"confidence": 1.0}, "confidence"),
        (np.arange(20.0), {"n_resamples": 0}, "n_resamples"),
    ],
)
def test_bad_input_is_refused(returns, changes, message):
    with pytest.raises(DataError, match=message):
        _interval(returns, **changes)


def test_a_seed_instead_of_a_generator_is_refused():
    with pytest.raises(DataError, match="default_rng"):
        block_bootstrap_sharpe_interval(np.arange(20.0), rng=1, n_resamples=10, confidence=0.9)
