"""The sink that is MLflow: explicit client, explicit run ids, no global state.

Retries belong to the courier, so MLflow's own are set down: its default keeps one call hanging for four
minutes. MLflow reads credentials from the environment at every request.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from drl_ray_tracking.tracking.sink import MetricPoint, RunSpec, SinkRefusedError, SinkUnavailableError

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.tracking import MlflowClient

METRICS_PER_BATCH: Final = 1000
PARAMS_PER_BATCH: Final = 100
TAGS_PER_BATCH: Final = 100
MAX_TAG: Final = 8000
MAX_PARAM: Final = 6000
MAX_KEY: Final = 250
_REFUSALS: Final = frozenset(
    {
        "RESOURCE_DOES_NOT_EXIST",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "RESOURCE_ALREADY_EXISTS",
        "BAD_REQUEST",
        "NOT_FOUND",
        "FEATURE_DISABLED",
    }
)


class MlflowSink:
    """Delivers to one MLflow tracking store."""

    def __init__(self, tracking_uri: str | None, registry_uri: str | None = None, *, timeout_s: float = 30.0) -> None:
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(int(timeout_s))
        os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"
        from mlflow.tracking import MlflowClient

        with _translated():
            self._client: MlflowClient = MlflowClient(tracking_uri=tracking_uri, registry_uri=registry_uri)

    def open_experiment(self, name: str | None, experiment_id: str | None, artifact_location: str | None) -> str:
        with _translated():
            if experiment_id is not None:
                found = self._client.get_experiment(experiment_id)
                return _alive(found, f"id {experiment_id!r}")
            name = name or "Default"
            known = self._client.get_experiment_by_name(name)
            if known is not None:
                return _alive(known, repr(name))
            try:
                return str(self._client.create_experiment(name, artifact_location=artifact_location))
            except Exception:
                # Two drivers may make one experiment at once: the loser finds the winner's.
                known = self._client.get_experiment_by_name(name)
                if known is None:
                    raise
                return _alive(known, repr(name))

    def open_run(self, experiment_id: str, spec: RunSpec) -> str:
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in spec.identity.items())
        tags = {**spec.tags, **spec.identity}
        if spec.parent_run_id is not None:
            tags[MLFLOW_PARENT_RUN_ID] = spec.parent_run_id
        with _translated():
            found = self._client.search_runs([experiment_id], query, max_results=1)
            if found:
                run_id = str(found[0].info.run_id)
                if found[0].info.status != "RUNNING":
                    self._client.update_run(run_id, status="RUNNING")
                self.log(run_id, tags=spec.tags)
                return run_id
            run = self._client.create_run(
                experiment_id, start_time=spec.start_ms, tags=_cut_tags(tags), run_name=spec.name
            )
            return str(run.info.run_id)

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[MetricPoint] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        points = [Metric(point.key, point.value, point.time_ms, point.step) for point in metrics]
        pairs = [Param(key[:MAX_KEY], value[:MAX_PARAM]) for key, value in (params or {}).items()]
        marks = [RunTag(key, value) for key, value in _cut_tags(tags or {}).items()]
        with _translated():
            # The first call carries some of each; a batch is one request within every limit of the server.
            while points or pairs or marks:
                self._client.log_batch(
                    run_id,
                    metrics=points[:METRICS_PER_BATCH],
                    params=pairs[:PARAMS_PER_BATCH],
                    tags=marks[:TAGS_PER_BATCH],
                )
                points, pairs, marks = (
                    points[METRICS_PER_BATCH:],
                    pairs[PARAMS_PER_BATCH:],
                    marks[TAGS_PER_BATCH:],
                )

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        with _translated():
            self._client.log_text(run_id, text, artifact_file)

    def log_folder(self, run_id: str, folder: Path, artifact_folder: str) -> None:
        with _translated():
            self._client.log_artifacts(run_id, str(folder), artifact_folder or None)

    def set_status(self, run_id: str, status: str, end_ms: int) -> None:
        with _translated():
            self._client.set_terminated(run_id, status, end_ms)


def _alive(experiment: Experiment | None, what: str) -> str:
    if experiment is None:
        raise SinkRefusedError(f"there is no MLflow experiment with {what}")
    if experiment.lifecycle_stage != "active":
        raise SinkRefusedError(
            f"the MLflow experiment {what} is deleted. Restore it (`mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}`) or choose another name."
        )
    return str(experiment.experiment_id)


def _cut_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key[:MAX_KEY]: value[:MAX_TAG] for key, value in tags.items()}


@contextmanager
def _translated() -> Iterator[None]:
    """Turns MLflow's and the network's errors into the sink's two kinds."""
    try:
        yield
    except (SinkRefusedError, SinkUnavailableError):
        raise
    except Exception as error:
        code = getattr(error, "error_code", None)
        kind: type[SinkRefusedError] | type[SinkUnavailableError]
        kind = SinkRefusedError if code in _REFUSALS and not _passing(error) else SinkUnavailableError
        raise kind(f"{type(error).__name__}: {error}") from error


def _passing(error: Any) -> bool:
    """Tells whether an error that claims to be a refusal came with a passing HTTP status (429, 5xx)."""
    status = error.get_http_status_code() if hasattr(error, "get_http_status_code") else 0
    return "429" in str(error)[:200] or int(status or 0) >= 500
