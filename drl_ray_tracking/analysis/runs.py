"""Reads runs back from an MLflow store: explicit client, explicit run ids, every page, histories in parallel.

Only reads: a SQLite file that does not exist is an error, not a new store.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.analysis.histories import (
    Attempt,
    History,
    clean_history,
    histories_frame,
    parse_attempts,
)
from drl_ray_tracking.analysis.runset import RunSet, Unreadable, choose_sweep
from drl_ray_tracking.errors import ConfigurationError, DataError, TrackingError
from drl_ray_tracking.fingerprint import config_hash

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run
    from mlflow.tracking import MlflowClient

__all__ = ["SERIES_FILE", "RunSet", "Unreadable", "load_runs", "open_client"]

SERIES_FILE: Final = f"{names.SERIES_ARTIFACT}/evaluations.parquet"
DEFAULT_METRICS: Final = (names.DEFAULT_METRIC, "eval/episode/return_mean", "train/episode/return_mean")

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
_PARENT_TAG: Final = "mlflow.parentRunId"
_PAGE: Final = 1000
_GIVE_UP_AFTER: Final = 20
_LISTED: Final = 10


def load_runs(
    tracking_uri: str | None,
    experiment: str | Sequence[str],
    *,
    sweep: str | None = None,
    metrics: Sequence[str] | None = None,
    max_workers: int = 8,
    foreign: bool = False,
) -> RunSet:
    """Reads the trials of one or more experiments, their parameters, tags and metric histories.

    Args:
        tracking_uri: the MLflow store; None takes MLflow's own setting.
        experiment: name or id, or several of them.
        sweep: None for every trial, `latest` for the newest sweep, or a sweep id, parent run id or parent name.
        metrics: whose histories to read now, as MLflow names, Tune paths or globs; None for the few a comparison
            starts with. Others are read when they are first asked for.
        max_workers: histories read at a time, at least 1.
        foreign: also take runs that are no trials of this package's tracker (Ray's own callback, manual runs);
            `notes` says how many, and their config hash is computed from their parameters.

    Raises:
        ConfigurationError: the store cannot be reached, or there is no such experiment or sweep.
        DataError: there is nothing to compare, or a metric no run has.
    """
    if max_workers < 1:
        raise ConfigurationError(f"max_workers must be at least 1 but got {max_workers}")
    uri = _existing_store(tracking_uri)
    client = open_client(uri)
    with reading(uri):
        experiments = _experiments(client, [experiment] if isinstance(experiment, str) else experiment)
        ids = [str(found.experiment_id) for found in experiments]
        label = ", ".join(repr(str(found.name)) for found in experiments)
        parents = _parents_frame(_search(client, ids, names.ROLE_SWEEP))
        sweep_id = _sweep_id(client, ids, parents, sweep)
        found = _search(client, ids, None if foreign else names.ROLE_TRIAL, sweep_id)
        notes: tuple[str, ...] = ()
        if foreign:
            found, notes = _with_foreign(found)
        if not found:
            raise DataError(_nothing(client, ids, label, sweep, foreign))
    source = _MlflowSource(client, uri, found, max_workers)
    frame = _runs_frame(found)
    runs = RunSet(
        runs=frame,
        parents=parents[parents.index.isin(frame["parent_run_id"])],
        unreadable=source.bad_attempts,
        tracking_uri=uri,
        notes=notes,
        metrics=tuple(sorted({key for run in found for key in run.data.metrics})),
        source=source,
    )
    if metrics is None:
        return runs.with_metrics(*(name for name in DEFAULT_METRICS if name in runs.metrics))
    return runs.with_metrics(*metrics)


def open_client(tracking_uri: str | None) -> MlflowClient:
    """Returns a client of the store; raises ConfigurationError for an address MLflow does not take."""
    from mlflow.tracking import MlflowClient

    with reading(tracking_uri or "MLflow's default"):
        return MlflowClient(tracking_uri=tracking_uri)


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Turns MLflow's and the network's errors into a ConfigurationError, and fails in seconds, not minutes.

    MLflow's seven retries keep one call hanging for four minutes; it reads their number from the environment at
    every request. A number the user set stays.
    """
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    ours = [key for key in settings if key not in os.environ]
    os.environ.update({key: settings[key] for key in ours})
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".replace(uri, _shown(uri))
        raise ConfigurationError(
            f"the tracking store {_shown(uri)} cannot be read: {reason}. Is the server up and the address right?"
        ) from error
    finally:
        for key in ours:
            os.environ.pop(key, None)


