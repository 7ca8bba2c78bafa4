"""The page's sections about groups and seeds: leaderboard, curves, profile, who beats whom, parameters, stability."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import pandas as pd

from drl_ray_tracking.analysis.comparison import Comparison
from drl_ray_tracking.analysis.importance import importance
from drl_ray_tracking.analysis.labels import PARAM, cut, filled
from drl_ray_tracking.analysis.page import seed_charts
from drl_ray_tracking.analysis.page.blocks import (
    Block,
    Cell,
    Column,
    Interval,
    Section,
    Sentence,
    Table,
    number_cell,
    text_cell,
)
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.analysis.stability import (
    dispersion_across_runs,
    dispersion_across_time,
    drawdown_risk,
    risk_across_time,
)
from drl_ray_tracking.analysis.tables import number
from drl_ray_tracking.errors import TrackingError

TRIALS: Final = "trials"
_MOST_PARAMETERS: Final = 6  # columns of the trials' table
_GRID: Final = 50  # points of a curve that stability is measured on
Link = Callable[[str], str]


def shown_or_said(draw: Callable[[], Block], what: str) -> Block:
    """Returns a block, or the sentence that says why it is not shown."""
    try:
        return draw()
    except TrackingError as error:
        return Sentence(f"{what}: {error}.", muted=True)


def compared_sections(comparison: Comparison, runs: RunSet, link: Link) -> Iterator[Section]:
    """Yields the sections about groups and seeds.

    Args:
        comparison: of `runs`.
        runs: what was compared.
        link: returns where a run is shown, '' where nothing shows it.
    """
    yield Section(
        "leaderboard",
        "Leaderboard",
        "Leaderboard",
        "Groups by their interquartile mean over seeds. A click on a heading sorts, one on a group shows its trials.",
        (_groups(comparison), *(Sentence(sentence) for sentence in comparison.findings)),
    )
    yield Section(
        "curves",
        "Learning curves",
        "Curves",
        f"{comparison.metric} over env steps.",
        (
            shown_or_said(lambda: seed_charts.learning_curves(runs, comparison), "No curves are drawn"),
            shown_or_said(lambda: _stability(comparison, runs), "Stability is not measured"),
        ),
    )
    yield Section(
        "seeds",
        "How far apart",
        "Seeds",
        "Whole distributions, not only means.",
        (
            shown_or_said(lambda: seed_charts.profile(comparison), "No performance profile"),
            shown_or_said(lambda: seed_charts.improvement(comparison), "No probability of improvement"),
        ),
    )
    yield Section(
        "parameters",
        "Hyperparameters",
        "Parameters",
        "What the configurations differ in, and what of it mattered.",
        (
            shown_or_said(lambda: seed_charts.parallel_coordinates(comparison, runs), "No lines through parameters"),
            shown_or_said(lambda: seed_charts.importance_bars(importance(comparison, runs)), "No importance"),
        ),
    )
    yield Section(
        "all-trials",
        "All trials",
        "Trials",
        "Each run that was read, compared or not.",
        (_trials(comparison, runs, link),),
    )


def _groups(comparison: Comparison) -> Table:
    groups = comparison.groups
    ends = groups[["low", "high", "iqm"]].to_numpy(dtype=np.float64)
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    percent = f"{100 * comparison.confidence:.4g} % interval"
    columns = (
        Column("rank", "number"),
        Column("group"),
        Column("seeds", "number", "training runs that differ in their random numbers only"),
        Column("IQM", "number", "mean of the middle half of the scores"),
        Column(percent, "text", "bootstrap interval of the IQM, drawn on one scale for all groups"),
        Column("mean", "number"),
        Column("sd", "number", "standard deviation between seeds"),
        Column("best run"),
        Column("best", "number", "the best of many: optimistic"),
    )
    rows = []
    for row in groups.to_dict("records"):
        known = not math.isnan(row["low"])
        interval = f"{number(row['low'])}\u00a0to\u00a0{number(row['high'])}" if known else "–"  # on one line
        place = Interval(
            _share(row["iqm"], low, high),
            _share(row["low"], low, high) if known else None,
            _share(row["high"], low, high) if known else None,
        )
        rows.append(
            (
                Cell("–") if pd.isna(row["rank"]) else Cell(str(row["rank"]), float(row["rank"])),
                text_cell(row["label"], filters=TRIALS),
                number_cell(float(row["n_seeds"])),
                number_cell(row["iqm"]),
                Cell(interval, row["low"] if known else None, interval=place),
                number_cell(row["mean"]),
                number_cell(row["sd"]),
                text_cell(row["best_run"]),
                number_cell(row["best_value"]),
            )
        )
    return Table("groups", columns, tuple(rows), search=len(rows) > 5)


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _stability(comparison: Comparison, runs: RunSet) -> Block:
    curves = seed_charts.stability_curves(runs, comparison, _GRID)
    if not curves:
        return Sentence("Stability is not measured: no group's seeds share a stretch of three points.", muted=True)
    sign = 1.0 if comparison.mode == "max" else -1.0
    columns = (
        Column("group"),
        Column("jitter", "number", "interquartile range of the steps of a curve, without its trend"),
        Column("short-term risk", "number", "mean of the worst 5 % of steps"),
        Column("long-term risk", "number", "mean of the worst 5 % of distances below the best so far"),
        Column("between seeds", "number", "interquartile range over seeds, averaged over the curve"),
    )
    rows = []
    for group, values_RT in curves.items():
        scores = sign * values_RT
        between = float(dispersion_across_runs(scores).mean()) if len(scores) > 1 else None
        rows.append(
            (
                text_cell(comparison.groups.at[group, "label"]),
                number_cell(float(dispersion_across_time(scores).mean())),
                number_cell(float(risk_across_time(scores).mean())),
                number_cell(float(drawdown_risk(scores).mean())),
                number_cell(between),
            )
        )
    return Table("stability", columns, tuple(rows), title="Stability")


def _trials(comparison: Comparison, runs: RunSet, link: Link) -> Table:
    values = comparison.values
    table = runs.runs
    labels = comparison.groups["label"].to_dict()
    names = [
        column
        for column in (str(column) for column in table.columns)
        if column.startswith(PARAM) and column != f"{PARAM}seed" and filled(table[column]).nunique() > 1
    ][:_MOST_PARAMETERS]
    columns = (
        Column("trial"),
        Column("group", chips=len(labels) <= 8),
        Column("seed", "number"),
        Column("status", chips=True),
        Column(comparison.metric.rpartition("/")[2], "number", comparison.metric),
        Column("env steps", "number"),
        *(Column(name.removeprefix(PARAM).rpartition("/")[2], hint=name.removeprefix(PARAM)) for name in names),
    )
    rows = []
    compared = values.to_dict("index")
    for run_id, run in table.to_dict("index").items():
        known = compared.get(run_id, {"group": None, "value": math.nan, "step": math.nan})
        rows.append(
            (
                text_cell(run["name"], href=link(str(run_id))),
                text_cell(labels.get(known["group"], "not compared")),
                _number_or_text(run["seed"]),
                text_cell(run["status"]),
                number_cell(known["value"]),
                number_cell(known["step"], f"{known['step']:,}"),
                *(_number_or_text(run[name]) for name in names),
            )
        )
    return Table(TRIALS, columns, tuple(rows), search=True)


def _number_or_text(value: Any) -> Cell:
    if value is None or pd.isna(value):
        return Cell("–")
    text = cut(str(value), 60)
    try:
        return Cell(text, float(value)) if math.isfinite(float(value)) else text_cell(text)
    except ValueError:
        return text_cell(text)
