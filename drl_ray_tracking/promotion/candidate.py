"""Which checkpoint a sweep's best trial is promoted with: the best evaluated one of all that still exist."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from drl_ray_tracking import names
from drl_ray_tracking.analysis.evaluations import values_by_weights
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.errors import DataError
from drl_ray_tracking.tracking.mlflow_models import pages
from drl_ray_tracking.tracking.storage import below

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.tracking import MlflowClient

_PAGE = 100


@dataclass(frozen=True)
class Candidate:
    """A checkpoint and what its trial was worth at that step.

    Attributes:
        run_id: of its trial.
        step: lifetime env steps.
        value: of the metric, in the evaluation of these weights.
        uri: where Tune keeps it: a path, or what pyarrow opens.
        pointer_id: the model that points at it; None where there is none.
        uploaded_id: the model its files were uploaded as; None where there is none yet.
    """

    run_id: str
    step: int
    value: float
    uri: str
    pointer_id: str | None = None
    uploaded_id: str | None = None


def best_candidate(
    client: MlflowClient, experiment_id: str, runs: RunSet, metric: str, mode: Literal["max", "min"]
) -> Candidate:
    """Returns the checkpoint with the best value of a metric, over all trials.

    Only a value of the very weights of a checkpoint counts for it: with parallel evaluation it is the next result's.
    Of equal ones the earliest wins.

    Raises:
        DataError: no checkpoint was evaluated; says what there is.
    """
    known = _pointers(client, experiment_id)
    found: list[Candidate] = []
    checkpoints = 0
    for run_id in runs.runs.index:
        storage = runs.runs.at[run_id, "storage_path"] if "storage_path" in runs.runs else None
        mine = known.get(str(run_id)) or list(_tune_checkpoints(str(storage), str(run_id)))
        checkpoints += len(mine)
        values = values_by_weights(runs, metric, str(run_id))
        found += [
            Candidate(one.run_id, one.step, float(values.loc[one.step]), one.uri, one.pointer_id, one.uploaded_id)
            for one in mine
            if one.step in values.index
        ]
    if not found:
        raise DataError(
            f"none of the {len(runs)} trials has a checkpoint with a value of {metric} at its step ({checkpoints} "
            "checkpoints were found): save checkpoints at iterations that are evaluated"
        )
    sign = 1.0 if mode == "max" else -1.0
    return max(found, key=lambda one: (sign * one.value, -one.step, one.run_id))


def _pointers(client: MlflowClient, experiment_id: str) -> dict[str, list[Candidate]]:
    """Returns the checkpoints that the store knows of, by run."""
    uploads = {
        model.tags[names.TAG_MODEL_SOURCE]: str(model.model_id)
        for model in _models(client, experiment_id, names.MODEL_UPLOADED)
        if names.TAG_MODEL_SOURCE in model.tags and str(model.status) == "READY"
    }
    found: dict[str, list[Candidate]] = {}
    for model in _models(client, experiment_id, names.MODEL_POINTER):
        run_id, model_id, tags = str(model.source_run_id), str(model.model_id), model.tags
        if names.TAG_CHECKPOINT_URI in tags and tags.get(names.TAG_CHECKPOINT_STEP, "").isdecimal():
            step, uri = int(tags[names.TAG_CHECKPOINT_STEP]), tags[names.TAG_CHECKPOINT_URI]
            found.setdefault(run_id, []).append(
                Candidate(run_id, step, float("nan"), uri, model_id, uploads.get(model_id))
            )
    return found


def _models(client: MlflowClient, experiment_id: str, role: str) -> Iterator[LoggedModel]:
    query = f"tags.`{names.TAG_MODEL_ROLE}` = '{role}'"
    return pages(partial(client.search_logged_models, [experiment_id], query, max_results=_PAGE))


def _tune_checkpoints(storage: str, run_id: str) -> Iterator[Candidate]:
    """Yields the checkpoints in a trial's folder of Tune's; none where it is gone."""
    from pyarrow.fs import FileSelector, FileSystem, LocalFileSystem

    filesystem, path = FileSystem.from_uri(storage) if "://" in storage else (LocalFileSystem(), storage)
    try:
        there = {info.base_name: info.path for info in filesystem.get_file_info(FileSelector(path))}
        with filesystem.open_input_stream(there["result.json"]) as stream:
            steps = _steps_by_iteration(stream.read().decode())
    except (FileNotFoundError, KeyError):
        return
    for folder in sorted(there):
        if folder.startswith("checkpoint_"):
            step = steps.get(_iteration(filesystem, there[folder]))
            if step is not None:
                yield Candidate(run_id, step, float("nan"), below(storage, folder))


def _steps_by_iteration(results: str) -> dict[int, int]:
    """Returns the lifetime env steps of each iteration; after a restore the later result counts."""
    parsed = [json.loads(line) for line in results.splitlines() if line.strip()]
    return {
        int(result[names.ITERATION]): int(result[names.LIFETIME_STEPS])
        for result in parsed
        if names.ITERATION in result and names.LIFETIME_STEPS in result
    }


def _iteration(filesystem: Any, checkpoint: str) -> int:
    """Returns the iteration a checkpoint was saved at; -1 for what is none of RLlib's.

    Tune numbers checkpoints, and its results name no folder where the algorithm saves by itself.
    """
    import ray.cloudpickle

    try:
        with filesystem.open_input_stream(f"{checkpoint}/algorithm_state.pkl") as stream:
            return int(ray.cloudpickle.loads(stream.read())[names.ITERATION])
    except (OSError, KeyError, TypeError):
        return -1
