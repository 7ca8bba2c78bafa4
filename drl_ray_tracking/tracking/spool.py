"""A journal being written and the courier that serves it: the driver's whole side of delivery.

A watchdog thread restarts a courier that died; it looks at a lock every ten seconds and costs nothing.

The journal is bounded: what is delivered is dropped, oldest first. Where the store is away for so long that
the undelivered reaches the limit, or the disk is full, training goes on and further *results* are lost, counted
and said; everything else (how trials begin, change and end) is kept in memory and written when there is room.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError, JournalError
from drl_ray_tracking.home import HOME_VARIABLE
from drl_ray_tracking.tracking import courier_process, courier_status, events
from drl_ray_tracking.tracking.courier_status import LOG_FILE, CourierStatus, read_status
from drl_ray_tracking.tracking.journal import (
    DamagedJournalError,
    JournalWriter,
    UnwritableEventError,
    new_journal_directory,
    size,
)
from drl_ray_tracking.tracking.locks import is_locked
from drl_ray_tracking.tracking.repair import mend

_log = logging.getLogger(__name__)
_WATCH_EVERY_S: Final = 10.0
_POLL_S: Final = 0.05
_HOPELESS_RETRIES: Final = 4
_JOIN_S: Final = 5.0
LIMIT_VARIABLE: Final = "DRL_TRACK_JOURNAL_LIMIT_MB"
DEFAULT_LIMIT_MB: Final = 4096.0
LEAST_LIMIT_MB: Final = 100.0  # the first and the newest segment stay until the end
_LOOK_EVERY: Final = 200  # results, at the size of the journal
_MB: Final = 1_000_000


def journal_limit_mb(given: float | None) -> float:
    """Returns how large one sweep's journal may become: what is given, else `$DRL_TRACK_JOURNAL_LIMIT_MB`, else 4096.

    Raises:
        ConfigurationError: it is no number, or too small.
    """
    shown: object = given if given is not None else os.environ.get(LIMIT_VARIABLE) or DEFAULT_LIMIT_MB
    try:
        limit = float(shown)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        limit = 0.0
    if not limit >= LEAST_LIMIT_MB:
        raise ConfigurationError(
            f"the journal's limit {shown!r} must be a number of megabytes, {LEAST_LIMIT_MB:.0f} or more "
            f"(journal_limit_mb, or ${LIMIT_VARIABLE})"
        )
    return limit


class _Patience:
    """Runs out when the courier fails several times in a row, without having delivered anything in between."""

    def __init__(self) -> None:
        self._reached: tuple[int, ...] | None = None
        self._retries = 0

    def is_over(self, now: CourierStatus) -> bool:
        reached = (*now.progress.reached, now.progress.files_left)
        if reached != self._reached:
            self._reached, self._retries = reached, now.retries
        return now.retries - self._retries >= _HOPELESS_RETRIES


class Spool:
    """Takes events, keeps them safe, and has them delivered. Usable from several threads."""

    def __init__(
        self, writer: JournalWriter, credentials: Mapping[str, str], limit_mb: float = DEFAULT_LIMIT_MB
    ) -> None:
        self._writer = writer
        self._credentials = dict(credentials)
        self._closing = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="drl-track-watchdog", daemon=True)
        self.final_status: CourierStatus | None = None  # the courier's last word before `close` returned
        self._limit_bytes = limit_mb * _MB
        self._results = 0
        self._full = False
        self._lock = threading.RLock()
        self._owed: list[tuple[str, str, Any, int]] = []  # kind, trial, payload, Unix ms
        self._lost = 0
        self._lost_said = 0  # of those, how many the journal knows of
        self._loss_reason = ""
        self._losses_said: set[type[JournalError]] = set()
        self._damaged = 0  # written down, but damaged before they were delivered

    @classmethod
    def open(cls, opening: events.Open, *, credentials: Mapping[str, str], limit_mb: float | None = None) -> Spool:
        """Makes a journal, writes its first event, starts a courier.

        Args:
            opening: where to deliver.
            credentials: variables for the courier's environment only.
            limit_mb: how large the journal may become, see `journal_limit_mb`.

        Raises:
            ConfigurationError: the journal cannot be kept where it should lie, or its limit makes no sense.
        """
        limit = journal_limit_mb(limit_mb)
        writer = JournalWriter(new_journal_directory())
        try:
            writer.append(events.OPEN, "", opening)
        except JournalError as error:
            writer.close()
            raise ConfigurationError(
                f"{error}. Make room, or set {HOME_VARIABLE} to a directory on a local disk."
            ) from error
        spool = cls(writer, credentials, limit)
        spool._start_courier()
        spool._watchdog.start()
        return spool

    @property
    def directory(self) -> Path:
        """Where the journal, the courier's progress and its log lie."""
        return self._writer.directory

    @property
    def lost(self) -> int:
        """How many events could not be written down (disk full, journal at its limit, no JSON)."""
        return self._lost

    def append(self, kind: str, trial: str, payload: Any) -> int:
        """Writes one event and returns its number, or 0 where it is not safe.

        The first loss is said, every one is counted, and the parent run learns of them once there is room again.
        """
        with self._lock:
            try:
                if kind in events.BULK:
                    self._check_size()
                self._settle()
                seq = self._write(kind, trial, payload, None)
            except JournalError as error:
                self._lose(kind, trial, payload, error)
                return 0
            return seq

    def _write(self, kind: str, trial: str, payload: Any, time_ms: int | None) -> int:
        try:
            return self._writer.append(kind, trial, payload, time_ms=time_ms)
        except DamagedJournalError:
            self._mend()
            return self._writer.append(kind, trial, payload, time_ms=time_ms)

    def _check_size(self) -> None:
        self._results += 1
        if self._full or self._results % _LOOK_EVERY == 1:
            taken = size(self.directory)
            self._full = taken >= self._limit_bytes
            if self._full:
                raise JournalError(
                    f"the journal in {self.directory} has reached its limit ({taken / _MB:.0f} MB of "
                    f"{self._limit_bytes / _MB:.0f}): results are left out until the courier has delivered some. "
                    f"${LIMIT_VARIABLE} or journal_limit_mb raises it."
                )

    def _lose(self, kind: str, trial: str, payload: Any, error: JournalError) -> None:
        if kind in events.BULK or isinstance(error, UnwritableEventError):
            self._lost += 1
        else:
            self._owed.append((kind, trial, payload, int(time.time() * 1000)))
        self._say_lost(error)

    def _say_lost(self, error: JournalError) -> None:
        if type(error) not in self._losses_said:
            self._losses_said.add(type(error))
            _log.error("tracking loses data, training goes on: %s", error)
        self._loss_reason = str(error)

    def _settle(self) -> None:
        """Writes what is owed, and how much was lost since the journal was last told.

        Raises:
            JournalError: there is still no room.
        """
        while self._owed:
            kind, trial, payload, time_ms = self._owed[0]
            try:
                self._write(kind, trial, payload, time_ms)
            except UnwritableEventError as error:
                self._lost += 1
                self._say_lost(error)
            del self._owed[0]
        unsaid = self._lost - self._lost_said
        if unsaid:
            self._write(events.LOSS, "", events.Loss(count=unsaid, reason=self._loss_reason[:1000]), None)
            self._lost_said = self._lost

    def _mend(self) -> None:
        """Replaces damaged segments by what is whole in them: while the driver lives, it alone writes."""
        status = self.status()
        delivered = status.progress.acked if status else 0
        damage = self._writer.repair(lambda last: mend(self.directory, delivered, last))
        if damage is not None:
            loss = damage.as_loss()
            _log.error("tracking lost %d events, training goes on: %s", loss["count"], loss["reason"])
            self._damaged += loss["count"]
            self._writer.append(events.LOSS, "", loss)

    def status(self) -> CourierStatus | None:
        """Returns what the courier last said of itself."""
        return read_status(self.directory)

    def queued(self) -> int:
        """Returns how many events wait for delivery."""
        status = self.status()
        return self._writer.last_seq - (status.progress.acked if status else 0)

    def wait_for(self, condition: Callable[[CourierStatus], bool], *, timeout_s: float) -> CourierStatus | None:
        """Waits until the courier's status meets a condition; returns the last status either way."""
        deadline = time.monotonic() + timeout_s
        while True:
            status = self.status()
            if status is not None and condition(status):
                return status
            if time.monotonic() >= deadline:
                return status
            time.sleep(_POLL_S)

    def close(self, timeout_s: float) -> bool:
        """Waits for delivery within bounds, then lets go of the journal; returns whether all is delivered.

        The courier goes on after this. What is left is said in one sentence.
        """
        with self._lock:
            try:
                self._settle()
            except JournalError as error:
                _log.error(
                    "%d events about how trials began and ended cannot be written down: %s", len(self._owed), error
                )
        patience = _Patience()

        def settled(now: CourierStatus) -> bool:
            hopeless = now.phase == courier_status.REFUSED or patience.is_over(now)
            return hopeless or (now.drained and now.progress.acked >= self._writer.last_seq)

        self.final_status = status = self.wait_for(settled, timeout_s=timeout_s)
        complete = status is not None and status.drained and status.progress.acked >= self._writer.last_seq
        if complete and status is not None and status.progress.refused:
            complete = False
            _log.warning(
                "MLflow takes nothing more for %d runs (%s): what came after that is left out of them for good. Where "
                "Tune's own files have it, `drl-track import-tune` adds it once the runs are restored",
                len(status.progress.refused),
                next(iter(status.progress.refused.values())),
            )
        elif not complete:
            _log.warning(
                "%d events wait in %s (%s); the courier goes on delivering, and `drl-track sync` does it by hand. "
                "Its log: %s",
                self.queued(),
                self.directory,
                (status.message or status.phase) if status else "no courier has answered",
                self.directory / LOG_FILE,
            )
        left_out = status.progress.malformed if status is not None else 0
        missing = self._lost + self._damaged + left_out
        if missing:
            damage = "the journal was damaged" if self._damaged else f"see {self.directory / LOG_FILE}"
            _log.error(
                "%d events of this sweep are lost for good (%s); its run is tagged %s",
                missing,
                self._loss_reason or damage,
                names.TAG_DEGRADED,
            )
        self._let_go()
        return complete and not missing and not self._owed

    def abandon(self) -> None:
        """Gives the journal up before a sweep began; its courier removes it."""
        self._let_go()

    def _let_go(self) -> None:
        # The watchdog first: once the driver's lock is free, the courier ends and removes the directory.
        self._closing.set()
        if self._watchdog.is_alive():
            self._watchdog.join(_JOIN_S)
        self._writer.close()

    def _start_courier(self) -> None:
        try:
            courier_process.start(self.directory, self._credentials)
        except (OSError, subprocess.SubprocessError) as error:
            _log.warning("the courier of %s cannot be started, trying again: %s", self.directory, error)

    def _watch(self) -> None:
        while not self._closing.wait(_WATCH_EVERY_S):
            if not is_locked(self.directory / courier_status.LOCK_FILE):
                _log.warning("the courier of %s is gone: starting another", self.directory)
                self._start_courier()
            status = self.status()
            if status is not None and status.phase == courier_status.DAMAGED:
                self._mend_quietly()

    def _mend_quietly(self) -> None:
        with self._lock:
            try:
                self._mend()
            except (JournalError, OSError) as error:
                _log.error("the damaged journal in %s cannot be repaired, trying again: %s", self.directory, error)
