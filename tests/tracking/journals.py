"""Events as a driver would write them, for the tests of delivery."""

from __future__ import annotations

from typing import Any

from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.journal import Event, JournalWriter

Written = tuple[str, str, dict[str, Any]]


def opening(uri: str = "memory", **changes: Any) -> Written:
    payload = {
        "tracking_uri": uri,
        "registry_uri": None,
        "experiment_name": "tests",
        "experiment_id": None,
        "artifact_location": None,
    }
    return events.OPEN, "", {**payload, **changes}


def sweep(sweep_id: str = "s1", epoch: int = 1, **extra: Any) -> Written:
    return events.SWEEP, "", {"sweep_id": sweep_id, "epoch": epoch, "name": "sweep", "tags": {"who": "me"}, **extra}


def trial(name: str, resumed_step: int = 0, params: dict[str, str] | None = None, **extra: Any) -> Written:
    payload = {"name": f"run-{name}", "params": {"lr": "0.1"} if params is None else params, "tags": {"of": name}}
    return events.TRIAL, name, {**payload, "resumed_step": resumed_step, **extra}


def result(name: str, step: int, **metrics: float) -> Written:
    return events.RESULT, name, {"step": step, "metrics": metrics or {"loss": 1.0 / step}}


def checkpoint(name: str, step: int, uri: str, **extra: Any) -> Written:
    payload = {"name": f"run-{name}", "uri": uri, "step": step, "iteration": step, "metrics": {"loss": 1.0 / step}}
    return events.CHECKPOINT, name, {**payload, **extra}


def trial_end(name: str, status: str = "FINISHED", **extra: Any) -> Written:
    return events.TRIAL_END, name, {"status": status, "tags": {}, "folders": {}, **extra}


def sweep_end(status: str = "FINISHED") -> Written:
    return events.SWEEP_END, "", {"status": status, "tags": {}}


def numbered(written: list[Written], start_ms: int = 1_000_000) -> list[Event]:
    return [Event(seq, start_ms + seq, *event) for seq, event in enumerate(written, start=1)]


def write(writer: JournalWriter, written: list[Written], start_ms: int = 1_000_000) -> None:
    for kind, name, payload in written:
        writer.append(kind, name, payload, time_ms=start_ms + writer.last_seq + 1)
