"""What a policy does: shares of discrete actions or the spread of continuous ones, as training goes on and in time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from drl_ray_tracking.analysis.canvas import (
    drawable,
    name_ends,
    new_figure,
    percent,
    steps_axis,
    style,
    time_axis,
    title,
)
from drl_ray_tracking.analysis.inputs import FloatArray
from drl_ray_tracking.analysis.palette import COLOURS, FAINT, MUTED
from drl_ray_tracking.analysis.tables import number
from drl_ray_tracking.analysis.trace import Trace, traces
from drl_ray_tracking.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Histories = Mapping[str, "pd.Series[float]"]  # metric -> values, index env steps
_SHOWN: Final = len(COLOURS)
_SAME: Final = 0.15  # standard deviation of positions that are about the same
_PIECES: Final = 24  # an evaluation is cut into so many stretches


def action_mix(histories: Histories, bars: pd.DataFrame | None, heading: str) -> Figure:
    """Draws the share of each action, or mean and spread, of each evaluation, and over the bars of the last one.

    Args:
        histories: the run's metrics; those of `eval/action/` are drawn.
        bars: its last evaluation, as `evaluation_at` returned it; None where there is none.
        heading: what it is, such as a run's name.

    Raises:
        DataError: neither has actions.
    """
    longest = max(traces(bars), key=lambda trace: len(trace.action)) if bars is not None and len(bars) else None
    if longest is not None and not np.isfinite(longest.action).any():
        longest = None
    shares, means, spreads = (_numbered(histories, kind) for kind in ("share", "mean", "sd"))
    panels = bool(shares or means) + (longest is not None)
    if not panels:
        raise DataError("neither the metrics nor the evaluation series of the run have actions")
    figure = new_figure(6.5 * panels if panels > 1 else 9.0, 4.8)
    all_axes = figure.subplots(1, panels, squeeze=False)[0]
    for axes in all_axes:
        style(axes)
    looks = _looks(shares, longest)
    if shares:
        table = pd.DataFrame(dict(shares)).sort_index().fillna(0.0)
        _stack(all_axes[0], table.index.to_numpy(dtype=np.float64), table, looks)
    elif means:
        _draw_means(all_axes[0], means, spreads)
    if shares or means:
        steps_axis(all_axes[0])
        _heading(all_axes[0], "as training goes on: each evaluation")
    if longest is not None:
        _draw_within(all_axes[-1], longest, looks)
        labels = (longest.labels.get(key, "") for key in ("symbol", "agent"))
        where = ", ".join(part for part in labels if part)
        _heading(all_axes[-1], f"in the evaluation at {longest.step:,} env steps" + (f": {where}" if where else ""))
    title(
        figure,
        heading,
        "mean and standard deviation of each action" if means and not shares else "share of each action",
    )
    return figure


def _numbered(histories: Histories, kind: str) -> dict[int, pd.Series[float]]:
    """Returns `eval/action/<number>_<kind>` by number."""
    pattern = re.compile(rf"eval/action/(\d+)_{kind}")
    found = {
        int(match.group(1)): values.dropna() for key, values in histories.items() if (match := pattern.fullmatch(key))
    }
    return {index: values for index, values in sorted(found.items()) if len(values)}


def _looks(shares: Mapping[int, pd.Series[float]], trace: Trace | None) -> dict[int, tuple[str, str]]:
    """Returns name and colour of the most frequent discrete actions, the same in both panels.

    An action that always leads to about the same position is named with it.
    """
    often = {action: float(values.mean()) for action, values in shares.items()}
    held: dict[int, str] = {}
    if trace is not None and _is_discrete(trace.action):
        for kind in np.unique(trace.action[np.isfinite(trace.action)]):
            positions = trace.position[(trace.action == kind) & np.isfinite(trace.position)]
            often.setdefault(int(kind), 0.0)
            if len(positions) and float(positions.std()) < _SAME:
                held[int(kind)] = f" ({positions.mean():+.2g})".replace("-", "−").replace("+0)", "flat)")
    kept = sorted(sorted(often, key=lambda action: -often[action])[:_SHOWN])
    return {action: (f"action {action}{held.get(action, '')}", COLOURS[place]) for place, action in enumerate(kept)}


def _heading(axes: Axes, text: str) -> None:
    axes.set_title(drawable(text), loc="left", fontsize=10, color=MUTED, parse_math=False)


def _stack(axes: Axes, x: Any, table: pd.DataFrame, looks: Mapping[int, tuple[str, str]]) -> None:
    """Draws shares one above the other; the actions beyond the colours are one grey part."""
    parts: list[tuple[str, FloatArray, str]] = []
    for column in table.columns:
        look = looks.get(int(column))
        if look is not None:
            parts.append((look[0], table[column].to_numpy(dtype=np.float64), look[1]))
    rest = np.ones(len(table)) - sum(values for _, values, _ in parts)
    if (rest > 1e-9).any():
        parts.append(("others", rest, FAINT))
    if len(x) == 1:
        x = np.array([x[0] - 0.5, x[0] + 0.5])
        parts = [(name, np.repeat(values, 2), colour) for name, values, colour in parts]
    axes.stackplot(x, [values for _, values, _ in parts], colors=[colour for *_, colour in parts], alpha=0.75, lw=0)
    axes.set_ylim(0.0, 1.0)
    axes.set_xlim(x[0], x[-1])
    axes.yaxis.set_major_formatter(FuncFormatter(percent))
    floor = 0.0
    ends = []
    for name, values, colour in parts:
        last = float(values[-1])
        ends.append(
            (x[-1], floor + last / 2.0, f"{name}\n{percent(round(last, 3))}", colour if colour != FAINT else MUTED)
        )
        floor += last
    name_ends(axes, ends)


def _draw_means(axes: Axes, means: Mapping[int, pd.Series[float]], spreads: Mapping[int, pd.Series[float]]) -> None:
    ends = []
    for colour, (index, mean) in zip(COLOURS, means.items(), strict=False):
        sd = spreads.get(index, pd.Series(dtype=float)).reindex(mean.index).fillna(0.0)
        axes.fill_between(mean.index, mean - sd, mean + sd, color=colour, alpha=0.15, lw=0)
        axes.plot(mean.index, mean, color=colour, lw=1.8, marker="o" if len(mean) <= 15 else "", ms=4)
        ends.append((mean.index[-1], float(mean.iloc[-1]), f"action {index}\n{number(float(mean.iloc[-1]))}", colour))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    name_ends(axes, ends)


def _draw_within(axes: Axes, trace: Trace, looks: Mapping[int, tuple[str, str]]) -> None:
    """Draws stretches of an episode, one after the other."""
    actions = trace.action
    pieces = np.array_split(np.arange(len(actions)), min(_PIECES, len(actions)))
    middles = trace.x[[int(piece[len(piece) // 2]) for piece in pieces]]
    if _is_discrete(actions):
        kinds = [int(kind) for kind in np.unique(actions[np.isfinite(actions)])]
        rows = [[float((actions[piece] == kind).mean()) for kind in kinds] for piece in pieces]
        _stack(axes, middles, pd.DataFrame(rows, columns=kinds), looks)
    else:
        _draw_quantiles(axes, middles, [actions[piece] for piece in pieces])
    time_axis(axes, trace.dated)


def _draw_quantiles(axes: Axes, x: Any, pieces: Sequence[FloatArray]) -> None:
    low, median, high = np.array([np.nanquantile(piece, [0.1, 0.5, 0.9]) for piece in pieces]).T
    axes.fill_between(x, low, high, color=COLOURS[0], alpha=0.2, lw=0)
    axes.plot(x, median, color=COLOURS[0], lw=1.8)
    name_ends(axes, [(x[-1], float(median[-1]), "median\nband: 10 to 90 %", COLOURS[0])])


def _is_discrete(actions: FloatArray) -> bool:
    known = actions[np.isfinite(actions)]
    return bool(np.all(known == np.round(known)) and len(np.unique(known)) <= 64)