def _shown(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", uri)


def _existing_store(tracking_uri: str | None) -> str:
    uri = tracking_uri
    if uri is None:
        import mlflow

        uri = str(mlflow.get_tracking_uri())
    if urlsplit(uri).scheme == "sqlite":
        path = Path(uri.partition("///")[2].partition("?")[0])
        if not path.is_file():
            # MLflow would create an empty store there.
            raise ConfigurationError(f"there is no tracking store {uri}: the file {path.absolute()} does not exist")
    return uri


def _experiments(client: MlflowClient, wanted: Sequence[str]) -> list[Experiment]:
    if not wanted:
        raise ConfigurationError("experiment must be a name or id, or several, but got none")
    found, problems = [], []
    for name in wanted:
        experiment = client.get_experiment_by_name(name) or _by_id(client, name)
        if experiment is None:
            problems.append(f"there is no experiment {name!r}")
        elif experiment.lifecycle_stage != "active":
            problems.append(
                f"the experiment {name!r} is deleted: restore it "
                f"(`mlflow experiments restore --experiment-id {experiment.experiment_id}`)"
            )
        else:
            found.append(experiment)
    if problems:
        known = [str(experiment.name) for experiment in client.search_experiments(max_results=100)]
        close = "".join(names.suggestion(name, known) for name in wanted if name not in known)
        shown = ", ".join(known[:_LISTED]) + (f" and {len(known) - _LISTED} more" if len(known) > _LISTED else "")
        raise ConfigurationError(f"{'; '.join(problems)}{close}. Experiments that exist: {shown or 'none'}")
    return list({experiment.experiment_id: experiment for experiment in found}.values())


def _by_id(client: MlflowClient, experiment_id: str) -> Experiment | None:
    from mlflow.exceptions import MlflowException

    if not experiment_id.isdecimal():
        return None
    try:
        return client.get_experiment(experiment_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _search(
    client: MlflowClient, experiment_ids: Sequence[str], role: str | None, sweep_id: str | None = None
) -> list[Run]:
    """Returns all active runs of a role (None: of any), oldest first."""
    clauses = [f"tags.`{names.TAG_ROLE}` = '{role}'"] if role is not None else []
    if sweep_id is not None:
        clauses.append(f"tags.`{names.TAG_SWEEP_ID}` = '{sweep_id}'")
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            list(experiment_ids),
            " and ".join(clauses),
            max_results=_PAGE,
            order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
            page_token=token,
        )
        found.extend(page)
        token = page.token
        if not token:
            return found


def _sweep_id(client: MlflowClient, ids: Sequence[str], parents: pd.DataFrame, sweep: str | None) -> str | None:
    if sweep is None:
        return None
    orphan = bool(re.fullmatch(r"[\w.-]+", sweep)) and bool(_search(client, ids, names.ROLE_TRIAL, sweep))
    return choose_sweep(parents, sweep, also=[sweep] if orphan else [])


def _with_foreign(found: list[Run]) -> tuple[list[Run], tuple[str, ...]]:
    """Returns trials and runs of other trackers without their parents, and the warning that goes with them."""
    named_as_parent = {run.data.tags.get(_PARENT_TAG) for run in found}
    kept = [
        run
        for run in found
        if run.data.tags.get(names.TAG_ROLE) != names.ROLE_SWEEP and run.info.run_id not in named_as_parent
    ]
    foreign = sum(run.data.tags.get(names.TAG_ROLE) != names.ROLE_TRIAL for run in kept)
    if not foreign:
        return kept, ()
    warning = (
        f"{foreign} of {len(kept)} runs are no trials of this package's tracker: their config hash comes from their "
        "logged parameters, their step may be an iteration instead of env steps, and resumed attempts cannot be told"
    )
    return kept, (warning,)


def _nothing(client: MlflowClient, ids: Sequence[str], label: str, sweep: str | None, foreign: bool) -> str:
    others = 0 if foreign else len(client.search_runs(list(ids), max_results=_PAGE))
    where = f"the sweep {sweep!r} of " if sweep is not None else ""
    if others:
        return (
            f"{where}experiment {label} has no trials (runs with the tag {names.TAG_ROLE}={names.ROLE_TRIAL}). It has "
            f"{'at least ' if others == _PAGE else ''}{others} other runs: pass foreign=True to read those too"
        )
    return f"{where}experiment {label} has no runs yet"


def _parents_frame(found: Sequence[Run]) -> pd.DataFrame:
    columns = ["name", "status", "start_ms", "end_ms", "sweep_id"]
    rows = [{**_info(run), "sweep_id": run.data.tags.get(names.TAG_SWEEP_ID)} for run in found]
    index = pd.Index([str(run.info.run_id) for run in found], name="run_id", dtype="str")
    return pd.DataFrame(rows, index=index, columns=columns)


def _runs_frame(found: Sequence[Run]) -> pd.DataFrame:
    index = pd.Index([str(run.info.run_id) for run in found], name="run_id", dtype="str")
    fixed = ["name", "status", "start_ms", "end_ms", "parent_run_id", *_TAG_COLUMNS.values()]
    frame = pd.DataFrame([_row(run) for run in found], index=index)
    return frame.reindex(columns=[*fixed, *sorted(column for column in frame.columns if column not in fixed)])


def _row(run: Run) -> dict[str, Any]:
    row = _info(run)
    row["parent_run_id"] = run.data.tags.get(_PARENT_TAG)
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


class _MlflowSource:
    """Reads histories and series of the runs of one store; what was read is kept. Safe to use from threads."""

    def __init__(self, client: MlflowClient, uri: str, runs: Sequence[Run], max_workers: int) -> None:
        self._client = client
        self._uri = uri
        self._max_workers = max_workers
        self._metrics: Mapping[str, frozenset[str]] = {run.info.run_id: frozenset(run.data.metrics) for run in runs}
        self._attempts: dict[str, tuple[Attempt, ...]] = {}
        self._histories: dict[tuple[str, str], History] = {}
        self._folder: Path | None = None
        self._lock = Lock()
        bad = []
        for run in runs:
            try:
                self._attempts[run.info.run_id] = parse_attempts(run.data.tags.get(names.TAG_ATTEMPTS))
            except ValueError as error:
                bad.append(Unreadable(run.info.run_id, f"the tag {names.TAG_ATTEMPTS} is broken ({error}): no point "))
        self.bad_attempts = tuple(replace(item, reason=f"{item.reason}can be told superseded") for item in bad)

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> tuple[pd.DataFrame, tuple[Unreadable, ...]]:
        """Returns the points that count, and the runs of which a history could not be read."""
        pairs = [pair for pair in product(run_ids, metrics) if pair[1] in self._metrics.get(pair[0], frozenset())]
        failures = _Failures()
        with reading(self._uri), ThreadPoolExecutor(self._max_workers, thread_name_prefix="histories") as pool:
            missing = [pair for pair in pairs if pair not in self._histories]
            for history in pool.map(lambda pair: failures.guard(pair, self._history), missing):
                if history is not None:
                    self._histories[history.run_id, history.metric] = history
        known = [self._histories[pair] for pair in pairs if pair in self._histories]
        return histories_frame(known), failures.unreadable()

    def _history(self, run_id: str, metric: str) -> History:
        points = self._client.get_metric_history(run_id, metric)
        rows = [(point.step, point.value, point.timestamp) for point in points]
        return clean_history(run_id, metric, rows, self._attempts.get(run_id, ()))

    def series(self, run_id: str) -> pd.DataFrame:
        """Returns the run's evaluation series; downloaded once."""
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="drl-series-"))
                weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            path = self._folder / run_id / SERIES_FILE
            if not path.is_file():
                self._download(run_id, path.parents[1])
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise DataError(f"the evaluation series of run {run_id} cannot be read: {error}") from error

    def _download(self, run_id: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with reading(self._uri):
            kept = [str(item.path) for item in self._client.list_artifacts(run_id, names.SERIES_ARTIFACT)]
            if SERIES_FILE not in kept:
                raise DataError(
                    f"run {run_id} kept no evaluation series (artifact {SERIES_FILE}): it was not evaluated, does not "
                    "trade, is still running, or was logged by another tracker"
                )
            self._client.download_artifacts(run_id, SERIES_FILE, str(folder))


@dataclass
class _Failure:
    metrics: list[str]
    reason: str


class _Failures:
    """Collects what could not be read; after `_GIVE_UP_AFTER` failures asks a broken store nothing more."""

    def __init__(self) -> None:
        self._failed: dict[str, _Failure] = {}
        self._count = 0
        self._lock = Lock()

    def guard(self, pair: tuple[str, str], read: Callable[[str, str], History]) -> History | None:
        run_id, metric = pair
        if self._count >= _GIVE_UP_AFTER:
            self._note(run_id, metric, f"not tried after {_GIVE_UP_AFTER} failures")
            return None
        try:
            return read(run_id, metric)
        except Exception as error:  # noqa: BLE001 - whatever a store raises, the other runs are still read
            self._note(run_id, metric, f"{type(error).__name__}: {error}")
            return None

    def _note(self, run_id: str, metric: str, reason: str) -> None:
        with self._lock:
            self._count += 1
            self._failed.setdefault(run_id, _Failure([], reason)).metrics.append(metric)

    def unreadable(self) -> tuple[Unreadable, ...]:
        return tuple(
            Unreadable(run_id, f"history of {', '.join(failure.metrics)}: {failure.reason}")
            for run_id, failure in sorted(self._failed.items())
        )
