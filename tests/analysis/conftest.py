"""Run sets made in memory, for tests of what is computed and drawn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pytest

from drl_ray_tracking import names
from drl_ray_tracking.analysis.runset import RunSet, Unreadable
from drl_ray_tracking.errors import DataError

FIXED = ("parent_run_id", "sweep_id", "data_digest", "env", "symbols", "timeframe", "window_id")


class MakeRuns(Protocol):
    """Makes a run set: a run for each mapping, with `history` as [(step, value), ...] or a last `value`.

    `evaluated` are the steps of all its evaluations, those in which the metric was undefined included.
    """

    def __call__(self, runs: Sequence[Mapping[str, Any]], *, series: pd.DataFrame | None = None) -> RunSet: ...


class _Memory:
    def __init__(self, series: pd.DataFrame | None) -> None:
        self._series = series

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> tuple[pd.DataFrame, tuple[Unreadable, ...]]:
        raise AssertionError(f"everything is loaded, but {metrics} were asked for")

    def series(self, run_id: str) -> pd.DataFrame:
        if self._series is None:
            raise DataError(f"run {run_id} kept no evaluation series")
        return self._series.copy()


@pytest.fixture
def make_runs() -> MakeRuns:
    def make(runs: Sequence[Mapping[str, Any]], *, series: pd.DataFrame | None = None) -> RunSet:
        rows, points = [], []
        for index, run in enumerate(runs):
            rest = {key: value for key, value in run.items() if key not in ("history", "value", "evaluated")}
            fixed = dict.fromkeys(FIXED)
            defaults = {"name": f"run-{index}", "status": "FINISHED", "seed": str(index), "config_hash": "c0ffee000000"}
            rows.append({"run_id": f"r{index:02}", **fixed, **defaults, **rest})
            history = run.get("history", [(100, run["value"])] if "value" in run else [])
            points += [(f"r{index:02}", names.DEFAULT_METRIC, step, value, 0) for step, value in history]
            points += [(f"r{index:02}", names.EVALUATION_MARKER, step, step, 0) for step in run.get("evaluated", ())]
        frame = pd.DataFrame(points, columns=["run_id", "metric", "step", "value", "time_ms"])
        return RunSet(
            runs=pd.DataFrame(rows).set_index("run_id"),
            histories=frame.astype({"value": "float64", "step": "int64"}),
            metrics=(names.DEFAULT_METRIC, names.EVALUATION_MARKER)[: 1 + any("evaluated" in run for run in runs)],
            loaded=frozenset({names.DEFAULT_METRIC, names.EVALUATION_MARKER}),
            source=_Memory(series),
        )

    return make


@pytest.fixture
def series() -> pd.DataFrame:
    """Two evaluations of two consecutive windows of 50 bars, equity and price known in closed form."""
    parts = []
    for iteration, step in ((1, 1000), (2, 2000)):
        for window in (0, 1):
            bar = np.arange(51)
            parts.append(
                pd.DataFrame(
                    {
                        "iteration": iteration,
                        "step": step,
                        "episode": window,
                        "symbol": "GOOGL",
                        "window": str(window),
                        "split": "validation",
                        "bar": bar,
                        "timestamp": 1.5e9 + 86400.0 * (bar + 51 * window),
                        "equity": 1e4 * 1.01**bar if step == 2000 else 1e4,
                        "price": 100.0 * 0.99**bar,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)
