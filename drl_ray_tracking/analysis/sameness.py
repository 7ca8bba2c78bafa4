"""In what two run sets differ, trial by trial, whatever stores they were read from."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from drl_ray_tracking.analysis.runset import RunSet

_COLUMNS: Final = (
    "name", "status", "seed", "config_hash", "algorithm", "env", "symbols", "timeframe", "data_digest", "window_id",
    "sweep_id", "role",
)  # fmt: skip


def differences(one: RunSet, other: RunSet) -> list[str]:
    """Returns what differs between the trials of two sets, a sentence each; empty where they are the same.

    Trials are paired by `trial_id`. Run ids and times are a store's own and do not count.
    """
    ids = [dict(zip(runs.runs["trial_id"], runs.runs.index, strict=True)) for runs in (one, other)]
    if ids[0].keys() != ids[1].keys():
        return [f"trials {sorted(map(str, ids[0].keys() ^ ids[1].keys()))} are in one set only"]
    tables = [runs.runs.set_index("trial_id").sort_index() for runs in (one, other)]
    shown = [column for table in tables for column in table if column in _COLUMNS or str(column).startswith("param.")]
    found = []
    for column in dict.fromkeys(shown):
        mine, theirs = (table.get(column, pd.Series(index=table.index, dtype="object")) for table in tables)
        differs = ~((mine == theirs) | (mine.isna() & theirs.isna())).fillna(False)
        found += [f"{column} of trial {trial}: {mine[trial]!r}, {theirs[trial]!r}" for trial in mine.index[differs]]
    if one.metrics != other.metrics:
        return [*found, f"metrics {sorted(set(one.metrics) ^ set(other.metrics))} are in one set only"]
    return [*found, *_points(one.with_metrics(*one.metrics), other.with_metrics(*other.metrics))]


def _points(one: RunSet, other: RunSet) -> list[str]:
    mine, theirs = (_by_trial(runs) for runs in (one, other))
    apart = [
        f"{metric} of trial {trial}"
        for trial, metric in mine.keys() | theirs.keys()
        if not _equal(mine.get((trial, metric)), theirs.get((trial, metric)))
    ]
    return sorted(f"the points of {one} differ" for one in apart)


def _by_trial(runs: RunSet) -> dict[tuple[str, str], pd.DataFrame]:
    trials = runs.runs["trial_id"].to_dict()
    by = runs.histories.groupby(["run_id", "metric"], observed=True)
    return {(str(trials[run_id]), str(metric)): points for (run_id, metric), points in by}


def _equal(one: pd.DataFrame | None, other: pd.DataFrame | None) -> bool:
    if one is None or other is None:
        return False
    return all(np.array_equal(one[column], other[column], equal_nan=True) for column in ("step", "value"))
