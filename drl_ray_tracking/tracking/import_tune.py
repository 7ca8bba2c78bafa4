"""Makes runs of a past Tune experiment, through the same journal and courier as a live one.

Everything written is a function of the directory's content, so that importing twice adds nothing. A sweep that was
tracked while it ran is found by its identity file; only what its runs lack is added.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, chdir, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking import courier_process, events
from drl_ray_tracking.tracking.identity import default_config
from drl_ray_tracking.tracking.journal import JournalWriter, new_journal_directory
from drl_ray_tracking.tracking.mlflow_sink import MlflowSink, bounded_requests
from drl_ray_tracking.tracking.reconcile import LEAST_MINUTES
from drl_ray_tracking.tracking.sink import FoundRun, SinkRefusedError, SinkUnavailableError
from drl_ray_tracking.tracking.target import Target, resolve_target
from drl_ray_tracking.trials.endings import stopped_by, trial_ending
from drl_ray_tracking.trials.past import PastExperiment, PastTrial, read_experiment
from drl_ray_tracking.trials.place import Place
from drl_ray_tracking.trials.redaction import known_secrets, redact
from drl_ray_tracking.trials.retold import Changed, Reported, Restarted, Retold, result_time_ms, retell
from drl_ray_tracking.trials.tracked import Defaults, Tracked

_PATIENCE_S: Final = 60.0
_Written = tuple[int, str, str, Mapping[str, Any]]  # Unix ms, kind, trial, payload


@dataclass(frozen=True)
class ImportOutcome:
    """What an import added: `runs` new ones and `points` metric values; `journal` is where some of it still waits."""

    sweep_id: str
    runs: int
    points: int
    journal: Path | None


@dataclass
class _Known:
    """What the store has of a trial already."""

    run: FoundRun | None = None
    running: bool = False
    points: set[tuple[str, int]] = field(default_factory=set)


def import_tune(
    folder: str | Path, tracking_uri: str | None, experiment: str, *, now_ms: Callable[[], int]
) -> ImportOutcome:
    """Imports a past Tune experiment from its directory.

    Args:
        folder: the experiment's directory, as Tune names it at the end of a run; local, or a URI pyarrow opens.
        tracking_uri: the store, as `resolve_target` takes it.
        experiment: the MLflow experiment's name; made if it does not exist.
        now_ms: Unix time in milliseconds: a sweep whose heartbeat is fresh is still running.

    Raises:
        ConfigurationError: this is no Tune experiment, it is still running, or the store cannot be reached or refuses.
    """
    past = read_experiment(Place.at(folder))
    target = resolve_target(tracking_uri)
    sweep_id = str(past.identity.get("sweep_id") or _digest(past))
    # MLflow roots a new database's `Default` experiment in the working directory.
    beside: AbstractContextManager[object] = (
        chdir(Path(target.artifact_root).parent) if target.artifact_root else nullcontext()
    )
    with bounded_requests(credentials=target.credentials), beside:
        try:
            parent, known = _look(MlflowSink(target.uri), target, past, sweep_id, experiment, now_ms())
        except SinkUnavailableError as error:
            raise ConfigurationError(f"MLflow at {target.uri} cannot be reached: {error}") from error
        except SinkRefusedError as error:
            raise ConfigurationError(f"MLflow at {target.uri} refuses: {error}") from error
    tracked = past.tracked or Tracked(defaults=_defaults(past))
    written = [event for trial in past.trials for event in _trial_events(trial, tracked, known[trial.trial_id])]
    points = sum(len(payload["metrics"]) for _, kind, _, payload in written if kind == events.RESULT)
    if not written and parent.run is not None and not parent.running:
        return ImportOutcome(sweep_id, 0, 0, None)
    journal = _journal(past, target, sweep_id, experiment, written)
    delivered = _deliver(journal, target)
    runs = sum(one.run is None for one in [parent, *known.values()])
    return ImportOutcome(sweep_id, runs, points, None if delivered else journal)


def _defaults(past: PastExperiment) -> Defaults:
    rllib = next((trial for trial in past.trials if names.is_rllib_result(trial.last)), None)
    return default_config(rllib.trainable) if rllib else Defaults()


def _digest(past: PastExperiment) -> str:
    """Returns an id out of what stays when the experiment is continued, copied or moved: its first trial."""
    first = past.trials[0]
    start = json.dumps(next(first.results(), {}), sort_keys=True)
    return hashlib.sha256(f"{first.trial_id} {start}".encode()).hexdigest()[:32]


def _look(
    sink: MlflowSink, target: Target, past: PastExperiment, sweep_id: str, experiment: str, now_ms: int
) -> tuple[_Known, dict[str, _Known]]:
    experiment_id = sink.open_experiment(experiment, None, target.artifact_root)

    def known(identity: Mapping[str, str], *, points: bool) -> _Known:
        run = sink.find_run(experiment_id, {names.TAG_SWEEP_ID: sweep_id, **identity})
        if run is None:
            return _Known()
        return _Known(run, sink.is_running(run.run_id), sink.read_points(run.run_id) if points else set())

    parent = known({names.TAG_ROLE: names.ROLE_SWEEP}, points=False)
    if parent.run is not None and parent.running:
        beat = parent.run.tags.get(names.TAG_HEARTBEAT, "")
        if beat.isdecimal() and now_ms - int(beat) < LEAST_MINUTES * 60_000:
            raise ConfigurationError(
                f"{past.folder} is a sweep that is still running (its heartbeat is {(now_ms - int(beat)) // 1000} s "
                "old): it delivers by itself; import it when it has ended"
            )
    role = {names.TAG_ROLE: names.ROLE_TRIAL}
    return parent, {
        trial.trial_id: known({**role, names.TAG_TRIAL_ID: trial.trial_id}, points=True) for trial in past.trials
    }


def _trial_events(trial: PastTrial, tracked: Tracked, known: _Known) -> list[_Written]:
    """Returns what the store lacks of a trial, with times of its own: nothing where it has everything."""
    secrets = known_secrets()
    there = known.run is not None
    told = retell(trial, tracked, secrets)
    body = list(_body(trial.trial_id, told, known))
    if there and not body and not known.running:
        return []
    first, resumed = _start(known, told)
    tags = {**told.tags, **told.identity.tags(), names.TAG_STORAGE: trial.folder.uri}
    start = events.Trial(
        name=told.name,
        params={} if there else dict(told.params),
        tags={} if there else redact(tags, secrets),
        resumed_step=resumed,
    )
    if not there:
        start["config"] = told.config
    last = body[-1][0] if body else result_time_ms(trial.last, first)
    return [
        (first, events.TRIAL, trial.trial_id, start),
        *body,
        (max(last, first) + 1, events.TRIAL_END, trial.trial_id, _ending(trial, secrets)),
    ]


def _body(trial_id: str, told: Retold, known: _Known) -> Iterator[_Written]:
    """Yields results, and of a trial that has no run yet its restarts and changes of parameters."""
    there = known.run is not None
    for happened in told.went:
        if isinstance(happened, Reported):
            metrics = {
                key: value for key, value in happened.metrics.items() if (key, happened.step) not in known.points
            }
            if metrics:
                yield happened.time_ms, events.RESULT, trial_id, events.Result(step=happened.step, metrics=metrics)
        elif isinstance(happened, Restarted) and not there:
            again = events.Trial(name="", params={}, tags={}, resumed_step=happened.step)
            yield happened.time_ms, events.TRIAL, trial_id, again
        elif isinstance(happened, Changed) and not there:
            change = events.Hparams(step=happened.step, changed=dict(happened.changed), initial=dict(happened.initial))
            if happened.donor:
                change["donor"] = happened.donor
            yield happened.time_ms, events.HPARAMS, trial_id, change


def _start(known: _Known, told: Retold) -> tuple[int, int]:
    """Returns when the trial began and the step it resumed from; a run that exists gets no further attempt."""
    if known.run is not None:
        try:
            _, started_ms, resumed_step = json.loads(known.run.tags[names.TAG_ATTEMPTS])[-1]
            return int(started_ms), int(resumed_step)
        except (ValueError, TypeError, LookupError):
            pass
    return told.started_ms, 0


def _ending(trial: PastTrial, secrets: tuple[str, ...]) -> events.TrialEnd:
    there = {
        names.SERIES_ARTIFACT: trial.folder.below(names.SERIES_DIR),
        "": trial.folder.below(names.FILES_DIR),
        names.TENSORBOARD_ARTIFACT: trial.folder,
    }
    folders = {artifacts: place.uri for artifacts, place in there.items() if place.exists()}
    if trial.status == "FAILED":
        text = redact(trial.error(), secrets).strip() or "unknown: Tune left no error.txt"
        tags = {names.TAG_END_REASON: names.END_ERROR, names.TAG_ERROR: text.splitlines()[-1][:500]}
        return events.TrialEnd(status="FAILED", tags=tags, folders=folders, traceback=text)
    if trial.status == "KILLED":
        tags = {names.TAG_END_REASON: names.END_INTERRUPTED}
        return events.TrialEnd(status="KILLED", tags=tags, folders=folders)
    # Tune's files say `done` of a function that returned as of one that was stopped: only a threshold can be told.
    probe = SimpleNamespace(stopping_criterion=trial.criteria, last_result=trial.last)
    reached = stopped_by(probe, trial.last)
    reason = reached if reached == names.END_CRITERION else ""
    tags = {names.TAG_END_REASON: reason} if reason else {}
    if not reached:
        tags = {names.TAG_END_REASON: trial_ending(probe, "")}
    return events.TrialEnd(status="FINISHED", tags=tags, folders=folders)


def _journal(past: PastExperiment, target: Target, sweep_id: str, experiment: str, written: list[_Written]) -> Path:
    start = min((moment for moment, *_ in written), default=0)
    end = max((moment for moment, *_ in written), default=0)
    opening = events.Open(
        tracking_uri=target.uri,
        registry_uri=None,
        experiment_name=experiment,
        experiment_id=None,
        artifact_location=target.artifact_root,
    )
    sweep = events.Sweep(
        sweep_id=sweep_id,
        epoch=int(past.identity.get("epoch", 1)),
        name=str(past.identity.get("name") or past.folder.name),
        tags={names.TAG_IMPORTED: past.folder.uri, names.TAG_STORAGE: past.folder.uri},
    )
    whole = all(trial.status != "KILLED" for trial in past.trials)
    reason = names.END_COMPLETED if whole else names.END_INTERRUPTED
    ending = events.SweepEnd(status="FINISHED" if whole else "KILLED", tags={names.TAG_END_REASON: reason})
    directory = new_journal_directory()
    try:
        with closing(JournalWriter(directory)) as writer:
            writer.append(events.OPEN, "", opening, time_ms=start)
            writer.append(events.SWEEP, "", sweep, time_ms=start)
            for moment, kind, trial, payload in written:
                writer.append(kind, trial, payload, time_ms=moment)
            writer.append(events.SWEEP_END, "", ending, time_ms=end)
    except BaseException:
        # Half of it would be delivered later, and end as a sweep whose driver died.
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return directory


def _deliver(journal: Path, target: Target) -> bool:
    with bounded_requests(credentials=target.credentials):
        return courier_process.carry(journal, orphan_limit_s=_PATIENCE_S)
