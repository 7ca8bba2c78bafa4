"""Reads the trials of a Tune experiment out of its own files: what `load_runs` reads of the same sweep.

Without Ray: a `ResultGrid` or an `ExperimentAnalysis` says where its files are, and they say the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.analysis.histories import Attempt, History, histories_frame
from drl_ray_tracking.analysis.runset import RunSet, Unreadable
from drl_ray_tracking.analysis.runtable import parents_table, runs_table
from drl_ray_tracking.errors import ConfigurationError, DataError
from drl_ray_tracking.fingerprint import jsonable
from drl_ray_tracking.trials.past import PastExperiment, PastTrial, read_experiment
from drl_ray_tracking.trials.place import Place
from drl_ray_tracking.trials.redaction import known_secrets
from drl_ray_tracking.trials.retold import Changed, Reported, Restarted, Retold, retell
from drl_ray_tracking.trials.tracked import Defaults, Tracked

_UNTRACKED: Final = (
    "the sweep was not tracked while it ran: tags of its data are not known, and parameters are what was searched"
)


def read_tune(source: Any, *, filesystem: Any = None) -> RunSet:
    """Reads the trials of a Tune experiment.

    Args:
        source: a `ResultGrid`, an `ExperimentAnalysis`, or the experiment's directory: a local path, or a URI that
            pyarrow opens (`s3://bucket/results/NAME`).
        filesystem: the pyarrow filesystem a directory is on; None finds out.

    Returns:
        Runs whose ids are the trials'. Histories are all loaded; return series are read when asked for.

    Raises:
        ConfigurationError: `source` is none of these, there is no such directory, or it holds no trial.
    """
    place = _place(source, filesystem)
    past = read_experiment(place)
    tracked = past.tracked or Tracked(defaults=_live_defaults(source))
    told = {trial.trial_id: (trial, _told(trial, tracked)) for trial in past.trials}
    rows = {trial_id: _row(trial, one, past) for trial_id, (trial, one) in told.items()}
    histories = [history for trial_id, (_, one) in told.items() for history in _histories(trial_id, one)]
    attempts = {trial_id: _attempts(one) for trial_id, (_, one) in told.items()}
    metrics = tuple(sorted({history.metric for history in histories}))
    return RunSet(
        runs=runs_table(rows),
        histories=histories_frame(histories, attempts),
        unreadable=tuple(
            Unreadable(trial_id, f"Tune's files lack the results of {one.lost} of its iterations")
            for trial_id, (_, one) in told.items()
            if one.lost
        ),
        parents=parents_table({_sweep_id(past): _parent(past, rows.values())}),
        notes=() if past.tracked is not None else (_UNTRACKED,),
        metrics=metrics,
        loaded=frozenset(metrics),
        source=_TuneSource({trial.trial_id: trial for trial in past.trials}),
        test_evaluations=None,
    )


def _told(trial: PastTrial, tracked: Tracked) -> Retold:
    told = retell(trial, tracked, known_secrets())
    if tracked.defaults.named or not names.is_rllib_result(trial.last):
        return told
    # Hundreds of keys, and nobody to say which of them are the algorithm's defaults.
    searched = {names.legal_metric_name(key) for key, _ in names.flatten(trial.searched)}
    return replace(told, params={key: value for key, value in told.params.items() if key in searched})


class _TuneSource:
    """Reads return series out of the trials' folders."""

    def __init__(self, trials: Mapping[str, PastTrial]) -> None:
        self._trials = trials

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> tuple[pd.DataFrame, tuple[Unreadable, ...]]:
        """Returns nothing more: all there is has been read."""
        return histories_frame([]), ()

    def series(self, run_id: str) -> pd.DataFrame:
        """Returns the evaluation series of a trial."""
        folder = self._trials[run_id].folder.below(names.SERIES_DIR)
        files = [name for name in folder.entries() if name.endswith(".parquet")]
        if not files:
            raise DataError(
                f"trial {run_id} kept no evaluation series (files {names.SERIES_DIR}/*.parquet): it was not evaluated, "
                "does not trade, or its directory was moved without them"
            )
        try:
            return pd.concat([_read_parquet(folder, name) for name in files], ignore_index=True)
        except (OSError, ValueError) as error:
            raise DataError(f"the evaluation series of trial {run_id} cannot be read: {error}") from error


