"""PathStats: what belongs to the path of one episode and is therefore a statistic over episodes.

Drawdown, its duration, the Calmar ratio and the total return of one path do not pool over episodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from drl_ray_tracking.episodes import ratios
from drl_ray_tracking.episodes.conventions import Agreement
from drl_ray_tracking.episodes.drawdown import depth_and_duration
from drl_ray_tracking.episodes.equity_path import EquityPath
from drl_ray_tracking.episodes.kpis import OVERFLOW, Kpi, KpiTable, Undefined
from drl_ray_tracking.episodes.moments import Moments
from drl_ray_tracking.episodes.record import EpisodeRecord
from drl_ray_tracking.episodes.returns import annual_factor
from drl_ray_tracking.episodes.sketch import QuantileSketch

NO_BARS = Undefined("no_bars")


def sum_counts(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    """Adds counts by name, in one canonical order."""
    return {name: a.get(name, 0) + b.get(name, 0) for name in sorted({*a, *b})}


@dataclass(frozen=True, slots=True)
class PathStats:
    """Moments over episodes of their path's values; a commutative monoid.

    Attributes:
        ruined: episodes that ended in ruin; their drawdown is 1 and their total return -1.
        without_bars: episodes that have equity, but not one bar with a return.
        calmar_undefined: how many episodes lack a Calmar ratio, by reason.
    """

    drawdowns: Moments = field(default_factory=Moments)
    drawdown_sketch: QuantileSketch = field(default_factory=QuantileSketch)
    longest_drawdown: int = 0
    total_returns: Moments = field(default_factory=Moments)
    calmars: Moments = field(default_factory=Moments)
    calmar_undefined: Mapping[str, int] = field(default_factory=dict)
    ruined: int = 0
    without_bars: int = 0
    overflowed: int = 0
    conventions: Agreement = field(default_factory=Agreement)

    @classmethod
    def empty(cls) -> PathStats:
        """Returns the identity of `merge`."""
        return cls()

    @classmethod
    def of(cls, record: EpisodeRecord, path: EquityPath) -> PathStats:
        """Measures one path."""
        n = int(np.count_nonzero(~np.isnan(path.returns)))
        if n == 0 and not path.ruined:
            return cls(without_bars=1, calmar_undefined={"no_bars": 1})
        depth, duration = depth_and_duration(path)
        periods = annual_factor(record.conventions)
        growth = (
            periods if isinstance(periods, Undefined) else ratios.cagr(path.log_growth, n, periods, ruined=path.ruined)
        )
        calmar = _finite(ratios.calmar(growth, depth))
        total = _finite(path.total_return)
        return cls(
            drawdowns=Moments.single(depth),
            drawdown_sketch=QuantileSketch.single(depth),
            longest_drawdown=duration,
            total_returns=Moments() if isinstance(total, Undefined) else Moments.single(total),
            calmars=Moments() if isinstance(calmar, Undefined) else Moments.single(calmar),
            calmar_undefined={calmar.reason: 1} if isinstance(calmar, Undefined) else {},
            ruined=int(path.ruined),
            overflowed=int(isinstance(total, Undefined)),
            conventions=Agreement((record.conventions,)),
        )

    def merge(self, other: PathStats) -> PathStats:
        """Returns the statistics of both sets of episodes together."""
        return PathStats(
            self.drawdowns.merge(other.drawdowns),
            self.drawdown_sketch.merge(other.drawdown_sketch),
            max(self.longest_drawdown, other.longest_drawdown),
            self.total_returns.merge(other.total_returns),
            self.calmars.merge(other.calmars),
            sum_counts(self.calmar_undefined, other.calmar_undefined),
            self.ruined + other.ruined,
            self.without_bars + other.without_bars,
            self.overflowed + other.overflowed,
            self.conventions.merge(other.conventions),
        )

    def describe(self, table: KpiTable) -> None:
        """Enters the KPIs of paths."""
        depths = self.drawdowns
        table.put("episode/ruined", float(self.ruined))
        table.put("trading/max_drawdown", depths.max if depths.n else NO_BARS)
        table.put("episode/max_drawdown_mean", depths.mean if depths.n else NO_BARS)
        table.put("episode/max_drawdown_p95", self.drawdown_sketch.quantile(0.95) if depths.n else NO_BARS)
        table.put("episode/drawdown_duration_max", float(self.longest_drawdown) if depths.n else NO_BARS)
        if self.total_returns.n:
            table.put("episode/total_return_mean", self.total_returns.mean)
        elif not self.overflowed:
            table.put("episode/total_return_mean", NO_BARS)
        table.count_undefined("episode/total_return_mean", OVERFLOW.reason, self.overflowed)
        rules = self.conventions.agreed
        if isinstance(rules, Undefined) and depths.n:
            table.put("episode/calmar_mean", rules)
        elif self.calmars.n:
            table.put("episode/calmar_mean", self.calmars.mean)
        for reason, count in self.calmar_undefined.items():
            table.count_undefined("episode/calmar_mean", reason, count)


def _finite(value: Kpi) -> Kpi:
    return OVERFLOW if not isinstance(value, Undefined) and not np.isfinite(value) else value
