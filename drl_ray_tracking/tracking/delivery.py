"""Turns journal events into sink calls: order kept per run, values coalesced, failures told apart.

Pure of processes, clocks and networks: the courier owns those. `Delivery.deliver` may be repeated with
events it has already delivered; nothing changes then. Which run an event belongs to is `runs`, what has files
is `uploads`, what has arrived is `progress`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import JournalError
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.episode_pools import EpisodePools
from drl_ray_tracking.tracking.growing_tags import merged_lineage
from drl_ray_tracking.tracking.histories import Histories
from drl_ray_tracking.tracking.journal import Event
from drl_ray_tracking.tracking.painter import Painter
from drl_ray_tracking.tracking.parameters import Parameters
from drl_ray_tracking.tracking.progress import SWEEP_RUN, Progress
from drl_ray_tracking.tracking.runs import FOLD, Exclusive, Runs
from drl_ray_tracking.tracking.sealing import Sealing
from drl_ray_tracking.tracking.sink import MetricPoint, RunSpec, Sink, SinkRefusedError, SinkUnavailableError
from drl_ray_tracking.tracking.uploads import Fetch, Read, Uploads

_log = logging.getLogger(__name__)
FLUSH_POINTS: Final = 1000
_ON_FOLDS: Final = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", names.TAG_SWEEP_RUN)

Recall = Callable[[str, int, int], Iterable[Event]]  # (trial, first, last) -> its held results, in order


class Delivery:
    """Delivers a journal's events to a sink, in order, and keeps the score in `progress`."""

    def __init__(
        self,
        sink: Sink,
        progress: Progress,
        fetch: Fetch,
        exclusive: Exclusive = nullcontext,
        recall: Recall = lambda trial, first, last: (),
        painter: Painter | None = None,
        histories: Histories | None = None,
        recall_episodes: Recall = lambda trial, first, last: (),
        is_shared: Callable[[str], bool] = lambda sweep_id: False,
    ) -> None:
        """Takes what it delivers to and what it remembers.

        Args:
            sink: the store.
            progress: where an earlier delivery of this journal stopped.
            fetch: brings files to this machine.
            exclusive: makes looking for a sweep's run and creating it one step among this machine's couriers.
            recall: reads a trial's held results once a checkpoint covers them.
            painter: draws the pictures of ended trials; None draws none.
            histories: keeps what was delivered of a trial, to be one file of its run; None leaves that file out.
            recall_episodes: reads a manual run's episodes once a pool of them is complete.
            is_shared: tells whether another process on this machine has a part in a sweep.
        """
        self._sink = sink
        self._recall = recall
        self.progress = progress
        self._runs = Runs(sink, progress, exclusive, is_shared)
        self._params = Parameters(sink, progress, self._runs)
        self._sealing = Sealing(sink, progress, self._runs, histories)
        self._uploads = Uploads(sink, progress, self._runs, fetch, painter, self._sealing)
        self._pools = EpisodePools(progress, recall_episodes, self._send, self._runs.left_out)
        self._pending: dict[str, tuple[int, list[MetricPoint]]] = {}  # trial -> (first event, points)
        self._seen = 0
        self._handlers: dict[str, Callable[[Event, Any], None]] = {
            events.OPEN: self._open,
            events.SWEEP: self._sweep,
            events.TRIAL: self._trial,
            events.RESULT: self._result,
            events.HELD: self._held,
            events.EPISODE: self._episode,
            events.RELEASE: self._release,
            events.HPARAMS: self._hparams,
            events.CHECKPOINT: self._checkpoint,
            events.FILES: self._files,
            events.LOSS: self._loss,
            events.TRIAL_END: self._trial_end,
            events.SWEEP_END: self._sweep_end,
        }

    def deliver(self, batch: Sequence[Event]) -> None:
        """Delivers the events that follow `progress.acked` and acknowledges them as they arrive.

        Raises:
            SinkUnavailableError: what is acknowledged has arrived; call again with what follows it.
            SinkRefusedError: the store refuses the experiment or the parent run: nothing can be delivered.
            JournalError: events that had waited in the journal cannot be read again.
        """
        self._pending.clear()
        for event in batch:
            self.progress.last_ms = max(self.progress.last_ms, event.time_ms)
            try:
                self._handle(event)
            except (SinkUnavailableError, SinkRefusedError, JournalError):
                raise
            except OSError as error:  # no descriptor, no room for a lock: it passes
                raise SinkUnavailableError(f"event {event.seq} ({event.kind}): {error}") from error
            except Exception as error:  # noqa: BLE001 - one event of another version must not hold up the rest
                _log.exception("event %d (%s) is malformed: left out", event.seq, event.kind)
                self._runs.left_out(f"event {event.seq} ({event.kind}) is malformed: {type(error).__name__}: {error}")
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
            self._end_folds(status, end_ms, tags)
            self._runs.end_sweep(status, end_ms, tags)
        self.progress.ended = True

    def upload_next(self, read: Read, *, may_draw: bool = True) -> bool:
        """Uploads what has waited longest and returns whether anything was done, see `Uploads.next`."""
        return self._uploads.next(read, may_draw=may_draw)

    def look_for_files(self) -> None:
        """Sends what running trials have attached to their runs since the last look, see `Uploads.look`."""
        self._uploads.look()

    def report_health(self, metrics: dict[str, float], time_ms: int, step: int) -> None:
        """Writes the tracker's own health and its heartbeat on the parent run, where there is one.

        A sweep that was taken for dead while its courier could not reach the store is opened again.
        """
        points = [MetricPoint(key, value, time_ms, step) for key, value in metrics.items()]

        def report(run_id: str) -> None:
            with self._runs.alone():
                tags = self._sink.read_tags(run_id)
                if not self._runs.owns(SWEEP_RUN, tags):
                    return  # the heartbeat is that of the latest driver's courier
                self._sink.log(run_id, metrics=points, tags={names.TAG_HEARTBEAT: str(time_ms)})
                if tags.get(names.TAG_END_REASON) == names.END_RECONCILED and not self.progress.ended:
                    self._runs.take_back()

        self._runs.guarded(SWEEP_RUN, report)

    # --- one event each ------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        handler = self._handlers.get(event.kind)
        if handler is None:
            _log.warning("event %d is of an unknown kind %r: left out", event.seq, event.kind)
        else:
            handler(event, event.payload)

    def _open(self, event: Event, payload: events.Open) -> None:
        self.progress.opening = dict(payload)
        self.progress.experiment_id = self._sink.open_experiment(
            payload["experiment_name"], payload["experiment_id"], payload["artifact_location"]
        )

    def _sweep(self, event: Event, payload: events.Sweep) -> None:
        self.progress.sweep_id = payload["sweep_id"]
        self.progress.epoch = payload["epoch"]
        self.progress.checkpoints.policy(payload.get("checkpoints"))
        self.progress.pictures = bool(payload.get("pictures"))
        self.progress.session = names.TAG_MANUAL in payload["tags"]
        spec = RunSpec(payload["name"], self._runs.identity(names.ROLE_SWEEP), payload["tags"], event.time_ms)
        self.progress.runs[SWEEP_RUN], _ = self._runs.open(SWEEP_RUN, spec, {})
        self.progress.ended = False
        if payload.get("diff") or payload.get("texts"):
            self._uploads.later(event)

    def _trial(self, event: Event, payload: events.Trial) -> None:
        trial = event.trial
        self.progress.held.pop(trial, None)  # it starts again from a checkpoint: what that lacks is superseded
        if trial in self.progress.refused:
            return
        identity = self._runs.identity(names.ROLE_TRIAL) | {names.TAG_TRIAL_ID: trial}
        tags = payload["tags"]
        if "epoch" in payload:
            self.progress.epochs[trial] = payload["epoch"]
        try:
            parent, sweep = self._above(event, payload), self.progress.runs.get(SWEEP_RUN)
            if "parent" in payload and sweep is not None:
                tags = {**tags, names.TAG_SWEEP_RUN: sweep}
            if "fold" in payload and parent is not None:
                tags = {**tags, names.TAG_SWEEP_RUN: parent}
                parent = self._fold(payload["fold"], tags, event.time_ms, parent)
            spec = RunSpec(payload["name"], identity, tags, event.time_ms, parent)
            run_id, made = self._runs.open(trial, spec, {event.time_ms: payload["resumed_step"]})
        except SinkRefusedError as error:
            self._runs.give_up(trial, error)
            return
        self.progress.runs[trial] = run_id
        if made:
            self._sealing.made(trial)
        if trial not in self.progress.open_trials:
            self.progress.open_trials.append(trial)
        if names.TAG_STORAGE in payload["tags"]:
            self.progress.storages[trial] = payload["tags"][names.TAG_STORAGE]
        self.progress.checkpoints.reopen(trial)
        self._params.send(trial, payload["params"])
        if "config" in payload:
            self._uploads.later(event)

    def _fold(self, fold: str, tags: Mapping[str, str], time_ms: int, parent: str) -> str:
        """Returns the run of a fold; makes it for the first of its trials."""
        if fold not in self.progress.folds:
            identity = self._runs.identity(names.ROLE_FOLD) | {names.TAG_FOLD: fold}
            own = {key: tags[key] for key in _ON_FOLDS if key in tags}
            spec = RunSpec(f"fold {fold}", identity, own, time_ms, parent)
            self.progress.folds[fold], _ = self._runs.open(FOLD + fold, spec, {})
        return self.progress.folds[fold]

    def _above(self, event: Event, payload: events.Trial) -> str | None:
        above = payload.get("parent")
        if above is None:
            return self.progress.runs.get(SWEEP_RUN)
        known = self.progress.runs.get(above["trial"])
        return known or self._runs.above(above["trial"], above["name"], event.time_ms)

    def _result(self, event: Event, payload: events.Result) -> None:
        _, points = self._pending.setdefault(event.trial, (event.seq, []))
        self._params.send(event.trial, payload.get("params", {}))
        step = payload["step"]
        self.progress.last_results[event.trial] = [step, event.time_ms]
        points.extend(MetricPoint(key, value, event.time_ms, step) for key, value in payload["metrics"].items())
        if "tags" in payload:
            self._runs.tag(event.trial, payload["tags"])
        full = len(points) // FLUSH_POINTS * FLUSH_POINTS
        if full:  # whole requests: the rest, all of this event, waits for more
            self._send(event.trial, points[:full])
            del self._pending[event.trial]
            if rest := points[full:]:
                self._pending[event.trial] = (event.seq, rest)

    def _held(self, event: Event, payload: events.Result) -> None:
        self.progress.held.setdefault(event.trial, event.seq)

    def _episode(self, event: Event, payload: events.Episode) -> None:
        self._pools.add(event, payload)

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
            with self._runs.alone():
                there = self._sink.read_tags(run_id)
                own = tags if self._runs.owns(event.trial, there) else {}  # a later driver's values are newer
                lineage = merged_lineage(there.get(names.TAG_LINEAGE, "[]"), entry)
                self._sink.log(run_id, metrics=points, tags={**own, names.TAG_LINEAGE: lineage})
            self._sealing.keep(event.trial, points)

        self._runs.guarded(event.trial, write)

    def _checkpoint(self, event: Event, payload: events.Checkpoint) -> None:
        step, time_ms = self.progress.last_results.get(event.trial, (None, 0))
        if step == payload["step"]:  # else its values cannot be told from new ones, and are not linked
            self.progress.result_times[str(event.seq)] = time_ms
        self._uploads.later(event)  # a store whose models fail must not hold up metrics
        self.progress.checkpoints.note(event.trial, payload)

    def _files(self, event: Event, payload: events.Files) -> None:
        self._uploads.later(event)

    def _loss(self, event: Event, payload: events.Loss) -> None:
        self.progress.losses[str(event.seq)] = payload["count"]
        total = sum(self.progress.losses.values())
        said = f"{total or 'an unknown number of'} events lost: {payload['reason']}"
        point = MetricPoint("tracker/lost_events", float(total), event.time_ms, event.seq)
        tags = {names.TAG_DEGRADED: said}
        self._runs.guarded(SWEEP_RUN, lambda run_id: self._sink.log(run_id, metrics=[point], tags=tags))

    def _trial_end(self, event: Event, payload: events.TrialEnd) -> None:
        trial = event.trial
        self.progress.held.pop(trial, None)
        self._flush(trial)
        self._pools.close(trial)
        self._params.send(trial, payload.get("params", {}))
        if payload["folders"] or "traceback" in payload or self.progress.pictures or trial in self.progress.made:
            self._uploads.later(event)
        self.progress.checkpoints.settle(trial)
        self._runs.end(trial, payload["status"], event.time_ms, payload["tags"])
        if trial in self.progress.open_trials:
            self.progress.open_trials.remove(trial)
        self.progress.storages.pop(trial, None)

    def _sweep_end(self, event: Event, payload: events.SweepEnd) -> None:
        for trial in list(self._pending):
            self._flush(trial)
        self._close_open_trials("KILLED", event.time_ms, {})
        self._end_folds(payload["status"], event.time_ms, payload["tags"])
        self._runs.end_sweep(payload["status"], event.time_ms, payload["tags"])
        if self._sealing.wanted:
            self._uploads.later(event)  # after the trials' own files
        self.progress.ended = True

    # --- shared by several ---------------------------------------------------------------------------

    def _close_open_trials(self, status: str, end_ms: int, tags: Mapping[str, str]) -> None:
        for trial in list(self.progress.open_trials):
            self._pools.close(trial)
            self.progress.checkpoints.settle(trial)
            self._runs.end(trial, status, end_ms, tags)
            self._uploads.adopt(trial)
            self.progress.open_trials.remove(trial)
            self.progress.storages.pop(trial, None)

    def _end_folds(self, status: str, end_ms: int, tags: Mapping[str, str]) -> None:
        for fold in self._runs.folds():
            self._runs.end(fold, status, end_ms, tags)

    def _flush(self, trial: str) -> None:
        if trial in self._pending:
            self._send(trial, self._pending[trial][1])
            del self._pending[trial]

    def _send(self, trial: str, points: list[MetricPoint]) -> None:
        self._runs.guarded(trial, lambda run_id: self._sink.log(run_id, metrics=points))
        self._sealing.keep(trial, points)
        self.progress.points += len(points)


def _hparam_points(values: Mapping[str, str], time_ms: int, step: int) -> list[MetricPoint]:
    return [MetricPoint(key, value, time_ms, step) for key, value in names.hparam_values(values).items()]
