"""Evaluation series: every bar of every evaluation episode, kept in the trial's own storage.

They travel env runner -> Algorithm process -> one Parquet file per evaluation, and never enter a result. What returns
are computed from is always whole; what only a trace of the episode shows (leverage, reward components, the dimensions
of an action) is bounded, and of single precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from drl_ray_tracking import names
from drl_ray_tracking.capture.records import component_bars
from drl_ray_tracking.capture.steps import EpisodeSteps
from drl_ray_tracking.episodes import EpisodeRecord

if TYPE_CHECKING:
    import pyarrow as pa

Columns = dict[str, Any]
TRACED_BARS: Final = 100_000  # of an episode; a longer one has no trace columns
TRACED_COMPONENTS: Final = 16  # of its reward, in the order of their names
TRACED_DIMENSIONS: Final = 8  # of its actions


def series_columns(record: EpisodeRecord, steps: EpisodeSteps | None) -> Columns | None:
    """Returns the bars of an episode as columns of T + 1 rows, or None where nothing is traded.

    Row 0 is the reset: it has an equity, a price and a time, and NaN for what only a step has. Without the steps there
    are no rewards.
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
        "reward": _after_reset(steps.rewards if steps is not None else None, rows),
        "action": _after_reset(actions, rows),
        **(_trace(record, steps) if record.length <= TRACED_BARS else {}),
    }


def _trace(record: EpisodeRecord, steps: EpisodeSteps | None) -> Columns:
    """Returns the columns of an episode's trace that it has: they are not in every series."""
    found: dict[str, Any] = {}
    if record.leverage is not None:
        found["leverage"] = record.leverage
    if record.slippage is not None:
        found["slippage"] = record.slippage
    if steps is not None:
        for name in sorted(record.reward_components)[:TRACED_COMPONENTS]:
            found[f"reward/{name}"] = component_bars(steps, name)
    if record.actions is not None and record.actions.ndim == 2 and record.actions.shape[1] > 1:
        for dimension in range(min(TRACED_DIMENSIONS, record.actions.shape[1])):
            found[f"action/{dimension}"] = record.actions[:, dimension]
    rows = record.length + 1
    return {name: _after_reset(values, rows).astype(np.float32) for name, values in found.items()}


def _after_reset(values: Any, rows: int) -> np.ndarray:
    column = np.full(rows, np.nan)
    if values is not None:
        column[1:] = values
    return column


def series_table(episodes: Sequence[Columns], *, iteration: int, step: int) -> pa.Table:
    """Returns one table of all bars of an evaluation, in the order of its windows.

    Columns: iteration, step (lifetime env steps of the weights), episode, symbol, window, split, fold,
    agent, periods_per_year, bar, timestamp (epoch seconds, or text), equity, price, position, fee, reward, action;
    then, where an episode has them, leverage, slippage, reward/<component> and action/<dimension> (missing for others).
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
    return pa.concat_tables(tables, promote_options="default")


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
