"""Pictures of a comparison: learning curves over seeds, and the equity of one evaluation.

Figures are made without pyplot: no global state, no display, safe in threads. Colours are Okabe and Ito's, which
readers with any colour vision can tell apart; every line is named where it ends. Users' text is drawn as it is:
never as mathematics, and without signs the font lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from drl_ray_tracking.analysis.equity import EquityCurve, equity_curves, evaluation_at
from drl_ray_tracking.analysis.labels import cut
from drl_ray_tracking.analysis.tables import number
from drl_ray_tracking.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from drl_ray_tracking.analysis.compare import Comparison
    from drl_ray_tracking.analysis.inputs import FloatArray
    from drl_ray_tracking.analysis.runset import RunSet

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_FONT: Final = "DejaVu Sans"
_INK: Final = "#222222"
_MUTED: Final = "#6B6B6B"
_FAINT: Final = "#C9C9C9"
_MARKED_UP_TO: Final = 15  # points a curve may have and still be drawn with markers
_PANELS: Final = 6
_DPI: Final = 150


def learning_curves(runs: RunSet, comparison: Comparison) -> Figure:
    """Draws the compared metric over env steps: each group's mean over seeds, the seeds' range, and each seed.

    The mean covers only the env steps that every seed of the group reached, so that no seed joining or leaving
    bends it; between points of different grids it is interpolated. Groups beyond the colours are grey.

    Raises:
        DataError: no run of the comparison has a point of the metric.
    """
    runs = runs.with_metrics(comparison.metric)
    figure, axes = _single_axes()
    ends: list[tuple[float, float, str, str]] = []
    longest = 0
    for index, (group, row) in enumerate(comparison.groups.iterrows()):
        members = comparison.values.index[comparison.values["group"] == group]
        curves = [runs.run_history(comparison.metric, str(run_id)).dropna() for run_id in members]
        curves = [curve for curve in curves if len(curve)]
        if not curves:
            continue
        named = index < len(COLOURS)
        colour = COLOURS[index] if named else _FAINT
        longest = max(longest, *(len(curve) for curve in curves))
        steps, mean, _, _ = over_seeds(curves)
        marker = "o" if longest <= _MARKED_UP_TO else ""
        depth = 3.0 - 0.01 * index
        for curve in curves:
            axes.plot(curve.index, curve.to_numpy(), color=colour, lw=0.8, alpha=0.45, zorder=depth - 1)
        if len(curves) > 1 and named:
            # Between grid points seeds may cross: on a fine grid the band follows them.
            fine, _, low, high = over_seeds(curves, least_steps=500)
            axes.fill_between(fine, low, high, color=colour, alpha=0.13, lw=0, zorder=depth - 2)
        axes.plot(steps, mean, color=colour, lw=2.2 if named else 1.0, marker=marker, ms=4.5, zorder=depth)
        if named:
            seeds = "1 seed" if row["n_seeds"] == 1 else f"{row['n_seeds']} seeds"
            ends.append((float(steps[-1]), float(mean[-1]), f"{cut(str(row['label']), 34)}\n{seeds}", colour))
    if not longest:
        raise DataError(f"no run of the comparison has a point of {comparison.metric!r}: nothing to draw")
    _finish_learning_axes(axes, comparison.metric)
    _name_ends(axes, ends)
    others = len(comparison.groups) - len(ends)
    subtitle = "mean over seeds; band: lowest to highest seed; thin: single seeds"
    _title(figure, comparison.metric, subtitle + (f"; grey: {others} more groups" if others else ""))
    return figure


def over_seeds(
    curves: Sequence[pd.Series[float]], least_steps: int = 0
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Returns steps, mean, minimum and maximum over curves on the env steps they have in common.

    Args:
        curves: index env steps, strictly increasing; no missing value; at least one curve with at least one point.
        least_steps: steps to add to the grid, evenly spaced.

    Returns:
        Four (step,) arrays on the union of the curves' grids, from the latest first step to the earliest last
        step; where no step is common, all steps of the longest curve, alone.
    """
    first = max(curve.index[0] for curve in curves)
    last = min(curve.index[-1] for curve in curves)
    if first > last:
        curves = [max(curves, key=len)]
        first, last = curves[0].index[0], curves[0].index[-1]
    steps = np.unique(np.concatenate([curve.index.to_numpy(dtype=np.float64) for curve in curves]))
    steps = np.union1d(steps[(steps >= first) & (steps <= last)], np.linspace(first, last, least_steps))
    values = np.stack([np.interp(steps, curve.index.to_numpy(dtype=np.float64), curve.to_numpy()) for curve in curves])
    return steps, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


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
    bars = evaluation_at(runs.series(run_id), step)
    curves = equity_curves(bars)
    shown = curves[:_PANELS]
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(9.0 if columns == 1 else 12.0, 1.0 + 4.2 * rows), dpi=_DPI, facecolor="white")
    figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.08)
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
    _title(figure, str(runs.runs.loc[run_id, "name"]), "  ·  ".join(fact for fact in facts if fact))
    return figure


