"""Containment: an error of ours is counted and said once per kind, and never reaches the training."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


class Containment:
    """Counts contained errors; one per callback or recorder."""

    def __init__(self) -> None:
        self.count = 0
        self._said: set[str] = set()

    def note(self, where: str, error: Exception) -> None:
        """Counts an error, and logs it with its traceback the first time its kind occurs at this place."""
        self.count += 1
        kind = f"{where}/{type(error).__name__}"
        if kind not in self._said:
            self._said.add(kind)
            _log.error("capture failed in %s, training goes on: %s", where, error, exc_info=error)
