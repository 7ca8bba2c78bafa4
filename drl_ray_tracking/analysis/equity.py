"""The equity of one evaluation beside buy-and-hold of the same bars, joined over consecutive windows.

Pure: takes the evaluation series of a run, returns curves to draw or to measure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from drl_ray_tracking.analysis.bars import Bars, bars_of, levels_of
from drl_ray_tracking.analysis.inputs import FloatArray
from drl_ray_tracking.errors import DataError

# Epoch seconds of 1973: smaller numbers are bar counts, not times.
_EARLIEST_TIME = 1e8


@dataclass(frozen=True, eq=False)
class EquityCurve:
    """One symbol's evaluation windows, one after the other.

    Attributes:
        symbol: '' where the environment names none.
        x: (bar,) `datetime64[s]`, or bar numbers where the series has no usable times or its windows overlap.
        growth: (bar,) equity over initial equity; each window starts from where the one before ended.
        hold_growth: (bar,) the same for buying at the first bar of each window and holding; None without prices.
        drawdown: (bar,) 1 - growth / running peak, in [0, 1].
        joints: positions in `x` at which a window other than the first begins.
    """

    symbol: str
    x: NDArray[np.generic]
    growth: FloatArray
    hold_growth: FloatArray | None
    drawdown: FloatArray
    joints: tuple[int, ...]

    @property
    def dated(self) -> bool:
        """Tells whether `x` are times."""
        return self.x.dtype.kind == "M"


def evaluation_at(series: pd.DataFrame, step: int | None = None) -> pd.DataFrame:
    """Returns the bars of one evaluation of a run's series.

    Args:
        series: columns as `RunSet.series` describes them.
        step: env steps of the weights evaluated; None for the last evaluation.

    Raises:
        DataError: there are no bars, or no evaluation at that step.
    """
    if series.empty:
        raise DataError("the evaluation series has no bars")
    steps = sorted(int(value) for value in series["step"].unique())
    wanted = steps[-1] if step is None else step
    if wanted not in steps:
        raise DataError(f"there is no evaluation at {wanted} env steps, only at {', '.join(map(str, steps))}")
    bars: pd.DataFrame = series[series["step"] == wanted]
    # A resumed trial may have evaluated the same weights twice: the later iteration counts.
    last: pd.DataFrame = bars[bars["iteration"] == bars["iteration"].max()]
    return last


@dataclass(frozen=True, eq=False)
class BarReturns:
    """An evaluation bar by bar, its windows one after the other; (bar,) arrays without the first row of each window.

    Attributes:
        returns: equity over the equity before, minus 1; 0 after ruin. A bar without a mark is part of the next one.
        costs: what was paid in the bar over the equity before it, 0 after ruin; None where no fee was recorded.
        hold: price over the price before, minus 1; None without prices.
    """

    returns: FloatArray
    costs: FloatArray | None
    hold: FloatArray | None


def bar_returns(bars: pd.DataFrame) -> BarReturns:
    """Returns an evaluation's bar returns, its costs and those of buying and holding.

    Args:
        bars: one evaluation, as `evaluation_at` returned it.
    """
    parts = [part.sort_values("bar") for _, part in bars.groupby("episode", sort=True)]
    found = [bars_of(part["equity"].to_numpy(dtype=np.float64)) for part in parts]
    costs = np.concatenate([_costs(part, own) for part, own in zip(parts, found, strict=True)])
    prices = [part["price"].to_numpy(dtype=np.float64) for part in parts]
    hold = np.concatenate([own.changes(price) for own, price in zip(found, prices, strict=True)])
    return BarReturns(
        returns=np.concatenate([own.returns for own in found]),
        costs=costs if np.isfinite(costs).all() else None,
        hold=hold if np.isfinite(hold).all() else None,
    )


def _costs(episode: pd.DataFrame, bars: Bars) -> FloatArray:
    """Returns what was paid in each bar over the equity it began with, 0 after a ruin; NaN where that is unknown."""
    if "fee" not in episode:
        return np.full(len(bars.returns), np.nan)
    levels = levels_of(episode["equity"].to_numpy(dtype=np.float64))[bars.begins]
    paid = bars.totals(episode["fee"].to_numpy(dtype=np.float64)[1:])
    return np.where(levels > 0.0, paid / np.where(levels > 0.0, levels, 1.0), 0.0)


def equity_curves(bars: pd.DataFrame) -> list[EquityCurve]:
    """Returns one curve a symbol, in the order of symbols; of several agents each has its own.

    Args:
        bars: one evaluation, as `evaluation_at` returned it.
    """
    agents = bars["agent"].fillna("") if "agent" in bars else pd.Series("", index=bars.index)
    owner = bars["symbol"].astype(str).str.cat(agents.astype(str), sep=" ").str.strip()
    return [_curve(str(name), rows) for name, rows in bars.groupby(owner, sort=True)]


def _curve(symbol: str, bars: pd.DataFrame) -> EquityCurve:
    windows = [part.sort_values("bar") for _, part in bars.groupby("episode", sort=True)]
    times = [bar_times(part["timestamp"]) for part in windows]
    dated = [part for part in times if part is not None]
    if len(dated) == len(windows):
        order = sorted(range(len(windows)), key=lambda index: dated[index][0])
        windows, dated = [windows[index] for index in order], [dated[index] for index in order]
    together = np.concatenate(dated) if len(dated) == len(windows) else None
    length = sum(len(part) for part in windows)
    forward = together is not None and bool(np.all(np.diff(together) >= np.timedelta64(0, "s")))
    x = together if together is not None and forward else np.arange(length)
    growth = _chained([levels_of(part["equity"].to_numpy(dtype=np.float64)) for part in windows])
    peak = np.maximum.accumulate(growth)
    hold = _chained([part["price"].to_numpy(dtype=np.float64) for part in windows])
    return EquityCurve(
        symbol=symbol,
        x=x,
        growth=growth,
        hold_growth=hold if np.isfinite(hold).all() else None,
        drawdown=np.clip(1.0 - growth / peak, 0.0, 1.0),
        joints=tuple(int(end) for end in np.cumsum([len(part) for part in windows])[:-1]),
    )


def _chained(levels: list[FloatArray]) -> FloatArray:
    """Returns growth over the first level, each stretch starting from where the one before ended."""
    parts, end = [], 1.0
    for level in levels:
        with np.errstate(divide="ignore", invalid="ignore"):
            part = end * level / level[0]
        parts.append(part)
        end = float(part[-1])
    return np.concatenate(parts)


def bar_times(stamps: pd.Series[float] | pd.Series[str]) -> NDArray[np.datetime64] | None:
    """Returns times for epoch seconds or ISO 8601 text, None for anything else."""
    if pd.api.types.is_numeric_dtype(stamps):
        seconds = stamps.to_numpy(dtype=np.float64)
        if not (seconds > _EARLIEST_TIME).all():  # also False for NaN
            return None
        return seconds.astype(np.int64).astype("datetime64[s]")
    parsed = pd.to_datetime(stamps, format="ISO8601", errors="coerce", utc=True)
    return None if parsed.isna().any() else parsed.dt.tz_localize(None).to_numpy(dtype="datetime64[s]")