def _draw_equity(upper: Axes, lower: Axes, curve: EquityCurve, heading: str) -> None:
    agent, hold = COLOURS[0], _MUTED
    ends = [(curve.growth - 1.0, "agent", agent)]
    if curve.hold_growth is not None:
        upper.plot(curve.x, curve.hold_growth - 1.0, color=hold, lw=1.3)
        ends.append((curve.hold_growth - 1.0, "buy and hold", hold))
    upper.plot(curve.x, curve.growth - 1.0, color=agent, lw=1.8)
    lower.fill_between(curve.x, -curve.drawdown, 0.0, color=COLOURS[1], alpha=0.30, lw=0)
    lower.plot(curve.x, -curve.drawdown, color=COLOURS[1], lw=1.0)
    for axes in (upper, lower):
        _style(axes)
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        axes.yaxis.set_major_locator(MaxNLocator(5 if axes is upper else 3, steps=[1, 2, 2.5, 5, 10]))
        for joint in curve.joints:
            axes.axvline(curve.x[joint], color=_FAINT, lw=0.8, ls=":", zorder=0)
    upper.axhline(0.0, color=_MUTED, lw=0.8, zorder=0)
    upper.tick_params(labelbottom=False)
    upper.set_ylabel("return")
    lower.set_ylabel("drawdown")
    worst = float(curve.drawdown.max())
    lower.set_ylim(-max(worst * 1.15, 0.01), 0.0)
    if heading:
        upper.set_title(_drawable(heading), loc="left", fontsize=10, fontweight="bold", color=_INK, parse_math=False)
    if curve.dated:
        locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
        lower.xaxis.set_major_locator(locator)
        lower.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    else:
        lower.set_xlabel("bar")
    end: Any = curve.x[-1]
    _name_ends(upper, [(end, float(y[-1]), f"{name}\n{_signed_percent(float(y[-1]))}", c) for y, name, c in ends])
    _name_ends(lower, [(end, -float(curve.drawdown[-1]), f"worst\n{_signed_percent(-worst)}", COLOURS[1])])


def _span(curves: Sequence[EquityCurve]) -> str:
    if not all(curve.dated for curve in curves):
        return f"{sum(len(curve.x) for curve in curves):,} bars"
    first, last = min(curve.x[0] for curve in curves), max(curve.x[-1] for curve in curves)
    return f"{np.datetime_as_string(first, unit='D')} to {np.datetime_as_string(last, unit='D')}"


def _single_axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9.0, 5.0), dpi=_DPI, facecolor="white")
    figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.08)
    axes = figure.add_subplot()
    _style(axes)
    return figure, axes


def _finish_learning_axes(axes: Axes, metric: str) -> None:
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(round(value, 12))))
    axes.set_xlabel("env steps")
    axes.set_ylabel(_drawable(metric.rpartition("/")[2].replace("_", " ")), parse_math=False)
    low, high = axes.get_ylim()
    if low < 0.0 < high:
        axes.axhline(0.0, color=_MUTED, lw=0.8, zorder=0)


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.grid(axis="y", color="#ECECEC", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=9, length=3)
    axes.xaxis.label.set(color=_MUTED, size=9.5)
    axes.yaxis.label.set(color=_MUTED, size=9.5)
    axes.margins(x=0.01)


def _name_ends(axes: Axes, ends: Sequence[tuple[Any, float, str, str]]) -> None:
    """Writes each text beside the axes at the height where its line ends, moved apart where they would touch."""
    if not ends:
        return
    low, high = axes.get_ylim()
    height = axes.get_window_extent().height / _DPI * 72.0
    gap = 25.0 / max(height, 1.0)  # two lines of 8.5 points, as a share of the axes
    placed = sorted((((y - low) / (high - low)), text, colour) for _, y, text, colour in ends)
    heights = _apart([share for share, _, _ in placed], gap)
    for share, (_, text, colour) in zip(heights, placed, strict=True):
        axes.annotate(
            _drawable(text, lines=True),
            xy=(1.0, share),
            xycoords="axes fraction",
            xytext=(8, 0),
            textcoords="offset points",
            color=colour,
            fontsize=8.5,
            va="center",
            linespacing=1.15,
            parse_math=False,
            annotation_clip=False,
        )


def _apart(shares: Sequence[float], gap: float) -> list[float]:
    """Returns sorted heights at least `gap` apart, as near to the given ones as pushing up, then down, leaves them."""
    placed: list[float] = []
    for share in shares:
        placed.append(max(share, placed[-1] + gap) if placed else share)
    ceiling = max(1.0, shares[-1])
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed


def _title(figure: Figure, title: str, subtitle: str) -> None:
    # The empty second line makes the layout reserve room for the subtitle, which has a style of its own.
    figure.suptitle(
        f"{_drawable(cut(title, 90))}\n",
        x=0.012,
        ha="left",
        fontsize=13,
        fontweight="bold",
        color=_INK,
        parse_math=False,
    )
    figure.text(
        0.012, 1.0 - 0.44 / figure.get_size_inches()[1], _drawable(cut(subtitle, 130)), ha="left", va="center",
        fontsize=9, color=_MUTED, parse_math=False, in_layout=False,
    )  # fmt: skip


def _percent(value: float, _: object = None) -> str:
    return f"{100 * value:.4g} %".replace("-", "−", 1) if abs(value) > 1e-12 else "0 %"


def _signed_percent(value: float) -> str:
    return f"{100 * value:+.1f} %".replace("-", "−", 1)


def _drawable(text: str, lines: bool = False) -> str:
    """Returns a text without control characters and signs the font has no picture of (shown as □)."""
    known = _signs()
    return "".join(
        sign if (ord(sign) in known and sign.isprintable()) or (lines and sign == "\n") else "□" for sign in text
    )


@lru_cache(maxsize=1)
def _signs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=_FONT))).get_charmap())
