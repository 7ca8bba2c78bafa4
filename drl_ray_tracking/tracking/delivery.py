"""Turns journal events into sink calls: order kept per run, values coalesced, failures told apart.

Pure of processes, clocks and networks: the courier owns those. `Delivery.deliver` may be repeated with
events it has already delivered; nothing changes then.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.journal import Event
from drl_ray_tracking.tracking.sink import MetricPoint, RunSpec, Sink, SinkRefusedError

_log = logging.getLogger(__name__)
FLUSH_POINTS: Final = 1000

Fetch = Callable[[str, str, Path], Path | None]  # (artifact folder, source, scratch) -> local folder


@dataclass
class Progress:
    """What has been delivered; survives the courier as JSON beside the journal."""

    acked: int = 0
    experiment_id: str | None = None
    sweep_id: str | None = None
    parent_run_id: str | None = None
    runs: dict[str, str] = field(default_factory=dict)  # trial id -> run id, open or ended
    open_trials: list[str] = field(default_factory=list)
    attempts: dict[str, list[list[int]]] = field(default_factory=dict)  # trial id -> [attempt, ms, step]
    refused: dict[str, str] = field(default_factory=dict)  # trial id -> why its run takes nothing more
    uploads: list[int] = field(default_factory=list)  # events whose files are still to be uploaded
    points: int = 0
    ended: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON that `from_json` restores."""
        return asdict(self)

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Progress:
        """Restores what `to_json` returned; unknown keys are ignored."""
        known = {key: value for key, value in state.items() if key in cls.__dataclass_fields__}
        return cls(**known)


