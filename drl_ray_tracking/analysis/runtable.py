"""Runs as tables: one row a run, tags and parameters as columns, whatever store they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


_PARENT_COLUMNS: Final = ("name", "status", "start_ms", "end_ms", "sweep_id")


def parents_frame(found: Sequence[Run]) -> pd.DataFrame:
    """Returns `RunSet.parents` of MLflow's parent runs."""
    return parents_table(
        {str(run.info.run_id): {**_info(run), "sweep_id": run.data.tags.get(names.TAG_SWEEP_ID)} for run in found}
    )


def parents_table(rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Returns `RunSet.parents`: run id -> its columns."""
    index = pd.Index(list(rows), name="run_id", dtype="str")
    return pd.DataFrame(list(rows.values()), index=index, columns=list(_PARENT_COLUMNS))


def runs_frame(found: Sequence[Run]) -> pd.DataFrame:
    """Returns `RunSet.runs` of MLflow's runs."""
    return runs_table(
        {
            str(run.info.run_id): {
                **_info(run),
                "experiment_id": str(run.info.experiment_id),
                "tags": run.data.tags,
                "params": run.data.params,
            }
            for run in found
        }
    )


def runs_table(rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Returns `RunSet.runs`.

    Args:
        rows: run id -> `name`, `status`, `start_ms`, `end_ms`, `tags` and `params` as mappings of texts, and whatever
            else is to be a column.
    """
    index = pd.Index(list(rows), name="run_id", dtype="str")
    fixed = ["name", "status", "start_ms", "end_ms", "parent_run_id", *_TAG_COLUMNS.values()]
    frame = pd.DataFrame([_row(**row) for row in rows.values()], index=index)
    return frame.reindex(columns=[*fixed, *sorted(column for column in frame.columns if column not in fixed)])


def _row(tags: Mapping[str, str], params: Mapping[str, str], **info: Any) -> dict[str, Any]:
    row = {**info, "parent_run_id": names.sweep_run(tags)}
    for tag, value in tags.items():
        if not tag.startswith("mlflow."):
            row[_TAG_COLUMNS.get(tag) or (tag.removeprefix("drl.") if tag.startswith("drl.") else f"tag.{tag}")] = value
    row.update({f"param.{key}": value for key, value in params.items()})
    if not row.get("config_hash") and params:
        row["config_hash"] = config_hash(params)
    if not row.get("seed"):
        row["seed"] = params.get("seed")
    return row


def _info(run: Run) -> dict[str, Any]:
    return {
        "name": str(run.info.run_name or run.info.run_id),
        "status": str(run.info.status),
        "start_ms": run.info.start_time,
        "end_ms": run.info.end_time,
    }
