"""Closes runs whose sweep died without a word: its driver, and the courier that would have closed them.

Only runs with this package's tags are looked at, and a sweep only counts as dead once its courier's heartbeat on
the parent run is older than a bound. A courier that was merely cut off from the store opens them again.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.courier_status import LOCK_FILE, read_status
from drl_ray_tracking.tracking.journal import driver_is_alive, journals
from drl_ray_tracking.tracking.locks import is_locked
from drl_ray_tracking.tracking.mlflow_sink import MlflowSink, OurRun, bounded_requests
from drl_ray_tracking.tracking.sink import SinkRefusedError, SinkUnavailableError
from drl_ray_tracking.tracking.target import resolve_target

LEAST_MINUTES: Final = 5.0  # ten heartbeats
DEFAULT_MINUTES: Final = 60.0


def reconcile(
    tracking_uri: str | None,
    say: Callable[[str], None],
    *,
    experiment: str | None = None,
    older_than_min: float = DEFAULT_MINUTES,
    clock: Callable[[], float] = time.time,
) -> int:
    """Sets the running runs of dead sweeps KILLED, at the moment of their last heartbeat; returns how many.

    Args:
        tracking_uri: the store, as `resolve_target` takes it.
        say: takes one sentence for a person about each sweep.
        experiment: one experiment's name or id; None is all of them.
        older_than_min: for how many minutes the heartbeat must have been silent.
        clock: Unix time in seconds.

    Raises:
        ConfigurationError: the bound is too short, or the store cannot be reached or refuses.
    """
    if not older_than_min >= LEAST_MINUTES:
        raise ConfigurationError(
            f"{older_than_min:g} minutes without a heartbeat prove nothing: give {LEAST_MINUTES:g} or more"
        )
    target = resolve_target(tracking_uri)
    with bounded_requests(credentials=target.credentials):
        try:
            sink = MlflowSink(target.uri)
            running = sink.running_runs(experiment)
            sweeps: dict[tuple[str, str], list[OurRun]] = defaultdict(list)
            for run in running:
                sweeps[run.experiment_id, run.tags[names.TAG_SWEEP_ID]].append(run)
            closed = sum(
                _close_if_dead(sink, experiment_id, sweep_id, runs, older_than_min * 60_000, clock, say)
                for (experiment_id, sweep_id), runs in sorted(sweeps.items())
            )
        except SinkUnavailableError as error:
            raise ConfigurationError(f"MLflow at {target.uri} cannot be reached: {error}") from error
        except SinkRefusedError as error:
            raise ConfigurationError(f"MLflow at {target.uri} refuses: {error}") from error
    if not sweeps:
        say("no run of this package is running")
    return closed


def _close_if_dead(
    sink: MlflowSink,
    experiment_id: str,
    sweep_id: str,
    runs: list[OurRun],
    bound_ms: float,
    clock: Callable[[], float],
    say: Callable[[str], None],
) -> int:
    local = _local_journal(sweep_id)
    if local:
        say(f"sweep {sweep_id}: left alone, {local}")
        return 0
    beat_ms = last_sign_of_life(sink, experiment_id, sweep_id, runs)
    silent_ms = clock() * 1000 - beat_ms
    if silent_ms < bound_ms:
        say(f"sweep {sweep_id}: left alone, it was alive {silent_ms / 60_000:.0f} minutes ago")
        return 0
    # Children first: if this is cut short, the running parent shows that there is more to do.
    order = (names.ROLE_TRIAL, names.ROLE_FOLD, names.ROLE_SWEEP)
    for run in sorted(runs, key=lambda one: order.index(one.tags[names.TAG_ROLE])):
        sink.log(run.run_id, tags={names.TAG_END_REASON: names.END_RECONCILED})
        sink.set_status(run.run_id, "KILLED", max(beat_ms, run.start_ms))
    say(f"sweep {sweep_id}: {len(runs)} runs set KILLED, silent for {silent_ms / 60_000:.0f} minutes")
    return len(runs)


def last_sign_of_life(sink: MlflowSink, experiment_id: str, sweep_id: str, runs: list[OurRun]) -> int:
    """Returns when a sweep was last known to live (Unix ms): its heartbeat, or the start of its latest run."""
    parent = sink.find_run(experiment_id, {names.TAG_SWEEP_ID: sweep_id, names.TAG_ROLE: names.ROLE_SWEEP})
    beat = parent.tags.get(names.TAG_HEARTBEAT, "") if parent is not None else ""
    return max([int(beat) if beat.isdecimal() else 0, *(run.start_ms for run in runs)])


def _local_journal(sweep_id: str) -> str:
    """Says why a sweep lives on this machine, or '' where nothing of it is here."""
    for directory in journals():
        status = read_status(directory)
        if status is None or status.progress.sweep_id != sweep_id:
            continue
        if driver_is_alive(directory) or is_locked(directory / LOCK_FILE):
            return "it runs on this machine"
        return "its journal waits on this machine: run `drl-track sync` first"
    return ""
