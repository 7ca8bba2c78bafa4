"""What is to be delivered now: results of a running sweep wait a few seconds for more, everything else is due at once.

Each request costs a store some milliseconds whatever it carries: sent one by one, the results of a small sweep took
twice as many and a third more CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.journal import Event, read_events

LINGER_S: Final = 5.0


class Inbox:
    """Reads a journal on; keeps in memory what waits, so that nothing is read twice."""

    def __init__(self, directory: Path, *, at_most: int, clock: Callable[[], float] = time.time) -> None:
        """Takes the journal, how many events to hand out at once, and what tells the time."""
        self._directory = directory
        self._at_most = at_most
        self._clock = clock
        self._after = 0
        self._waiting: list[Event] = []  # read, and not handed out
        self._since = 0.0  # when the first of them was read
        self._handed_out = 0  # the last event that was

    def due(self, after: int, *, more_may_come: bool) -> list[Event]:
        """Returns the events after one that are to be delivered now, in order; none where they wait, or there are none.

        Args:
            after: the last event that has been delivered.
            more_may_come: whether the driver lives and its sweep goes on; nothing waits where that is over.

        Raises:
            DamagedJournalError: the journal cannot be read.
        """
        if after != self._after:
            self._after, self._waiting = after, []  # they are no longer what comes next
        known = self._waiting[-1].seq if self._waiting else after
        fresh = read_events(self._directory, after=known, limit=self._at_most - len(self._waiting))
        if not self._waiting:
            self._since = self._clock()
        batch = self._waiting + fresh
        if more_may_come and len(batch) < self._at_most and self._may_wait(batch, fresh):
            self._waiting = batch
            return []
        self._waiting = []
        self._handed_out = batch[-1].seq if batch else self._handed_out
        return batch

    def _may_wait(self, batch: list[Event], fresh: list[Event]) -> bool:
        if any(one.kind not in events.BULK for one in fresh):
            return False
        if batch and batch[0].seq <= self._handed_out:
            return False  # its delivery has failed
        return 0 <= self._clock() - self._since < LINGER_S  # a clock that was set back lets nothing wait for ever
