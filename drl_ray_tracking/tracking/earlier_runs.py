"""Finds the run that a manual run goes on with, or is nested below: in the journals that wait here, and in the store.

What is not in the store yet is in a journal of the machine that wrote it: together they know every value, so that a
killed process can be resumed at once, and with no server reachable.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError, JournalError
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.courier_status import read_status
from drl_ray_tracking.tracking.journal import Event, driver_is_alive, journals, read_events
from drl_ray_tracking.tracking.mlflow_models import pages
from drl_ray_tracking.tracking.mlflow_sink import bounded_requests
from drl_ray_tracking.tracking.target import Target

_log = logging.getLogger(__name__)
_EVENTS_AT_ONCE: Final = 2000


@dataclass(frozen=True)
class EarlierRun:
    """What is known of a run: `step` is the last it has a value at, `started_ms` orders runs of one name."""

    trial: str
    sweep_id: str
    session: str
    name: str
    epoch: int = 0
    step: int = 0
    started_ms: int = 0
    run_id: str = ""
    is_open: bool = False  # in a process that lives
    tags: Mapping[str, str] = field(default_factory=dict)  # those the loop gave it, as far as a journal here has them
    params: Mapping[str, str] = field(default_factory=dict)
    above: events.Above | None = None  # what it is nested below, where a journal here says so

    def is_called(self, which: str) -> bool:
        """Tells whether an id or a name means this run."""
        return bool(which) and which in (self.run_id, self.trial, self.name)


def find_run(which: str, target: Target, experiment: str) -> EarlierRun:
    """Returns everything known of a run.

    Args:
        which: its id in the store, its own id (`TrackedRun.id`), or its name; of several with one name the newest.
        target: the store.
        experiment: the experiment's name.

    Raises:
        ConfigurationError: there is none, or it is unknown here and the store cannot be reached.
    """
    waiting = waiting_runs(target.uri, experiment)  # first: what is delivered meanwhile is in the store then
    here = _newest([run for run in waiting if run.is_called(which)])
    try:
        stored = _newest([run for run in _stored_runs(target, experiment) if run.is_called(which)])
    except Exception as error:
        if here is None:
            raise ConfigurationError(
                f"the run {which!r} cannot be looked up in {target.uri}, and no journal on this machine has it: "
                f"{error}. Start a new one to go on without it"
            ) from error
        _log.warning("the store cannot be asked about %s (%s): what this machine knows of it counts", which, error)
        return here
    if here is None and stored is None:
        raise ConfigurationError(
            f"experiment {experiment!r} of {target.uri} has no run {which!r} of this tracker's: give the id or the "
            "name of one (a run whose journal waits on another machine is delivered there by `drl-track sync`)"
        )
    if stored is None or (here is not None and here.trial != stored.trial and here.started_ms > stored.started_ms):
        assert here is not None
        return here
    return _together(stored, next((run for run in waiting if run.trial == stored.trial), None))


def waiting_runs(tracking_uri: str, experiment: str) -> list[EarlierRun]:
    """Returns the manual runs of an experiment that journals on this machine know of."""
    found: dict[str, EarlierRun] = {}
    for directory in journals():
        try:
            for run in _runs_of(directory, tracking_uri, experiment):
                known = found.get(run.trial)
                found[run.trial] = run if known is None else _together(known, run)
        except (JournalError, OSError) as error:  # being removed after delivery, or damaged
            _log.info("the journal %s tells nothing of its runs: %s", directory, error)
    return list(found.values())


def _runs_of(directory: Path, tracking_uri: str, experiment: str) -> list[EarlierRun]:
    written = _events(directory)
    opening, sweep = next(written, None), next(written, None)
    if opening is None or sweep is None or sweep.kind != events.SWEEP:
        return []
    where = (opening.payload.get("tracking_uri"), opening.payload.get("experiment_name"))
    if where != (tracking_uri, experiment) or names.TAG_MANUAL not in sweep.payload["tags"]:
        return []
    alive = driver_is_alive(directory)
    status = read_status(directory)
    run_ids = status.progress.runs if status else {}
    found: dict[str, EarlierRun] = {}
    for event in written:
        if event.kind == events.TRIAL:
            run = EarlierRun(
                trial=event.trial,
                sweep_id=sweep.payload["sweep_id"],
                session=sweep.payload["name"],
                name=event.payload["name"],
                epoch=event.payload.get("epoch", 1),
                step=event.payload["resumed_step"],
                started_ms=event.time_ms,
                run_id=run_ids.get(event.trial, ""),
                is_open=alive,
                tags=event.payload["tags"],
                params=event.payload["params"],
                above=event.payload.get("parent"),
            )
            known = found.get(event.trial)
            found[event.trial] = run if known is None else _together(known, run)
        elif event.trial in found:
            found[event.trial] = _with(found[event.trial], event, directory)
    return list(found.values())


def _with(run: EarlierRun, event: Event, directory: Path) -> EarlierRun:
    payload: Mapping[str, Any] = event.payload
    if event.kind == events.TRIAL_END:
        return replace(run, is_open=False)
    if event.kind == events.RESULT:
        step = payload["step"] if payload["metrics"] else 0
        tags, params = {**run.tags, **payload.get("tags", {})}, {**run.params, **payload.get("params", {})}
        return replace(run, step=max(run.step, step), tags=tags, params=params)
    if event.kind in (events.EPISODE, events.CHECKPOINT):
        return replace(run, step=max(run.step, payload["step"]))
    return run


def _together(first: EarlierRun, second: EarlierRun | None) -> EarlierRun:
    """Returns what two places know of one run; the second is the newer."""
    if second is None:
        return first
    return replace(
        second,
        epoch=max(first.epoch, second.epoch),
        step=max(first.step, second.step),
        started_ms=min(first.started_ms, second.started_ms),
        run_id=second.run_id or first.run_id,
        is_open=first.is_open or second.is_open,
        tags={**first.tags, **second.tags},
        params={**first.params, **second.params},
        above=second.above or first.above,
    )


def _events(directory: Path) -> Iterator[Event]:
    after = 0
    while batch := read_events(directory, after=after, limit=_EVENTS_AT_ONCE):
        yield from batch
        after = batch[-1].seq


def _stored_runs(target: Target, experiment_name: str) -> list[EarlierRun]:
    from mlflow.tracking import MlflowClient

    with bounded_requests(credentials=target.credentials):
        client = MlflowClient(target.uri)
        experiment = client.get_experiment_by_name(experiment_name)
        if experiment is None:
            return []
        wanted = f"tags.`{names.TAG_ROLE}` = '{names.ROLE_TRIAL}' and tags.`{names.TAG_MANUAL}` = 'true'"
        return [_stored(run) for run in pages(partial(client.search_runs, [str(experiment.experiment_id)], wanted))]


def _stored(run: Any) -> EarlierRun:
    tags = dict(run.data.tags)
    epoch = tags.get(names.TAG_EPOCH, "")
    # The latest point of a metric is that of its highest step; the entity's public mapping has values only.
    steps = [int(point.step) for point in run.data.to_proto().metrics]
    return EarlierRun(
        trial=tags.get(names.TAG_TRIAL_ID, ""),
        sweep_id=tags.get(names.TAG_SWEEP_ID, ""),
        session=tags.get(names.TAG_SESSION, "session"),
        name=str(run.info.run_name),
        epoch=int(epoch) if epoch.isdecimal() else 0,
        step=max(steps, default=0),
        started_ms=int(run.info.start_time or 0),
        run_id=str(run.info.run_id),
        tags={names.TAG_NOTE: tags[names.TAG_NOTE]} if names.TAG_NOTE in tags else {},
        params=dict(run.data.params),
    )


def _newest(runs: list[EarlierRun]) -> EarlierRun | None:
    return max(runs, key=lambda run: run.started_ms, default=None)
