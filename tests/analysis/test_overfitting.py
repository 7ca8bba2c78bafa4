"""Combinatorially symmetric cross-validation against a literal transcription of its definition."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress, rankdata

from drl_ray_tracking.analysis import overfitting
from drl_ray_tracking.analysis.selection import probability_of_backtest_overfitting
from drl_ray_tracking.errors import DataError


def _by_definition(returns_TN, n_splits):
    """One split at a time, on the concatenated rows, as the paper tells it."""
    blocks = np.split(returns_TN[len(returns_TN) % n_splits :], n_splits)
    trials = returns_TN.shape[1]
    logits, inside, outside = [], [], []
    for chosen in itertools.combinations(range(n_splits), n_splits // 2):
        left = np.concatenate([blocks[i] for i in chosen])
        right = np.concatenate([blocks[i] for i in range(n_splits) if i not in chosen])
        sharpe_in, sharpe_out = (rows.mean(0) / rows.std(0, ddof=1) for rows in (left, right))
        best = int(np.argmax(sharpe_in))
        share = rankdata(sharpe_out)[best] / (trials + 1)
        logits.append(math.log(share / (1 - share)))
        inside.append(sharpe_in[best])
        outside.append(sharpe_out[best])
    return np.array(logits), np.array(inside), np.array(outside)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.sampled_from([2, 4, 6]), st.integers(0, 5))
def test_every_split_is_the_one_of_the_definition(seed, trials, n_splits, spare):
    returns = np.random.default_rng(seed).normal(0.001, 0.02, size=(5 * n_splits + spare, trials))
    result = probability_of_backtest_overfitting(returns, n_splits)
    logits, inside, outside = _by_definition(returns, n_splits)
    np.testing.assert_allclose(result.logits, logits, atol=1e-12)
    np.testing.assert_allclose(result.in_sample_sharpe, inside, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(result.out_of_sample_sharpe, outside, rtol=1e-9, atol=1e-12)
    # The middle rank's logit is 0 only up to rounding in the transcription.
    assert result.pbo == np.mean(logits <= 1e-12)
    assert result.probability_of_loss == np.mean(outside < 0)
    assert result.slope == pytest.approx(linregress(inside, outside).slope, rel=1e-6)
    assert result.n_splits == n_splits
    assert result.dropped_rows == spare % n_splits


def test_sixteen_blocks_give_all_12870_splits_in_a_moment():
    returns = np.random.default_rng(0).normal(size=(1250, 50))
    started = time.process_time()
    result = probability_of_backtest_overfitting(returns)
    assert time.process_time() - started < 3.0
    assert len(result.logits) == 12_870
    assert result.dropped_rows == 1250 % 16


def test_pure_noise_overfits_half_of_the_time():
    rng = np.random.default_rng(1)
    values = [probability_of_backtest_overfitting(rng.normal(size=(160, 10)), 10).pbo for _ in range(150)]
    assert np.mean(values) == pytest.approx(0.5, abs=0.06)
    assert np.std(values) > 0.1


def test_a_true_edge_is_not_called_overfit():
    returns = np.random.default_rng(2).normal(size=(480, 20))
    returns[:, 7] += 0.3
    result = probability_of_backtest_overfitting(returns, 12)
    assert result.pbo < 0.01
    assert result.probability_of_loss < 0.01


def test_gains_that_reverse_are_called_overfit():
    # Each trial shines in one half of the history and loses in the other.
    noise = np.random.default_rng(3).normal(0, 0.1, size=(160, 8))
    sign = np.where(np.arange(160)[:, None] < 80, 1.0, -1.0) * np.where(np.arange(8) % 2, 1.0, -1.0)
    result = probability_of_backtest_overfitting(noise + sign, 8)
    # The 36 of 70 splits balanced over both halves see only noise; all others are fooled.
    assert result.pbo > 0.8
    assert result.slope is not None
    assert result.slope < 0


def test_copies_of_one_series_tie_at_the_median_and_count_as_overfit():
    series = np.random.default_rng(4).normal(size=160)
    result = probability_of_backtest_overfitting(np.repeat(series[:, None], 7, axis=1), 8)
    np.testing.assert_array_equal(result.logits, 0.0)
    assert result.pbo == 1.0


def test_the_order_of_the_trials_does_not_matter_even_with_ties_and_idle_trials():
    rng = np.random.default_rng(5)
    returns = rng.normal(-0.3, 1.0, size=(64, 8))
    returns[:, 2] = returns[:, 5] = 0.0
    returns[:, 6] = returns[:, 1]
    result = probability_of_backtest_overfitting(returns, 8)
    shuffled = probability_of_backtest_overfitting(returns[:, rng.permutation(8)], 8)
    np.testing.assert_array_equal(result.logits, shuffled.logits)
    assert result.pbo == shuffled.pbo


def test_an_idle_trial_ranks_between_losers_and_winners():
    rng = np.random.default_rng(6)
    returns = rng.normal(0, 0.1, size=(64, 3)) + np.array([-1.0, 0.0, 1.0])
    returns[:, 1] = 0.0
    result = probability_of_backtest_overfitting(returns, 4)
    np.testing.assert_allclose(result.logits, math.log(3))
    result = probability_of_backtest_overfitting(returns[:, :2], 4)
    np.testing.assert_array_equal(result.in_sample_sharpe, 0.0)
    assert result.slope is None


@pytest.mark.parametrize(
    ("returns", "n_splits", "message"),
    [
        (np.ones((40, 2)), 5, "n_splits must be even and at most 20 but got 5"),
        (np.ones((400, 2)), 22, "n_splits must be even and at most 20 but got 22"),
        (np.ones((40, 2)), 0, "n_splits must be at least 2 but got 0"),
        (np.ones((40, 2)), 4.0, "n_splits must be a whole number"),
        (np.ones(40), 4, r"axes \(time, trial\) but got the shape \(40,\)"),
        (np.ones((40, 1)), 4, "at least 2 along the axis 'trial' but got 1"),
        (np.ones((31, 2)), 16, "at least 32 along the axis 'time' but got 31"),
        (np.full((40, 2), np.nan), 4, "80 of its 80 values are NaN"),
        (np.full((40, 2), 0.1), 4, r"constant and not 0 over half of the blocks in 2 columns \(the first is 0\)"),
    ],
)
def test_bad_input_is_refused(returns, n_splits, message):
    with pytest.raises(DataError, match=message):
        probability_of_backtest_overfitting(returns, n_splits)


def test_copies_and_ties_rank_as_if_all_were_put_in_order():
    rng = np.random.default_rng(2)
    returns = rng.normal(0.0, 0.01, size=(60, 5))
    returns[:30, 3:] = 0.0  # idle over half of the time: ties of series that are not the same
    every = returns[:, [0, 1, 1, 2, 3, 4, 4, 4]]
    found = probability_of_backtest_overfitting(every, 6)
    blocks = np.split(every, 6)

    def sharpes(rows):
        sd = rows.std(0, ddof=1)
        return np.where(sd == 0.0, 0.0, rows.mean(0) / np.where(sd == 0.0, 1.0, sd)).round(12)

    for logit, chosen in zip(found.logits, itertools.combinations(range(6), 3), strict=True):
        inside = sharpes(np.concatenate([blocks[i] for i in chosen]))
        ranks = rankdata(sharpes(np.concatenate([blocks[i] for i in range(6) if i not in chosen])))
        rank = ranks[inside == inside.max()].mean()
        assert logit == pytest.approx(math.log(rank / (9 - rank)), abs=1e-12)


def test_so_many_candidates_that_it_would_take_long_get_fewer_blocks(monkeypatch):
    returns = np.random.default_rng(0).normal(size=(64, 10))
    assert overfitting.overfitting_in_blocks(returns).n_splits == 16
    monkeypatch.setattr(overfitting, "_MOST_RATIOS", 10 * 1000)
    assert overfitting.overfitting_in_blocks(returns).n_splits == 12
    assert overfitting.overfitting_in_blocks(returns[:9]).n_splits == 4
    with pytest.raises(DataError, match=r"two candidates .* but there are 1"):
        overfitting.overfitting_in_blocks(returns[:, :1])
