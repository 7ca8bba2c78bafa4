"""The sink that is MLflow: explicit client, explicit run ids, no global state.

Retries belong to the courier, so MLflow's own are set down: its default keeps one call hanging for four
minutes. MLflow reads credentials from the environment at every request.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.tracking.mlflow_models import MlflowModels, pages
from drl_ray_tracking.tracking.sink import (
    FoundRun,
    MetricPoint,
    Point,
    RunSpec,
    SinkRefusedError,
    SinkUnavailableError,
    matching,
)

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.tracking import MlflowClient

METRICS_PER_BATCH: Final = 1000
PAIRS_PER_BATCH: Final = 100  # params, tags
MAX_TAG: Final = 8000
MAX_PARAM: Final = 6000
MAX_KEY: Final = 250
_TOO_LARGE: Final = 413  # a proxy's limit on a request's size: for a file, as for any other request
_BATCH_BYTES: Final = 800_000  # the server refuses requests of more than about 1 MB
_REFUSALS: Final = frozenset(
    {
        "RESOURCE_DOES_NOT_EXIST",
        "INVALID_PARAMETER_VALUE",
        "RESOURCE_ALREADY_EXISTS",
        "BAD_REQUEST",
        "NOT_FOUND",
        "FEATURE_DISABLED",
    }
)


_TOKEN: Final = "MLFLOW_TRACKING_TOKEN"
TOKEN_FILE_VARIABLE: Final = "DRL_TRACK_TOKEN_FILE"


def use_token_file() -> None:
    """Makes the content of the file that `$DRL_TRACK_TOKEN_FILE` names MLflow's bearer token, where it is set.

    Called before every request, so that a token may be renewed while a sweep runs: a process keeps the
    environment it was started with, but a file changes, as a mounted Kubernetes token does.

    Raises:
        SinkUnavailableError: the file cannot be read now, or is empty.
    """
    path = os.environ.get(TOKEN_FILE_VARIABLE)
    if not path:
        return
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise SinkUnavailableError(f"the token file ${TOKEN_FILE_VARIABLE} cannot be read: {error}") from error
    if not token:
        raise SinkUnavailableError(f"the token file ${TOKEN_FILE_VARIABLE}={path} is empty")
    os.environ[_TOKEN] = token


@contextmanager
def bounded_requests(timeout_s: float = 30.0, credentials: Mapping[str, str] | None = None) -> Iterator[None]:
    """Makes MLflow fail soon, as long as this is open; MLflow reads these variables at every request."""
    settings = {
        **(credentials or {}),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(int(timeout_s)),
        "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    with _environment(settings, restored=(_TOKEN,)):
        yield


@contextmanager
def _environment(settings: Mapping[str, str], restored: Sequence[str] = ()) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in (*settings, *restored)}
    os.environ.update(settings)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@dataclass(frozen=True)
class OurRun:
    """A run that carries this package's tags, as reconciling needs it."""

    run_id: str
    experiment_id: str
    start_ms: int
    tags: Mapping[str, str]


