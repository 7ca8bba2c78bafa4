"""The formulas of the ratios, from sufficient statistics. Array functions and summaries share them.

Definitions: Bacon 2008. All rates are per period; `periods` annualises arithmetically. A ratio that its
data do not define is `Undefined` with the reason.
"""

from __future__ import annotations

import math

from drl_ray_tracking.episodes.kpis import Kpi, Undefined
from drl_ray_tracking.episodes.moments import ZERO_VARIANCE, CoMoments, Moments, is_negligible

TOO_FEW_BARS = Undefined("too_few_bars")
NO_PERIODS = Undefined("no_periods_per_year")


def volatility(returns: Moments) -> Kpi:
    """Standard deviation (ddof 1) per period, n >= 2."""
    return TOO_FEW_BARS if returns.n < 2 else returns.sd


def sharpe(returns: Moments, risk_free_rate: float) -> Kpi:
    """(mean - rf) / sd per period, arithmetic, n >= 2."""
    spread = volatility(returns)
    if isinstance(spread, Undefined):
        return spread
    return ZERO_VARIANCE if spread == 0.0 else (returns.mean - risk_free_rate) / spread


def sortino(returns: Moments, squared_shortfalls: float, minimum_acceptable_return: float) -> Kpi:
    """(mean - MAR) / sqrt(sum(min(r - MAR, 0)^2) / n) per period, n >= 2; all bars count in n."""
    if returns.n < 2:
        return TOO_FEW_BARS
    downside = math.sqrt(squared_shortfalls / returns.n)
    if is_negligible(downside, returns.mean):
        return Undefined("no_shortfall")
    return (returns.mean - minimum_acceptable_return) / downside


def omega(n: int, gains: float, losses: float) -> Kpi:
    """Sum of gains over sum of losses about the threshold, n >= 2."""
    if n < 2:
        return TOO_FEW_BARS
    return gains / losses if losses != 0.0 else Undefined("no_losses")


def cagr(log_growth: float, n: int, periods: float, *, ruined: bool) -> Kpi:
    """exp(P * sum(log1p r) / n) - 1; -1 after a ruin."""
    if ruined:
        return -1.0
    if n < 1:
        return TOO_FEW_BARS
    try:
        return math.expm1(periods * log_growth / n)
    except OverflowError:
        return math.inf


def calmar(annual_growth: Kpi, drawdown: float) -> Kpi:
    """CAGR over maximum drawdown of one path; undefined without a drawdown."""
    if isinstance(annual_growth, Undefined):
        return annual_growth
    return annual_growth / drawdown if drawdown > 0.0 else Undefined("no_drawdown")


def jensen_alpha(pairs: CoMoments, risk_free_rate: float) -> Kpi:
    """(mean_x - rf) - beta (mean_y - rf) per period, arithmetic."""
    beta = pairs.beta
    if isinstance(beta, Undefined):
        return beta
    return (pairs.mean_x - risk_free_rate) - beta * (pairs.mean_y - risk_free_rate)


def information(pairs: CoMoments) -> Kpi:
    """mean(x - y) / sd(x - y) per period."""
    spread = pairs.difference_sd
    if isinstance(spread, Undefined):
        return spread
    return Undefined("zero_tracking_error") if spread == 0.0 else (pairs.mean_x - pairs.mean_y) / spread


def profit_factor(wins: float, losses: float) -> Kpi:
    """Sum of winning over sum of losing pnl (both given as positive numbers)."""
    return wins / losses if losses > 0.0 else Undefined("no_losses")


def system_quality(pnl: Moments) -> Kpi:
    """SQN: sqrt(min(N, 100)) * mean / sd over closed trades, N >= 2."""
    if pnl.n < 2:
        return Undefined("too_few_trades")
    spread = pnl.sd
    if isinstance(spread, Undefined):
        return spread
    return ZERO_VARIANCE if spread == 0.0 else math.sqrt(min(pnl.n, 100)) * pnl.mean / spread
