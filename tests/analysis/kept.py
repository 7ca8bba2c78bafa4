"""Runs in memory with the evaluation series that they kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from drl_ray_tracking.analysis.runset import RunSet, Unreadable
from drl_ray_tracking.errors import DataError

METRIC = "eval/trading/sharpe"


class Kept:
    """A source that has evaluation series in memory."""

    def __init__(self, series: dict[str, pd.DataFrame]) -> None:
        self._series = series

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> tuple[pd.DataFrame, tuple[Unreadable, ...]]:
        raise AssertionError("all is loaded")

    def series(self, run_id: str) -> pd.DataFrame:
        if run_id not in self._series:
            raise DataError(f"run {run_id} kept no evaluation series")
        return self._series[run_id].copy()


def evaluated(returns_ET: Iterable[np.ndarray]) -> pd.DataFrame:
    """A run's series: an evaluation every 100 env steps, one episode each."""
    return marked([np.concatenate([[1.0], np.cumprod(1.0 + returns)]) for returns in returns_ET])


def marked(equity_ET: Iterable[Sequence[float] | np.ndarray]) -> pd.DataFrame:
    """A run's series by its equity: an evaluation every 100 env steps, one episode each."""
    parts = []
    for number, equity in enumerate(equity_ET, start=1):
        parts.append(
            pd.DataFrame(
                {
                    "iteration": number,
                    "step": 100 * number,
                    "episode": 0,
                    "bar": np.arange(len(equity)),
                    "equity": equity,
                    "timestamp": 1.5e9 + 86400.0 * np.arange(len(equity)),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def run_set(
    series: dict[str, pd.DataFrame], values: dict[str, list[float]], windows: dict[str, str] | None = None
) -> RunSet:
    """Runs with a value of the metric every 100 env steps, the first at 100; without windows they have no such tag."""
    ids = list(values)
    runs = pd.DataFrame(
        {
            "name": [f"run {run}" for run in ids],
            "status": "FINISHED",
            "seed": [str(number) for number in range(len(ids))],
            "config_hash": "abc",
            "window_id": [windows[run] for run in ids] if windows else None,
        },
        index=pd.Index(ids, name="run_id"),
    )
    points = [
        {"run_id": run, "metric": METRIC, "step": 100 * step, "value": value, "time_ms": step}
        for run, own in values.items()
        for step, value in enumerate(own, start=1)
    ]
    return RunSet(
        runs=runs,
        histories=pd.DataFrame(points),
        metrics=(METRIC,),
        loaded=frozenset({METRIC}),
        source=Kept(series),
        test_evaluations=2,
    )
