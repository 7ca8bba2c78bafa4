"""Evaluation return series: every bar of every evaluation episode, kept in the trial's own storage.

They travel env runner -> Algorithm process -> one Parquet file per evaluation, and never enter a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drl_ray_tracking import names
from drl_ray_tracking.capture.steps import EpisodeSteps
from drl_ray_tracking.episodes import EpisodeRecord

if TYPE_CHECKING:
    import pyarrow as pa

Columns = dict[str, Any]


def series_columns(record: EpisodeRecord, steps: EpisodeSteps) -> Columns | None:
    """Returns the bars of an episode as columns of T + 1 rows, or None where nothing is traded.

    Row 0 is the reset: it has an equity, a price and a time, and NaN for what only a step has.
    """
    if record.equity is None:
        return None
    rows = record.length + 1
    missing = np.full(rows, np.nan)
    actions = record.actions
    if actions is not None and actions.ndim == 2:
        actions = actions[:, 0] if actions.shape[1] == 1 else None
    timestamp = record.timestamp if record.timestamp is not None else missing
    return {
        **{label: record.labels.get(label, "") for label in ("symbol", "window", "split", "fold", "agent")},
        "periods_per_year": record.conventions.periods_per_year or float("nan"),
        "timestamp": timestamp if timestamp.dtype.kind in "fiu" else timestamp.astype(str),
        "equity": record.equity,
        "price": record.price if record.price is not None else missing,
        "position": _after_reset(record.position, rows),
        "fee": _after_reset(record.fee, rows),
        "reward": _after_reset(steps.rewards, rows),
        "action": _after_reset(actions, rows),
    }


def _after_reset(values: Any, rows: int) -> np.ndarray:
    column = np.full(rows, np.nan)
    if values is not None:
        column[1:] = values
    return column


def series_table(episodes: Sequence[Columns], *, iteration: int, step: int) -> pa.Table:
    """Returns one table of all bars of an evaluation, in the order of its windows.

    Columns: iteration, step (lifetime env steps of the weights), episode, symbol, window, split, fold,
    agent, periods_per_year, bar, timestamp (epoch seconds, or text), equity, price, position, fee, reward, action.
    """
    import pyarrow as pa

    numeric = all(np.asarray(columns["timestamp"]).dtype.kind in "fiu" for columns in episodes)
    tables = []
    for index, columns in enumerate(episodes):
        rows = len(columns["equity"])
        table: dict[str, Any] = {
            "iteration": np.full(rows, iteration, dtype=np.int64),
            "step": np.full(rows, step, dtype=np.int64),
            "episode": np.full(rows, index, dtype=np.int64),
        }
        for key, value in columns.items():
            table[key] = [value] * rows if isinstance(value, (str, float)) else value
            if key == "periods_per_year":
                table["bar"] = np.arange(rows, dtype=np.int64)
        stamps = np.asarray(columns["timestamp"])
        table["timestamp"] = stamps.astype(np.float64) if numeric else stamps.astype(str)
        tables.append(pa.table(table))
    return pa.concat_tables(tables)


def write_series(algorithm: Any, table: pa.Table, *, iteration: int) -> str:
    """Writes one evaluation into the trial's storage and returns where; a repeat overwrites it."""
    import pyarrow.parquet as pq
    from pyarrow.fs import LocalFileSystem

    storage = getattr(algorithm, "_storage", None)
    if storage is not None:
        filesystem, folder = storage.storage_filesystem, f"{storage.trial_fs_path}/{names.SERIES_DIR}"
    else:
        filesystem, folder = LocalFileSystem(), str(Path(algorithm.logdir) / names.SERIES_DIR)
    filesystem.create_dir(folder, recursive=True)
    path = f"{folder}/iteration-{iteration:06d}.parquet"
    with filesystem.open_output_stream(path) as stream:
        pq.write_table(table, stream)
    return path
