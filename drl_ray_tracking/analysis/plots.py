"""Pictures of a comparison: learning curves over seeds, and the equity of one evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from drl_ray_tracking.analysis.canvas import (
    MARKED_UP_TO,
    drawable,
    name_ends,
    new_figure,
    percent,
    signed_percent,
    single_axes,
    steps_axis,
    style,
    time_axis,
    title,
)
from drl_ray_tracking.analysis.curves import over_seeds
from drl_ray_tracking.analysis.equity import EquityCurve, equity_curves, evaluation_at
from drl_ray_tracking.analysis.labels import cut
from drl_ray_tracking.analysis.palette import COLOURS, FAINT, INK, MUTED
from drl_ray_tracking.analysis.tables import number
from drl_ray_tracking.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from drl_ray_tracking.analysis.comparison import Comparison
    from drl_ray_tracking.analysis.runset import RunSet

_PANELS: Final = 6


def learning_curves(runs: RunSet, comparison: Comparison) -> Figure:
    """Draws the compared metric over env steps: each group's mean over seeds, the seeds' range, and each seed.

    The mean covers only the env steps that every seed of the group reached, so that no seed joining or leaving
    bends it; between points of different grids it is interpolated. Groups beyond the colours are grey.

    Raises:
        DataError: no run of the comparison has a point of the metric.
    """
    runs = runs.with_metrics(comparison.metric)
    figure, axes = single_axes()
    ends: list[tuple[float, float, str, str]] = []
    longest = 0
    every = {run_id: curve.dropna() for run_id, curve in runs.curves(comparison.metric).items()}
    for index, (group, row) in enumerate(comparison.groups.iterrows()):
        members = comparison.values.index[comparison.values["group"] == group]
        curves = [every[run_id] for run_id in members if len(every.get(run_id, ()))]
        if not curves:
            continue
        named = index < len(COLOURS)
        colour = COLOURS[index] if named else FAINT
        longest = max(longest, *(len(curve) for curve in curves))
        shared = over_seeds(curves)
        steps, mean = shared.steps, shared.mean
        marker = "o" if longest <= MARKED_UP_TO else ""
        depth = 3.0 - 0.01 * index
        for curve in curves:
            axes.plot(curve.index, curve.to_numpy(), color=colour, lw=0.8, alpha=0.45, zorder=depth - 1)
        if len(curves) > 1 and named:
            # Between grid points seeds may cross: on a fine grid the band follows them.
            fine = over_seeds(curves, least_steps=500)
            axes.fill_between(fine.steps, fine.low, fine.high, color=colour, alpha=0.13, lw=0, zorder=depth - 2)
        axes.plot(steps, mean, color=colour, lw=2.2 if named else 1.0, marker=marker, ms=4.5, zorder=depth)
        if named:
            seeds = "1 seed" if row["n_seeds"] == 1 else f"{row['n_seeds']} seeds"
            ends.append((float(steps[-1]), float(mean[-1]), f"{cut(str(row['label']), 34)}\n{seeds}", colour))
    if not longest:
        raise DataError(f"no run of the comparison has a point of {comparison.metric!r}: nothing to draw")
    _finish_learning_axes(axes, comparison.metric)
    name_ends(axes, ends)
    others = len(comparison.groups) - len(ends)
    subtitle = "mean over seeds; band: lowest to highest seed; thin: single seeds"
    title(figure, comparison.metric, subtitle + (f"; grey: {others} more groups" if others else ""))
    return figure


def equity_curve(runs: RunSet, run_id: str, step: int | None = None) -> Figure:
    """Draws the equity of one evaluation of a run against buy-and-hold of the same bars, drawdown below.

    Consecutive windows of a symbol are joined, at dotted lines; each symbol has a panel of its own.

    Args:
        runs: what `load_runs` returned.
        run_id: one of its runs.
        step: env steps of the weights evaluated; None for the last evaluation.

    Raises:
        DataError: the run kept no evaluation series, or none at that step.
    """
    return equity_figure(evaluation_at(runs.series(run_id), step), str(runs.runs.loc[run_id, "name"]))


def equity_figure(bars: pd.DataFrame, heading: str) -> Figure:
    """Draws the equity of one evaluation, as `equity_curve` does of a run's.

    Args:
        bars: as `evaluation_at` returned them.
        heading: what it is, such as a run's name.
    """
    curves = equity_curves(bars)
    shown = curves[:_PANELS]
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(9.0 if columns == 1 else 12.0, 1.0 + 4.2 * rows)
    outer = figure.add_gridspec(rows, columns)
    for index, curve in enumerate(shown):
        inner = outer[index // columns, index % columns].subgridspec(2, 1, height_ratios=(3, 1), hspace=0.06)
        upper = figure.add_subplot(inner[0])
        lower = figure.add_subplot(inner[1], sharex=upper)
        _draw_equity(upper, lower, curve, heading=curve.symbol if len(shown) > 1 else "")
        figure.align_ylabels([upper, lower])
    facts = [f"evaluation at {int(bars['step'].iloc[0]):,} env steps"]
    facts += [", ".join(dict.fromkeys(curve.symbol for curve in shown if curve.symbol))] if len(shown) == 1 else []
    facts += [", ".join(sorted({str(value) for value in bars["split"].dropna()} - {""})), _span(shown)]
    facts += [f"{len(curves) - _PANELS} more symbols not drawn"] if len(curves) > _PANELS else []
    title(figure, heading, "  ·  ".join(fact for fact in facts if fact))
    return figure


def _draw_equity(upper: Axes, lower: Axes, curve: EquityCurve, heading: str) -> None:
    agent, hold = COLOURS[0], MUTED
    ends = [(curve.growth - 1.0, "agent", agent)]
    if curve.hold_growth is not None:
        upper.plot(curve.x, curve.hold_growth - 1.0, color=hold, lw=1.3)
        ends.append((curve.hold_growth - 1.0, "buy and hold", hold))
    upper.plot(curve.x, curve.growth - 1.0, color=agent, lw=1.8)
    lower.fill_between(curve.x, -curve.drawdown, 0.0, color=COLOURS[1], alpha=0.30, lw=0)
    lower.plot(curve.x, -curve.drawdown, color=COLOURS[1], lw=1.0)
    for axes in (upper, lower):
        style(axes)
        axes.yaxis.set_major_formatter(FuncFormatter(percent))
        axes.yaxis.set_major_locator(MaxNLocator(5 if axes is upper else 3, steps=[1, 2, 2.5, 5, 10]))
        for joint in curve.joints:
            axes.axvline(curve.x[joint], color=FAINT, lw=0.8, ls=":", zorder=0)
    upper.axhline(0.0, color=MUTED, lw=0.8, zorder=0)
    upper.tick_params(labelbottom=False)
    upper.set_ylabel("return")
    lower.set_ylabel("drawdown")
    worst = float(curve.drawdown.max())
    lower.set_ylim(-max(worst * 1.15, 0.01), 0.0)
    if heading:
        upper.set_title(drawable(heading), loc="left", fontsize=10, fontweight="bold", color=INK, parse_math=False)
    time_axis(lower, curve.dated)
    end: Any = curve.x[-1]
    name_ends(upper, [(end, float(y[-1]), f"{name}\n{signed_percent(float(y[-1]))}", c) for y, name, c in ends])
    name_ends(lower, [(end, -float(curve.drawdown[-1]), f"worst\n{signed_percent(-worst)}", COLOURS[1])])


def _span(curves: Sequence[EquityCurve]) -> str:
    if not all(curve.dated for curve in curves):
        return f"{sum(len(curve.x) for curve in curves):,} bars"
    first, last = min(curve.x[0] for curve in curves), max(curve.x[-1] for curve in curves)
    return f"{np.datetime_as_string(first, unit='D')} to {np.datetime_as_string(last, unit='D')}"


def _finish_learning_axes(axes: Axes, metric: str) -> None:
    steps_axis(axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(round(value, 12))))
    axes.set_ylabel(drawable(metric.rpartition("/")[2].replace("_", " ")), parse_math=False)
    low, high = axes.get_ylim()
    if low < 0.0 < high:
        axes.axhline(0.0, color=MUTED, lw=0.8, zorder=0)
