"""MLflow runs as tables: one row a run, tags and parameters as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.fingerprint import config_hash

Run = Any  # an mlflow.entities.Run; only `runs` and `publish` may import mlflow
PARENT_TAG: Final = "mlflow.parentRunId"

_TAG_COLUMNS: Final = {
    tag: tag.removeprefix("drl.")
    for tag in (
        names.TAG_SWEEP_ID,
        names.TAG_TRIAL_ID,
        names.TAG_CONFIG_HASH,
        names.TAG_SEED,
        names.TAG_ALGORITHM,
        names.TAG_ENV,
        names.TAG_SYMBOLS,
        names.TAG_TIMEFRAME,
        names.TAG_DATA_DIGEST,
        names.TAG_WINDOW_ID,
        names.TAG_ROLE,
    )
}


def parents_frame(found: Sequence[Run]) -> pd.DataFrame:
    columns = ["name", "status", "start_ms", "end_ms", "sweep_id"]
    rows = [{**_info(run), "sweep_id": run.data.tags.get(names.TAG_SWEEP_ID)} for run in found]
    index = pd.Index([str(run.info.run_id) for run in found], name="run_id", dtype="str")
    return pd.DataFrame(rows, index=index, columns=columns)


def runs_frame(found: Sequence[Run]) -> pd.DataFrame:
    index = pd.Index([str(run.info.run_id) for run in found], name="run_id", dtype="str")
    fixed = ["name", "status", "start_ms", "end_ms", "parent_run_id", *_TAG_COLUMNS.values()]
    frame = pd.DataFrame([_row(run) for run in found], index=index)
    return frame.reindex(columns=[*fixed, *sorted(column for column in frame.columns if column not in fixed)])


def _row(run: Run) -> dict[str, Any]:
    row = _info(run)
    row["parent_run_id"] = run.data.tags.get(PARENT_TAG)
    for tag, value in run.data.tags.items():
        if not tag.startswith("mlflow."):
            row[_TAG_COLUMNS.get(tag) or (tag.removeprefix("drl.") if tag.startswith("drl.") else f"tag.{tag}")] = value
    row.update({f"param.{key}": value for key, value in run.data.params.items()})
    if not row.get("config_hash") and run.data.params:
        row["config_hash"] = config_hash(run.data.params)
    if not row.get("seed"):
        row["seed"] = run.data.params.get("seed")
    return row


def _info(run: Run) -> dict[str, Any]:
    return {
        "name": str(run.info.run_name or run.info.run_id),
        "status": str(run.info.status),
        "start_ms": run.info.start_time,
        "end_ms": run.info.end_time,
    }
