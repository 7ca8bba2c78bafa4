"""The page's sections about whether to believe it: equity, luck, overfitting, costs, alerts, lineage, test windows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import numpy as np

from drl_ray_tracking.analysis.comparison import SEED, Comparison
from drl_ray_tracking.analysis.equity import BarReturns, EquityCurve, bar_returns, equity_curves
from drl_ray_tracking.analysis.evaluations import evaluation_of, judged_bars
from drl_ray_tracking.analysis.inputs import FloatArray
from drl_ray_tracking.analysis.page import market_charts
from drl_ray_tracking.analysis.page.blocks import Block, Column, Section, Sentence, Table, number_cell, text_cell
from drl_ray_tracking.analysis.page.compared import Link, shown_or_said
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.analysis.sensitivity import cost_sensitivity, regimes
from drl_ray_tracking.analysis.superior import superior_predictive_ability
from drl_ray_tracking.analysis.tables import number
from drl_ray_tracking.errors import DataError, TrackingError

_MOST_SYMBOLS: Final = 4
_BEST_OF: Final = 3  # groups whose best run's equity is drawn
_MOST_TESTED: Final = 2_000_000  # bars times candidates: beyond that the test takes minutes
_RESAMPLES: Final = 500


def trusted_sections(comparison: Comparison, runs: RunSet, link: Link) -> Iterator[Section]:
    """Yields the sections about whether the best may be believed; arguments as of `compared_sections`."""
    yield Section(
        "equity",
        "Equity",
        "Equity",
        "What the best run of the best groups earned on the validation bars it was chosen on.",
        tuple(_equity(comparison, runs)),
    )
    yield Section(
        "luck-section",
        "Luck and overfitting",
        "Luck",
        "How good the best of so many looks without skill, and whether what is best in one half of history stays so.",
        (
            shown_or_said(lambda: _luck(comparison), "The trial count cannot be drawn"),
            shown_or_said(lambda: _logits(comparison), "Overfitting cannot be drawn"),
            shown_or_said(lambda: _superior(comparison, runs), "Superior predictive ability is not tested"),
        ),
    )
    yield Section(
        "sensitivity",
        "Costs and markets",
        "Costs",
        "How much of the best run's result is its costs and the market it met.",
        (
            shown_or_said(lambda: _costs(comparison, runs), "Costs"),
            shown_or_said(lambda: _regimes(comparison, runs), "Markets"),
        ),
    )
    yield Section(
        "alerts",
        "Alerts",
        "Alerts",
        "What the tracker saw go wrong, and what could not be read.",
        tuple(_alerts(runs, link)),
    )
    yield Section(
        "lineage",
        "Lineage",
        "Lineage",
        "Whose checkpoints trials went on from (population-based training).",
        tuple(_lineage(comparison, runs)),
    )
    yield Section(
        "budget",
        "Test windows",
        "Test windows",
        "A test window answers honestly once; each further look makes it a little more of a validation window.",
        tuple(_budget(runs)),
    )


def _best_bars(comparison: Comparison, runs: RunSet) -> BarReturns:
    best = comparison.best_run
    bars = evaluation_of(runs, comparison.metric, best.run_id, best.step)
    return bar_returns(judged_bars(bars, comparison.metric))


def _equity(comparison: Comparison, runs: RunSet) -> Iterator[Block]:
    best = comparison.best_run
    steps = comparison.values["step"].to_dict()
    names = comparison.values["name"].to_dict()
    wanted = list(dict.fromkeys([best.run_id, *comparison.groups["best_run_id"]]))[:_BEST_OF]
    by_symbol: dict[str, list[tuple[str, EquityCurve]]] = {}
    for run_id in wanted:
        try:
            for curve in equity_curves(evaluation_of(runs, comparison.metric, run_id, steps[run_id])):
                by_symbol.setdefault(curve.symbol, []).append((names[run_id], curve))
        except TrackingError as error:
            yield Sentence(f"Of {names[run_id]} no equity is drawn: {error}.", muted=True)
    for index, curves in enumerate(list(by_symbol.values())[:_MOST_SYMBOLS]):
        yield market_charts.equity(curves, f"equity-{index}")
    if len(by_symbol) > _MOST_SYMBOLS:
        yield Sentence(f"{len(by_symbol) - _MOST_SYMBOLS} more symbols are not drawn.", muted=True)


def _luck(comparison: Comparison) -> Block:
    if comparison.verdict is None or comparison.verdict.accepted is None:
        raise DataError("there is no return series of the best run to judge")
    return market_charts.luck(comparison.verdict)


def _logits(comparison: Comparison) -> Block:
    if comparison.tries is None:
        raise DataError("nothing was judged")
    return market_charts.logits(comparison.tries.overfitting)


def _superior(comparison: Comparison, runs: RunSet) -> Block:
    tries = comparison.tries
    if tries is None or not tries.returns_TN.size:
        raise DataError("there are no return series")
    if tries.returns_TN.size > _MOST_TESTED:
        raise DataError(
            f"{tries.returns_TN.shape[1]:,} candidates of {len(tries.returns_TN):,} bars would take minutes; "
            "`analysis.superior` does it on its own"
        )
    benchmarks: dict[str, FloatArray] = {"cash": np.zeros(len(tries.returns_TN))}
    hold = _best_bars(comparison, runs).hold
    if hold is not None and len(hold) == len(tries.returns_TN):
        benchmarks["buy and hold"] = hold
    columns = (
        Column("benchmark"),
        Column("p", "number", "Hansen's consistent p-value: that no candidate earns more than the benchmark"),
        Column("from", "number", "liberal bound"),
        Column("to", "number", "conservative bound"),
    )
    rows = []
    for name, benchmark in benchmarks.items():
        found = superior_predictive_ability(
            tries.returns_TN, benchmark, rng=np.random.default_rng(SEED), n_resamples=_RESAMPLES
        )
        cells = (number_cell(value, f"{value:.3f}") for value in (found.consistent, found.lower, found.upper))
        rows.append((text_cell(name), *cells))
    return Table("superior", columns, tuple(rows), title="Superior predictive ability")


def _costs(comparison: Comparison, runs: RunSet) -> Block:
    bars = _best_bars(comparison, runs)
    if bars.costs is None:
        raise DataError("the environment recorded no fees, so what other costs would do cannot be told")
    if not bars.costs.any():
        raise DataError("no fees were paid: the agent never traded, or trading was free")
    return market_charts.costs(cost_sensitivity(bars.returns, bars.costs))


def _regimes(comparison: Comparison, runs: RunSet) -> Block:
    bars = _best_bars(comparison, runs)
    if bars.hold is None:
        raise DataError("the environment recorded no prices, so there are no regimes to tell apart")
    columns = (
        Column("market"),
        Column("bars", "number"),
        Column("return", "number", "compounded over these bars alone"),
        Column("buy and hold", "number", "over the same bars"),
        Column("Sharpe a bar", "number", "missing below 20 bars"),
    )
    rows = tuple(
        (
            text_cell(regime.name),
            number_cell(float(regime.bars)),
            number_cell(regime.total, _percent(regime.total)),
            number_cell(regime.hold, _percent(regime.hold)),
            number_cell(regime.sharpe),
        )
        for regime in regimes(bars.returns, bars.hold)
    )
    return Table("regimes", columns, rows, title="Markets")


def _percent(value: float) -> str:
    return f"{100 * value:+.1f} %".replace("-", "−")


def _alerts(runs: RunSet, link: Link) -> Iterator[Block]:
    found = runs.alerts()
    if len(found):
        columns = (
            Column("alert", chips=True),
            Column("trial"),
            Column("env steps", "number", "when it was first raised"),
        )
        rows = tuple(
            (
                text_cell(row["alert"].replace("_", " ")),
                text_cell(row["name"], href=link(row["run_id"])),
                number_cell(float(row["step"]), f"{row['step']:,}"),
            )
            for row in found.to_dict("records")
        )
        yield Table("alerts-table", columns, rows, search=len(rows) > 10)
    else:
        yield Sentence("No trial raised an alert: none collapsed, lost its entropy or had a loss that is not finite.")
    if runs.unreadable:
        what = (Column("could not be read"), Column("why"))
        names = runs.runs["name"].to_dict()
        unread = ((text_cell(names.get(one.run_id, one.run_id)), text_cell(one.reason)) for one in runs.unreadable)
        yield Table("unreadable", what, tuple(unread))


def _lineage(comparison: Comparison, runs: RunSet) -> Iterator[Block]:
    found = runs.handovers()
    if found.empty:
        yield Sentence("No trial went on from another's checkpoint, and none changed its parameters while it ran.")
        return
    ends = runs.final(comparison.metric)["step"].fillna(0.0)
    yield shown_or_said(lambda: market_charts.lineage(found, runs.runs, ends), "No lineage is drawn")
    names = runs.runs["name"].to_dict()
    columns = (Column("trial"), Column("env steps", "number"), Column("went on from"), Column("changed"))
    rows = tuple(
        (
            text_cell(row["name"]),
            number_cell(float(row["step"]), f"{row['step']:,}"),
            text_cell(names.get(row["donor"], row["donor"]) or "itself"),
            text_cell(row["changed"] or "–"),
        )
        for row in found.to_dict("records")
    )
    yield Table("handovers", columns, rows, search=len(rows) > 10)


def _budget(runs: RunSet) -> Iterator[Block]:
    if runs.test_evaluations is None:
        yield Sentence(
            "How often test windows were looked at is counted in MLflow; a Tune result does not know it.", muted=True
        )
        return
    if not runs.test_evaluations:
        yield Sentence("No test window was looked at yet.")
        return
    yield Sentence(f"Looks so far: {number(float(runs.test_evaluations))}.")
    columns = (Column("window"), Column("when"), Column("who"), Column("what"))
    rows = tuple(
        (
            text_cell(window),
            text_cell(time.strftime("%Y-%m-%d %H:%M", time.gmtime(look.time_ms / 1000))),
            text_cell(look.user),
            text_cell(look.what),
        )
        for window, spent in runs.test_windows.items()
        for look in spent.looks
    )
    if rows:
        yield Table("looks", columns, rows)
