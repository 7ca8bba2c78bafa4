"""Variance components: exact cases, classical mean squares, and recovery of known variances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import f_oneway

from drl_ray_tracking.analysis.variance import variance_components
from drl_ray_tracking.errors import DataError

_NAMES = ("group", "seed", "window", "group_window", "residual")


def _simulated(rng, seeds_per_group, windows, sd):
    """Returns one (seed, window) array per group with the standard deviations of `sd` by component."""
    by_window = rng.normal(0, sd["window"], size=windows)
    return [
        rng.normal(0, sd["group"])
        + rng.normal(0, sd["seed"], size=(seeds, 1))
        + by_window
        + rng.normal(0, sd["group_window"], size=windows)
        + rng.normal(0, sd["residual"], size=(seeds, windows))
        for seeds in seeds_per_group
    ]


def test_effects_of_one_kind_are_found_where_they_are():
    effects = np.array([1.0, 4.0, 2.0])
    only_group = variance_components(np.tile(effects[:, None, None], (1, 3, 3)))
    assert only_group.group == pytest.approx(effects.var(ddof=1))
    assert only_group.shares() == pytest.approx({name: float(name == "group") for name in _NAMES})
    only_window = variance_components(np.tile(effects, (3, 3, 1)))
    assert only_window.window == pytest.approx(effects.var(ddof=1))
    assert only_window.shares() == pytest.approx({name: float(name == "window") for name in _NAMES}, abs=1e-12)


def test_a_single_window_is_the_one_way_analysis():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4, 5, 1)) + np.arange(4.0)[:, None, None]
    result = variance_components(scores)
    within = scores[..., 0].var(axis=1, ddof=1).mean()
    ratio = f_oneway(*scores[..., 0]).statistic
    assert result.seed == pytest.approx(within)
    assert result.group == pytest.approx(within * (ratio - 1) / 5)
    assert result.window is result.group_window is result.residual is None
    assert set(result.shares()) == {"group", "seed"}


def test_balanced_estimates_solve_the_expected_mean_squares():
    y = np.random.default_rng(1).normal(size=(3, 4, 5)) + 3 * np.random.default_rng(2).normal(size=(3, 4, 1))
    mean = y.mean()
    g, gs, w, gw = y.mean((1, 2)), y.mean(2), y.mean((0, 1)), y.mean(1)
    ms = {
        "group": 4 * 5 * ((g - mean) ** 2).sum() / 2,
        "seed": 5 * ((gs - g[:, None]) ** 2).sum() / 9,
        "window": 3 * 4 * ((w - mean) ** 2).sum() / 4,
        "group_window": 4 * ((gw - g[:, None] - w + mean) ** 2).sum() / 8,
        "residual": ((y - gs[:, :, None] - gw[:, None, :] + g[:, None, None]) ** 2).sum() / 36,
    }
    raw = {
        "group": (ms["group"] - ms["seed"] - ms["group_window"] + ms["residual"]) / 20,
        "seed": (ms["seed"] - ms["residual"]) / 5,
        "window": (ms["window"] - ms["group_window"]) / 12,
        "group_window": (ms["group_window"] - ms["residual"]) / 4,
        "residual": ms["residual"],
    }
    result = variance_components(y)
    for name, value in raw.items():
        assert getattr(result, name) == pytest.approx(max(0.0, value)), name
    assert dict(result.clipped) == pytest.approx({name: value for name, value in raw.items() if value < 0})


@pytest.mark.parametrize("seeds", [[4] * 5, [2, 3, 8, 1, 6]], ids=["balanced", "unequal numbers of seeds"])
def test_known_variances_are_recovered_without_bias(seeds):
    rng = np.random.default_rng(3)
    sd = {"group": 2.0, "seed": 1.5, "window": 1.0, "group_window": 0.7, "residual": 0.5}
    results = [variance_components(_simulated(rng, seeds, 6, sd)) for _ in range(1500)]
    for name in _NAMES:
        unclipped = [result.clipped.get(name, getattr(result, name)) for result in results]
        error = np.std(unclipped) / np.sqrt(len(unclipped))
        assert abs(np.mean(unclipped) - sd[name] ** 2) < 4 * error, name


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(-100, 100), st.sampled_from([0.5, 2.0, 8.0]))
def test_a_shift_changes_nothing_and_a_scale_counts_squared(seed, shift, scale):
    scores = np.random.default_rng(seed).normal(size=(3, 3, 2))
    before, after = variance_components(scores), variance_components(scores * scale + shift)
    for name in _NAMES:
        assert getattr(after, name) == pytest.approx(scale**2 * getattr(before, name), rel=1e-6, abs=1e-9)
    assert all(value >= 0 for value in before.shares().values())


def test_negative_estimates_are_zero_and_said():
    # Both groups have the same mean while their seeds differ: the group estimate is negative.
    result = variance_components([[[0.0], [2.0]], [[0.0], [2.0]]])
    assert result.group == 0.0
    assert dict(result.clipped) == {"group": pytest.approx(-1.0)}
    assert result.shares() == {"group": 0.0, "seed": 1.0}


def test_equal_scores_have_no_shares():
    assert variance_components(np.ones((2, 2, 2))).shares() == {}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.ones((1, 3, 3)), "at least 2 groups but got 1"),
        (np.ones((3, 1, 3)), "one seed per group"),
        (np.ones((3, 3)), r"scores\[0\] must have the axes \(seed, window\)"),
        ([np.ones((2, 3)), np.ones((2, 2))], r"same windows in every group but got \[2, 3\]"),
        ([np.ones((2, 2)), [[1.0, np.nan]]], r"scores\[1\] must be finite but 1 of its 2"),
        (7.0, "one \\(seed, window\\) array per group"),
    ],
)
def test_bad_input_is_refused(scores, message):
    with pytest.raises(DataError, match=message):
        variance_components(scores)