def _read_parquet(folder: Place, name: str) -> pd.DataFrame:
    with folder.open(name) as file:
        return pd.read_parquet(file)


def _place(source: Any, filesystem: Any) -> Place:
    if isinstance(source, (str, Path)):
        return Place.at(source, filesystem)
    path = getattr(source, "experiment_path", None)
    where = filesystem or getattr(source, "filesystem", None) or getattr(source, "_fs", None)
    if path is None or where is None:
        raise ConfigurationError(
            f"a Tune result must be a ResultGrid, an ExperimentAnalysis, or its directory as a path or URI, but got "
            f"{type(source).__name__}"
        )
    return Place(where, str(path))


def _live_defaults(source: Any) -> Defaults:
    """Returns the algorithm's defaults, where a result of this process still has its trials."""
    analysis = getattr(source, "_experiment_analysis", source)
    for trial in getattr(analysis, "trials", None) or ():
        try:
            default = trial.get_trainable_cls().get_default_config()
            return Defaults(jsonable(default.to_dict()), {})
        except Exception:  # noqa: BLE001 - a function, or an algorithm that is not registered in this process
            return Defaults()
    return Defaults()


def _sweep_id(past: PastExperiment) -> str:
    return str(past.identity.get("sweep_id") or past.folder.name)


def _parent(past: PastExperiment, rows: Any) -> dict[str, Any]:
    whole = all(trial.status != "KILLED" for trial in past.trials)
    times = [row[key] for row in rows for key in ("start_ms", "end_ms")]
    return {
        "name": str(past.identity.get("name") or past.folder.name),
        "status": "FINISHED" if whole else "KILLED",
        "start_ms": min(times),
        "end_ms": max(times),
        "sweep_id": _sweep_id(past),
    }


def _row(trial: PastTrial, told: Retold, past: PastExperiment) -> dict[str, Any]:
    """Returns what `runtable` makes of a run: info, tags and parameters."""
    last = told.went[-1].time_ms if told.went else told.started_ms
    tags = {
        **told.tags,
        **told.identity.tags(),
        names.TAG_TRIAL_ID: trial.trial_id,
        names.TAG_SWEEP_ID: _sweep_id(past),
        names.TAG_ROLE: names.ROLE_TRIAL,
        names.TAG_STORAGE: trial.folder.uri,
        names.TAG_ATTEMPTS: json.dumps([list(attempt) for attempt in _attempts(told)]),
    }
    lineage = [[one.time_ms, one.step, one.donor, sorted(one.changed)] for one in _of(told, Changed)]
    if lineage:
        tags[names.TAG_LINEAGE] = json.dumps(lineage)
    return {
        "name": told.name,
        "status": trial.status,
        "start_ms": told.started_ms,
        "end_ms": last,
        "tags": tags,
        "params": dict(told.params),
    }


def _attempts(told: Retold) -> tuple[Attempt, ...]:
    starts = [(told.started_ms, 0), *((one.time_ms, one.step) for one in _of(told, Restarted))]
    return tuple(Attempt(number, *start) for number, start in enumerate(starts, start=1))


def _of(told: Retold, kind: type[Any]) -> Iterator[Any]:
    return (one for one in told.went if isinstance(one, kind))


def _histories(trial_id: str, told: Retold) -> Iterator[History]:
    points: dict[str, list[tuple[int, float, int]]] = {}
    for one in _of(told, Reported):
        for metric, value in one.metrics.items():
            points.setdefault(metric, []).append((one.step, value, one.time_ms))
    for one in _of(told, Changed):
        for values, step in ((one.initial, 0), (one.changed, one.step)):
            for key, value in names.hparam_values(values).items():
                points.setdefault(key, []).append((step, value, one.time_ms))
    for metric, rows in points.items():
        step, value, time_ms = zip(*rows, strict=True)
        yield History(trial_id, metric, np.array(step), np.array(value, dtype=np.float64), np.array(time_ms))
