"""Trading ratios of one path, over arrays: the same formulas as the summaries, for analysis and notebooks.

Shape: `returns` is (T,), simple returns net of costs from marked-to-market equity, one per bar
(`simple_returns` makes them); `pnl` is (N,), one number per closed trade net of fees. NaN is dropped.
What the data do not define is NaN, never 0 or inf. Rates are per period. Definitions: Bacon 2008.

Every function raises EpisodeError for an argument that is no one-dimensional array of numbers, and
ConfigurationError for `periods_per_year` that is not positive and finite.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from drl_ray_tracking.episodes import ratios
from drl_ray_tracking.episodes.arrays import FloatArray, float_vector
from drl_ray_tracking.episodes.conventions import checked_periods
from drl_ray_tracking.episodes.drawdown import depth_and_duration
from drl_ray_tracking.episodes.equity_path import EquityPath
from drl_ray_tracking.episodes.kpis import Kpi, number, times
from drl_ray_tracking.episodes.moments import Moments
from drl_ray_tracking.errors import ConfigurationError


def simple_returns(equity: ArrayLike) -> FloatArray:
    """Returns r_t = E_t / E_{t-1} - 1, shape (T,), of equity (T + 1,) with the initial one included.

    A bar whose mark is NaN is NaN, and the next mark's bar carries the whole move. Equity <= 0 or infinite
    is ruin: -1 at that bar, and NaN after it.
    """
    marks = float_vector(equity, "equity")
    returns = np.full(max(marks.size - 1, 0), math.nan)
    usable = EquityPath.of(marks).returns
    returns[: usable.size] = usable
    return returns


def sharpe_ratio(returns: ArrayLike, *, periods_per_year: float, risk_free_rate: float = 0.0) -> float:
    """Returns (mean - rf) / sd * sqrt(P), sd with ddof 1; NaN below two bars or at zero variance."""
    return _annual_ratio(ratios.sharpe(_moments(returns), risk_free_rate), periods_per_year)


def sortino_ratio(returns: ArrayLike, *, periods_per_year: float, minimum_acceptable_return: float = 0.0) -> float:
    """Returns (mean - MAR) / sqrt(sum(min(r - MAR, 0)^2) / n) * sqrt(P), all n bars below the sum.

    NaN below two bars or without a shortfall.
    """
    values = _returns(returns)
    with np.errstate(all="ignore"):
        shortfalls = np.minimum(values - minimum_acceptable_return, 0.0)
        squared = float((shortfalls * shortfalls).sum())
    return _annual_ratio(ratios.sortino(_moments(values), squared, minimum_acceptable_return), periods_per_year)


def omega_ratio(returns: ArrayLike, *, threshold: float = 0.0) -> float:
    """Returns the sum of gains over the losses about a threshold.

    NaN below two bars or without a loss.
    """
    with np.errstate(all="ignore"):
        excess = _returns(returns) - threshold
        gains, losses = float(np.maximum(excess, 0.0).sum()), -float(np.minimum(excess, 0.0).sum())
    return number(ratios.omega(excess.size, gains, losses))


def max_drawdown(returns: ArrayLike) -> float:
    """Returns max(1 - E / peak) of compounded returns, the initial equity included; NaN without a bar.

    A return of -100 % or less is ruin: a drawdown of 1.
    """
    path = _compounded(_returns(returns))
    return depth_and_duration(path)[0] if path.bars or path.ruined else math.nan


def calmar_ratio(returns: ArrayLike, *, periods_per_year: float) -> float:
    """Returns CAGR / maximum drawdown of one path; NaN without a drawdown or a bar."""
    periods = checked_periods(periods_per_year)
    path = _compounded(_returns(returns))
    if not path.bars:
        return math.nan
    growth = ratios.cagr(path.log_growth, path.bars, periods, ruined=path.ruined)
    return number(ratios.calmar(growth, depth_and_duration(path)[0]))


def profit_factor(pnl: ArrayLike) -> float:
    """Returns the sum of winning over the sum of losing closed trades, net of fees; NaN without a loss."""
    values = _finite(pnl, "pnl")
    with np.errstate(all="ignore"):
        won, lost = float(values[values > 0.0].sum()), -float(values[values < 0.0].sum())
    return number(ratios.profit_factor(won, lost))


def value_at_risk(returns: ArrayLike, *, confidence: float = 0.95) -> float:
    """Returns the historical value at risk, the negated linear quantile at 1 - confidence.

    A loss is positive; negative means that even this quantile is a gain. NaN without a bar.
    """
    values = _returns(returns)
    tail = _tail(confidence)
    return -float(np.quantile(values, tail)) if values.size else math.nan


def expected_shortfall(returns: ArrayLike, *, confidence: float = 0.95) -> float:
    """Returns the negated mean of the floor((1 - confidence) (n - 1)) + 1 smallest returns.

    NaN without a bar.
    """
    values = _returns(returns)
    tail = _tail(confidence)
    if not values.size:
        return math.nan
    size = math.floor(tail * (values.size - 1)) + 1
    return -float(np.partition(values, size - 1)[:size].mean())


def _finite(values: ArrayLike, name: str) -> FloatArray:
    """Drops NaN; one infinite number leaves nothing, because it makes every ratio undefined."""
    array = float_vector(values, name)
    array = array[~np.isnan(array)]
    return array if np.isfinite(array).all() else array[:0]


def _returns(returns: ArrayLike) -> FloatArray:
    return _finite(returns, "returns")


def _moments(returns: ArrayLike) -> Moments:
    with np.errstate(all="ignore"):
        return Moments.of(_returns(returns))


def _compounded(returns: FloatArray) -> EquityPath:
    with np.errstate(all="ignore"):
        return EquityPath.of(np.concatenate(([1.0], np.cumprod(1.0 + returns))))


def _annual_ratio(value: Kpi, periods_per_year: float) -> float:
    return number(times(value, math.sqrt(checked_periods(periods_per_year))))


def _tail(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise ConfigurationError(f"confidence must lie between 0 and 1 but is {confidence}: 0.95 for the 5 % tail")
    # 1 - 0.95 is not 0.05 in binary, and the size of a tail jumps where they differ.
    return round(1.0 - confidence, 12)


__all__ = [
    "calmar_ratio",
    "expected_shortfall",
    "max_drawdown",
    "omega_ratio",
    "profit_factor",
    "sharpe_ratio",
    "simple_returns",
    "sortino_ratio",
    "value_at_risk",
]
