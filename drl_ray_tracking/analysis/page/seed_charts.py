"""Charts of what seeds do: learning curves, performance profiles, who beats whom, parameters and their importance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from drl_ray_tracking.analysis.comparison import LEAST_SEEDS, Comparison
from drl_ray_tracking.analysis.curves import evenly, over_seeds
from drl_ray_tracking.analysis.importance import Importance, medians, numbers_of
from drl_ray_tracking.analysis.inputs import FloatArray
from drl_ray_tracking.analysis.intervals import performance_profile
from drl_ray_tracking.analysis.labels import cut
from drl_ray_tracking.analysis.page.axes import axis, layout
from drl_ray_tracking.analysis.page.blocks import Chart, plain
from drl_ray_tracking.analysis.palette import COLOURS, FAINT, INK, MUTED, colour_of, faded
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.analysis.scores import scores_of
from drl_ray_tracking.analysis.tables import number
from drl_ray_tracking.errors import DataError

_MOST_CURVES: Final = 40  # groups drawn, best first
_MOST_SEED_LINES: Final = 60
_MOST_POINTS: Final = 400  # of a drawn curve
_MOST_IN_MATRIX: Final = 12
_COLOUR_STEPS: Final = 12
_LABEL: Final = 32


def short_metric(metric: str) -> str:
    """Returns the last part of a metric's name, in words."""
    return plain(metric.rpartition("/")[2].replace("_", " "))


def learning_curves(runs: RunSet, comparison: Comparison) -> Chart:
    """Draws the compared metric over env steps: each group's mean, the range of its seeds, and each seed.

    Raises:
        DataError: no run of the comparison has a point of it.
    """
    every = {run_id: curve.dropna() for run_id, curve in runs.curves(comparison.metric).items()}
    by_group = comparison.values.groupby("group", sort=False).groups
    drawn = list(comparison.groups.iterrows())[:_MOST_CURVES]
    with_seeds = sum(len(by_group[group]) for group, _ in drawn) <= _MOST_SEED_LINES
    data: list[dict[str, Any]] = []
    for index, (group, row) in reversed(list(enumerate(drawn))):  # the best last, and so on top
        curves = [every[run_id] for run_id in by_group[group] if len(every.get(run_id, ()))]
        if not curves:
            continue
        shared = over_seeds(curves)
        if len(shared.steps) > _MOST_POINTS:
            shared = evenly(curves, _MOST_POINTS)
        colour, name = colour_of(index), plain(cut(str(row["label"]), _LABEL))
        together = {"legendgroup": str(group), "showlegend": False, "hoverinfo": "skip", "mode": "lines"}
        if len(curves) > 1 and index < len(COLOURS):
            around = [*shared.steps, *shared.steps[::-1]], [*shared.high, *shared.low[::-1]]
            data.append(_line(*around, faded(colour, 0.0), 0, fill="toself", fillcolor=faded(colour, 0.11), **together))
        single = curves if with_seeds and len(curves) > 1 else ()
        data += [_line(curve.index, curve.to_numpy(), faded(colour, 0.45), 1, **together) for curve in single]
        seeds = "1 seed" if row["n_seeds"] == 1 else f"{row['n_seeds']} seeds"
        mode = "lines+markers" if len(shared.steps) <= 15 and index < len(COLOURS) else "lines"
        hover = f"%{{y:.4g}} at %{{x:,}} env steps<extra>{name}<br>{seeds}</extra>"
        width = 2.5 if index < len(COLOURS) else 1
        data.append(
            _line(
                shared.steps, shared.mean, colour, width, name=f"{name} · {seeds}", mode=mode, marker={"size": 6},
                legendgroup=str(group), showlegend=index < len(COLOURS), legendrank=1000 + index, hovertemplate=hover,
            )
        )  # fmt: skip
    if not data:
        raise DataError(f"no run of the comparison has a defined point of {comparison.metric}")
    seeds = "thin lines: single seeds; " if with_seeds else ""
    others = len(comparison.groups) - len(drawn)
    more = f" The {others} groups ranked last are not drawn." if others > 0 else ""
    caption = (
        f"Mean over seeds on the env steps they share; {seeds}band: lowest to highest seed. Grey: beyond the first "
        f"{len(COLOURS)} groups. A click on a name hides it.{more}"
    )
    shape = layout(axis("env steps", tickformat="~s"), axis(short_metric(comparison.metric)), showlegend=True)
    return Chart("learning-curves", "", caption, data, shape, height=460)