class Delivery:
    """Delivers a journal's events to a sink, in order, and keeps the score in `progress`."""

    def __init__(self, sink: Sink, progress: Progress, fetch: Fetch) -> None:
        self._sink = sink
        self._fetch = fetch
        self.progress = progress
        self._pending: dict[str, list[MetricPoint]] = {}

    def deliver(self, batch: Sequence[Event]) -> None:
        """Delivers a batch and acknowledges it.

        Raises:
            SinkUnavailableError: nothing of the batch counts as delivered; call again with the same batch.
            SinkRefusedError: the store refuses the experiment or the parent run: nothing can be delivered.
        """
        if not batch:
            return
        self._pending.clear()
        for event in batch:
            self._handle(event)
        for trial in list(self._pending):
            self._flush(trial)
        self.progress.acked = batch[-1].seq

    def close_open_runs(self, status: str, end_ms: int) -> None:
        """Sets the status of every run that is still open: the driver can no longer do it."""
        self._close_open_trials(status, end_ms)
        if self.progress.parent_run_id is not None and not self.progress.ended:
            self._sink.set_status(self.progress.parent_run_id, status, end_ms)
        self.progress.ended = True

    def upload(self, read: Callable[[int], Event | None]) -> None:
        """Uploads the files of events delivered before; what fails stays in `progress.uploads`.

        Files go their own way, so that a broken artifact store never holds up metrics.

        Raises:
            SinkUnavailableError: the artifact store did not take one of them; call again later.
        """
        for seq in list(self.progress.uploads):
            event = read(seq)
            if event is not None:
                self._upload(event)
            self.progress.uploads.remove(seq)

    def report_health(self, metrics: dict[str, float], time_ms: int, step: int) -> None:
        """Writes the tracker's own health on the parent run, where there is one."""
        if self.progress.parent_run_id is not None:
            points = [MetricPoint(key, value, time_ms, step) for key, value in metrics.items()]
            self._sink.log(self.progress.parent_run_id, metrics=points)

    def _handle(self, event: Event) -> None:
        payload: Any = event.payload
        if event.kind == events.OPEN:
            self._open(payload)
        elif event.kind == events.SWEEP:
            self._sweep(event, payload)
        elif event.kind == events.TRIAL:
            self._trial(event, payload)
        elif event.kind == events.RESULT:
            self._result(event, payload)
        elif event.kind == events.HPARAMS:
            self._hparams(event, payload)
        elif event.kind == events.TRIAL_END:
            self._trial_end(event, payload)
        elif event.kind == events.SWEEP_END:
            self._sweep_end(event, payload)
        else:
            _log.warning("event %d is of an unknown kind %r: left out", event.seq, event.kind)

    def _open(self, payload: events.Open) -> None:
        self.progress.experiment_id = self._sink.open_experiment(
            payload["experiment_name"], payload["experiment_id"], payload["artifact_location"]
        )

    def _sweep(self, event: Event, payload: events.Sweep) -> None:
        self.progress.sweep_id = payload["sweep_id"]
        tags = {**payload["tags"], names.TAG_EPOCH: str(payload["epoch"])}
        identity = {names.TAG_SWEEP_ID: payload["sweep_id"], names.TAG_ROLE: names.ROLE_SWEEP}
        spec = RunSpec(payload["name"], identity, tags, event.time_ms)
        assert self.progress.experiment_id is not None, "the journal's first event opens the experiment"
        self.progress.parent_run_id = self._sink.open_run(self.progress.experiment_id, spec)
        self.progress.ended = False
        if payload.get("diff"):
            self._upload_later(event)

    def _trial(self, event: Event, payload: events.Trial) -> None:
        trial = event.trial
        assert self.progress.experiment_id is not None and self.progress.sweep_id is not None
        attempts = self.progress.attempts.setdefault(trial, [])
        attempt = [payload["attempt"], event.time_ms, payload["resumed_step"]]
        if attempt not in attempts:
            attempts.append(attempt)
        identity = {
            names.TAG_SWEEP_ID: self.progress.sweep_id,
            names.TAG_TRIAL_ID: trial,
            names.TAG_ROLE: names.ROLE_TRIAL,
        }
        tags = {**payload["tags"], names.TAG_ATTEMPTS: json.dumps(attempts)}
        spec = RunSpec(payload["name"], identity, tags, event.time_ms, self.progress.parent_run_id)
        self.progress.runs[trial] = self._sink.open_run(self.progress.experiment_id, spec)
        if trial not in self.progress.open_trials:
            self.progress.open_trials.append(trial)
        self._params(trial, payload["params"])
        if "config" in payload:
            self._upload_later(event)

    def _result(self, event: Event, payload: events.Result) -> None:
        points = self._pending.setdefault(event.trial, [])
        step = payload["step"]
        points.extend(MetricPoint(key, value, event.time_ms, step) for key, value in payload["metrics"].items())
        if len(points) >= FLUSH_POINTS:
            self._flush(event.trial)

    def _hparams(self, event: Event, payload: events.Hparams) -> None:
        points = []
        tags = {}
        for key, value in payload["changed"].items():
            tags[f"hparam.{key}"] = value
            try:
                number = names.finite(float(value))
            except ValueError:
                number = None
            if number is not None:
                points.append(MetricPoint(f"hparam/{key}", number, event.time_ms, payload["step"]))
        self._guarded(event.trial, lambda run_id: self._sink.log(run_id, metrics=points, tags=tags))

    def _trial_end(self, event: Event, payload: events.TrialEnd) -> None:
        trial = event.trial
        self._flush(trial)
        self._params(trial, payload.get("params", {}))
        if payload["folders"] or "traceback" in payload:
            self._upload_later(event)
        self._guarded(trial, lambda run_id: self._sink.log(run_id, tags=payload["tags"]))
        self._guarded(trial, lambda run_id: self._sink.set_status(run_id, payload["status"], event.time_ms))
        if trial in self.progress.open_trials:
            self.progress.open_trials.remove(trial)

    def _sweep_end(self, event: Event, payload: events.SweepEnd) -> None:
        for trial in list(self._pending):
            self._flush(trial)
        self._close_open_trials("KILLED", event.time_ms)
        if self.progress.parent_run_id is not None:
            self._sink.log(self.progress.parent_run_id, tags=payload["tags"])
            self._sink.set_status(self.progress.parent_run_id, payload["status"], event.time_ms)
        self.progress.ended = True

    def _upload_later(self, event: Event) -> None:
        if event.seq not in self.progress.uploads:
            self.progress.uploads.append(event.seq)

    def _upload(self, event: Event) -> None:
        payload: Any = event.payload
        trial = event.trial
        if event.kind == events.SWEEP and self.progress.parent_run_id is not None:
            self._sink.log_text(self.progress.parent_run_id, payload["diff"], names.DIFF_ARTIFACT)
        elif event.kind == events.TRIAL:
            text = json.dumps(payload["config"], indent=1, sort_keys=True)
            self._guarded(trial, lambda run_id: self._sink.log_text(run_id, text, names.CONFIG_ARTIFACT))
        elif event.kind == events.TRIAL_END:
            if "traceback" in payload:
                error = payload["traceback"]
                self._guarded(trial, lambda run_id: self._sink.log_text(run_id, error, names.ERROR_ARTIFACT))
            for folder, source in payload["folders"].items():
                self._upload_folder(trial, folder, source)

    def _upload_folder(self, trial: str, folder: str, source: str) -> None:
        with tempfile.TemporaryDirectory(prefix="drl-track-") as scratch:
            local = self._fetch(folder, source, Path(scratch))
            if local is not None:
                self._guarded(trial, lambda run_id: self._sink.log_folder(run_id, local, folder))

    def _close_open_trials(self, status: str, end_ms: int) -> None:
        for trial in list(self.progress.open_trials):
            self._guarded(trial, lambda run_id: self._sink.set_status(run_id, status, end_ms))
            self.progress.open_trials.remove(trial)

    def _flush(self, trial: str) -> None:
        points = self._pending.pop(trial, [])
        if points:
            self._guarded(trial, lambda run_id: self._sink.log(run_id, metrics=points))
            self.progress.points += len(points)

    def _params(self, trial: str, params: dict[str, str]) -> None:
        run_id = self.progress.runs.get(trial)
        if not params or run_id is None or trial in self.progress.refused:
            return
        try:
            self._sink.log(run_id, params=params)
        except SinkRefusedError as error:
            # Parameters cannot change in MLflow; after PBT or an edited restore the first ones stay.
            _log.warning("parameters of trial %s stay as they were: %s", trial, error)

    def _guarded(self, trial: str, call: Callable[[str], None]) -> None:
        """Runs a call on a trial's run; a run that refuses for good is given up, the others flow on."""
        run_id = self.progress.runs.get(trial)
        if run_id is None or trial in self.progress.refused:
            return
        try:
            call(run_id)
        except SinkRefusedError as error:
            _log.error("run %s of trial %s takes nothing more: %s", run_id, trial, error)
            self.progress.refused[trial] = str(error)
