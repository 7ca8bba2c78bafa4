"""The learning curve followed online: exact where it says so, bounded, and it raises the right flags."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drl_ray_tracking.episodes.learning_curve import CAPACITY, LearningCurve

values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=700)


def curve_of(returns: list[float], **last: object) -> LearningCurve:
    curve = LearningCurve.empty()
    for index, value in enumerate(returns):
        curve = curve.update(100.0 * (index + 1), value)
    return curve


@given(values)
def test_drawdown_and_area_are_exact_and_memory_is_bounded(returns: list[float]) -> None:
    curve = curve_of(returns)
    running = np.maximum.accumulate(returns)
    assert curve.compute()["drawdown"] == pytest.approx(float(np.max(running - returns)), abs=1e-6)
    mean = np.trapezoid(returns, dx=100.0) / (100.0 * (len(returns) - 1))
    assert curve.compute()["mean_value"] == pytest.approx(mean, rel=1e-9, abs=1e-6)
    assert len(curve.points) < CAPACITY


@given(values)
def test_packing_keeps_everything(returns: list[float]) -> None:
    curve = curve_of(returns)
    assert LearningCurve.from_text(curve.to_text()).compute() == curve.compute()


def test_halving_keeps_the_average_of_the_curve() -> None:
    returns = [float(value) for value in range(4 * CAPACITY)]
    curve = curve_of(returns)
    assert curve.stride == 8
    kept = np.mean([value for _, value in curve.points])
    covered = len(curve.points) * curve.stride
    assert kept == pytest.approx(np.mean(returns[:covered]))


def test_dispersion_is_that_of_first_differences() -> None:
    rng = np.random.default_rng(3)
    returns = list(np.cumsum(rng.normal(size=100)))
    low, high = np.quantile(np.diff(returns), [0.25, 0.75])
    assert curve_of(returns).dispersion == pytest.approx(high - low)
    assert math.isnan(curve_of(returns[:5]).dispersion)


def test_a_steady_rise_does_not_collapse_and_a_fall_back_does() -> None:
    rise = [float(value) for value in range(30)]
    assert not curve_of(rise).collapsed
    assert curve_of([*rise, *[2.0] * 10]).collapsed
    assert curve_of([*rise, *[2.0] * 10]).compute()["collapsed"] == 1.0


def test_noise_around_a_level_is_no_collapse() -> None:
    rng = np.random.default_rng(0)
    collapsed = [curve_of(list(rng.normal(size=60))).collapsed for _ in range(200)]
    assert np.mean(collapsed) < 0.15


def test_entropy_that_all_but_vanishes_is_flagged() -> None:
    curve = LearningCurve.empty().update(1, 0.0, entropy=1.1).update(2, 0.0, entropy=0.5)
    assert not curve.entropy_collapsed
    assert curve.update(3, 0.0, entropy=0.01).entropy_collapsed
    assert not LearningCurve.empty().update(1, 0.0, entropy=-0.5).update(2, 0.0, entropy=-3.0).entropy_collapsed


def test_the_threshold_is_noted_once() -> None:
    curve = LearningCurve.empty()
    for step, value in ((10, 1.0), (20, 5.0), (30, 2.0), (40, 9.0)):
        curve = curve.update(step, value, threshold=5.0)
    assert curve.compute()["steps_to_threshold"] == 20


def test_iterations_without_episodes_and_repeats_leave_the_curve_alone() -> None:
    curve = curve_of([1.0, 2.0])
    assert curve.update(300, None) == curve
    assert curve.update(300, math.nan) == curve
    assert curve.update(200, 9.0) == curve
    assert curve.update(300, None, loss_is_finite=False).compute()["non_finite_losses"] == 1


def test_a_foreign_state_is_an_empty_curve() -> None:
    for foreign in (None, "no json", '{"points": 1}', "[]"):
        assert LearningCurve.from_text(foreign).points == ()
    assert LearningCurve.from_text(math.nan).compute() == {
        "collapsed": 0.0,
        "entropy_collapsed": 0.0,
        "non_finite_losses": 0.0,
    }
