"""What a courier says of itself: where it stands, how it fares, and how far it has come."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from drl_ray_tracking.tracking.progress import Progress

PROGRESS_FILE: Final = "courier.json"
LOG_FILE: Final = "courier.log"
LOCK_FILE: Final = "courier.lock"

STARTING: Final = "starting"
DELIVERING: Final = "delivering"
RETRYING: Final = "retrying"
REFUSED: Final = "refused"
DAMAGED: Final = "damaged"  # the driver, which alone writes while it lives, is asked to repair the journal
DONE: Final = "done"


@dataclass(frozen=True)
class CourierStatus:
    """What a courier says of itself in `courier.json`; `age_s` is how long ago.

    `cpu_s` is the CPU time of its process and its children so far, `startup_cpu_s` that until its first event was
    delivered: imports, and the making of a new store.
    """

    phase: str
    message: str
    pid: int
    retries: int
    lag_s: float
    age_s: float
    cpu_s: float
    startup_cpu_s: float
    progress: Progress

    @property
    def drained(self) -> bool:
        """Whether everything up to the end of the sweep is in the store."""
        return self.progress.ended and not self.progress.files_left


def read_status(directory: Path) -> CourierStatus | None:
    """Reads a courier's status, or None where it has not said anything yet."""
    try:
        state = json.loads((directory / PROGRESS_FILE).read_text())
        return CourierStatus(
            phase=state["phase"],
            message=state["message"],
            pid=state["pid"],
            retries=state["retries"],
            lag_s=state["lag_s"],
            age_s=max(0.0, time.time() - state["updated_s"]),
            cpu_s=state["cpu_s"],
            startup_cpu_s=state["startup_cpu_s"],
            progress=Progress.from_json(state["progress"]),
        )
    except (OSError, ValueError, KeyError, TypeError):  # a power cut may leave half a file: deliver again
        return None
