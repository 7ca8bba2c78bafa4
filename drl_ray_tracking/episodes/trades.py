"""TradeStats: what closed trades won and lost, net of fees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from drl_ray_tracking.episodes import ratios
from drl_ray_tracking.episodes.arrays import FloatArray
from drl_ray_tracking.episodes.kpis import KpiTable, Undefined, ratio
from drl_ray_tracking.episodes.moments import Moments
from drl_ray_tracking.episodes.record import Trade
from drl_ray_tracking.episodes.round_trips import RoundTrips


@dataclass(frozen=True, slots=True)
class TradeStats:
    """Sufficient statistics of closed trades; a commutative monoid.

    A breakeven trade (pnl of exactly zero) is neither a win nor a loss: it counts in expectancy and SQN,
    not in the win rate. A trade whose pnl is not finite is left out and counted in `dropped`.
    """

    wins: int = 0
    losses: int = 0
    breakeven: int = 0
    won: float = 0.0
    lost: float = 0.0
    pnl: Moments = field(default_factory=Moments)
    holding_bars: float = 0.0
    holding_trades: int = 0
    open_trades: int = 0
    dropped: int = 0

    @classmethod
    def empty(cls) -> TradeStats:
        """Returns the identity of `merge`."""
        return cls()

    @classmethod
    def of(cls, trades: Sequence[Trade]) -> TradeStats:
        """Measures trades the environment reported."""
        pnl = np.array([trade.pnl for trade in trades], dtype=np.float64)
        return cls._of_columns(pnl, np.array([trade.bars for trade in trades], dtype=np.float64), 0)

    @classmethod
    def of_round_trips(cls, trips: RoundTrips) -> TradeStats:
        """Measures trades derived from positions."""
        return cls._of_columns(trips.pnl, trips.bars.astype(np.float64), trips.open_trades)

    @classmethod
    def _of_columns(cls, pnl: FloatArray, bars: FloatArray, open_trades: int) -> TradeStats:
        finite = np.isfinite(pnl)
        dropped = int(pnl.size - np.count_nonzero(finite))
        if dropped:
            pnl, bars = pnl[finite], bars[finite]
        bars = bars[np.isfinite(bars)]
        wins, losses = pnl > 0.0, pnl < 0.0
        n_wins, n_losses = int(np.count_nonzero(wins)), int(np.count_nonzero(losses))
        return cls(
            n_wins,
            n_losses,
            pnl.size - n_wins - n_losses,
            float(pnl[wins].sum()),
            -float(pnl[losses].sum()),
            Moments.of(pnl),
            float(bars.sum()),
            bars.size,
            open_trades,
            dropped,
        )

    def merge(self, other: TradeStats) -> TradeStats:
        """Returns the statistics of both sets of trades together."""
        return TradeStats(
            self.wins + other.wins,
            self.losses + other.losses,
            self.breakeven + other.breakeven,
            self.won + other.won,
            self.lost + other.lost,
            self.pnl.merge(other.pnl),
            self.holding_bars + other.holding_bars,
            self.holding_trades + other.holding_trades,
            self.open_trades + other.open_trades,
            self.dropped + other.dropped,
        )

    def describe(self, table: KpiTable) -> None:
        """Enters the trade KPIs."""
        no_trades = Undefined("no_trades")
        table.put("trading/trades", float(self.pnl.n))
        table.put("trading/open_trades", float(self.open_trades))
        table.put("trading/breakeven_trades", float(self.breakeven))
        table.put("trading/win_rate", ratio(float(self.wins), self.wins + self.losses, "no_trades"))
        table.put("trading/expectancy", self.pnl.mean if self.pnl.n else no_trades)
        table.put("trading/holding_bars_mean", ratio(self.holding_bars, self.holding_trades, "no_trades"))
        table.put("trading/sqn", ratios.system_quality(self.pnl))
        table.put("trading/profit_factor", ratios.profit_factor(self.won, self.lost) if self.pnl.n else no_trades)
        if not self.losses:
            table.put("trading/payoff_ratio", Undefined("no_losses") if self.pnl.n else no_trades)
        elif not self.wins:
            table.put("trading/payoff_ratio", Undefined("no_wins"))
        else:
            mean_loss = self.lost / self.losses
            table.put("trading/payoff_ratio", ratio(self.won / self.wins, mean_loss, "no_losses"))
        table.count_undefined("trading/trades", "non_finite", self.dropped)


# What a summary without known trades leaves out.
TRADE_KPIS = ("trades", "win_rate", "profit_factor", "payoff_ratio", "expectancy", "sqn", "holding_bars_mean")
