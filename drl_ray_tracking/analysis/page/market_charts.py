"""Charts of what was earned and whether to believe it: equity, drawdown, luck, overfitting, costs, lineage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from drl_ray_tracking.analysis.comparison import Verdict
from drl_ray_tracking.analysis.equity import EquityCurve
from drl_ray_tracking.analysis.inputs import FloatArray
from drl_ray_tracking.analysis.labels import cut
from drl_ray_tracking.analysis.overfitting import BacktestOverfitting
from drl_ray_tracking.analysis.page.axes import axis, layout, line_at, note
from drl_ray_tracking.analysis.page.blocks import Chart, plain
from drl_ray_tracking.analysis.palette import COLOURS, FAINT, INK, MUTED, colour_of, faded
from drl_ray_tracking.analysis.selection import deflated_sharpe_ratio, expected_maximum_sharpe
from drl_ray_tracking.analysis.sensitivity import CostSensitivity
from drl_ray_tracking.errors import DataError

_MOST_BARS: Final = 1500  # drawn of one curve
_MOST_TRIALS: Final = 60  # of a lineage


def equity(curves: Sequence[tuple[str, EquityCurve]], ident: str) -> Chart:
    """Draws equity against buy-and-hold of the same bars, the drawdown below.

    Args:
        curves: (name, curve) of one symbol, the best first.
        ident: of the chart.
    """
    best = curves[0][1]
    data: list[dict[str, Any]] = []
    if best.hold_growth is not None:
        hold = {"name": "buy and hold", "line": {"color": MUTED, "width": 1.3, "dash": "dash"}}
        data.append(_over_bars(best.x, best.hold_growth - 1.0, **hold))
    for index, (name, curve) in reversed(list(enumerate(curves))):
        line = {"color": colour_of(index), "width": 2.2 if index == 0 else 1.2}
        data.append(
            _over_bars(curve.x, curve.growth - 1.0, name=plain(cut(name, 40)), line=line, legendrank=900 + index)
        )
    first = colour_of(0)
    drawdown = {"name": "drawdown", "line": {"color": first, "width": 1}, "fill": "tozeroy", "yaxis": "y2"}
    fill = faded(first, 0.18)
    data.append(_over_bars(best.x, -best.drawdown, fillcolor=fill, showlegend=False, **drawdown))
    joints = [
        {
            "type": "line", "x0": _moment(best.x[joint]), "x1": _moment(best.x[joint]), "y0": 0, "y1": 1,
            "yref": "paper", "line": {"color": FAINT, "width": 1, "dash": "dot"},
        }
        for joint in best.joints[:50]
    ]  # fmt: skip
    x_axis = axis("" if best.dated else "bar", anchor="y2", type="date" if best.dated else "linear")
    y_axis = axis("return", tickformat=".0%", domain=[0.36, 1.0])
    below = axis("drawdown", tickformat=".0%", domain=[0.0, 0.26], rangemode="tozero", nticks=4)
    shape = layout(x_axis, y_axis, yaxis2=below, showlegend=True, shapes=joints, hovermode="x unified")
    thinned = f" Of {len(best.x):,} bars, at most {_MOST_BARS:,} are drawn." if len(best.x) > _MOST_BARS else ""
    caption = (
        "Equity over initial equity of each group's best run, the best of all thickest; its drawdown (distance below "
        f"the running peak) below.{thinned}"
    )
    return Chart(ident, best.symbol, caption, data, shape, height=460)


def _over_bars(x: Any, y: FloatArray, **more: Any) -> dict[str, Any]:
    kept = _thinned(y)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [_moment(x[index]) for index in kept],
        "y": [float(f"{y[index]:.5g}") for index in kept],
        "hovertemplate": "%{y:+.1%}",
        **more,
    }


def _thinned(y: FloatArray) -> list[int]:
    """Returns the bars to draw: all, or the lowest and highest of each of equally many stretches, and both ends."""
    if len(y) <= _MOST_BARS:
        return list(range(len(y)))
    stretches = np.array_split(np.arange(len(y)), _MOST_BARS // 2 - 1)
    picked = {0, len(y) - 1}
    for stretch in stretches:
        picked |= {int(stretch[np.argmin(y[stretch])]), int(stretch[np.argmax(y[stretch])])}
    return sorted(picked)


def _moment(value: Any) -> Any:
    return str(value) if isinstance(value, np.datetime64) else int(value)


def logits(found: BacktestOverfitting) -> Chart:
    """Draws where the best in one half of history ends up in the other."""
    edges = np.histogram_bin_edges(found.logits, bins=min(40, max(8, len(found.logits) // 20)))
    width = edges[1] - edges[0]
    # A bin on both sides of 0 would have no colour: the edges are moved so that 0 is one.
    edges = np.arange(math.floor(edges[0] / width), math.ceil(edges[-1] / width) + 1) * width
    counts, _ = np.histogram(found.logits, bins=np.append(edges, edges[-1] + width))
    centres = edges + width / 2.0
    share = counts / counts.sum()
    # Overfit is a logit at or below 0: one of exactly 0 lies in the bin that begins there.
    trace = {
        "type": "bar",
        "x": [float(f"{value:.5g}") for value in centres],
        "y": [float(f"{value:.5g}") for value in share],
        "width": float(width) * 0.94,
        "marker": {"color": [COLOURS[1] if centre < 0 else COLOURS[0] for centre in centres]},
        "hovertemplate": "%{y:.1%} of the splits near a logit of %{x:.2f}<extra></extra>",
    }
    shape = layout(axis("logit of the rank out of sample", zeroline=False), axis("share of splits", tickformat=".0%"))
    shape["shapes"] = [line_at(0.0, "x", line={"color": INK, "width": 1.2})]
    shape["bargap"] = 0
    caption = (
        f"History is cut into {found.n_splits} blocks and halved in all {len(found.logits):,} ways; left of the line "
        f"the best of one half ends up in the worse half of the other. Share at or left of it: {found.pbo:.2f}. "
        f"Its Sharpe ratio there is negative in {found.probability_of_loss:.0%} of the splits."
    )
    return Chart("logits", "Probability of backtest overfitting", caption, [trace], shape, height=340)


def luck(verdict: Verdict) -> Chart:
    """Draws what the best of N would reach without skill, and how the deflated Sharpe ratio falls with N.

    Args:
        verdict: with the numbers of its candidate.
    """
    known = {one.name: one.value for one in verdict.numbers}
    sharpe, bars, tried = known["sharpe"], int(known["bars"]), known["candidates"]
    moments, variance = (known["skewness"], known["kurtosis"]), known["spread"] ** 2
    n = np.unique(np.round(np.geomspace(1, max(1000.0, 20.0 * tried), 120)))
    expected = [expected_maximum_sharpe(count, variance) for count in n]
    deflated = [deflated_sharpe_ratio(sharpe, bars, *moments, count, variance) for count in n]
    x = n.tolist()
    data = [
        _curve(x, [known["low"]] * len(x), MUTED, 0, hoverinfo="skip"),
        _curve(
            x, [known["high"]] * len(x), MUTED, 0, fill="tonexty", fillcolor=faded(COLOURS[0], 0.10), hoverinfo="skip"
        ),
        _curve(x, [sharpe] * len(x), COLOURS[0], 2.2, hovertemplate=f"found: {sharpe:.4f}<extra></extra>"),
        _curve(x, expected, COLOURS[1], 2.2, hovertemplate="best of %{x:,} without skill: %{y:.4f}<extra></extra>"),
        _curve(x, deflated, INK, 2, yaxis="y2", hovertemplate="with %{x:,} tries: %{y:.3f}<extra></extra>"),
        _point(tried, known["luck"], COLOURS[1]),
        _point(tried, known["dsr"], INK, yaxis="y2"),
    ]
    right = 0.999 * math.log10(n[-1])  # a label on the very edge counts as outside and is not drawn
    shape = layout(
        axis("number of tries (logarithmic)", type="log", anchor="y2", tickvals=[10**k for k in range(int(right) + 1)]),
        axis("Sharpe ratio a bar", domain=[0.50, 1.0]),
        yaxis2=axis("deflated Sharpe", domain=[0.0, 0.38], range=[-0.05, 1.08], tickvals=[0, 0.5, 0.95]),
    )
    shape["shapes"] = [line_at(known["asked"], "y2"), line_at(tried, "x", line={"color": FAINT, "width": 1})]
    top = {"xanchor": "left", "yanchor": "bottom", "xshift": 4}
    shape["annotations"] = [
        note("found, with its interval", 0, sharpe, font={"size": 11, "color": COLOURS[0]}, **top),
        note("luck", right, expected[-1], xanchor="right", yanchor="bottom", font={"size": 11, "color": COLOURS[1]}),
        note(f"{tried:,.0f} tried", math.log10(tried), 1.0, yref="paper", xanchor="left", yanchor="top", xshift=4),
        note("asked for", right, known["asked"], yref="y2", xanchor="right", yanchor="bottom"),
    ]
    caption = (
        "Above: the Sharpe ratio found, and what the best of so many tries without any skill is expected to reach. "
        "Below: the probability that the ratio found is better than that."
    )
    return Chart("luck", "Under trial count", caption, data, shape, height=440)


def _curve(x: Any, y: Any, colour: str, width: float, **more: Any) -> dict[str, Any]:
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": {"color": colour, "width": width}, **more}


def _point(x: float, y: float, colour: str, **more: Any) -> dict[str, Any]:
    marker = {"size": 9, "color": colour, "line": {"color": "white", "width": 1.5}}
    return {"type": "scatter", "mode": "markers", "x": [x], "y": [y], "marker": marker, "hoverinfo": "skip", **more}


def costs(found: CostSensitivity) -> Chart:
    """Draws what the same trades would have returned at other costs."""
    points = found.points
    trace = {
        "type": "bar",
        "x": [f"{point.multiple:g} ×" for point in points],
        "y": [float(f"{point.total:.5g}") for point in points],
        "text": [f"{100 * point.total:+.0f} %".replace("-", "−") for point in points],
        "textposition": "outside",
        "constraintext": "none",
        "textangle": 0,
        "cliponaxis": False,
        "marker": {"color": [COLOURS[0] if point.total >= 0 else COLOURS[1] for point in points]},
        "hovertemplate": "total return %{y:+.1%} at %{x} the costs<extra></extra>",
        "width": 0.55,
    }
    at = (
        "no costs were paid"
        if found.paid == 0.0
        else f"its mean return would be zero at {found.break_even:.2g} times the costs"
    )
    caption = (
        f"Total return of the same trades at multiples of the fees recorded ({100 * found.paid:.2f} % of equity in "
        f"all); {at}. The agent would have traded otherwise, had it known."
    )
    shape = layout(axis("costs", type="category", showgrid=False), axis("total return", tickformat=".0%"))
    return Chart("costs", "Costs", caption, [trace], shape, height=320)


def lineage(handovers: pd.DataFrame, runs: pd.DataFrame, ends: pd.Series[float]) -> Chart:
    """Draws each trial as a line over env steps, and an arrow from whom it went on from.

    Args:
        handovers: as `lineage.handovers` returned it; at least one row.
        runs: as `RunSet.runs`.
        ends: run id -> the last env step of each run.
    """
    involved = list(dict.fromkeys([*handovers["run_id"], *handovers["donor"]]))
    ids = [run_id for run_id in runs.index if run_id in involved][:_MOST_TRIALS]
    if not ids:
        raise DataError("none of the trials that went on from another is among these runs")
    place = {run_id: index for index, run_id in enumerate(ids)}
    data = [
        _curve([0, float(ends.get(run_id, 0.0))], [index, index], FAINT, 5, hoverinfo="skip")
        for run_id, index in place.items()
    ]
    arrows, x, y, hover = [], [], [], []
    for row in handovers.to_dict("records"):
        if row["run_id"] not in place:
            continue
        step, at = float(row["step"]), place[row["run_id"]]
        x.append(step)
        y.append(at)
        donor = runs["name"].get(row["donor"], row["donor"]) or "its own checkpoint"
        changed = f"<br>changed: {plain(row['changed'])}" if row["changed"] else ""
        hover.append(f"{plain(row['name'])}<br>from {plain(donor)} at {step:,.0f} env steps{changed}")
        if row["donor"] in place:
            arrows.append(
                {
                    "x": step, "y": at, "ax": step, "ay": place[row["donor"]], "axref": "x", "ayref": "y",
                    "showarrow": True, "arrowhead": 2, "arrowsize": 1, "arrowwidth": 1.3, "arrowcolor": COLOURS[0],
                    "text": "", "standoff": 5,
                }
            )  # fmt: skip
    marker = {"size": 9, "color": COLOURS[0], "line": {"color": "white", "width": 1.5}}
    data.append(
        {
            "type": "scatter", "mode": "markers", "x": x, "y": y, "marker": marker, "hovertext": hover,
            "hovertemplate": "%{hovertext}<extra></extra>",
        }
    )  # fmt: skip
    labels = [plain(cut(str(runs.at[run_id, "name"]), 30)) for run_id in ids]
    y_axis = axis(tickvals=list(range(len(ids))), ticktext=labels, autorange="reversed", showgrid=False, zeroline=False)
    caption = "Each trial over its env steps; an arrow comes from the trial whose checkpoint it went on from."
    left_out = len([run_id for run_id in runs.index if run_id in involved]) - len(ids)
    more = f" {left_out} more trials are in the table only." if left_out else ""
    shape = layout(axis("env steps", tickformat="~s", rangemode="tozero"), y_axis, annotations=arrows)
    return Chart("lineage-chart", "", caption + more, data, shape, height=110 + 30 * len(ids))
