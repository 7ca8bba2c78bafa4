"""Reads the trials of MLflow experiments: explicit client, explicit run ids, every page.

Only reads: a SQLite file that does not exist is an error, not a new store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.analysis.budget import looks_spent
from drl_ray_tracking.analysis.mlflow_source import MlflowSource
from drl_ray_tracking.analysis.run_cache import RunCache
from drl_ray_tracking.analysis.runset import RunSet, Unreadable
from drl_ray_tracking.analysis.runtable import PARENT_TAG, parents_frame, runs_frame
from drl_ray_tracking.analysis.store_errors import store_errors
from drl_ray_tracking.analysis.sweeps import choose_sweep
from drl_ray_tracking.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run
    from mlflow.tracking import MlflowClient

__all__ = ["RunSet", "Unreadable", "load_runs", "open_client"]

DEFAULT_METRICS: Final = (names.DEFAULT_METRIC, "eval/episode/return_mean", "train/episode/return_mean")

_PAGE: Final = 1000
_LISTED: Final = 10


def load_runs(
    tracking_uri: str | None,
    experiment: str | Sequence[str],
    *,
    sweep: str | None = None,
    job: str | None = None,
    where: Mapping[str, str] | None = None,
    metrics: Sequence[str] | None = None,
    max_workers: int = 8,
    foreign: bool = False,
    cache: bool = True,
) -> RunSet:
    """Reads the trials of one or more experiments, their parameters, tags and metric histories.

    Args:
        tracking_uri: the MLflow store; None takes MLflow's own setting.
        experiment: name or id, or several of them.
        sweep: None for every trial, `latest` for the newest sweep, or a sweep id, parent run id or parent name.
        job: only trials of one Ray job, by its submission id or its job id.
        where: only trials with these tags, such as `{"mlflow.user": "ada"}`.
        metrics: whose histories to read now, as MLflow names, Tune paths or globs; None for the few a comparison
            starts with. Others are read when they are first asked for.
        max_workers: histories read at a time, at least 1.
        foreign: also take runs that are no trials of this package's tracker (Ray's own callback, manual runs);
            `notes` says how many, and their config hash is computed from their parameters.
        cache: keep copies of what finished runs hold on this machine, and read those; see `run_cache`.

    Raises:
        ConfigurationError: the store cannot be reached, or there is no such experiment or sweep.
        DataError: there is nothing to compare, or a metric no run has.
    """
    if max_workers < 1:
        raise ConfigurationError(f"max_workers must be at least 1 but got {max_workers}")
    uri = _existing_store(tracking_uri)
    client = open_client(uri)
    with store_errors(uri):
        experiments = _experiments(client, [experiment] if isinstance(experiment, str) else experiment)
        ids = [str(found.experiment_id) for found in experiments]
        label = ", ".join(repr(str(found.name)) for found in experiments)
        sweeps = _search(client, ids, names.ROLE_SWEEP)
        parents = parents_frame(sweeps)
        sweep_id = _sweep_id(client, ids, parents, sweep)
        chosen = tag_clauses(where or {})
        if sweep_id is not None:
            chosen.append(f"tags.`{names.TAG_SWEEP_ID}` = '{sweep_id}'")
        role = None if foreign else names.ROLE_TRIAL
        found = _search(client, ids, role, chosen) if job is None else _of_job(client, ids, role, chosen, job)
        notes: tuple[str, ...] = ()
        if foreign:
            found, notes = _with_foreign(found)
        if not found:
            narrowed = _narrowed(sweep, job, where)
            raise DataError(_nothing(client, ids, label, narrowed, foreign))
    source = MlflowSource(client, uri, found, max_workers, RunCache.of(uri, wanted=cache), sweeps)
    frame = runs_frame(found)
    looks = [looks_spent(one.tags) for one in experiments]
    runs = RunSet(
        runs=frame,
        parents=parents[parents.index.isin(frame["parent_run_id"])],
        unreadable=source.unreadable,
        tracking_uri=uri,
        notes=notes,
        metrics=tuple(sorted({key for run in found for key in run.data.metrics})),
        source=source,
        test_evaluations=sum(count for count, _ in looks),
        test_windows={window: spent for _, windows in looks for window, spent in windows.items()},
    )
    if metrics is None:
        return runs.with_metrics(*(name for name in DEFAULT_METRICS if name in runs.metrics))
    return runs.with_metrics(*metrics)


def open_client(tracking_uri: str | None) -> MlflowClient:
    """Returns a client of the store; raises ConfigurationError for an address MLflow does not take."""
    from mlflow.tracking import MlflowClient

    with store_errors(tracking_uri or "MLflow's default"):
        return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)  # not MLflow's global registry


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
    client: MlflowClient, experiment_ids: Sequence[str], role: str | None, also: Sequence[str] = ()
) -> list[Run]:
    """Returns all active runs of a role (None: of any) that meet the other conditions too, oldest first."""
    clauses = [*([f"tags.`{names.TAG_ROLE}` = '{role}'"] if role is not None else []), *also]
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


def _of_job(client: MlflowClient, ids: Sequence[str], role: str | None, chosen: Sequence[str], job: str) -> list[Run]:
    """Returns the runs of a job. Submission ids come first: job ids are counted, so every cluster has the same."""
    for tag in (names.TAG_SUBMISSION_ID, names.TAG_JOB_ID):
        found = _search(client, ids, role, [*chosen, *tag_clauses({tag: job})])
        if found:
            return found
    return []


def tag_clauses(where: Mapping[str, str]) -> list[str]:
    """Returns MLflow search conditions for tags that must have these values.

    Raises:
        ConfigurationError: a name or value cannot be written in MLflow's search language.
    """
    clauses = []
    for tag, value in where.items():
        mark = '"' if "'" in value else "'"
        if not tag or "`" in tag or mark in value:
            raise ConfigurationError(
                f"the condition {tag}={value!r} cannot be searched for: a tag's name has no backtick, its value not "
                "both kinds of quotes"
            )
        clauses.append(f"tags.`{tag}` = {mark}{value}{mark}")
    return clauses


def _narrowed(sweep: str | None, job: str | None, where: Mapping[str, str] | None) -> str:
    """Returns what was asked for in words, for an error; empty where everything was."""
    asked = [f"the sweep {sweep!r}"] if sweep is not None else []
    asked += [f"the job {job!r}"] if job is not None else []
    asked += [f"{tag}={value!r}" for tag, value in (where or {}).items()]
    return " with ".join(asked)


def _sweep_id(client: MlflowClient, ids: Sequence[str], parents: pd.DataFrame, sweep: str | None) -> str | None:
    if sweep is None:
        return None
    orphan = bool(re.fullmatch(r"[\w.-]+", sweep)) and bool(
        _search(client, ids, names.ROLE_TRIAL, [f"tags.`{names.TAG_SWEEP_ID}` = '{sweep}'"])
    )
    return choose_sweep(parents, sweep, also=[sweep] if orphan else [])


def _with_foreign(found: list[Run]) -> tuple[list[Run], tuple[str, ...]]:
    """Returns trials and runs of other trackers without their parents, and the warning that goes with them."""
    named_as_parent = {run.data.tags.get(PARENT_TAG) for run in found}
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


def _nothing(client: MlflowClient, ids: Sequence[str], label: str, narrowed: str, foreign: bool) -> str:
    others = 0 if foreign else len(client.search_runs(list(ids), max_results=_PAGE))
    where = f"{narrowed} of " if narrowed else ""
    if others and narrowed:
        return f"{where}experiment {label} has no trials; without that condition it has {others} runs"
    if others:
        return (
            f"experiment {label} has no trials (runs with the tag {names.TAG_ROLE}={names.ROLE_TRIAL}). It has "
            f"{'at least ' if others == _PAGE else ''}{others} other runs: pass foreign=True to read those too"
        )
    return f"{where}experiment {label} has no runs yet"
