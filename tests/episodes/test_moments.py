"""Moments and CoMoments: definitions against scipy, monoid laws, and digits kept at a large offset."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import stats

from drl_ray_tracking.episodes.kpis import Undefined
from drl_ray_tracking.episodes.moments import CoMoments, Moments, is_negligible

samples = npst.arrays(np.float64, st.integers(0, 30), elements=st.floats(-1.0, 1.0, width=32))
FIELDS = ("n", "mean", "m2", "m3", "m4", "min", "max")


def close(a, b, names, tolerance=1e-9):
    for name in names:
        x, y = getattr(a, name), getattr(b, name)
        assert x == y or abs(x - y) <= tolerance * max(1.0, abs(x), abs(y)), (name, x, y)


@settings(deadline=None)
@given(samples, samples, samples)
def test_moments_are_a_commutative_monoid(x, y, z):
    a, b, c = Moments.of(x), Moments.of(y), Moments.of(z)
    assert a.merge(Moments.empty()) == a == Moments.empty().merge(a)
    close(a.merge(b), b.merge(a), FIELDS)
    close(a.merge(b).merge(c), a.merge(b.merge(c)), FIELDS)
    close(a.merge(b).merge(c), Moments.of(np.concatenate([x, y, z])), FIELDS)


@settings(deadline=None)
@given(samples, samples)
def test_co_moments_of_parts_are_those_of_the_whole(x, y):
    names = ("n", "mean_x", "mean_y", "m2_x", "m2_y", "c_xy", "m2_difference")
    market_x, market_y = np.sin(7.0 * x), np.sin(7.0 * y)
    a, b = CoMoments.of(x, market_x), CoMoments.of(y, market_y)
    assert a.merge(CoMoments.empty()) == a == CoMoments.empty().merge(a)
    close(a.merge(b), b.merge(a), names)
    close(a.merge(b), CoMoments.of(np.concatenate([x, y]), np.concatenate([market_x, market_y])), names)


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_shape_survives_an_offset_and_any_merging(offset):
    values = np.random.default_rng(1).gamma(2.0, size=5000)
    merged = Moments.empty()
    for part in np.array_split(values + offset, 37):
        merged = merged.merge(Moments.of(part))
    # The offset itself costs the data 1e-8 of their digits; raw power sums would leave none.
    tolerance = 1e-6 if offset else 1e-11
    assert merged.sd == pytest.approx(values.std(ddof=1), rel=tolerance)
    assert merged.skewness == pytest.approx(stats.skew(values), rel=tolerance)
    assert merged.kurtosis == pytest.approx(stats.kurtosis(values, fisher=False), rel=tolerance)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e8, -3.3])
def test_a_constant_has_zero_variance_and_no_shape(level):
    moments = Moments.of(np.full(1000, level)).merge(Moments.of(np.full(7, level)))
    assert moments.sd == 0.0
    assert moments.skewness == moments.kurtosis == Undefined("zero_variance")


def test_one_value_has_no_standard_deviation():
    assert Moments.of(np.array([3.0])) == Moments.single(3.0)
    assert isinstance(Moments.single(3.0).sd, Undefined)


def test_overflow_is_not_mistaken_for_zero_variance():
    with np.errstate(all="ignore"):
        moments = Moments.of(np.array([1e308, 1e308, -1e308]))
    assert not math.isfinite(moments.sd)
    assert is_negligible(0.0, math.inf)
    assert not is_negligible(math.inf, math.inf)
