"""The chart traders look for first: entries and exits on the price, the position held, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from drl_ray_tracking.analysis.canvas import (
    drawable,
    name_ends,
    new_figure,
    percent,
    signed_percent,
    style,
    time_axis,
    title,
)
from drl_ray_tracking.analysis.inputs import FloatArray
from drl_ray_tracking.analysis.palette import COLOURS, FAINT, INK, MUTED
from drl_ray_tracking.analysis.tables import number
from drl_ray_tracking.analysis.trace import Trace
from drl_ray_tracking.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from drl_ray_tracking.episodes.round_trips import RoundTrips

_LONG: Final = COLOURS[0]
_SHORT: Final = COLOURS[3]
_WON: Final = COLOURS[2]
_LOST: Final = COLOURS[1]
_JOINED_UP_TO: Final = 150  # trades whose entry and exit are joined by a line


def trade_chart(trace: Trace, heading: str) -> Figure:
    """Draws an episode's entries and exits on the price, the position below, and the agent's return below that.

    A position's sign counts: an entry is where it leaves zero or turns, an exit where it returns or turns; changes of
    size are seen in the position. A line from entry to exit is coloured by whether the trade won, net of fees.

    Args:
        trace: the episode.
        heading: what it is, such as a run's name.

    Raises:
        DataError: it has no prices, or names no positions.
    """
    if not np.isfinite(trace.price).all():
        raise DataError("the episode has no prices to draw entries and exits on")
    if not np.isfinite(trace.position).any():
        raise DataError("the episode names no positions: entries and exits are not known")
    figure = new_figure(11.0, 7.2)
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=(5, 1.1, 2))
    for axes in (upper, middle, lower):
        style(axes)
    trips = trace.trades
    _draw_price(upper, trace, trips)
    _draw_position(middle, trace)
    _draw_return(lower, trace)
    time_axis(lower, trace.dated)
    figure.align_ylabels([upper, middle, lower])
    title(figure, heading, "  ·  ".join(_facts(trace, trips)))
    return figure


def _draw_price(axes: Axes, trace: Trace, trips: RoundTrips) -> None:
    _shade(axes, trace)
    axes.plot(trace.x, trace.price, color=INK, lw=1.0, zorder=2)
    axes.set_ylabel("price")
    entries, directions = _entries(trace.position)
    exits = _exits(trace.position)
    size = float(np.clip(2600.0 / max(len(entries), 1), 9.0, 46.0))
    if len(trips.entry) <= _JOINED_UP_TO:
        x = _numbers(trace)
        for won, colour in ((True, _WON), (False, _LOST)):
            chosen = np.flatnonzero((trips.pnl > 0.0) == won)
            ends = [
                [(x[first], trace.price[first]), (x[last], trace.price[last])]
                for first, last in zip(trips.entry[chosen], trips.exit[chosen], strict=True)
            ]
            axes.add_collection(LineCollection(ends, colors=colour, linewidths=1.6, alpha=0.9, zorder=3))
    for direction, marker, colour in ((1, "^", _LONG), (-1, "v", _SHORT)):
        marks = entries[directions == direction]
        axes.scatter(
            trace.x[marks],
            trace.price[marks],
            s=size,
            marker=marker,
            color=colour,
            lw=0.5,
            edgecolors="white",
            zorder=5,
        )
    axes.scatter(
        trace.x[exits], trace.price[exits], s=0.7 * size, marker="o", color="white", lw=1.0, edgecolors=INK, zorder=4
    )
    _legend(axes, [int((directions == 1).sum()), int((directions == -1).sum()), len(exits)], trips)


def _legend(axes: Axes, counts: Sequence[int], trips: RoundTrips) -> None:
    longs, shorts, exits = counts
    won = int((trips.pnl > 0.0).sum())

    def mark(marker: str, colour: str, face: str) -> Line2D:
        return Line2D([], [], ls="", marker=marker, ms=6.5, color=colour, markerfacecolor=face)

    items: list[tuple[Line2D, str]] = [(mark("^", _LONG, _LONG), f"{longs} long")] if longs else []
    items += [(mark("v", _SHORT, _SHORT), f"{shorts} short")] if shorts else []
    items += [(mark("o", INK, "white"), f"{exits} exits")] if exits else []
    if 0 < len(trips.pnl) <= _JOINED_UP_TO:
        items += [
            (Line2D([], [], color=_WON, lw=2), f"{won} won"),
            (Line2D([], [], color=_LOST, lw=2), f"{len(trips.pnl) - won} lost"),
        ]
    if items:
        axes.legend(
            [handle for handle, _ in items],
            [text for _, text in items],
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=len(items),
            frameon=False,
            fontsize=9,
            handletextpad=0.3,
            columnspacing=1.4,
            borderaxespad=0.1,
            labelcolor=MUTED,
        )


def _draw_position(axes: Axes, trace: Trace) -> None:
    held = np.append(trace.position, trace.position[-1])
    axes.step(trace.x, held, where="post", color=MUTED, lw=1.0)
    axes.fill_between(trace.x, np.nan_to_num(held), 0.0, step="post", color=MUTED, alpha=0.18, lw=0)
    ends: list[tuple[Any, float, str, str]] = []
    if np.isfinite(trace.leverage).any():
        levered = np.append(trace.leverage, trace.leverage[-1])
        axes.step(trace.x, levered, where="post", color=COLOURS[4], lw=1.0)
        ends = [
            (trace.x[-1], float(held[-1]), "position", MUTED),
            (trace.x[-1], float(levered[-1]), "leverage", COLOURS[4]),
        ]
    axes.axhline(0.0, color=MUTED, lw=0.8, zorder=0)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.05 * (high - low)), max(high, 0.05))
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(round(value, 12))))
    axes.set_ylabel("position")
    name_ends(axes, [end for end in ends if np.isfinite(end[1])])


def _draw_return(axes: Axes, trace: Trace) -> None:
    growth = np.where(np.logical_or.accumulate(~(trace.equity > 0.0)), 0.0, trace.equity) / trace.equity[0] - 1.0
    hold = trace.price / trace.price[0] - 1.0
    axes.plot(trace.x, hold, color=MUTED, lw=1.2)
    axes.plot(trace.x, growth, color=_LONG, lw=1.6)
    axes.axhline(0.0, color=FAINT, lw=0.8, zorder=0)
    axes.yaxis.set_major_formatter(FuncFormatter(percent))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.set_ylabel("return")
    last: Any = trace.x[-1]
    ends = [("agent", float(growth[-1]), _LONG), ("buy and hold", float(hold[-1]), MUTED)]
    name_ends(axes, [(last, value, f"{name}\n{signed_percent(value)}", colour) for name, value, colour in ends])


def _shade(axes: Axes, trace: Trace) -> None:
    """Colours the background where a position is held."""
    x, sign = _numbers(trace), np.sign(np.nan_to_num(trace.position))
    starts = np.concatenate(([0], np.flatnonzero(sign[1:] != sign[:-1]) + 1))
    ends = np.append(starts[1:], len(sign))
    for direction, colour in ((1.0, _LONG), (-1.0, _SHORT)):
        runs = sign[starts] == direction
        spans = list(zip(x[starts[runs]].tolist(), (x[ends[runs]] - x[starts[runs]]).tolist(), strict=True))
        axes.broken_barh(spans, (0.0, 1.0), transform=axes.get_xaxis_transform(), color=colour, alpha=0.08, lw=0)


def _entries(position: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
    """Returns the marks at which a position is entered, one still open at the end included, and its directions."""
    sign = np.sign(np.nan_to_num(position))
    before = np.concatenate(([0.0], sign[:-1]))
    marks = np.flatnonzero((sign != before) & (sign != 0.0))
    return marks, sign[marks]


def _exits(position: FloatArray) -> NDArray[np.int64]:
    sign = np.sign(np.nan_to_num(position))
    before = np.concatenate(([0.0], sign[:-1]))
    return np.flatnonzero((sign != before) & (before != 0.0))


def _numbers(trace: Trace) -> FloatArray:
    numbers: Any = date2num(trace.x) if trace.dated else trace.x  # type: ignore[no-untyped-call]
    return np.asarray(numbers, dtype=np.float64)


def _facts(trace: Trace, trips: RoundTrips) -> list[str]:
    labels = trace.labels
    facts = [labels[key] for key in ("symbol", "agent", "split") if key in labels]
    facts += [f"fold {labels['fold']}"] if labels.get("fold", "single") != "single" else []
    facts += [f"window {labels['window']}"] if "window" in labels else []
    facts.append(f"at {trace.step:,} env steps")
    facts += (
        [f"{np.datetime_as_string(trace.x[0], unit='D')} to {np.datetime_as_string(trace.x[-1], unit='D')}"]
        if trace.dated
        else [f"{len(trace.position):,} bars"]
    )
    facts.append(f"{len(trips.entry)} closed trades" + (", 1 open" if trips.open_trades else ""))
    paid = trace.fee[np.isfinite(trace.fee)]
    facts += [f"fees {percent(round(float(paid.sum() / trace.equity[0]), 6))}"] if len(paid) else []
    return [drawable(fact) for fact in facts]
