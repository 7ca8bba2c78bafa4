"""Costs and regimes: closed forms, and nothing claimed where there is nothing."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drl_ray_tracking.analysis.sensitivity import cost_sensitivity, regimes
from drl_ray_tracking.errors import DataError


def test_the_costs_paid_are_multiple_one_and_none_is_gross() -> None:
    net, costs = np.array([0.01, -0.02, 0.03]), np.array([0.001, 0.0, 0.002])
    found = cost_sensitivity(net, costs, (0.0, 1.0, 2.0))
    assert [point.total for point in found.points] == pytest.approx(
        [np.prod(1 + net + costs) - 1, np.prod(1 + net) - 1, np.prod(1 + net - costs) - 1]
    )
    assert found.points[1].sharpe == pytest.approx(net.mean() / net.std(ddof=1))
    assert found.break_even == pytest.approx((net + costs).mean() / costs.mean())
    assert found.paid == pytest.approx(0.003)


@given(st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=30), st.floats(0.0001, 0.1))
def test_at_the_break_even_nothing_is_earned_on_average(returns: list[float], cost: float) -> None:
    net, costs = np.array(returns), np.full(len(returns), cost)
    found = cost_sensitivity(net, costs)
    if found.break_even > 0.0:
        assert (net + costs - found.break_even * costs).mean() == pytest.approx(0.0, abs=1e-12)
    totals = [point.total for point in found.points]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(totals))


def test_without_costs_no_cost_breaks_even() -> None:
    found = cost_sensitivity([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    assert found.break_even == math.inf and found.points[0].sharpe is None and found.paid == 0.0
    assert cost_sensitivity([-0.1, -0.2], [0.01, 0.01]).break_even == 0.0


def test_a_regime_is_that_of_the_bars_before() -> None:
    hold = np.concatenate([np.full(30, 0.01), np.full(30, -0.01)]) + np.tile([1e-4, -1e-4], 30)
    mine = np.arange(60) / 1000.0
    found = {regime.name: regime for regime in regimes(mine, hold, lookback=2)}
    assert sum(regime.bars for regime in found.values()) == 58
    rising = [regime for name, regime in found.items() if name.startswith("rising")]
    falling = [regime for name, regime in found.items() if name.startswith("falling")]
    # Bar 31, the first after two falling ones... 30 and 31 are falling: bar 32 is the first that knows it.
    assert sum(regime.bars for regime in rising) == 29 and sum(regime.bars for regime in falling) == 29
    total = np.prod([1 + regime.total for regime in found.values()]) - 1
    assert total == pytest.approx(np.prod(1 + mine[2:]) - 1)
    assert all(regime.sharpe is None for regime in found.values() if regime.bars < 20)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cost_sensitivity([0.1, 0.2], [0.1]), "costs_T needs at least 2"),
        (lambda: cost_sensitivity([0.1, 0.2, 0.3], [0.1, 0.1]), "must have the 3 bars"),
        (lambda: cost_sensitivity([0.1, 0.2], [0.1, -0.1]), "must not be negative"),
        (lambda: cost_sensitivity([0.1, 0.2], [0.1, 0.1], (-1.0,)), "multiples must be finite and at least 0"),
        (lambda: regimes(np.zeros(20), np.zeros(20)), "at least 21"),
        (lambda: regimes(np.zeros(30), np.zeros(29)), "must have the 30 bars"),
        (lambda: regimes(np.zeros(30), np.full(30, np.nan)), "hold_T must be finite"),
    ],
)
def test_what_is_wrong_is_said(call: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        call()  # type: ignore[operator]
