"""Array functions: published values, empyrical as oracle, undefined cases, agreement with the summaries."""

import math

import empyrical
import numpy as np
import pytest

from drl_ray_tracking.episodes import Conventions, EpisodeRecord, EpisodeSummary, Trade
from drl_ray_tracking.episodes import trading as t
from drl_ray_tracking.errors import ConfigurationError, EpisodeError

BACON = [0.17, 0.15, 0.23, -0.05, 0.12, 0.09, 0.13, -0.04]


def series(kind: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    return {
        "normal": rng.normal(0.0005, 0.01, 750),
        "heavy tails": rng.standard_t(3, 2000) * 0.01,
        "two bars": np.array([0.02, -0.01]),
        "long": rng.normal(0.0, 0.005, 100_000),
    }[kind]


KINDS = ("normal", "heavy tails", "two bars", "long")


def test_sortino_of_the_published_example():
    assert t.sortino_ratio(BACON, periods_per_year=1) == pytest.approx(4.417261, abs=5e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_array_functions_agree_with_empyrical(kind):
    r = series(kind)
    assert t.sharpe_ratio(r, periods_per_year=252) == pytest.approx(empyrical.sharpe_ratio(r), rel=1e-9)
    assert t.sortino_ratio(r, periods_per_year=252) == pytest.approx(empyrical.sortino_ratio(r), rel=1e-9)
    assert t.omega_ratio(r) == pytest.approx(empyrical.omega_ratio(r), rel=1e-9)
    assert t.max_drawdown(r) == pytest.approx(-empyrical.max_drawdown(r), rel=1e-9)
    assert t.calmar_ratio(r, periods_per_year=252) == pytest.approx(empyrical.calmar_ratio(r), rel=1e-9)
    assert t.value_at_risk(r) == pytest.approx(-empyrical.value_at_risk(r), rel=1e-9)
    assert t.expected_shortfall(r) == pytest.approx(-empyrical.conditional_value_at_risk(r), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_summaries_agree_with_the_array_functions_and_empyrical(kind):
    r = series(kind)
    market = 0.5 * r + np.random.default_rng(4).normal(0.0, 0.01, r.size)
    record = EpisodeRecord(
        0.0,
        r.size,
        equity=1e4 * np.cumprod(np.concatenate(([1.0], 1.0 + r))),
        price=100.0 * np.cumprod(np.concatenate(([1.0], 1.0 + market))),
        conventions=Conventions(252.0, 0.0001, 0.0002, 0.0003),
    )
    kpis = EpisodeSummary.of(record).compute()
    r = t.simple_returns(record.equity)
    exact = {
        "sharpe": t.sharpe_ratio(r, periods_per_year=252, risk_free_rate=0.0001),
        "sharpe_per_period": t.sharpe_ratio(r, periods_per_year=1, risk_free_rate=0.0001),
        "sortino": t.sortino_ratio(r, periods_per_year=252, minimum_acceptable_return=0.0002),
        "omega": t.omega_ratio(r, threshold=0.0003),
        "max_drawdown": t.max_drawdown(r),
        "volatility": empyrical.annual_volatility(r),
        "cagr": empyrical.cagr(r),
        "total_return": empyrical.cum_returns_final(r),
        "beta": empyrical.beta(r, market),
        "tracking_error": np.std(r - market, ddof=1) * math.sqrt(252),
        "information_ratio": np.mean(r - market) / np.std(r - market, ddof=1) * math.sqrt(252),
        "alpha": 252 * ((r.mean() - 1e-4) - empyrical.beta(r, market) * (market.mean() - 1e-4)),
    }
    for name, value in exact.items():
        assert kpis[f"trading/{name}"] == pytest.approx(value, rel=1e-9, abs=1e-9), name
    assert kpis["episode/calmar_mean"] == pytest.approx(t.calmar_ratio(r, periods_per_year=252), rel=1e-9)
    assert kpis["trading/value_at_risk_95"] == pytest.approx(t.value_at_risk(r), rel=0.0101)
    assert kpis["trading/expected_shortfall_95"] == pytest.approx(t.expected_shortfall(r), rel=0.0101)
    assert kpis["trading/tail_ratio"] == pytest.approx(empyrical.tail_ratio(r), rel=0.0203)


RATIOS = (
    lambda r: t.sharpe_ratio(r, periods_per_year=252),
    lambda r: t.sortino_ratio(r, periods_per_year=252),
    t.omega_ratio,
    lambda r: t.calmar_ratio(r, periods_per_year=252),
)
RISKS = (t.max_drawdown, t.value_at_risk, t.expected_shortfall)


@pytest.mark.parametrize("returns", [[], [math.nan] * 5, [0.01, math.inf, -0.01]])
@pytest.mark.parametrize("function", RATIOS + RISKS)
def test_without_a_usable_bar_nothing_is_defined(function, returns):
    assert math.isnan(function(returns))


@pytest.mark.parametrize("function", RATIOS)
def test_a_constant_gain_defines_no_ratio(function):
    assert math.isnan(function(np.full(100, 0.01)))
    assert math.isnan(function([0.01]))


def test_a_constant_at_an_offset_has_zero_variance():
    assert math.isnan(t.sharpe_ratio(np.full(1000, 1e8 + 0.1), periods_per_year=252))


def test_nan_bars_are_dropped():
    assert t.sharpe_ratio([*BACON, math.nan], periods_per_year=1) == t.sharpe_ratio(BACON, periods_per_year=1)


def test_ruin_is_a_drawdown_of_one_and_ends_the_path():
    assert t.max_drawdown([0.1, -1.0, 5.0]) == 1.0
    assert t.calmar_ratio([0.1, -1.5, 5.0], periods_per_year=252) == -1.0
    np.testing.assert_array_equal(t.simple_returns([2.0, 1.0, 0.0, 5.0]), [-0.5, -1.0, math.nan])


def test_a_gap_in_equity_keeps_the_whole_move():
    np.testing.assert_array_equal(t.simple_returns([1.0, math.nan, 2.0, 1.0]), [math.nan, 1.0, -0.5])
    np.testing.assert_array_equal(t.simple_returns([math.nan, 1.0, 2.0]), [math.nan, 1.0])


def test_profit_factor():
    assert t.profit_factor([3.0, -1.0, 0.0, -0.5, math.nan]) == 2.0
    assert t.profit_factor([-1.0]) == 0.0
    assert math.isnan(t.profit_factor([1.0, 2.0]))


def test_arguments_are_checked():
    with pytest.raises(EpisodeError, match="one-dimensional"):
        t.max_drawdown(np.ones((2, 2)))
    with pytest.raises(ConfigurationError, match="periods_per_year"):
        t.sharpe_ratio(BACON, periods_per_year=0)
    with pytest.raises(ConfigurationError, match="confidence"):
        t.value_at_risk(BACON, confidence=95)


def test_trade_kpis_by_hand():
    pnl = [4.0, 2.0, -3.0, 0.0]
    trades = tuple(Trade(None, None, 1, value, 0.1, bars) for value, bars in zip(pnl, (1, 2, 3, 6), strict=True))
    kpis = EpisodeSummary.of(EpisodeRecord(0.0, 1, equity=[1.0, 2.0], trades=trades)).compute()
    expected = {
        "trades": 4.0,
        "breakeven_trades": 1.0,
        "win_rate": 2.0 / 3.0,
        "profit_factor": 2.0,
        "payoff_ratio": 1.0,
        "expectancy": 0.75,
        "holding_bars_mean": 3.0,
        "sqn": 2.0 * 0.75 / np.std(pnl, ddof=1),
    }
    for name, value in expected.items():
        assert kpis[f"trading/{name}"] == pytest.approx(value, rel=1e-12), name
