"""SymbolStats: the few KPIs that are worth having per traded symbol."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from drl_ray_tracking.episodes import ratios
from drl_ray_tracking.episodes.bounded import merge_tables, warn_overflow
from drl_ray_tracking.episodes.conventions import Agreement
from drl_ray_tracking.episodes.kpis import NOT_REPORTED, KpiTable, Undefined, times
from drl_ray_tracking.episodes.moments import Moments
from drl_ray_tracking.episodes.paths import PathStats
from drl_ray_tracking.episodes.record import EpisodeRecord
from drl_ray_tracking.episodes.returns import ReturnStats, annual_factor, pooled_return
from drl_ray_tracking.episodes.trades import TradeStats

MAX_SYMBOLS = 32


@dataclass(frozen=True, slots=True)
class SymbolStats:
    """One symbol's pooled bars, worst drawdown and closed trades; a commutative monoid."""

    episodes: int = 0
    returns: Moments = field(default_factory=Moments)
    log_growth: float = 0.0
    ruined: int = 0
    max_drawdown: float = -math.inf
    trades: int = 0
    trades_known: bool = False
    conventions: Agreement = field(default_factory=Agreement)

    @classmethod
    def of(cls, bars: ReturnStats, path: PathStats, trades: TradeStats | None) -> SymbolStats:
        """Takes one episode's share out of its statistics."""
        return cls(
            1,
            bars.returns,
            bars.log_growth,
            bars.ruined,
            path.drawdowns.max,
            0 if trades is None else trades.pnl.n,
            trades is not None,
            bars.conventions,
        )

    def merge(self, other: SymbolStats) -> SymbolStats:
        """Returns the statistics of both sets of episodes together."""
        return SymbolStats(
            self.episodes + other.episodes,
            self.returns.merge(other.returns),
            self.log_growth + other.log_growth,
            self.ruined + other.ruined,
            max(self.max_drawdown, other.max_drawdown),
            self.trades + other.trades,
            self.trades_known or other.trades_known,
            self.conventions.merge(other.conventions),
        )

    def describe(self, symbol: str, table: KpiTable) -> None:
        """Enters the KPIs under `trading/by_symbol/<symbol>/`."""
        key = f"trading/by_symbol/{symbol}"
        returns = self.returns
        table.put(f"{key}/bars", float(returns.n))
        table.put(f"{key}/total_return", pooled_return(returns.n, self.log_growth, self.ruined))
        no_path = Undefined("no_bars")
        table.put(f"{key}/max_drawdown", self.max_drawdown if self.max_drawdown >= 0.0 else no_path)
        table.put(f"{key}/trades", float(self.trades) if self.trades_known else NOT_REPORTED)
        rules = self.conventions.agreed
        if isinstance(rules, Undefined):
            table.put(f"{key}/sharpe", rules)
        else:
            periods = annual_factor(rules)
            root = periods if isinstance(periods, Undefined) else math.sqrt(periods)
            table.put(f"{key}/sharpe", times(ratios.sharpe(returns, rules.risk_free_rate), root))


@dataclass(frozen=True, slots=True)
class SymbolTable:
    """SymbolStats by symbol, at most 32 of them; `episodes` counts all that have a symbol, shown or not."""

    symbols: Mapping[str, SymbolStats] = field(default_factory=dict)
    episodes: int = 0

    @classmethod
    def of(cls, record: EpisodeRecord, stats: SymbolStats) -> SymbolTable:
        """Files one episode under its symbol; a slash would split the key, so BTC/USD becomes BTC-USD."""
        symbol = record.labels.get("symbol", "").replace("/", "-")
        return cls({symbol: stats}, 1) if symbol else cls()

    def merge(self, other: SymbolTable) -> SymbolTable:
        """Merges symbol by symbol."""
        return SymbolTable(
            merge_tables(self.symbols, other.symbols, SymbolStats.merge, MAX_SYMBOLS),
            self.episodes + other.episodes,
        )

    def describe(self, table: KpiTable) -> None:
        """Enters every symbol, and how many episodes belong to symbols that are not shown."""
        for symbol, stats in self.symbols.items():
            stats.describe(symbol, table)
        hidden = self.episodes - sum(stats.episodes for stats in self.symbols.values())
        if hidden:
            warn_overflow("by_symbol", MAX_SYMBOLS)
        table.count_undefined("by_symbol", "overflow", hidden)
