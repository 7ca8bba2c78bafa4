"""Turns journal events into sink calls: order kept per run, values coalesced, failures told apart.

Pure of processes, clocks and networks: the courier owns those. `Delivery.deliver` may be repeated with
events it has already delivered; nothing changes then.

A run belongs to the latest driver that opened it (tag `drl.epoch`). A courier of an earlier driver may
still be draining after a restore: it adds what is missing, but changes no status and no other tag.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.journal import Event
from drl_ray_tracking.tracking.sink import MetricPoint, RunSpec, Sink, SinkRefusedError, SinkUnavailableError

_log = logging.getLogger(__name__)
FLUSH_POINTS: Final = 1000

SWEEP_RUN: Final = ""  # stands for the parent run where a trial id stands for a child

Fetch = Callable[[str, str, Path], Path | None]  # (artifact folder, source, scratch) -> local folder
Recall = Callable[[str, int, int], Iterable[Event]]  # (trial, first, last) -> its held results, in order
_LONGEST_NAME: Final = 250
_LINEAGE_LIMIT: Final = 7_500  # characters; a longer tag would be cut into something that is no JSON


@dataclass
class Progress:
    """What has been delivered; survives the courier as JSON beside the journal."""

    acked: int = 0
    experiment_id: str | None = None
    sweep_id: str | None = None
    epoch: int = 0
    runs: dict[str, str] = field(default_factory=dict)  # trial id, or SWEEP_RUN -> run id, open or ended
    open_trials: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # trial id, or SWEEP_RUN -> why its run takes nothing
    uploads: list[int] = field(default_factory=list)  # events whose files are still to be uploaded
    malformed: int = 0  # events that could not be understood
    held: dict[str, int] = field(default_factory=dict)  # trial -> its first event that waits for a checkpoint
    losses: dict[str, int] = field(default_factory=dict)  # LOSS event -> how many events it says are gone
    opening: dict[str, Any] | None = None  # where to deliver, should the event that says it be damaged
    points: int = 0  # sent, repeated ones included
    ended: bool = False

    @property
    def lost(self) -> int:
        """How many events never came into the journal, or were damaged in it."""
        return sum(self.losses.values())

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

    def __init__(
        self,
        sink: Sink,
        progress: Progress,
        fetch: Fetch,
        exclusive: Callable[[str], AbstractContextManager[object]] = nullcontext,
        recall: Recall = lambda trial, first, last: (),
    ) -> None:
        """Takes what it delivers to and what it remembers.

        Args:
            sink: the store.
            progress: where an earlier delivery of this journal stopped.
            fetch: brings files to this machine.
            exclusive: makes looking for a sweep's run and creating it one step among this machine's couriers.
            recall: reads a trial's held results once a checkpoint covers them.
        """
        self._sink = sink
        self._fetch = fetch
        self._exclusive = exclusive
        self._recall = recall
        self.progress = progress
        self._pending: dict[str, tuple[int, list[MetricPoint]]] = {}  # trial -> (first event, points)
        self._seen = 0

    def deliver(self, batch: Sequence[Event]) -> None:
        """Delivers the events that follow `progress.acked` and acknowledges them as they arrive.

        Raises:
            SinkUnavailableError: what is acknowledged has arrived; call again with what follows it.
            SinkRefusedError: the store refuses the experiment or the parent run: nothing can be delivered.
        """
        self._pending.clear()
        for event in batch:
            try:
                self._handle(event)
            except (SinkUnavailableError, SinkRefusedError):
                raise
            except Exception:  # noqa: BLE001 - one event of another version must not hold up the rest
                _log.exception("event %d (%s) is malformed: left out", event.seq, event.kind)
                self.progress.malformed += 1
            self._seen = event.seq
            self._acknowledge()
        for trial in list(self._pending):
            self._flush(trial)
            self._acknowledge()

    def _acknowledge(self) -> None:
        # Up to the oldest event that still waits. Whole batches would never get through a server that
        # fails every third request.
        waiting = min((first for first, _ in self._pending.values()), default=self._seen + 1)
        self.progress.acked = max(self.progress.acked, waiting - 1)

    def close_open_runs(self, status: str, end_ms: int) -> None:
        """Sets the status of every run that is still open: the driver can no longer do it."""
        tags = {names.TAG_END_REASON: names.END_DRIVER_DIED}
        self._close_open_trials(status, end_ms, tags)
        if not self.progress.ended:
            self._end_run(SWEEP_RUN, status, end_ms, tags)
        self.progress.ended = True

    def upload_next(self, read: Callable[[int], Event | None]) -> None:
        """Uploads the files of the event that has waited longest.

        Files go their own way, one event at a time, so that a broken artifact store never holds up metrics.

        Raises:
            SinkUnavailableError: the files cannot be had or sent now; the event goes to the end of the queue.
            SinkRefusedError: the experiment is refused; the event stays in the queue.
        """
        seq = self.progress.uploads[0]
        try:
            event = read(seq)
            if event is not None:
                self._upload(event)
        except (SinkUnavailableError, OSError) as error:
            self.progress.uploads.append(self.progress.uploads.pop(0))
            raise SinkUnavailableError(f"files of event {seq}: {error}") from error
        except SinkRefusedError:
            raise
        except Exception:  # noqa: BLE001 - a broken file must not hold up the others
            _log.exception("the files of event %d cannot be uploaded: left out", seq)
            self.progress.malformed += 1
        self.progress.uploads.remove(seq)

    def report_health(self, metrics: dict[str, float], time_ms: int, step: int) -> None:
        """Writes the tracker's own health and its heartbeat on the parent run, where there is one.

        A sweep that was taken for dead while its courier could not reach the store is opened again.
        """
        points = [MetricPoint(key, value, time_ms, step) for key, value in metrics.items()]

        def report(run_id: str) -> None:
            tags = self._sink.read_tags(run_id)
            if not self._owns(tags):
                return  # the heartbeat is that of the latest driver's courier
            self._sink.log(run_id, metrics=points, tags={names.TAG_HEARTBEAT: str(time_ms)})
            if tags.get(names.TAG_END_REASON) == names.END_RECONCILED and not self.progress.ended:
                self._take_back()

        self._guarded(SWEEP_RUN, report)

    def _take_back(self) -> None:
        tags = {names.TAG_END_REASON: names.END_NOT_YET}
        for trial in [*self.progress.open_trials, SWEEP_RUN]:
            self._guarded(trial, lambda run_id: self._sink.reopen_run(run_id, tags))

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
        elif event.kind == events.HELD:
            self.progress.held.setdefault(event.trial, event.seq)
        elif event.kind == events.RELEASE:
            self._release(event, payload)
        elif event.kind == events.HPARAMS:
            self._hparams(event, payload)
        elif event.kind == events.LOSS:
            self._loss(event, payload)
        elif event.kind == events.TRIAL_END:
            self._trial_end(event, payload)
        elif event.kind == events.SWEEP_END:
            self._sweep_end(event, payload)
        else:
            _log.warning("event %d is of an unknown kind %r: left out", event.seq, event.kind)

    def _open(self, payload: events.Open) -> None:
        self.progress.opening = dict(payload)
        self.progress.experiment_id = self._sink.open_experiment(
            payload["experiment_name"], payload["experiment_id"], payload["artifact_location"]
        )

    def _sweep(self, event: Event, payload: events.Sweep) -> None:
        self.progress.sweep_id = payload["sweep_id"]
        self.progress.epoch = payload["epoch"]
        self.progress.runs[SWEEP_RUN] = self._open_run(
            RunSpec(payload["name"], self._identity(names.ROLE_SWEEP), payload["tags"], event.time_ms), {}
        )
        self.progress.ended = False
        if payload.get("diff"):
            self._upload_later(event)

    def _trial(self, event: Event, payload: events.Trial) -> None:
        trial = event.trial
        self.progress.held.pop(trial, None)  # it starts again from a checkpoint: what that lacks is superseded
        if trial in self.progress.refused:
            return
        identity = self._identity(names.ROLE_TRIAL) | {names.TAG_TRIAL_ID: trial}
        parent = self.progress.runs.get(SWEEP_RUN)
        spec = RunSpec(payload["name"], identity, payload["tags"], event.time_ms, parent)
        try:
            run_id = self._open_run(spec, {event.time_ms: payload["resumed_step"]})
        except SinkRefusedError as error:
            self._give_up(trial, error)
            return
        self.progress.runs[trial] = run_id
        if trial not in self.progress.open_trials:
            self.progress.open_trials.append(trial)
        self._params(trial, payload["params"])
        if "config" in payload:
            self._upload_later(event)

    def _identity(self, role: str) -> dict[str, str]:
        if self.progress.sweep_id is None:
            raise ValueError("the journal lacks the event that names its sweep")
        return {names.TAG_SWEEP_ID: self.progress.sweep_id, names.TAG_ROLE: role}

    def _open_run(self, spec: RunSpec, attempt: Mapping[int, int]) -> str:
        """Finds the run, or makes it; `attempt` maps when it started (Unix ms) to the step it resumed from."""
        experiment_id, sweep_id = self.progress.experiment_id, self.progress.sweep_id
        if experiment_id is None or sweep_id is None:
            raise ValueError("the journal lacks the event that opens its experiment")
        with self._exclusive(sweep_id):
            found = self._sink.find_run(experiment_id, spec.identity)
            attempts = _merged_attempts(found.tags if found else {}, attempt)
            tags = {**spec.tags, **attempts, names.TAG_EPOCH: str(self.progress.epoch)}
            if found is None:
                return self._sink.create_run(experiment_id, replace(spec, tags=tags))
            if self._owns(found.tags):
                self._sink.reopen_run(found.run_id, tags)
            elif attempts:
                self._sink.log(found.run_id, tags=attempts)
            return found.run_id

    def _owns(self, tags: Mapping[str, str]) -> bool:
        """Tells whether no later driver has opened the run with these tags."""
        epoch = tags.get(names.TAG_EPOCH, "")
        return not epoch.isdecimal() or int(epoch) <= self.progress.epoch

    def _result(self, event: Event, payload: events.Result) -> None:
        _, points = self._pending.setdefault(event.trial, (event.seq, []))
        step = payload["step"]
        points.extend(MetricPoint(key, value, event.time_ms, step) for key, value in payload["metrics"].items())
        if "tags" in payload:
            alerts = payload["tags"]
            self._guarded(event.trial, lambda run_id: self._sink.log(run_id, tags=alerts))
        if len(points) >= FLUSH_POINTS:
            self._flush(event.trial)

    def _release(self, event: Event, payload: events.Release) -> None:
        trial, upto = event.trial, payload["upto"]
        if trial not in self.progress.held:
            return
        for held in self._recall(trial, self.progress.held[trial], upto):
            self._result(held, held.payload)  # type: ignore[arg-type]  # a HELD event carries a Result
        self._flush(trial)  # before the journal may let go of them
        self.progress.held[trial] = upto + 1

    def _hparams(self, event: Event, payload: events.Hparams) -> None:
        changed, step = payload["changed"], payload["step"]
        points = _hparam_points(payload.get("initial", {}), event.time_ms, 0)
        points += _hparam_points(changed, event.time_ms, step)
        tags = {f"hparam.{key}": value for key, value in changed.items()}
        entry = [event.time_ms, step, payload.get("donor", ""), sorted(changed)]

        def write(run_id: str) -> None:
            lineage = _merged_lineage(self._sink.read_tags(run_id).get(names.TAG_LINEAGE, "[]"), entry)
            self._sink.log(run_id, metrics=points, tags={**tags, names.TAG_LINEAGE: lineage})

        self._guarded(event.trial, write)

    def _loss(self, event: Event, payload: events.Loss) -> None:
        self.progress.losses[str(event.seq)] = payload["count"]
        total = self.progress.lost
        said = f"{total or 'an unknown number of'} events lost: {payload['reason']}"
        point = MetricPoint("tracker/lost_events", float(total), event.time_ms, event.seq)
        tags = {names.TAG_DEGRADED: said}
        self._guarded(SWEEP_RUN, lambda run_id: self._sink.log(run_id, metrics=[point], tags=tags))

    def _trial_end(self, event: Event, payload: events.TrialEnd) -> None:
        trial = event.trial
        self.progress.held.pop(trial, None)
        self._flush(trial)
        self._params(trial, payload.get("params", {}))
        if payload["folders"] or "traceback" in payload:
            self._upload_later(event)
        self._end_run(trial, payload["status"], event.time_ms, payload["tags"])
        if trial in self.progress.open_trials:
            self.progress.open_trials.remove(trial)

    def _sweep_end(self, event: Event, payload: events.SweepEnd) -> None:
        for trial in list(self._pending):
            self._flush(trial)
        self._close_open_trials("KILLED", event.time_ms, {})
        self._end_run(SWEEP_RUN, payload["status"], event.time_ms, payload["tags"])
        self.progress.ended = True

    def _end_run(self, trial: str, status: str, end_ms: int, tags: Mapping[str, str]) -> None:
        def end(run_id: str) -> None:
            if self._owns(self._sink.read_tags(run_id)):
                self._sink.log(run_id, tags=tags)
                self._sink.set_status(run_id, status, end_ms)

        self._guarded(trial, end)

    def _upload_later(self, event: Event) -> None:
        if event.seq not in self.progress.uploads:
            self.progress.uploads.append(event.seq)

    def _upload(self, event: Event) -> None:
        payload: Any = event.payload
        trial = event.trial
        if event.kind == events.SWEEP:
            self._guarded(trial, lambda run_id: self._sink.log_text(run_id, payload["diff"], names.DIFF_ARTIFACT))
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

    def _close_open_trials(self, status: str, end_ms: int, tags: Mapping[str, str]) -> None:
        for trial in list(self.progress.open_trials):
            self._end_run(trial, status, end_ms, tags)
            self.progress.open_trials.remove(trial)

    def _flush(self, trial: str) -> None:
        if trial in self._pending:
            _, points = self._pending[trial]
            self._guarded(trial, lambda run_id: self._sink.log(run_id, metrics=points))
            del self._pending[trial]
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
            self._give_up(trial, error)

    def _give_up(self, trial: str, error: SinkRefusedError) -> None:
        """Marks a run that takes nothing more.

        Raises:
            SinkRefusedError: the experiment itself is refused, and with it every run: then nothing is given
                up, everything waits until it is restored.
        """
        self._sink.open_experiment(None, self.progress.experiment_id, None)
        _log.error("the run of %s takes nothing more: %s", f"trial {trial}" if trial else "the sweep", error)
        self.progress.refused[trial] = str(error)


def _hparam_points(values: Mapping[str, str], time_ms: int, step: int) -> list[MetricPoint]:
    """Returns the points of those hyperparameters that are numbers."""
    points = []
    for key, value in values.items():
        try:
            number = names.finite(float(value))
        except ValueError:
            continue
        if number is not None:
            points.append(MetricPoint(_hparam_name(key), number, time_ms, step))
    return points


def _hparam_name(key: str) -> str:
    name = f"hparam/{key}"  # the key is legal; with the prefix it may be too long
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 9]}-{names.hash_text(name):08x}"


def _merged_lineage(tag: str, entry: list[Any]) -> str:
    """Returns the lineage tag with one more entry, in order of time, the oldest left out where it gets too long."""
    try:
        known = {int(old[0]): old for old in json.loads(tag)}
    except (ValueError, TypeError, LookupError):  # somebody edited the tag
        known = {}
    merged = [one for _, one in sorted({**known, int(entry[0]): entry}.items())]
    while len(text := json.dumps(merged)) > _LINEAGE_LIMIT and len(merged) > 1:
        del merged[0]
    return text


def _merged_attempts(tags: Mapping[str, str], attempt: Mapping[int, int]) -> dict[str, str]:
    """Returns the tag that lists every attempt as [number, started_ms, resumed_step], earlier drivers' included."""
    if not attempt:
        return {}
    try:
        known = {int(started): int(step) for _, started, step in json.loads(tags.get(names.TAG_ATTEMPTS, "[]"))}
    except (ValueError, TypeError):  # somebody edited the tag
        known = {}
    merged = sorted({**known, **attempt}.items())
    return {names.TAG_ATTEMPTS: json.dumps([[number, *pair] for number, pair in enumerate(merged, start=1)])}
