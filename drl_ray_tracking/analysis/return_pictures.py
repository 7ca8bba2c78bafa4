"""Pictures of an evaluation's returns: their distribution, and month by month."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from drl_ray_tracking.analysis.bars import bars_of
from drl_ray_tracking.analysis.canvas import drawable, new_figure, percent, single_axes, style, title
from drl_ray_tracking.analysis.equity import EquityCurve, equity_curves
from drl_ray_tracking.analysis.inputs import FloatArray, is_flat
from drl_ray_tracking.analysis.palette import COLOURS, FAINT, INK, MUTED
from drl_ray_tracking.analysis.selection import skewness_and_kurtosis
from drl_ray_tracking.analysis.trace import traces
from drl_ray_tracking.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TAIL: Final = 0.05  # value at risk and expected shortfall are of the worst such share of bars
_CUT: Final = 0.005  # of the bars at either end are drawn in the outermost bins
_PANELS: Final = 6
_SHAPE: Final = (("skewness", 2), ("kurtosis", 1))
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_GOOD_AND_BAD: Final = LinearSegmentedColormap.from_list("returns", [COLOURS[1], "#FFFFFF", COLOURS[0]])


def return_distribution(bars: pd.DataFrame, heading: str) -> Figure:
    """Draws how the bar returns of an evaluation are distributed, beside those of buying and holding.

    Bars without a position are left out, and counted: they would be one tall bin at zero.

    Args:
        bars: one evaluation, as `evaluation_at` returned it.
        heading: what it is, such as a run's name.

    Raises:
        DataError: fewer than two bars have a position and a return.
    """
    earned, market, flat = _bar_returns(bars)
    if len(earned) < 2:
        raise DataError(f"only {len(earned)} bars with a position have a return: there is no distribution to draw")
    figure, axes = single_axes()
    everything = np.concatenate([earned, market])
    low, high = np.quantile(everything, [_CUT, 1.0 - _CUT])
    if high - low <= 1e-12:
        low, high = low - 1e-6, high + 1e-6
    bins = np.linspace(low, high, int(np.clip(np.sqrt(len(earned)) * 2.0, 12, 80)) + 1).tolist()
    axes.hist(np.clip(earned, low, high), bins=bins, density=True, color=COLOURS[0], alpha=0.45, lw=0)
    if len(market):
        axes.hist(np.clip(market, low, high), bins=bins, density=True, histtype="step", color=MUTED, lw=1.3)
    axes.margins(x=0.0, y=0.12)
    _mark(axes, earned)
    axes.xaxis.set_major_formatter(FuncFormatter(percent))
    axes.set_xlabel("return of one bar")
    axes.set_ylabel("density")
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelleft=False)
    _moments(axes, earned, market)
    facts = [f"evaluation at {int(bars['step'].iloc[0]):,} env steps", f"{len(earned):,} bars with a position"]
    facts += [f"{flat:,} without left out"] if flat else []
    outside = int(((earned < low) | (earned > high)).sum())
    facts += [f"{outside} farther out"] if outside else []
    title(figure, heading, "  ·  ".join(facts))
    return figure


def _bar_returns(bars: pd.DataFrame) -> tuple[FloatArray, FloatArray, int]:
    """Returns the agent's returns where it held something, the market's of the same bars, and how many were flat."""
    earned, market, flat = [], [], 0
    for trace in traces(bars):
        found = bars_of(trace.equity)
        held = found.totals(np.where(trace.position == 0.0, 0.0, 1.0)) > 0.0  # an unknown position may be one
        counted = slice(found.counted)
        flat += int((~held[counted]).sum())
        earned.append(found.returns[counted][held[counted]])
        hold = found.changes(trace.price)
        market.append(hold[np.isfinite(hold)])
    return np.concatenate(earned or [np.empty(0)]), np.concatenate(market or [np.empty(0)]), flat


def _mark(axes: Axes, earned: FloatArray) -> None:
    """Draws mean, value at risk and expected shortfall as lines named inside the axes."""
    risk = float(np.quantile(earned, _TAIL))
    shortfall = float(earned[earned <= risk].mean())
    low, high = axes.get_xlim()
    for value, name, colour, height in (
        (float(earned.mean()), "mean", INK, 0.98),
        (risk, f"{_TAIL:.0%} quantile", COLOURS[1], 0.86),
        (shortfall, "expected shortfall", COLOURS[1], 0.98),
    ):
        axes.axvline(value, color=colour, lw=1.0, ls="-" if name == "mean" else "--", zorder=3)
        to_the_right = name == "mean" or (value - low) / (high - low) < 0.2
        axes.annotate(
            f"{name}\n{_fine(value)}",
            xy=(value, height),
            xycoords=axes.get_xaxis_transform(),
            xytext=(5 if to_the_right else -5, 0),
            textcoords="offset points",
            ha="left" if to_the_right else "right",
            va="top",
            fontsize=8.5,
            color=colour,
            linespacing=1.15,
            bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1.5},
            zorder=4,
        )


def _moments(axes: Axes, earned: FloatArray, market: FloatArray) -> None:
    """Writes the moments of both beside the axes."""
    columns = [("agent", earned, COLOURS[0])] + ([("buy and hold", market, MUTED)] if len(market) > 1 else [])
    for index, (name, values, colour) in enumerate(columns):
        mean, sd = float(values.mean()), float(values.std(ddof=1))
        shape = () if is_flat(sd, mean) else skewness_and_kurtosis(values)
        lines = [
            name,
            f"sd {percent(round(sd, 6))}",
            *(f"{kind} {moment:.{digits}f}" for moment, (kind, digits) in zip(shape, _SHAPE, strict=False)),
            f"best {_fine(float(values.max()))}",
            f"worst {_fine(float(values.min()))}",
        ]
        axes.annotate(
            "\n".join(lines).replace("-", "−"),
            xy=(1.0, 0.97 - 0.42 * index),
            xycoords="axes fraction",
            xytext=(10, 0),
            textcoords="offset points",
            va="top",
            fontsize=8.5,
            color=colour,
            linespacing=1.35,
            annotation_clip=False,
        )


def _fine(value: float) -> str:
    return f"{100 * value:+.2f} %".replace("-", "−")


def monthly_returns(bars: pd.DataFrame, heading: str) -> Figure:
    """Draws the agent's return in each calendar month, a panel for each symbol, with the years' totals.

    Args:
        bars: one evaluation, as `evaluation_at` returned it.
        heading: what it is, such as a run's name.

    Raises:
        DataError: there are no usable times, or they lie in a single month.
    """
    curves = equity_curves(bars)
    tables = [(curve, _by_month(curve)) for curve in curves if curve.dated]
    tables = [(curve, table) for curve, table in tables if table.notna().to_numpy()[:, :12].sum() > 1]
    if not tables:
        raise DataError("the evaluation has no usable times, or they lie in a single month: no months to draw")
    shown = tables[:_PANELS]
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    years = max(len(table) for _, table in shown)
    figure = new_figure(9.5 if columns == 1 else 15.0, 1.1 + rows * (0.9 + 0.44 * years))
    largest = max(float(np.nanmax(np.abs(table.to_numpy()[:, :12]))) for _, table in shown)
    for index, (curve, table) in enumerate(shown):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw_months(axes, table, max(largest, 1e-9))
        if len(shown) > 1:
            axes.set_title(
                drawable(curve.symbol), loc="left", fontsize=10, fontweight="bold", color=INK, parse_math=False
            )
    facts = [f"evaluation at {int(bars['step'].iloc[0]):,} env steps"]
    facts += [curve.symbol for curve, _ in shown if curve.symbol] if len(shown) == 1 else []
    facts += ["return of each month in percent, compounded to the year's"]
    facts += [f"{len(tables) - _PANELS} more symbols not drawn"] if len(tables) > _PANELS else []
    title(figure, heading, "  ·  ".join(facts))
    return figure


def _by_month(curve: EquityCurve) -> pd.DataFrame:
    """Returns a row a year: the return of months 1 to 12, missing where there are no bars, and of the year."""
    times = pd.DatetimeIndex(curve.x)
    ends = pd.Series(curve.growth).groupby([times.year, times.month]).last()
    with np.errstate(divide="ignore", invalid="ignore"):
        # After ruin nothing is left to lose: 0 of 0 is no return.
        months = ends / ends.shift(1, fill_value=float(curve.growth[0])) - 1.0
    table = months.unstack().reindex(columns=range(1, 13))
    table["year"] = (1.0 + table.fillna(0.0)).prod(axis=1) - 1.0
    return table


def _draw_months(axes: Axes, table: pd.DataFrame, largest: float) -> None:
    style(axes)
    axes.grid(visible=False)
    values = table.to_numpy(dtype=np.float64)
    axes.imshow(
        values[:, :12],
        cmap=_GOOD_AND_BAD,
        vmin=-largest,
        vmax=largest,
        aspect="auto",
        extent=(-0.5, 11.5, len(table) - 0.5, -0.5),
    )
    axes.set_xlim(-0.5, 12.9)
    for row, year in enumerate(values):
        for column, value in enumerate(year):
            if np.isfinite(value):
                axes.text(
                    column if column < 12 else 12.3,
                    row,
                    f"{100 * value:+.1f}".replace("-", "−"),
                    ha="center",
                    va="center",
                    fontsize=8.5,
                    color="white" if column < 12 and abs(value) > 0.75 * largest else INK,
                    fontweight="bold" if column == 12 else "normal",
                )
    axes.set_xticks([*range(12), 12.3], [*_MONTHS, "year"])
    axes.set_yticks(range(len(table)), [str(year) for year in table.index])
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    for edge in np.arange(-0.5, 12.0):
        axes.axvline(edge, color="white", lw=1.5)
    for edge in np.arange(-0.5, len(table)):
        axes.axhline(edge, color="white", lw=1.5)
    axes.axvline(11.62, color=FAINT, lw=0.8)
