"""ReturnStats: pooled statistics over the bars of all episodes, for KPIs that no mean over episodes gives.

iid returns with a true Sharpe ratio of 0.794 cut into episodes of 5 bars give 0.995 when the episodes'
ratios are averaged, 0.803 when their bars are pooled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from drl_ray_tracking.episodes import ratios
from drl_ray_tracking.episodes.activity import Activity
from drl_ray_tracking.episodes.arrays import FloatArray
from drl_ray_tracking.episodes.conventions import Agreement, Conventions
from drl_ray_tracking.episodes.equity_path import EquityPath
from drl_ray_tracking.episodes.kpis import NOT_REPORTED, Kpi, KpiTable, Undefined, ratio, times
from drl_ray_tracking.episodes.moments import CoMoments, Moments
from drl_ray_tracking.episodes.record import EpisodeRecord
from drl_ray_tracking.episodes.sketch import QuantileSketch

TAIL = 0.05

# Without one agreed convention none of these has a meaning.
_BY_CONVENTION = (
    "trading/sharpe",
    "trading/sharpe_per_period",
    "trading/volatility",
    "trading/cagr",
    "trading/sortino",
    "trading/omega",
    "trading/alpha",
    "trading/tracking_error",
    "trading/information_ratio",
)


@dataclass(frozen=True, slots=True)
class ReturnStats:
    """Sufficient statistics of pooled bar returns; a commutative monoid.

    Attributes:
        returns: moments of the simple returns of all bars that have one.
        log_growth: sum of log(1 + r), ruin bars excluded.
        ruined: episodes that ended in ruin.
        nan_bars: bars without a return.
        squared_shortfalls: sum of min(r - MAR, 0)^2.
        gains, losses: sums about the Omega threshold, both positive.
        sketch: quantiles of the returns.
        benchmark: returns against those of buying and holding `price`, bars that have both.
        activity: exposure, turnover, fees.
        conventions: those the sums were made under.
    """

    returns: Moments = field(default_factory=Moments)
    log_growth: float = 0.0
    ruined: int = 0
    nan_bars: int = 0
    squared_shortfalls: float = 0.0
    gains: float = 0.0
    losses: float = 0.0
    sketch: QuantileSketch = field(default_factory=QuantileSketch)
    benchmark: CoMoments = field(default_factory=CoMoments)
    benchmark_episodes: int = 0
    activity: Activity = field(default_factory=Activity)
    conventions: Agreement = field(default_factory=Agreement)

    @classmethod
    def empty(cls) -> ReturnStats:
        """Returns the identity of `merge`."""
        return cls()

    @classmethod
    def of(cls, record: EpisodeRecord, path: EquityPath) -> ReturnStats:
        """Measures the bars of one episode whose equity is `path`."""
        returns = path.returns[~np.isnan(path.returns)]
        rules = record.conventions
        shortfalls = np.minimum(returns - rules.minimum_acceptable_return, 0.0)
        excess = returns - rules.omega_threshold
        return cls(
            returns=Moments.of(returns),
            log_growth=path.log_growth,
            ruined=int(path.ruined),
            nan_bars=path.bars - returns.size,
            squared_shortfalls=float((shortfalls * shortfalls).sum()),
            gains=float(np.maximum(excess, 0.0).sum()),
            losses=-float(np.minimum(excess, 0.0).sum()),
            sketch=QuantileSketch.of(returns),
            benchmark=CoMoments() if record.price is None else _against_price(path, record.price),
            benchmark_episodes=int(record.price is not None),
            activity=Activity.of(record, path),
            conventions=Agreement((rules,)),
        )

    def merge(self, other: ReturnStats) -> ReturnStats:
        """Returns the statistics of both sets of bars together."""
        return ReturnStats(
            self.returns.merge(other.returns),
            self.log_growth + other.log_growth,
            self.ruined + other.ruined,
            self.nan_bars + other.nan_bars,
            self.squared_shortfalls + other.squared_shortfalls,
            self.gains + other.gains,
            self.losses + other.losses,
            self.sketch.merge(other.sketch),
            self.benchmark.merge(other.benchmark),
            self.benchmark_episodes + other.benchmark_episodes,
            self.activity.merge(other.activity),
            self.conventions.merge(other.conventions),
        )

    def describe(self, table: KpiTable) -> None:
        """Enters the pooled KPIs."""
        returns = self.returns
        table.put("trading/bars", float(returns.n))
        table.put("trading/nan_bars", float(self.nan_bars))
        table.put("trading/total_return", pooled_return(returns.n, self.log_growth, self.ruined))
        for name, shape in (("skewness", returns.skewness), ("kurtosis", returns.kurtosis)):
            table.put(f"trading/{name}", shape if returns.n >= 2 else ratios.TOO_FEW_BARS)
        low, high = self.sketch.quantile(TAIL), self.sketch.quantile(1.0 - TAIL)
        table.put("trading/value_at_risk_95", times(low, -1.0))
        table.put("trading/expected_shortfall_95", times(self.sketch.lower_tail_mean(TAIL), -1.0))
        if isinstance(low, Undefined) or isinstance(high, Undefined):
            table.put("trading/tail_ratio", ratios.TOO_FEW_BARS)
        else:
            table.put("trading/tail_ratio", ratio(abs(high), abs(low), "zero_lower_tail"))
        table.put("trading/beta", self.benchmark.beta if self.benchmark_episodes else NOT_REPORTED)
        rules = self.conventions.agreed
        if isinstance(rules, Undefined):
            for key in _BY_CONVENTION:
                table.put(key, rules)
        else:
            self._describe_by(rules, table)
        self.activity.describe(table)

    def _describe_by(self, rules: Conventions, table: KpiTable) -> None:
        returns, benchmark = self.returns, self.benchmark
        periods = annual_factor(rules)
        root = periods if isinstance(periods, Undefined) else math.sqrt(periods)
        sharpe = ratios.sharpe(returns, rules.risk_free_rate)
        table.put("trading/sharpe_per_period", sharpe)
        table.put("trading/sharpe", times(sharpe, root))
        table.put("trading/volatility", times(ratios.volatility(returns), root))
        sortino = ratios.sortino(returns, self.squared_shortfalls, rules.minimum_acceptable_return)
        table.put("trading/sortino", times(sortino, root))
        table.put("trading/omega", ratios.omega(returns.n, self.gains, self.losses))
        growth = (
            periods
            if isinstance(periods, Undefined)
            else ratios.cagr(self.log_growth, returns.n, periods, ruined=self.ruined > 0)
        )
        table.put("trading/cagr", growth)
        relative: tuple[tuple[str, Kpi, Kpi], ...] = (
            ("alpha", ratios.jensen_alpha(benchmark, rules.risk_free_rate), periods),
            ("tracking_error", benchmark.difference_sd, root),
            ("information_ratio", ratios.information(benchmark), root),
        )
        for name, value, factor in relative:
            table.put(f"trading/{name}", times(value, factor) if self.benchmark_episodes else NOT_REPORTED)


def annual_factor(rules: Conventions) -> Kpi:
    """Returns the periods per year, or that none were stated."""
    return ratios.NO_PERIODS if rules.periods_per_year is None else rules.periods_per_year


def pooled_return(n: int, log_growth: float, ruined: int) -> Kpi:
    """Returns the compounded return over all bars; -1 where any episode was ruined."""
    if ruined:
        return -1.0
    if n == 0:
        return Undefined("no_bars")
    try:
        return math.expm1(log_growth)
    except OverflowError:
        return math.inf


def _against_price(path: EquityPath, price: FloatArray) -> CoMoments:
    """Pairs bar returns with the price's over the marks that both have.

    A mark one side lacks is left out of both, so that a bar spanning a gap spans the same gap in both.
    """
    price = price[: path.bars + 1]
    traded = np.isfinite(price) & (price > 0.0)
    shared = np.flatnonzero(traded & path.marked)
    equity, price = path.equity[shared], price[shared]
    own, market = np.diff(equity) / equity[:-1], np.diff(price) / price[:-1]
    both = np.isfinite(own) & np.isfinite(market)
    return CoMoments.of(own[both], market[both])
