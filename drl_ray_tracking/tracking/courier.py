"""The courier's work: carry one journal to one store, until everything is there or nothing more can be done.

It reads the journal only, keeps its progress in `courier.json`, retries with backoff, and never acknowledges
inside the journal (that made the driver's INSERT fifty times slower). When the driver dies it drains and sets
the open runs KILLED. The process around it is `courier_process`.
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking.errors import JournalError
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.courier_status import (
    DAMAGED,
    DELIVERING,
    DONE,
    PROGRESS_FILE,
    REFUSED,
    RETRYING,
    STARTING,
    read_status,
)
from drl_ray_tracking.tracking.delivery import Delivery
from drl_ray_tracking.tracking.histories import Histories
from drl_ray_tracking.tracking.inbox import Inbox
from drl_ray_tracking.tracking.journal import (
    DamagedJournalError,
    Event,
    driver_is_alive,
    drop_delivered_segments,
    last_sequence,
    read_events,
    read_events_of,
    segments,
)
from drl_ray_tracking.tracking.locks import has_drivers, sweep_lock
from drl_ray_tracking.tracking.painter import PaintingProcess
from drl_ray_tracking.tracking.progress import SWEEP_RUN, Progress
from drl_ray_tracking.tracking.repair import quarantined, repair_orphan
from drl_ray_tracking.tracking.sink import Sink, SinkRefusedError, SinkUnavailableError
from drl_ray_tracking.tracking.trial_files import fetch_folder

_log = logging.getLogger(__name__)
_HISTORIES: Final = "histories"  # what has been delivered of open trials
_BATCH_EVENTS: Final = 2000
_POLL_S: Final = 0.5
_MAX_BACKOFF_S: Final = 30.0
_HEALTH_EVERY_S: Final = 30.0
_DRAW_EVERY_S: Final = 250.0
_LOOK_EVERY_S: Final = 60.0  # at the files that running trials attach
ORPHAN_LIMIT_S: Final = 900.0
_REFUSED_POLL_S: Final = 3.0
_MOST_REPAIRS: Final = 3  # of one journal by one courier; more would not help


class Courier:
    """Carries one journal to one sink until everything is delivered or nothing more can be done."""

    def __init__(
        self,
        directory: Path,
        make_sink: Callable[[events.Open], Sink],
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        orphan_limit_s: float = ORPHAN_LIMIT_S,
    ) -> None:
        self._directory = directory
        self._make_sink = make_sink
        self._clock = clock
        self._sleep = sleep
        self._orphan_limit_s = orphan_limit_s
        earlier = read_status(directory)
        self._progress = earlier.progress if earlier else Progress()
        self._retries = earlier.retries if earlier else 0
        self._startup_cpu_s = 0.0
        self._delivery: Delivery | None = None
        self._failures = 0
        self._failed_at = (0, 0, 0)  # how far delivery had come at the last failure
        self._unreachable_since: float | None = None
        self._upload_failures = 0
        self._uploads_failing_since: float | None = None
        self._next_upload = 0.0
        self._oldest_ms: int | None = None  # of what is being delivered
        self._worst_lag_s = 0.0  # of what has been delivered since the last report
        self._next_health = 0.0
        self._next_look = clock() + _LOOK_EVERY_S
        self._repairs = 0
        self._opened_s = clock()
        self._inbox = Inbox(directory, at_most=_BATCH_EVENTS, clock=clock)

    @property
    def progress(self) -> Progress:
        """What has been delivered so far."""
        return self._progress

    def run(self) -> bool:
        """Delivers until the journal is drained; returns whether everything was delivered.

        Gives up, leaving the journal for `drl-track sync`, once the driver is dead and the store has
        been out of reach for `orphan_limit_s`, or refuses the whole sweep.

        Raises:
            JournalError: the journal cannot be read, and nothing whole is left in it.
        """
        self._say(STARTING)
        while True:
            # Asked before reading: what a driver wrote before it died is then in what is read.
            alive = driver_is_alive(self._directory)
            try:
                if not alive and self._is_untracked():
                    return True
                worked = self._step(alive)
                finished = not alive and self._finished()
            except DamagedJournalError as error:
                self._say(DAMAGED, str(error))
                if not alive:
                    self._repair(error)
                self._sleep(_REFUSED_POLL_S)
                continue
            except SinkUnavailableError as error:
                if self._unreachable_since is None:
                    self._unreachable_since = self._clock()
                if not alive and self._is_hopeless(self._unreachable_since):
                    self._say(RETRYING, f"gave up after {self._orphan_limit_s:.0f} s: {error}")
                    return False
                self._back_off(error)
                continue
            except SinkRefusedError as error:
                self._say(REFUSED, str(error))
                if not alive:
                    return False
                self._sleep(_REFUSED_POLL_S)
                continue
            self._failures = 0
            self._unreachable_since = None
            if finished:
                self._say(DONE)
                return True
            if not alive and self._uploads_failing_since and self._is_hopeless(self._uploads_failing_since):
                self._say(RETRYING, f"gave up on {self._progress.files_left} uploads")
                return False
            if not worked:
                self._say(DELIVERING)
                self._sleep(_POLL_S)

    def _repair(self, error: DamagedJournalError) -> None:
        self._repairs += 1
        if self._repairs > _MOST_REPAIRS:
            raise error
        damage = repair_orphan(self._directory, self._progress.acked)
        if damage is not None:
            _log.warning("the journal was damaged: %s", damage.as_loss()["reason"])

    def _is_untracked(self) -> bool:
        """Tells whether the driver gave up before a sweep began: there is nothing to deliver then."""
        last = last_sequence(self._directory)
        if not last and quarantined(self._directory):
            raise JournalError(f"{self._directory} cannot be read: nothing whole was left in it")
        return last <= 1

    def _is_hopeless(self, since: float) -> bool:
        return self._clock() - since >= self._orphan_limit_s

    def _step(self, alive: bool) -> bool:
        """Does what is due now; returns whether there is more of it already."""
        # What comes after the end of a sweep, such as a last sample of the machine, waits for nothing.
        batch = self._inbox.due(self._progress.acked, more_may_come=alive and not self._progress.ended)
        if self._delivery is None:
            opening = batch[0] if batch and batch[0].kind == events.OPEN else self._event(1)
            payload: Any = opening.payload if opening is not None else self._progress.opening
            if payload is None and not batch:
                return False
            if payload is None:
                raise JournalError(f"{self._directory} cannot be read: the event that names its store is lost")
            if opening is not None:
                self._opened_s = opening.time_ms / 1000
            sink = self._make_sink(payload)
            self._delivery = Delivery(
                sink,
                self._progress,
                fetch_folder,
                sweep_lock,
                self._held,
                painter=PaintingProcess(self._directory),
                histories=Histories(self._directory / _HISTORIES),
                recall_episodes=self._episodes,
                is_shared=has_drivers,
            )
        if batch:
            self._oldest_ms = batch[0].time_ms
            self._delivery.deliver(batch)
            self._worst_lag_s = max(self._worst_lag_s, self._lag_s())
            self._oldest_ms = None
            if self._say(DELIVERING):
                self._drop_segments()
        elif not alive and not self._progress.ended:
            _log.warning("the driver is gone without a word: open runs become KILLED")
            self._delivery.close_open_runs("KILLED", int(self._clock() * 1000))
            self._say(DELIVERING)
        uploaded = self._upload(self._delivery)
        self._look_for_files(self._delivery)
        self._report_health()
        return uploaded or len(batch) == _BATCH_EVENTS

    def _upload(self, delivery: Delivery) -> bool:
        """Uploads one event's files where it is time; a broken artifact store delays no metric."""
        if not (self._progress.files_left or self._progress.drawing) or self._clock() < self._next_upload:
            return False
        try:
            moved = delivery.upload_next(self._event, may_draw=self._may_draw())
        except SinkUnavailableError as error:
            self._upload_failures += 1
            self._retries += 1
            if self._uploads_failing_since is None:
                self._uploads_failing_since = self._clock()
            delay = _delay(self._upload_failures)
            self._next_upload = self._clock() + delay
            _log.warning("upload failed (%d in a row), next try in %.1f s: %s", self._upload_failures, delay, error)
            return False
        self._upload_failures = 0
        self._uploads_failing_since = None
        if moved:
            self._say(DELIVERING)
        return moved

    def _may_draw(self) -> bool:
        """While trials train, a drawing (some two seconds of CPU) at most so often; when the sweep is over, at once."""
        return self._progress.ended or self._clock() - self._opened_s >= _DRAW_EVERY_S * (self._progress.drawn + 1)

    def _look_for_files(self, delivery: Delivery) -> None:
        if self._clock() >= self._next_look:
            delivery.look_for_files()
            self._next_look = self._clock() + _LOOK_EVERY_S

    def _finished(self) -> bool:
        return (
            self._progress.ended
            and not self._progress.files_left
            and not self._progress.drawing
            and self._progress.acked >= last_sequence(self._directory)
        )

    def _event(self, seq: int) -> Event | None:
        found = read_events(self._directory, after=seq - 1, limit=1)
        return found[0] if found and found[0].seq == seq else None

    def _held(self, trial: str, first: int, last: int) -> Iterator[Event]:
        return read_events_of(self._directory, events.HELD, trial, first, last)

    def _episodes(self, trial: str, first: int, last: int) -> Iterator[Event]:
        return read_events_of(self._directory, events.EPISODE, trial, first, last)

    def _drop_segments(self) -> None:
        # The opening event stays: a restarted courier learns from it where to deliver.
        pooled = [first for pools in self._progress.pools.values() for _, first, _ in pools.values()]
        needed = min([self._progress.acked + 1, *self._progress.uploads, *self._progress.held.values(), *pooled])
        if len(segments(self._directory)) > 1:
            # Without the dropped events, what the progress knows of runs could not be had again.
            with (self._directory / PROGRESS_FILE).open("rb") as progress:
                os.fsync(progress.fileno())
        drop_delivered_segments(self._directory, needed - 1, keep_first=True)

    def _back_off(self, error: Exception) -> None:
        # A server that fails every third request moves on between failures: no reason to wait ever longer,
        # nor to give up.
        if self._progress.reached != self._failed_at:
            self._failed_at = self._progress.reached
            self._failures = 0
            self._unreachable_since = self._clock()
        self._failures += 1
        self._retries += 1
        delay = _delay(self._failures)
        self._say(RETRYING, str(error))
        _log.warning("delivery failed (%d in a row), next try in %.1f s: %s", self._failures, delay, error)
        self._sleep(delay)

    def _report_health(self) -> None:
        now = self._clock()
        if self._delivery is None or now < self._next_health or SWEEP_RUN not in self._progress.runs:
            return
        self._next_health = now + _HEALTH_EVERY_S
        metrics = {
            "tracker/lag_s": self._worst_lag_s,
            "tracker/queue_depth": float(last_sequence(self._directory) - self._progress.acked),
            "tracker/retries": float(self._retries),
            "tracker/points": float(self._progress.points),
            "tracker/refused_runs": float(len(self._progress.refused)),
            "tracker/lost_events": float(self._progress.lost),
        }
        # Counted from the sweep's begin: what MLflow calls the latest value is that of the highest step.
        self._delivery.report_health(metrics, int(now * 1000), max(0, int(now - self._opened_s)))
        self._worst_lag_s = 0.0

    def _lag_s(self) -> float:
        return 0.0 if self._oldest_ms is None else max(0.0, self._clock() - self._oldest_ms / 1000)

    def _say(self, phase: str, message: str = "") -> bool:
        """Writes progress and health down; returns whether the disk took it."""
        if not self._startup_cpu_s and self._progress.acked:
            self._startup_cpu_s = time.process_time()
        state = {
            "phase": phase,
            "message": message,
            "pid": os.getpid(),
            "retries": self._retries,
            "lag_s": self._lag_s(),
            "updated_s": self._clock(),
            "cpu_s": time.process_time() + _children_cpu_s(),
            "startup_cpu_s": self._startup_cpu_s,
            "progress": self._progress.to_json(),
        }
        target = self._directory / PROGRESS_FILE
        scratch = target.with_suffix(".tmp")
        try:
            scratch.write_text(json.dumps(state))
            scratch.replace(target)
        except OSError as error:
            _log.warning("progress cannot be written down, a restart would deliver again: %s", error)
            return False
        return True


def _children_cpu_s() -> float:
    """Returns the CPU time of processes that have packaged models and drawn pictures."""
    times = os.times()
    return times.children_user + times.children_system


def _delay(failures: int) -> float:
    """Returns how long to wait after so many failures in a row (seconds): doubling, bounded, spread."""
    return min(_MAX_BACKOFF_S, 0.5 * 2.0 ** min(failures, 10)) * (0.5 + random.random() / 2)
