"""A session of manual runs as one process has it: its journal, its courier, its part in a parent run others may share.

A session is known by its name, so that every process that gives the same name in the same experiment has the same
parent run, without asking anybody.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking import courier_status, events
from drl_ray_tracking.tracking.checkpoint_policy import CheckpointWishes
from drl_ray_tracking.tracking.identity import person_and_code, working_diff
from drl_ray_tracking.tracking.locks import join_sweep, release
from drl_ray_tracking.tracking.spool import Spool
from drl_ray_tracking.tracking.target import Target
from drl_ray_tracking.trials.redaction import redact


@dataclass(frozen=True)
class SessionWishes:
    """What every session of one service has in common."""

    target: Target
    experiment: str
    tags: Mapping[str, str]
    checkpoints: CheckpointWishes
    secrets: Sequence[str]
    drain_timeout_s: float


class Session:
    """This process's part in a session: everything its runs say goes into one journal."""

    def __init__(self, name: str, sweep_id: str, wishes: SessionWishes) -> None:
        """Opens a journal, starts its courier and announces the parent run.

        Raises:
            ConfigurationError: the journal cannot be kept.
        """
        self.name = name
        self.sweep_id = sweep_id
        self.wishes = wishes
        self._pid = os.getpid()
        self.spool = Spool.open(
            events.Open(
                tracking_uri=wishes.target.uri,
                registry_uri=None,
                experiment_name=wishes.experiment,
                experiment_id=None,
                artifact_location=wishes.target.artifact_root,
            ),
            credentials=wishes.target.credentials,
        )
        self._part: int | None = join_sweep(sweep_id)
        tags = {**wishes.tags, **here(), names.TAG_MANUAL: "true", names.TAG_SESSION: name}
        payload = events.Sweep(
            sweep_id=sweep_id,
            epoch=1,
            name=name,
            tags=redact(tags, wishes.secrets),
            checkpoints=wishes.checkpoints.policy(),
        )
        diff = working_diff(wishes.secrets)
        if diff:
            payload["diff"] = diff
        self.spool.append(events.SWEEP, "", payload)

    @property
    def is_mine(self) -> bool:
        """Whether this is the process that opened it, not a fork of it."""
        return os.getpid() == self._pid

    def append(self, kind: str, trial: str, payload: Any) -> int:
        """Writes one event.

        Raises:
            ConfigurationError: a forked process has no part in its parent's journal.
        """
        if not self.is_mine:
            raise ConfigurationError(
                f"session {self.name!r} belongs to process {self._pid}, this is its fork {os.getpid()}: make an "
                f"ExperimentService(session={self.name!r}) of its own here, its runs join the same parent run"
            )
        return self.spool.append(kind, trial, payload)

    def run_ids(self) -> Mapping[str, str]:
        """Returns the ids in the store of the runs that have arrived there, by their own; '' is the parent run."""
        status = self.spool.final_status or self.spool.status()
        return status.progress.runs if status is not None else {}

    def wait(self, seq: int) -> bool:
        """Waits within bounds until an event is in the store; returns at once where the store is out of reach.

        An event that could not be written down yet has number 0.
        """
        done = self.spool.wait_for(
            lambda now: now.progress.acked >= seq or now.phase in (courier_status.REFUSED, courier_status.RETRYING),
            timeout_s=self.wishes.drain_timeout_s,
        )
        return seq > 0 and done is not None and done.progress.acked >= seq

    def close(self, status: str) -> bool:
        """Takes this process's part back, waits for delivery within bounds; returns whether all has arrived."""
        if not self.is_mine or self._part is None:
            return True
        # Before the last word: its own courier must not take this process for another that stays.
        release(self._part)
        self._part = None
        self.spool.append(events.SWEEP_END, "", events.SweepEnd(status=status, tags={}))
        return self.spool.close(self.wishes.drain_timeout_s)


def session_id(experiment: str, name: str) -> str:
    """Returns the sweep id of a session by its name: the same in every process."""
    return hashlib.sha256(f"session\0{experiment}\0{name}".encode()).hexdigest()[:32]


def new_session_name() -> str:
    """Returns a name nobody else has: the script's, or `notebook`, and some letters."""
    stem = "notebook" if _in_notebook() else Path(sys.argv[0] or "session").stem or "session"
    return f"{'session' if stem == '-c' else stem}-{uuid.uuid4().hex[:8]}"


def here() -> dict[str, str]:
    """Returns who runs what, where."""
    script = Path(sys.argv[0]).resolve() if sys.argv and sys.argv[0] else Path.cwd()
    tags = {"mlflow.source.type": "LOCAL", names.TAG_NODE: platform.node()}
    if _in_notebook():
        script = Path(os.environ.get("JPY_SESSION_NAME") or Path.cwd())
        tags["mlflow.source.type"] = "NOTEBOOK"
    return {**tags, **person_and_code(script)}


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules
