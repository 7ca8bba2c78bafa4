"""One evaluation episode as its series gives it back: plain arrays, its round trips, its record.

Pure: takes rows of a run's series, returns what is drawn or measured of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from drl_ray_tracking.analysis.equity import bar_times
from drl_ray_tracking.analysis.inputs import FloatArray
from drl_ray_tracking.episodes import Conventions, EpisodeRecord
from drl_ray_tracking.episodes.equity_path import EquityPath
from drl_ray_tracking.episodes.record import trips_on_path
from drl_ray_tracking.episodes.round_trips import RoundTrips
from drl_ray_tracking.errors import DataError


@dataclass(frozen=True, eq=False)
class Trace:
    """An episode of T bars.

    Attributes:
        x: (T + 1,) `datetime64[s]`, or bar numbers where there are no usable times.
        dated: whether `x` is times.
        equity, price: (T + 1,); prices are NaN where the environment names none.
        position, fee, slippage, leverage, action: (T,) held during, paid for, lost to a worse price, used and chosen
            in each bar; NaN where unknown.
        step: env steps of the weights evaluated.
        labels: symbol, window, split, fold and agent; empty texts left out.
        periods_per_year: of its bars; None where unknown.
    """

    x: NDArray[np.generic]
    dated: bool
    equity: FloatArray
    price: FloatArray
    position: FloatArray
    fee: FloatArray
    slippage: FloatArray
    leverage: FloatArray
    action: FloatArray
    step: int
    labels: dict[str, str]
    periods_per_year: float | None

    @property
    def trades(self) -> RoundTrips:
        """The closed round trips; their marks index `x`."""
        return trips_on_path(EquityPath.of(self.equity), self.position, self.fee, self.slippage)

    @property
    def total_return(self) -> float:
        """Of the agent; -1 where it was ruined."""
        return EquityPath.of(self.equity).total_return

    @property
    def hold_return(self) -> float | None:
        """Of buying at the first price and holding; None without prices."""
        return float(self.price[-1] / self.price[0] - 1.0) if np.isfinite(self.price).all() else None

    def record(self) -> EpisodeRecord:
        """Returns the episode as the exact statistics take it; rates other than `periods_per_year` are zero."""
        return EpisodeRecord(
            episode_return=0.0,
            length=len(self.position),
            labels=self.labels,
            equity=self.equity,
            position=self.position if np.isfinite(self.position).any() else None,
            price=self.price if np.isfinite(self.price).any() else None,
            fee=self.fee if np.isfinite(self.fee).any() else None,
            slippage=self.slippage if np.isfinite(self.slippage).any() else None,
            conventions=Conventions(periods_per_year=self.periods_per_year),
        )


def traces(bars: pd.DataFrame) -> Iterator[Trace]:
    """Yields the episodes of some bars in their order.

    Args:
        bars: rows of a run's series of one evaluation, columns as `RunSet.series` describes them.
    """
    for _, episode in bars.groupby("episode", sort=True):
        yield trace_of(episode)


def trace_of(episode: pd.DataFrame) -> Trace:
    """Returns one episode; its last marks without an equity are left out.

    Raises:
        DataError: it has no equity to begin with.
    """
    rows = episode.sort_values("bar")
    equity = rows["equity"].to_numpy(dtype=np.float64)
    known = np.flatnonzero(np.isfinite(equity))
    if len(equity) == 0 or not np.isfinite(equity[0]) or equity[0] <= 0.0:
        raise DataError(f"an evaluation episode must start with an equity above zero but starts with {equity[:1]}")
    rows = rows.iloc[: int(known[-1]) + 1]
    times = bar_times(rows["timestamp"])
    dated = times is not None and bool(np.all(np.diff(times) >= np.timedelta64(0, "s")))
    first = rows.iloc[0]
    periods = float(first.get("periods_per_year", np.nan))

    def column(name: str) -> FloatArray:
        return rows[name].to_numpy(dtype=np.float64) if name in rows else np.full(len(rows), np.nan, dtype=np.float64)

    return Trace(
        x=times if dated and times is not None else np.arange(len(rows)),
        dated=dated,
        equity=column("equity"),
        price=column("price"),
        position=column("position")[1:],
        fee=column("fee")[1:],
        slippage=column("slippage")[1:],
        leverage=column("leverage")[1:],
        action=column("action")[1:],
        step=int(first["step"]),
        labels={
            label: str(first[label])
            for label in ("symbol", "window", "split", "fold", "agent")
            if label in rows and pd.notna(first[label]) and first[label] != ""
        },
        periods_per_year=periods if periods > 0.0 else None,
    )