def _line(x: Any, y: Any, colour: str, width: float, **more: Any) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": [_rounded(value) for value in x],
        "y": [_rounded(value) for value in y],
        "line": {"color": colour, "width": width},
        "mode": "lines",
        **more,
    }


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def profile(comparison: Comparison) -> Chart:
    """Draws, for each threshold, which share of a group's scores is above it.

    Raises:
        DataError: there is no group of three seeds, or all scores are the same.
    """
    scores = scores_of(comparison.values)
    enough = comparison.groups[comparison.groups["n_seeds"] >= LEAST_SEEDS]
    if enough.empty:
        raise DataError(f"a profile needs {LEAST_SEEDS} seeds in a group, and no group has as many")
    shown = list(enough.iterrows())[: len(COLOURS)]
    values = np.concatenate([scores.of[str(group)].ravel() for group, _ in shown])
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise DataError(f"all scores are {number(low)}: there is nothing to tell apart")
    margin = 0.04 * (high - low)
    taus = np.unique(np.concatenate([values, np.linspace(low - margin, high + margin, 100)]))
    data = []
    for index, (group, row) in enumerate(shown):
        name = plain(cut(str(row["label"]), _LABEL))
        hover = f"%{{y:.0%}} of the scores are above %{{x:.4g}}<extra>{name}</extra>"
        share = performance_profile(scores.of[str(group)], taus)
        data.append(_line(taus, share, colour_of(index), 2.2, name=name, hovertemplate=hover, line_shape="hv"))
        data[-1]["line"]["shape"] = data[-1].pop("line_shape")
    better = "further right" if comparison.mode == "max" else "further left"
    caption = (
        f"Share of a group's scores (seeds and windows) above a threshold: {better} is better, steeper is steadier."
    )
    y_axis = axis("share of scores above", tickformat=".0%", range=[-0.02, 1.05])
    shape = layout(axis(short_metric(comparison.metric)), y_axis, showlegend=True)
    return Chart("profile", "Performance profile", caption, data, shape, height=380)


def improvement(comparison: Comparison) -> Chart:
    """Draws how probably a seed of one group is better than one of another.

    Raises:
        DataError: fewer than two groups are ranked.
    """
    groups = comparison.groups[comparison.groups["rank"].notna()]
    keys = [str(key) for key in groups.index[:_MOST_IN_MATRIX]]
    if len(keys) < 2:
        raise DataError("two groups of three seeds are needed to say who beats whom")
    place = {key: index for index, key in enumerate(keys)}
    better_MM = np.full((len(keys), len(keys)), np.nan)
    hover = [["" for _ in keys] for _ in keys]
    labels = [plain(cut(str(groups.at[key, "label"]), 26)) for key in keys]
    for pair in comparison.pairs.to_dict("records"):
        if pair["first"] in place and pair["second"] in place:
            one, other = place[pair["first"]], place[pair["second"]]
            better_MM[one, other], better_MM[other, one] = pair["p_improvement"], 1.0 - pair["p_improvement"]
            tested = f"Hedges g {number(pair['hedges_g'])}, Welch p adjusted {number(pair['p_adjusted'])}"
            for row, column in ((one, other), (other, one)):
                hover[row][column] = (
                    f"{labels[row]}<br>better than {labels[column]}<br>with probability "
                    f"{better_MM[row, column]:.2f}<br>{tested}"
                )
    texts = [["" if math.isnan(value) else f"{value:.2f}" for value in row] for row in better_MM]
    trace = {
        "type": "heatmap",
        "z": [[_rounded(value) for value in row] for row in better_MM],
        "x": list(range(len(keys))),
        "y": list(range(len(keys))),
        "text": texts,
        "texttemplate": "%{text}",
        "textfont": {"size": 12, "color": INK},
        "hovertext": hover,
        "hovertemplate": "%{hovertext}<extra></extra>",
        "hoverongaps": False,
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "#E9A27A"], [0.5, "#FAFAFA"], [1, "#7FB4D6"]],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }
    places = list(range(len(keys)))
    ticks: dict[str, Any] = {"tickvals": places, "ticktext": labels, "showgrid": False, "zeroline": False}
    above = axis(side="top", tickangle=-20, **ticks)
    shape = layout(above, axis(autorange="reversed", **ticks))
    shape["margin"] = {"l": 60, "r": 12, "t": 60, "b": 12}
    caption = "Row against column: the probability that a seed of the row is better. One half is a coin."
    side = len(keys)
    return Chart(
        "improvement",
        "Probability of improvement",
        caption,
        [trace],
        shape,
        height=130 + 46 * side,
        least_width=260 + 46 * side,
        most_width=260 + 150 * side,
    )


