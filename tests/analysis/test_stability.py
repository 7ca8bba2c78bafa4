"""Reliability of training curves after Chan et al. 2020."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import iqr

from drl_ray_tracking.analysis.stability import (
    dispersion_across_runs,
    dispersion_across_time,
    drawdown_risk,
    risk_across_time,
)
from drl_ray_tracking.errors import DataError

_curves = arrays(np.float64, st.tuples(st.integers(2, 4), st.integers(4, 20)), elements=st.floats(-50, 50, width=32))


def test_steady_progress_has_no_dispersion_and_no_risk():
    rising = np.outer([1.0, 3.0], np.arange(20.0))
    np.testing.assert_array_equal(dispersion_across_time(rising), 0.0)
    np.testing.assert_array_equal(drawdown_risk(rising), 0.0)
    # Even the worst step is a gain.
    np.testing.assert_array_equal(risk_across_time(rising), [-1.0, -3.0])


def test_dispersion_across_time_is_the_mean_range_of_the_windows():
    curve = np.array([[0.0, 1.0, 5.0, 4.0, 8.0, 0.0]])
    steps = np.diff(curve[0])
    expected = np.mean([iqr(steps[start : start + 3]) for start in range(3)])
    assert dispersion_across_time(curve, window=3) == pytest.approx([expected])
    assert dispersion_across_time(curve) == pytest.approx([iqr(steps)])


def test_risk_across_time_is_the_mean_of_the_worst_steps():
    steps = np.concatenate([np.full(90, 1.0), -np.arange(1.0, 11.0)])
    curve = np.concatenate([[0.0], np.cumsum(steps)])[None, :]
    # Of 100 steps the worst 5 % are 10, 9, 8, 7 and 6.
    assert risk_across_time(curve) == pytest.approx([8.0])
    assert risk_across_time(curve, alpha=0.01) == pytest.approx([10.0])


def test_drawdown_risk_is_the_mean_of_the_deepest_points():
    curve = np.array([[0.0, 10.0, 4.0, 7.0, 12.0, 12.0, 2.0, 11.0]])
    # Drawdowns 0 0 6 3 0 0 10 1: the upper quarter of eight is 10 and 6.
    assert drawdown_risk(curve, alpha=0.25) == pytest.approx([8.0])
    assert drawdown_risk(curve, alpha=0.01) == pytest.approx([10.0])


def test_a_late_collapse_is_not_diluted_by_the_points_without_drawdown():
    curve = np.append(np.full(97, 10.0), np.zeros(3))[None, :]
    # Of the worst five points three lie 10 below the best, two at it.
    assert drawdown_risk(curve, alpha=0.05) == pytest.approx([6.0])
    # The edge counts by its fraction: 3 points of the worst 3.5.
    assert drawdown_risk(curve, alpha=0.035) == pytest.approx([30 / 3.5])


def test_dispersion_across_runs_is_the_range_at_each_point():
    curves = np.random.default_rng(0).normal(size=(9, 15)).cumsum(axis=1)
    np.testing.assert_allclose(dispersion_across_runs(curves), iqr(curves, axis=0))


def test_the_low_pass_removes_jitter_and_keeps_the_distance_of_runs():
    time = np.arange(400)
    jitter = 5.0 * np.random.default_rng(1).normal(size=(5, 400))
    curves = 2.0 * np.arange(5)[:, None] + 0.01 * time + jitter
    smooth = dispersion_across_runs(curves, low_pass=0.01)
    assert smooth.shape == (400,)
    assert smooth[100:300].mean() == pytest.approx(4.0, abs=1.0)
    assert dispersion_across_runs(curves).mean() > 6.0
    flat = np.repeat(np.arange(5.0)[:, None], 400, axis=1)
    np.testing.assert_allclose(dispersion_across_runs(flat, low_pass=0.01), 2.0, rtol=1e-6)


@pytest.mark.parametrize("points", [1, 2, 5, 16, 17])
def test_the_low_pass_takes_short_curves(points):
    curves = np.arange(3.0)[:, None] * np.ones(points)
    np.testing.assert_allclose(dispersion_across_runs(curves, low_pass=0.3), 1.0, rtol=1e-6)


@settings(deadline=None)
@given(_curves, st.sampled_from([-64.0, 32.0]), st.sampled_from([0.5, 4.0]), st.floats(0.01, 0.99))
def test_laws_of_shift_scale_sign_and_order(curves, shift, scale, alpha):
    for statistic in (
        dispersion_across_time,
        dispersion_across_runs,
        lambda c: drawdown_risk(c, alpha=alpha),
        lambda c: risk_across_time(c, alpha=alpha),
    ):
        np.testing.assert_allclose(statistic(curves * scale + shift), scale * statistic(curves), rtol=1e-5, atol=1e-4)
    assert (dispersion_across_time(curves) >= 0).all()
    assert (drawdown_risk(curves, alpha=alpha) >= 0).all()
    np.testing.assert_array_equal(drawdown_risk(curves[::-1]), drawdown_risk(curves)[::-1])
    np.testing.assert_array_equal(dispersion_across_runs(curves[::-1]), dispersion_across_runs(curves))
    worst = -np.diff(curves, axis=1).min(axis=1)
    assert (risk_across_time(curves, alpha=alpha) <= worst + 1e-9).all()
    mean = -np.diff(curves, axis=1).mean(axis=1)
    assert (risk_across_time(curves, alpha=alpha) >= mean - 1e-9).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dispersion_across_time([1.0, 2.0, 3.0]), r"axes \(run, time\) but got the shape \(3,\)"),
        (lambda: dispersion_across_time([[1.0, 2.0]]), "at least 3 along the axis 'time' but got 2"),
        (lambda: dispersion_across_time([[1.0, 2.0, 4.0]], window=3), "at most the 2 differences"),
        (lambda: dispersion_across_time([[1.0, 2.0, 4.0]], window=1), "window must be at least 2"),
        (lambda: risk_across_time([[1.0]]), "at least 2 along the axis 'time'"),
        (lambda: risk_across_time([[1.0, np.nan]]), "NaN"),
        (lambda: risk_across_time([[1.0, 2.0]], alpha=0.0), "alpha must lie strictly"),
        (lambda: drawdown_risk(np.zeros((0, 3))), "at least 1 along the axis 'run'"),
        (lambda: drawdown_risk([[1.0, 2.0]], alpha=1.0), "alpha must lie strictly"),
        (lambda: dispersion_across_runs([[1.0, 2.0]]), "at least 2 along the axis 'run' but got 1"),
        (lambda: dispersion_across_runs([[1.0], [2.0]], low_pass=1.0), "low_pass must lie strictly"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()
