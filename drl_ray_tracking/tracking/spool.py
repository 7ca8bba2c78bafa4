"""A journal being written and the courier that serves it: the driver's whole side of delivery.

A watchdog thread restarts a courier that died; it looks at a lock every ten seconds and costs nothing.
"""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking.errors import ConfigurationError, JournalError
from drl_ray_tracking.tracking import courier, events
from drl_ray_tracking.tracking.courier import CourierStatus, read_status
from drl_ray_tracking.tracking.journal import HOME_VARIABLE, JournalWriter, is_locked, new_journal_directory

_log = logging.getLogger(__name__)
_WATCH_EVERY_S: Final = 10.0
_POLL_S: Final = 0.05
_HOPELESS_RETRIES: Final = 4
_JOIN_S: Final = 5.0


class Spool:
    """Takes events, keeps them safe, and has them delivered. Usable from several threads."""

    def __init__(self, writer: JournalWriter, credentials: Mapping[str, str]) -> None:
        self._writer = writer
        self._credentials = dict(credentials)
        self._closing = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="drl-track-watchdog", daemon=True)
        self.final_status: CourierStatus | None = None  # the courier's last word before `close` returned
        self._lost = 0

    @classmethod
    def open(cls, opening: events.Open, *, credentials: Mapping[str, str]) -> Spool:
        """Makes a journal, writes its first event, starts a courier.

        Raises:
            ConfigurationError: the journal cannot be kept where it should lie.
        """
        writer = JournalWriter(new_journal_directory())
        try:
            writer.append(events.OPEN, "", opening)
        except JournalError as error:
            writer.close()
            raise ConfigurationError(
                f"{error}. Make room, or set {HOME_VARIABLE} to a directory on a local disk."
            ) from error
        spool = cls(writer, credentials)
        spool._start_courier()
        spool._watchdog.start()
        return spool

    @property
    def directory(self) -> Path:
        """Where the journal, the courier's progress and its log lie."""
        return self._writer.directory

    @property
    def lost(self) -> int:
        """How many events could not be written down (disk full)."""
        return self._lost

    def append(self, kind: str, trial: str, payload: Any) -> bool:
        """Writes one event and returns whether it is safe; the first loss is said, every one is counted."""
        try:
            self._writer.append(kind, trial, payload)
        except JournalError as error:
            self._lost += 1
            if self._lost == 1:
                _log.error("tracking loses data, training goes on: %s", error)
            return False
        return True

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
        before = self.status()
        retries = before.retries if before else 0

        def settled(now: CourierStatus) -> bool:
            hopeless = now.phase == courier.REFUSED or now.retries - retries >= _HOPELESS_RETRIES
            return hopeless or (now.drained and now.progress.acked >= self._writer.last_seq)

        self.final_status = status = self.wait_for(settled, timeout_s=timeout_s)
        complete = status is not None and status.drained and status.progress.acked >= self._writer.last_seq
        if complete and status is not None and status.progress.refused:
            complete = False
            _log.warning(
                "MLflow takes nothing more for %d runs (%s); what they lack is in %s",
                len(status.progress.refused),
                next(iter(status.progress.refused.values())),
                self.directory,
            )
        elif not complete:
            _log.warning(
                "%d events wait in %s (%s); the courier goes on delivering, and `drl-track sync` does it by hand. "
                "Its log: %s",
                self.queued(),
                self.directory,
                (status.message or status.phase) if status else "no courier has answered",
                self.directory / courier.LOG_FILE,
            )
        self._let_go()
        return complete and not self._lost

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
            courier.start(self.directory, self._credentials)
        except (OSError, subprocess.SubprocessError) as error:
            _log.warning("the courier of %s cannot be started, trying again: %s", self.directory, error)

    def _watch(self) -> None:
        while not self._closing.wait(_WATCH_EVERY_S):
            if not is_locked(self.directory / courier.LOCK_FILE):
                _log.warning("the courier of %s is gone: starting another", self.directory)
                self._start_courier()
