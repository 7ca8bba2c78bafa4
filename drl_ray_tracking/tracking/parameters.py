"""Parameters of runs on their way to the store: a request at a time, the first value of each stays."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from drl_ray_tracking.tracking.progress import Progress
from drl_ray_tracking.tracking.runs import Runs
from drl_ray_tracking.tracking.sink import Sink, SinkRefusedError

_log = logging.getLogger(__name__)
_AT_ONCE: Final = 100


class Parameters:
    """Sends parameters and remembers, while it is at it, how many of a trial's have arrived."""

    def __init__(self, sink: Sink, progress: Progress, runs: Runs) -> None:
        """Takes the store, where it is counted, and the runs."""
        self._sink = sink
        self._progress = progress
        self._runs = runs
        self._sent: dict[str, int] = {}  # trial -> how many have arrived, while they are being sent

    def send(self, trial: str, params: Mapping[str, str]) -> None:
        """Sends a trial's parameters.

        Raises:
            SinkUnavailableError: those that have arrived are not sent again.
        """
        run_id = self._runs.takes(trial)
        if not params or run_id is None:
            return
        pairs = list(params.items())
        # A request at a time: all at once, thousands would never get through a server that fails every third.
        for first in range(self._sent.get(trial, 0), len(pairs), _AT_ONCE):
            try:
                self._sink.log(run_id, params=dict(pairs[first : first + _AT_ONCE]))
            except SinkRefusedError as error:
                # Parameters cannot change in MLflow; after PBT or an edited restore the first ones stay.
                _log.warning("parameters of trial %s stay as they were: %s", trial, error)
            self._sent[trial] = first + _AT_ONCE
            self._progress.pieces += 1
        self._sent.pop(trial, None)