def parallel_coordinates(comparison: Comparison, runs: RunSet) -> Chart:
    """Draws each configuration as a line through the parameters in which they differ, to its median over seeds.

    Raises:
        DataError: there are fewer than two configurations or parameters that differ.
    """
    table = medians(comparison, runs)
    parameters = [str(column) for column in table if column != "value"]
    if len(table) < 2 or not parameters:
        raise DataError(
            f"lines through parameters need configurations that differ in one, but there are {len(table)} and they "
            f"differ in {len(parameters)}"
        )
    names = [*parameters, short_metric(comparison.metric)]
    columns = [*(table[name] for name in parameters), table["value"]]
    heights, annotations = [], []
    for index, (name, column) in enumerate(zip(names, columns, strict=True)):
        height, ticks = _scaled(column)
        heights.append(height)
        title = plain(cut(str(name).rpartition("/")[2] or str(name), 22))
        annotations.append(
            {"text": f"<b>{title}</b>", "x": index, "y": 1.09, "showarrow": False, "font": {"size": 12, "color": INK}}
        )
        annotations += [
            {
                "text": plain(cut(text, 16)), "x": index, "y": at, "showarrow": False, "xanchor": "left", "xshift": 5,
                "font": {"size": 10, "color": MUTED}, "bgcolor": "rgba(255,255,255,0.75)", "borderpad": 0,
            }
            for at, text in ticks
        ]  # fmt: skip
    shade = heights[-1] if comparison.mode == "max" else 1.0 - heights[-1]
    step = np.minimum((shade * _COLOUR_STEPS).astype(int), _COLOUR_STEPS - 1)
    data = []
    for level in range(_COLOUR_STEPS):
        these = np.flatnonzero(step == level)
        if not len(these):
            continue
        x = [place for _ in these for place in (*range(len(names)), None)]
        y = [value for row in these for value in (*(float(height[row]) for height in heights), None)]
        share = level / (_COLOUR_STEPS - 1)
        data.append(
            {
                "type": "scatter", "mode": "lines", "x": x, "y": y, "hoverinfo": "skip",
                "line": {"color": _mixed(FAINT, COLOURS[0], share), "width": 1.2 + 1.6 * share},
                "opacity": 0.55 + 0.45 * share,
            }
        )  # fmt: skip
    shapes = [
        {"type": "line", "x0": place, "x1": place, "y0": 0, "y1": 1, "line": {"color": "#BDBDBD", "width": 1}}
        for place in range(len(names))
    ]
    hidden = {"visible": False, "fixedrange": True}
    shape = layout({**hidden, "range": [-0.25, len(names) - 0.55]}, {**hidden, "range": [-0.08, 1.16]})
    shape.update(annotations=annotations, shapes=shapes, margin={"l": 8, "r": 8, "t": 8, "b": 8})
    caption = "One line a configuration, its value at the right: the median over its seeds. Blue is better."
    return Chart(
        "parallel",
        "Lines through the parameters",
        caption,
        data,
        shape,
        height=400,
        least_width=120 * len(names),
        most_width=300 * len(names),
    )


def _scaled(column: pd.Series[Any]) -> tuple[FloatArray, list[tuple[float, str]]]:
    """Returns a column as heights in [0, 1], and ticks (height, text): numbers by size, texts one above the other."""
    numbers = numbers_of(column)
    if numbers is not None:
        values = numbers.to_numpy(dtype=np.float64)
        distinct = np.unique(values)
        scaled = np.log(values) if distinct[0] > 0.0 and distinct[-1] / distinct[0] >= 100.0 else values
        low, high = scaled.min(), scaled.max()
        heights = (scaled - low) / (high - low) if high > low else np.full(len(values), 0.5)
        chosen = distinct if len(distinct) <= 6 else distinct[[0, -1]]
        return heights, [(float(heights[int(np.argmax(values == one))]), number(float(one))) for one in chosen]
    texts = column.astype(str)
    distinct_texts = sorted(texts.unique())
    place = {text: index / max(1, len(distinct_texts) - 1) for index, text in enumerate(distinct_texts)}
    heights = np.array([place[text] for text in texts])
    return heights, [(place[text], text) for text in distinct_texts[:12]]


def _mixed(one: str, other: str, share: float) -> str:
    parts = [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in (one, other)]
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(*parts, strict=True))


def importance_bars(found: Importance) -> Chart:
    """Draws the importance of each parameter."""
    shown = list(found.shares.items())[:15]
    names = [plain(cut(name, 40)) for name, _ in shown]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [_rounded(share) for _, share in shown],
        "y": list(range(len(shown))),
        "text": [f"{share:.0%}" for _, share in shown],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": COLOURS[0]},
        "hovertemplate": "%{x:.1%}<extra></extra>",
        "width": 0.55,
    }
    y_axis = axis(
        tickvals=list(range(len(shown))), ticktext=names, autorange="reversed", showgrid=False, zeroline=False
    )
    x_axis = axis("share of the explained variance", tickformat=".0%", range=[0, 1.08], showgrid=False)
    caption = (
        f"Functional ANOVA over a random forest, on the medians over seeds of {found.configurations} configurations. "
        "It says what mattered in what was tried, not what would matter elsewhere."
    )
    return Chart("importance", "Importance", caption, [trace], layout(x_axis, y_axis), height=90 + 38 * len(shown))


def stability_curves(runs: RunSet, comparison: Comparison, points: int) -> dict[str, FloatArray]:
    """Returns each group's curves (seed, step) at equally distant steps, of groups whose seeds share a span."""
    every = {run_id: curve.dropna() for run_id, curve in runs.curves(comparison.metric).items()}
    found = {}
    for group, members in comparison.values.groupby("group", sort=False).groups.items():
        curves: Sequence[pd.Series[float]] = [every[run_id] for run_id in members if len(every.get(run_id, ())) >= 3]
        if curves and max(curve.index[0] for curve in curves) < min(curve.index[-1] for curve in curves):
            found[str(group)] = evenly(curves, points).values_RT
    return found
