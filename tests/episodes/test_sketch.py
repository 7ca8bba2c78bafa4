"""QuantileSketch: 1 % error, merging independent of order to the bit, bounded size."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from drl_ray_tracking.episodes.kpis import Undefined
from drl_ray_tracking.episodes.sketch import QuantileSketch

values = npst.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e9, 1e9))


def bits(sketch):
    return pickle.dumps(sketch)


@settings(deadline=None)
@given(values, st.floats(0.0, 1.0))
def test_a_quantile_is_within_one_percent_of_its_order_statistics(x, q):
    estimate = QuantileSketch.of(x).quantile(q)
    low, high = np.quantile(x, q, method="lower"), np.quantile(x, q, method="higher")
    assert abs(estimate - np.quantile(x, q)) <= 0.0100001 * max(abs(low), abs(high)) + 2e-12


@settings(deadline=None)
@given(values, values, values)
def test_merging_in_any_order_gives_the_same_bits(x, y, z):
    a, b, c = (QuantileSketch.of(part) for part in (x, y, z))
    whole = bits(QuantileSketch.of(np.concatenate([z, x, y])))
    assert bits(a.merge(b).merge(c)) == bits(c.merge(a.merge(b))) == bits(b.merge(c).merge(a)) == whole
    assert bits(a.merge(QuantileSketch.empty())) == bits(QuantileSketch.empty().merge(a)) == bits(a)


@pytest.mark.parametrize("seed", range(5))
def test_a_tail_mean_is_within_one_percent(seed):
    x = np.random.default_rng(seed).standard_t(3, 4001) * 0.01
    tail = np.sort(x)[: int(4000 * 0.05) + 1]
    assert QuantileSketch.of(x).lower_tail_mean(0.05) == pytest.approx(tail.mean(), rel=0.01)


def test_single_values_and_extremes_are_exact():
    assert QuantileSketch.of(np.array([290.0])).quantile(0.5) == 290.0
    sketch = QuantileSketch.of(np.array([-7e15, 0.0, 1e-300, 3e14, np.nan, np.inf]))
    assert (sketch.n, sketch.quantile(0.0), sketch.quantile(1.0)) == (4, -7e15, 3e14)


def test_an_empty_sketch_has_no_quantile():
    assert QuantileSketch.of(np.array([np.nan])).quantile(0.5) == Undefined("no_values")
    assert isinstance(QuantileSketch.empty().lower_tail_mean(0.05), Undefined)


def test_the_range_of_buckets_bounds_the_size():
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], 300_000) * 10.0 ** rng.uniform(-20, 20, 300_000)
    sketch = QuantileSketch.of(x)
    assert sketch.keys.size <= 5531
    assert len(bits(sketch)) < 56_000
    assert bits(pickle.loads(bits(sketch))) == bits(sketch)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_sketch_of_one_value_is_that_of_an_array_of_one(value: float) -> None:
    one, many = QuantileSketch.single(value), QuantileSketch.of(np.array([value]))
    assert list(one.keys) == list(many.keys)
    assert (list(one.counts), one.low, one.high) == (list(many.counts), many.low, many.high)
