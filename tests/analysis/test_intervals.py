"""Robust means, bootstrap intervals, probability of improvement and performance profiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import mannwhitneyu, trim_mean

from drl_ray_tracking.analysis.intervals import (
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap_interval,
)
from drl_ray_tracking.errors import DataError

_scores = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7),
    elements=st.floats(-100, 100, width=32),
)
_interval = {"n_resamples": 400, "confidence": 0.95}


def test_iqm_cuts_a_floored_quarter_at_each_end():
    # 6 scores: floor(6 / 4) = 1 is cut at each end.
    assert interquartile_mean([[1.0, 2.0, 3.0], [4.0, 6.0, 1000.0]]) == pytest.approx(15 / 4)
    assert interquartile_mean([[5.0]]) == 5.0
    assert interquartile_mean([[1.0], [9.0], [2.0]]) == 4.0


@settings(deadline=None)
@given(_scores)
def test_iqm_is_scipys_quarter_trimmed_mean(scores):
    assert interquartile_mean(scores) == pytest.approx(trim_mean(scores, 0.25, axis=None), rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(_scores, st.randoms(use_true_random=False))
def test_iqm_lies_inside_the_scores_and_ignores_their_order(scores, shuffler):
    iqm = interquartile_mean(scores)
    assert scores.min() - 1e-9 <= iqm <= scores.max() + 1e-9
    shuffled = list(scores.ravel())
    shuffler.shuffle(shuffled)
    assert interquartile_mean(np.reshape(shuffled, scores.shape)) == pytest.approx(iqm, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("statistic", [interquartile_mean, np.mean, np.median, lambda scores: scores.max()])
def test_the_interval_of_constant_scores_is_the_constant(statistic):
    low, high = stratified_bootstrap_interval(
        np.full((5, 3), 0.1), statistic, rng=np.random.default_rng(0), **_interval
    )
    assert low == high == statistic(np.full((5, 3), 0.1))


@pytest.mark.parametrize("statistic", [interquartile_mean, np.mean, np.median])
def test_stacked_statistics_give_the_interval_of_the_plain_ones(statistic):
    scores = np.random.default_rng(1).normal(size=(6, 4))

    def interval(function):
        return stratified_bootstrap_interval(scores, function, rng=np.random.default_rng(2), **_interval)

    assert interval(statistic) == pytest.approx(interval(lambda sample: statistic(sample)), abs=1e-12)


def test_runs_are_resampled_within_their_column_and_independently_between_columns():
    scores = np.arange(12.0).reshape(4, 3)
    seen: list[np.ndarray] = []

    def spy(sample):
        seen.append(sample.copy())
        return float(sample.mean())

    stratified_bootstrap_interval(scores, spy, rng=np.random.default_rng(0), n_resamples=50, confidence=0.9)
    assert len(seen) == 50
    assert all(np.isin(sample[:, task], scores[:, task]).all() for sample in seen for task in range(3))
    rows = [(sample - scores[0]) / 3 for sample in seen]
    assert any(not np.array_equal(row[:, 0], row[:, 1]) for row in rows)


def test_the_interval_has_the_width_of_the_normal_approximation():
    scores = np.random.default_rng(3).normal(size=(400, 1))
    low, high = stratified_bootstrap_interval(
        scores, np.mean, rng=np.random.default_rng(4), n_resamples=20_000, confidence=0.95
    )
    assert high - low == pytest.approx(2 * 1.96 * scores.std() / 20, rel=0.03)
    assert (low + high) / 2 == pytest.approx(scores.mean(), abs=0.005)


def test_the_same_generator_state_repeats_the_interval_also_over_several_chunks():
    scores = np.random.default_rng(5).normal(size=(10, 26))

    def interval(seed):
        return stratified_bootstrap_interval(
            scores, interquartile_mean, rng=np.random.default_rng(seed), n_resamples=9_000, confidence=0.95
        )

    assert interval(1) == interval(1)
    assert interval(1) != interval(2)


def test_a_statistic_that_is_undefined_on_a_resample_is_refused():
    def ratio(sample):
        return float("nan") if np.ptp(sample) == 0 else 1.0

    with pytest.raises(DataError, match="is NaN on"):
        stratified_bootstrap_interval([[1.0], [2.0]], ratio, rng=np.random.default_rng(0), **_interval)


def test_probability_of_improvement_of_the_published_example():
    x = [[1, 2], [2, 2], [1, 1], [2, 1]]
    y = [[1, 1], [2, 2], [3, 3]]
    assert probability_of_improvement(x, y) == pytest.approx(1 / 3, abs=1e-15)


@settings(deadline=None)
@given(st.data(), st.integers(1, 4))
def test_probability_of_improvement_counts_ties_one_half(data, tasks):
    def matrix():
        return data.draw(arrays(np.float64, st.tuples(st.integers(1, 6), st.just(tasks)), elements=st.integers(0, 3)))

    x, y = matrix(), matrix()
    forward = probability_of_improvement(x, y)
    assert forward + probability_of_improvement(y, x) == pytest.approx(1.0)
    assert probability_of_improvement(x, x) == pytest.approx(0.5)
    pairs = [mannwhitneyu(x[:, t], y[:, t]).statistic / (len(x) * len(y)) for t in range(tasks)]
    assert forward == pytest.approx(np.mean(pairs))


def test_a_performance_profile_is_the_share_strictly_above_in_the_given_order():
    profile = performance_profile([[0.0, 1.0], [1.0, 2.0]], [1.0, -1.0, 2.0, 0.5])
    np.testing.assert_array_equal(profile, [0.25, 1.0, 0.0, 0.75])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0, 2.0], r"axes \(run, task\) but got the shape \(2,\)"),
        (np.zeros((2, 2, 2)), "shape"),
        (np.zeros((0, 3)), "at least 1 along the axis 'run' but got 0"),
        ([[1.0, np.nan]], "1 of its 2 values are NaN"),
        ([[1.0, np.inf]], "NaN or infinite"),
        ([[1.0, 2.0], [3.0]], "rectangular"),
        ([["a"]], "numbers"),
    ],
)
def test_scores_that_are_not_a_full_matrix_are_refused(scores, message):
    rng = np.random.default_rng(0)
    for call in (
        lambda: interquartile_mean(scores),
        lambda: stratified_bootstrap_interval(scores, np.mean, rng=rng, **_interval),
        lambda: probability_of_improvement(scores, [[1.0, 2.0]]),
        lambda: probability_of_improvement([[1.0, 2.0]], scores),
        lambda: performance_profile(scores, [0.0]),
    ):
        with pytest.raises(DataError, match=message):
            call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confidence": 1.0}, "confidence must lie strictly between 0 and 1 but got 1.0"),
        ({"confidence": 0.0}, "confidence"),
        ({"confidence": 95}, "confidence"),
        ({"n_resamples": 0}, "n_resamples must be at least 1 but got 0"),
        ({"n_resamples": 10.5}, "whole number"),
        ({"rng": 42}, r"default_rng\(seed\)"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    settings_ = {"rng": np.random.default_rng(0), **_interval, **change}
    with pytest.raises(DataError, match=message):
        stratified_bootstrap_interval([[1.0], [2.0]], np.mean, **settings_)


def test_different_tasks_and_empty_thresholds_are_refused():
    with pytest.raises(DataError, match="same tasks in their columns but got 2 and 3"):
        probability_of_improvement([[1.0, 2.0]], [[1.0, 2.0, 3.0]])
    with pytest.raises(DataError, match="thresholds needs at least 1"):
        performance_profile([[1.0]], [])
