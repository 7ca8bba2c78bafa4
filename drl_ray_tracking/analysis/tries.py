"""Everything that was looked at on one window before something was chosen: what the best of it was chosen from.

Every (trial, evaluation) on the same bars is one try, across all sweeps of the experiment: a rule that takes the
best checkpoint of the best trial has looked at each of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import pandas as pd

from drl_ray_tracking.analysis.budget import Bars
from drl_ray_tracking.analysis.inputs import FloatArray
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.errors import DataError

_AT_ONCE: Final = 8  # series read at a time


@dataclass(frozen=True, eq=False)
class Tries:
    """Everything that was looked at on one window.

    Attributes:
        returns_TN: (bar, try) of those whose bars are all there.
        keys: (run id, env steps) of each of these, in order.
        looked_at: how many tries there were, those without bars included.
        without_series: why the returns of a trial could not be had, one sentence for each such trial.
        other_bars: evaluations left out because they have other bars than the most (ruined, or cut short).
    """

    returns_TN: FloatArray
    keys: tuple[tuple[str, int], ...]
    looked_at: int
    without_series: tuple[str, ...] = ()
    other_bars: int = 0

    @property
    def sharpe_variance(self) -> float:
        """Variance over tries of the per-period Sharpe ratio; one that never traded has 0."""
        if self.returns_TN.shape[1] < 2:
            return 0.0
        deviation = self.returns_TN.std(axis=0, ddof=1)
        still = deviation <= 1e-12
        ratios = np.where(still, 0.0, self.returns_TN.mean(axis=0) / np.where(still, 1.0, deviation))
        return float(ratios.var(ddof=1))

    def chosen(self, run_id: str, step: int) -> FloatArray:
        """Returns the bar returns of a run's evaluation at an env step, or its last one before that.

        Raises:
            DataError: it has none that is whole.
        """
        before = [(at, column) for column, (run, at) in enumerate(self.keys) if run == run_id and at <= step]
        if not before:
            raise DataError("there is no return series of its evaluation")
        return self.returns_TN[:, max(before)[1]]


def tries_of(runs: RunSet, metric: str, window_id: str) -> Tries:
    """Collects every evaluation of the runs on one window.

    Args:
        runs: all trials of the experiment, whatever their sweep.
        metric: the one the candidate was chosen by.
        window_id: of the bars; runs on other bars do not count. Those on windows that share some of them (another
            embargo, another name of the symbol) are tries whose returns are not comparable bar by bar.
    """
    there = runs.runs["window_id"] == window_id if "window_id" in runs.runs else pd.Series(False, index=runs.runs.index)
    run_ids = [str(run_id) for run_id in runs.runs.index[there]]
    columns: list[FloatArray] = []
    keys: list[tuple[str, int]] = []
    notes: list[str] = []
    looked_at = 0
    points = runs.with_metrics(metric).points_of(metric)
    with ThreadPoolExecutor(_AT_ONCE) as readers:
        for run_id, found in zip(run_ids, readers.map(partial(_read, runs), run_ids), strict=True):
            own = [] if isinstance(found, str) else found
            if isinstance(found, str):
                notes.append(found)
            columns += [returns for _, returns in own]
            keys += [(run_id, step) for step, _ in own]
            # A trial that failed before its first evaluation was a try all the same.
            looked_at += max(1, len(own), int(points.loc[run_id]))
    looked_at += sum(max(1, int(points.loc[run_id])) for run_id in _sharing(runs.runs, there))
    length = Counter(len(column) for column in columns).most_common(1)
    whole = [index for index, column in enumerate(columns) if len(column) == length[0][0]]
    matrix = np.column_stack([columns[index] for index in whole]) if whole else np.empty((0, 0))
    kept = tuple(keys[index] for index in whole)
    return Tries(matrix, kept, looked_at, tuple(notes), len(columns) - len(whole))


def _sharing(runs: pd.DataFrame, there: pd.Series[bool]) -> list[str]:
    """Returns the runs on other windows than those `there`, that have bars of theirs."""
    told = runs.reindex(columns=["data_digest", "window_bars"])
    bars = {str(run_id): _bars(row["data_digest"], row["window_bars"]) for run_id, row in told.iterrows()}
    mine = {bars[str(run_id)] for run_id in runs.index[there]} - {None}
    others = [str(run_id) for run_id in runs.index[~there]]
    return [run_id for run_id in others if any(one is not None and one.shares(bars[run_id]) for one in mine)]


def _bars(digest: object, window: object) -> Bars | None:
    if not isinstance(digest, str) or not isinstance(window, str):
        return None  # an earlier version's, or no trial of a market's
    try:
        first, last = map(float, window.split())
    except ValueError:
        return None
    return Bars(digest, first, last)


def _read(runs: RunSet, run_id: str) -> list[tuple[int, FloatArray]] | str:
    """Returns (env steps, bar returns) of each evaluation of a run, or why there is none."""
    try:
        return list(_evaluations(runs.series(run_id)))
    except DataError as error:
        return str(error)


def _evaluations(series: pd.DataFrame) -> Iterator[tuple[int, FloatArray]]:
    """Yields env steps and bar returns of each evaluation, its windows one after the other."""
    for _, evaluation in series.groupby(["iteration", "step"], sort=True):
        parts = []
        for _, episode in evaluation.groupby("episode", sort=True):
            equity = episode.sort_values("bar")["equity"].to_numpy(dtype=np.float64)
            with np.errstate(divide="ignore", invalid="ignore"):
                parts.append(equity[1:] / equity[:-1] - 1.0)
        returns = np.concatenate(parts)
        yield (
            int(evaluation["step"].iloc[0]),
            np.where(np.isfinite(returns), returns, 0.0),
        )  # after ruin nothing is earned