class MlflowSink:
    """Delivers to one MLflow tracking store; to be used inside `bounded_requests`."""

    def __init__(self, tracking_uri: str | None, registry_uri: str | None = None) -> None:
        from mlflow.tracking import MlflowClient

        with _translated():
            self._client: MlflowClient = MlflowClient(
                tracking_uri=tracking_uri,
                registry_uri=registry_uri or tracking_uri,  # not MLflow's global one
            )
        self.models = MlflowModels(self._client, _translated)

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

    def find_run(self, experiment_id: str, identity: Mapping[str, str]) -> FoundRun | None:
        from mlflow.entities import ViewType

        query = " and ".join(f"tags.`{key}` = {_quoted(value)}" for key, value in identity.items())
        with _translated():
            found = self._client.search_runs([experiment_id], query, ViewType.ALL, max_results=1)
        if not found:
            return None
        run = found[0]
        if run.info.lifecycle_stage != "active":
            raise SinkRefusedError(
                f"the run {run.info.run_id} is deleted; `mlflow runs restore --run-id {run.info.run_id}` brings it back"
            )
        return FoundRun(str(run.info.run_id), dict(run.data.tags))

    def create_run(self, experiment_id: str, spec: RunSpec) -> str:
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        tags = {**spec.tags, **spec.identity}
        if spec.parent_run_id is not None:
            tags[MLFLOW_PARENT_RUN_ID] = spec.parent_run_id
        # Sent once: where only the answer was lost, MLflow's own retry would make a second run.
        with _translated(), _environment({"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}):
            run = self._client.create_run(
                experiment_id, start_time=spec.start_ms, tags=_cut_tags(tags), run_name=_sendable(spec.name)
            )
        return str(run.info.run_id)

    def reopen_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        with _translated():
            self._client.update_run(run_id, status="RUNNING")
        self.log(run_id, tags=tags)

    def read_tags(self, run_id: str) -> Mapping[str, str]:
        with _translated():
            return dict(self._client.get_run(run_id).data.tags)

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[MetricPoint] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        points = [Metric(at.key, at.value, at.time_ms, at.step, model_id=at.model_id) for at in metrics]
        pairs = [Param(key[:MAX_KEY], _sendable(value)[:MAX_PARAM]) for key, value in (params or {}).items()]
        marks = [RunTag(key, value) for key, value in _cut_tags(tags or {}).items()]
        with _translated():
            # Apart: a server also limits the sum of metrics, params and tags in one request, to 1000.
            for first in range(0, len(points), METRICS_PER_BATCH):
                self._client.log_batch(run_id, metrics=points[first : first + METRICS_PER_BATCH])
            for few in _batches(pairs):
                self._client.log_batch(run_id, params=few)
            for few in _batches(marks):
                self._client.log_batch(run_id, tags=few)

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        with _translated():
            self._client.log_text(run_id, _sendable(text), artifact_file)

    def log_folder(self, run_id: str, folder: Path, artifact_folder: str) -> None:
        with _translated():
            self._client.log_artifacts(run_id, str(folder), artifact_folder or None)

    def set_status(self, run_id: str, status: str, end_ms: int) -> None:
        with _translated():
            self._client.set_terminated(run_id, status, end_ms)

    def histories(self, run_id: str, globs: Sequence[str], *, at_most: int) -> dict[str, list[Point]]:
        found: dict[str, list[Point]] = {}
        with _translated():
            for key in matching(self._client.get_run(run_id).data.metrics, globs):
                if found and sum(map(len, found.values())) >= at_most:
                    break
                points = self._client.get_metric_history(run_id, key)
                found[key] = [(point.step, point.value, point.timestamp) for point in points]
        return found

    # --- what only commands need, not delivery --------------------------------------------------------

    def running_runs(self, experiment: str | None = None) -> list[OurRun]:
        """Returns the RUNNING runs of this package's sweeps and trials, in one experiment (name or id) or in all."""
        with _translated():
            if experiment is None:
                ids = [str(found.experiment_id) for found in pages(self._client.search_experiments)]
            else:
                known = self._client.get_experiment_by_name(experiment)
                if known is None and experiment.isdecimal():
                    known = self._client.get_experiment(experiment)
                ids = [_alive(known, repr(experiment))]
            found_runs: list[OurRun] = []
            for role in (names.ROLE_SWEEP, names.ROLE_FOLD, names.ROLE_TRIAL):
                query = f"attributes.status = 'RUNNING' and tags.`{names.TAG_ROLE}` = '{role}'"
                for run in pages(partial(self._client.search_runs, ids, query)):
                    tags = dict(run.data.tags)
                    if names.TAG_SWEEP_ID in tags:
                        found_runs.append(
                            OurRun(
                                str(run.info.run_id), str(run.info.experiment_id), int(run.info.start_time or 0), tags
                            )
                        )
        return found_runs

    def read_points(self, run_id: str) -> set[tuple[str, int]]:
        """Returns (key, step) of every value of a run; one request per key."""
        with _translated():
            keys = list(self._client.get_run(run_id).data.metrics)
            return {(key, point.step) for key in keys for point in self._client.get_metric_history(run_id, key)}

    def is_running(self, run_id: str) -> bool:
        """Tells whether a run has not been ended."""
        with _translated():
            return str(self._client.get_run(run_id).info.status) == "RUNNING"

    def try_reading(self) -> str | None:
        """Asks the store something; returns the id of one of its experiments, or None where it has none."""
        with _translated():
            found = self._client.search_experiments(max_results=1)
        return str(found[0].experiment_id) if found else None

    def try_writing(self, experiment_id: str, tag: str) -> None:
        """Sets a tag on an experiment and takes it away again."""
        with _translated():
            self._client.set_experiment_tag(experiment_id, tag, "1")
            self._client.delete_experiment_tag(experiment_id, tag)


def _alive(experiment: Experiment | None, what: str) -> str:
    if experiment is None:
        raise SinkRefusedError(f"there is no MLflow experiment with {what}")
    if experiment.lifecycle_stage != "active":
        raise SinkRefusedError(
            f"the MLflow experiment {what} is deleted. Restore it (`mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}`) or choose another name."
        )
    return str(experiment.experiment_id)


def _quoted(text: str) -> str:
    """Quotes a value of a filter on runs; MLflow has no escape, one with both kinds of quotes it refuses."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def _cut_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key[:MAX_KEY]: _sendable(value)[:MAX_TAG] for key, value in tags.items()}


def _sendable(text: str) -> str:
    """Replaces half a surrogate pair, as in a path that is no UTF-8: no request can carry it, nor any run with it."""
    return text.encode("utf-8", "replace").decode()


def _batches(pairs: Sequence[Any]) -> Iterator[list[Any]]:
    """Cuts params or tags into requests the server takes, by number and by size."""
    batch: list[Any] = []
    size = 0
    for pair in pairs:
        weight = len(json.dumps([pair.key, pair.value]))
        if batch and (len(batch) == PAIRS_PER_BATCH or size + weight > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(pair)
        size += weight
    if batch:
        yield batch


@contextmanager
def _translated() -> Iterator[None]:
    """Turns MLflow's and the network's errors into the sink's two kinds; with the credentials of now."""
    try:
        use_token_file()
        yield
    except (SinkRefusedError, SinkUnavailableError):
        raise
    except Exception as error:
        # A value that no request can carry would otherwise be tried for ever, with everything behind it.
        refused = getattr(error, "error_code", None) in _REFUSALS or isinstance(error, (TypeError, UnicodeError))
        refused = refused or getattr(getattr(error, "response", None), "status_code", None) == _TOO_LARGE
        kind = SinkRefusedError if refused else SinkUnavailableError
        raise kind(f"{type(error).__name__}: {error}") from error
