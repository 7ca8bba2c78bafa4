"""Effect sizes and the number of seeds that separates two groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from drl_ray_tracking.analysis.effects import cohens_d, hedges_g, seeds_to_separate, welch_p_value
from drl_ray_tracking.errors import DataError


def test_cohens_d_is_the_pooled_t_statistic_without_the_sample_size():
    rng = np.random.default_rng(0)
    x, y = rng.normal(1, 2, size=7), rng.normal(0, 2, size=5)
    assert cohens_d(x, y) == pytest.approx(ttest_ind(x, y).statistic * math.sqrt(1 / 7 + 1 / 5))
    assert cohens_d(y, x) == pytest.approx(-cohens_d(x, y))


def test_hedges_correction_matches_its_published_table():
    # Hedges 1981, table 1: c(2) = 0.5642, c(8) = 0.9027, c(18) = 0.9576.
    for runs, factor in ((2, 0.5642), (5, 0.9027), (10, 0.9576)):
        x = np.arange(runs, dtype=float)
        assert hedges_g(x + 1, x) / cohens_d(x + 1, x) == pytest.approx(factor, abs=5e-5)


def test_hedges_g_is_unbiased_where_cohens_d_overstates():
    rng = np.random.default_rng(1)
    pairs = [(rng.normal(1, 1, 4), rng.normal(0, 1, 4)) for _ in range(4_000)]
    assert np.mean([hedges_g(x, y) for x, y in pairs]) == pytest.approx(1.0, abs=0.05)
    assert np.mean([cohens_d(x, y) for x, y in pairs]) > 1.08


# Per-group sizes of the two-sided t test at 5 % from Cohen's tables.
@pytest.mark.parametrize(
    ("effect", "power", "seeds"), [(0.5, 0.8, 64), (0.8, 0.8, 26), (1.0, 0.9, 23), (0.2, 0.8, 394)]
)
def test_seeds_match_the_published_power_tables(effect, power, seeds):
    assert seeds_to_separate(0.0, 1.0, effect, 1.0, power=power) == seeds


def test_the_number_of_seeds_gives_the_power_asked_for_in_simulation():
    seeds = int(seeds_to_separate(1.0, 1.0, 0.0, 0.3, power=0.8))
    rng = np.random.default_rng(2)

    def power(n):
        a, b = rng.normal(1, 1, size=(20_000, n)), rng.normal(0, 0.3, size=(20_000, n))
        return np.mean(ttest_ind(a, b, axis=1, equal_var=False).pvalue < 0.05)

    assert power(seeds) > 0.79
    assert power(seeds - 1) < 0.81


@settings(deadline=None, max_examples=50)
@given(
    st.floats(-5, 5),
    st.floats(0.1, 5),
    st.floats(-5, 5),
    st.floats(0, 5),
    st.floats(0.2, 0.95),
    st.floats(0.5, 0.99),
)
def test_seeds_do_not_depend_on_order_or_unit_and_grow_with_the_demands(a, sd_a, b, sd_b, power, confidence):
    needed = seeds_to_separate(a, sd_a, b, sd_b, power, confidence)
    assert needed >= 2
    assert seeds_to_separate(b, sd_b, a, sd_a, power, confidence) == needed
    assert seeds_to_separate(a, sd_a, b, sd_b, min(0.99, power + 0.04), confidence) >= needed
    assert seeds_to_separate(a, sd_a, b, sd_b, power, min(0.999, confidence + 0.009)) >= needed
    # A power of two leaves every ratio as it was, to the last bit.
    assert seeds_to_separate(1024 * a, 1024 * sd_a, 1024 * b, 1024 * sd_b, power, confidence) == needed


def test_a_clear_difference_needs_few_seeds_whatever_the_confidence():
    # Arguments at which scipy's non-central t distribution function is NaN.
    assert seeds_to_separate(1.125, 0.125, 0.0, 0.0, power=0.5, confidence=0.5) == 2
    assert seeds_to_separate(0.0, 0.25, 3.5, 0.5, power=0.5, confidence=0.8125) == 2


def test_the_edges_of_seeds_to_separate():
    assert seeds_to_separate(1.0, 1.0, 1.0, 1.0) == math.inf
    assert seeds_to_separate(1.0, 0.0, 2.0, 0.0) == 2
    assert seeds_to_separate(0.0, 1.0, 1000.0, 1.0) == 2
    assert seeds_to_separate(0.0, 1.0, 1e-300, 1.0) == math.inf
    # (1.96 + 1.2816)^2 * 2 / 0.01^2
    assert seeds_to_separate(0.0, 1.0, 0.01, 1.0) == pytest.approx(210_149, rel=1e-4)


@pytest.mark.parametrize("effect", [cohens_d, hedges_g])
def test_effect_sizes_refuse_what_has_no_spread_or_too_few_runs(effect):
    with pytest.raises(DataError, match="no spread"):
        effect([0.1, 0.1, 0.1], [0.3, 0.3])
    with pytest.raises(DataError, match="at least 2 along the axis 'run' but got 1"):
        effect([1.0], [1.0, 2.0])
    with pytest.raises(DataError, match="NaN"):
        effect([1.0, 2.0], [1.0, math.nan])
    with pytest.raises(DataError, match="axes"):
        effect([[1.0, 2.0]], [1.0, 2.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sd_a": -1.0}, "sd_a must be finite and at least 0 but got -1.0"),
        ({"mean_b": math.nan}, "mean_b must be finite"),
        ({"power": 1.0}, "power must lie strictly"),
        ({"confidence": 0.0}, "confidence must lie strictly"),
        ({"mean_a": "high"}, "must be a number"),
    ],
)
def test_seeds_to_separate_refuses_values_out_of_range(change, message):
    with pytest.raises(DataError, match=message):
        seeds_to_separate(**{"mean_a": 0.0, "sd_a": 1.0, "mean_b": 1.0, "sd_b": 1.0, **change})


@given(st.integers(0, 2**32), st.integers(2, 9), st.integers(2, 9), st.floats(0.0, 4.0), st.floats(0.01, 100.0))
def test_welchs_p_value_is_scipys(seed: int, n_x: int, n_y: int, gap: float, spread: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = gap + rng.normal(size=n_x), spread * rng.normal(size=n_y)
    assert welch_p_value(x, y) == pytest.approx(float(ttest_ind(x, y, equal_var=False).pvalue), rel=1e-9)


def test_groups_without_spread_have_no_p_value() -> None:
    with pytest.raises(DataError, match="no spread"):
        welch_p_value([1.0, 1.0], [2.0, 2.0])
