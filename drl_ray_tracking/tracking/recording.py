"""What happens in one sweep, written down: an event each, into its journal, in the order Tune says it.

Everything here is called from Tune's loop: no network, nothing that waits, but for the store's first word before any
trial trains, and for the end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.attachments import Attachments
from drl_ray_tracking.tracking.checkpoint_policy import CheckpointWishes
from drl_ray_tracking.tracking.identity import SweepIdentity, claim_sweep
from drl_ray_tracking.tracking.introductions import Introductions, trial_storage
from drl_ray_tracking.tracking.kept import keep
from drl_ray_tracking.tracking.lineage import donor_of
from drl_ray_tracking.tracking.preflight import wait_for_verdict
from drl_ray_tracking.tracking.spool import Spool
from drl_ray_tracking.tracking.system_metrics import SystemMetrics
from drl_ray_tracking.tracking.trial_state import TrialState
from drl_ray_tracking.trials.endings import trial_ending
from drl_ray_tracking.trials.metrics import MetricSelection, result_step
from drl_ray_tracking.trials.redaction import redact

_log = logging.getLogger(__name__)
Publish = Literal["live", "checkpointed"]


class Wishes(Protocol):
    """What of the callback's checked keywords decides what is written down; see `MLflowTrackingCallback`."""

    tracking_uri: str
    on_unreachable: Literal["spool", "fail"]
    selection: MetricSelection
    publish: Publish
    checkpoints: CheckpointWishes
    log_params_on_trial_end: bool
    should_save_artifact: bool
    pictures: bool
    sweep_name: str | None
    sweep_config: str | None
    system_interval_s: float | None


class Recording:
    """Writes one sweep down."""

    def __init__(self, wishes: Wishes, spool: Spool, introductions: Introductions, attachments: Attachments) -> None:
        """Takes what is wanted, the sweep's journal, and who says what it is and which files go with it."""
        self.spool = spool
        self._wishes = wishes
        self._introductions = introductions
        self._attachments = attachments
        self._sweep: SweepIdentity | None = None
        self._announced = False
        self._checkpoints = wishes.checkpoints  # with Tune's score, once the first trial has shown it
        self._trials: dict[str, TrialState] = {}
        self._open: dict[str, TrialState] = {}  # those of them that have not ended
        self._system: SystemMetrics | None = None
        self._said_uncaptured = False

    @property
    def sweep_id(self) -> str | None:
        """The sweep's id, once it has begun."""
        return self._sweep.sweep_id if self._sweep else None

    @property
    def begun(self) -> bool:
        """Whether the journal knows of the sweep."""
        return self._announced

    def begin(self, trial: Any) -> None:
        """Learns at the first trial which sweep this is and what the store says, and announces it; then nothing.

        Raises:
            ConfigurationError: the store refuses, the best checkpoints are wanted and nothing says by what, and the
                like: the trials' actors have started, nothing has trained.
        """
        if self._announced:
            return
        if self._sweep is None:
            wait_for_verdict(self.spool, self._wishes.tracking_uri, self._wishes.on_unreachable)
            storage = trial.storage
            self._sweep = claim_sweep(
                storage.storage_filesystem, storage.experiment_fs_path, storage.experiment_dir_name
            )
        self._announce(self._sweep, trial)
        self._contained(self._start_system_metrics)
        self._attachments.begin(self.spool)

    def attach(self, path: str | Path, folder: str, trial_id: str) -> None:
        """Copies a file or directory, to be delivered with everything else; '' stands for the parent run.

        Raises:
            ConfigurationError: there is no such file or trial, or `folder` leads out of the run's artifacts.
        """
        if trial_id and trial_id not in self._trials:
            raise ConfigurationError(f"there is no trial {trial_id!r}; there are {', '.join(self._trials) or 'none'}")
        self.spool.append(events.FILES, trial_id, keep(self.spool.directory, path, folder))

    def trial_starts(self, trial: Any) -> None:
        """Writes down that a trial starts, or starts again."""
        introduced = self._introductions.trial(trial)
        payload, state = introduced.payload, self._trials.get(trial.trial_id)
        if state is None:
            payload["config"] = introduced.config
        if state is not None or self._wishes.log_params_on_trial_end:
            payload["params"] = {}
        self.spool.append(events.TRIAL, trial.trial_id, payload)
        again = state is not None
        if state is None:
            state = self._trials[trial.trial_id] = TrialState(trial, payload["name"], introduced.params)
            state.donor = donor_of(trial)  # an earlier driver has said so
        self._open[trial.trial_id] = state
        state.begin(trial, introduced.rate)
        change = state.change(introduced.params, payload["resumed_step"]) if again else None
        if change is not None:
            self.spool.append(events.HPARAMS, trial.trial_id, change)

    def result(self, trial: Any, result: Mapping[str, Any]) -> None:
        """Writes down one result: the hot path of the driver."""
        if trial.trial_id not in self._trials:
            self.trial_starts(trial)
        state = self._trials[trial.trial_id]
        payload = events.Result(step=result_step(result), metrics=self._wishes.selection.select(result))
        self._look_for_capture(state, result)
        state.take(result, payload)
        if self._wishes.publish == "live":
            self.spool.append(events.RESULT, trial.trial_id, payload)
        elif event := self.spool.append(events.HELD, trial.trial_id, payload):
            state.held.append((event, payload["step"]))

    def saved(self, trial: Any) -> None:
        """Writes down where a checkpoint is, and lets go the results it covers."""
        state, saved = self._trials.get(trial.trial_id), trial.latest_checkpoint_result
        if state is None or saved is None or not saved.metrics:
            return
        self._release(state, result_step(saved.metrics))
        self.spool.append(events.CHECKPOINT, trial.trial_id, self._checkpoints.event(state.name, saved, state.last))

    def _release(self, state: TrialState, step: int) -> None:
        release = state.covered(step)
        if release is not None and self.spool.append(events.RELEASE, state.trial.trial_id, release):
            state.released(release)

    def trial_ends(self, trial: Any, failed: bool) -> None:
        """Writes down how a trial ended; one that failed before it started, too."""
        if trial.trial_id not in self._trials:
            self.trial_starts(trial)
        state = self._trials[trial.trial_id]
        if failed:
            self._end(state, "FAILED", names.END_ERROR)
        else:
            self._end(state, "FINISHED", trial_ending(trial, state.stopped_by))

    def _end(self, state: TrialState, status: str, reason: str) -> None:
        trial = state.trial
        self._open.pop(trial.trial_id, None)
        if status == "FINISHED" and state.held:
            self._release(state, state.held[-1][1])
        folders = {names.SERIES_ARTIFACT: trial_storage(trial, names.SERIES_DIR)}
        folders[""] = trial_storage(trial, names.FILES_DIR)
        payload = events.TrialEnd(status=status, tags=state.last_tags(reason), folders=folders)
        if self._wishes.log_params_on_trial_end:
            payload["params"] = state.params
        if status == "FAILED":
            text = str(redact(_error_text(trial), self._introductions.secrets))
            payload["traceback"] = text
            payload["tags"][names.TAG_ERROR] = (text.strip().splitlines() or ["unknown"])[-1][:500]
        self.spool.append(events.TRIAL_END, trial.trial_id, payload)
        self._attachments.trial_ended(trial)

    def hand_over_files(self) -> None:
        """Hands over what Tune's own loggers wrote of trials that have ended and whose files are closed."""
        if self._sweep is not None:
            everything = self._wishes.should_save_artifact
            self._attachments.hand_over(self.spool, everything=everything, restored=self._sweep.epoch > 1)

    def look_which_stopped(self) -> None:
        """Looks which trials Tune has stopped, before it cleans up.

        Cleaning up marks whatever still runs as terminated: after that, SIGINT and a time budget look the same.
        """
        for state in self._open.values():
            state.stopped = state.trial.status == "TERMINATED"

    def sweep_ends(self, trials: list[Any], errors: Mapping[str, int]) -> None:
        """Writes down how the sweep ended, and before it the trials whose end Tune did not announce.

        Args:
            trials: Tune's, all of them.
            errors: of tracking's own, by where they happened.
        """
        self._stop_system_metrics()
        left_open = list(self._open.values())
        interrupted = any(not state.stopped and state.trial.status != "ERROR" for state in left_open)
        interrupted = interrupted or any(not trial.is_finished() for trial in trials)
        for state in left_open:
            self._contained(partial(self._end_unannounced, state))
        self._contained(self.hand_over_files)
        tags = {f"tracking.errors.{key}": str(count) for key, count in errors.items()}
        tags[names.TAG_END_REASON] = names.END_INTERRUPTED if interrupted else names.END_COMPLETED
        ending = events.SweepEnd(status="KILLED" if interrupted else "FINISHED", tags=tags)
        self.spool.append(events.SWEEP_END, "", ending)

    def _end_unannounced(self, state: TrialState) -> None:
        """Ends a trial after SIGINT, a time budget, Stopper.stop_all or fail_fast."""
        if state.trial.status == "ERROR":
            self._end(state, "FAILED", names.END_ERROR)
        elif state.stopped:
            self._end(state, "FINISHED", names.END_SWEEP_STOPPED)
        else:
            self._end(state, "KILLED", names.END_INTERRUPTED)

    def _contained(self, part: Callable[[], None]) -> None:
        """Does one part of several; the others are done all the same."""
        try:
            part()
        except Exception as error:  # noqa: BLE001 - a tracking failure must not end a sweep
            self._introductions.on_error("sweep", error)

    def abandon(self) -> None:
        """Gives the sweep up before it began."""
        self._stop_system_metrics()
        self.spool.abandon()

    def _announce(self, sweep: SweepIdentity, trial: Any) -> None:
        self._checkpoints = self._wishes.checkpoints.resolved(trial)
        publish = self._wishes.publish
        payload = self._introductions.sweep(
            sweep,
            trial.storage,
            name=self._wishes.sweep_name,
            config=self._wishes.sweep_config,
            extra_tags={} if publish == "live" else {names.TAG_PUBLISH: publish},
            checkpoints=self._checkpoints.policy(),
        )
        payload["pictures"] = self._wishes.pictures
        self._introductions.keep_tracked(trial, self._wishes.selection)
        self.spool.append(events.SWEEP, "", payload)
        self._announced = True

    def _start_system_metrics(self) -> None:
        interval_s = self._wishes.system_interval_s
        if interval_s is None or self._system is not None:
            return

        def write(step: int, values: dict[str, float]) -> None:
            self.spool.append(events.RESULT, "", events.Result(step=step, metrics=values))

        self._system = SystemMetrics(write, interval_s)
        self._system.start()

    def _stop_system_metrics(self) -> None:
        if self._system is not None:
            self._system.stop()
            self._system = None

    def _look_for_capture(self, state: TrialState, result: Mapping[str, Any]) -> None:
        if state.look_for_capture(result) and not self._said_uncaptured:
            self._said_uncaptured = True
            _log.warning(
                "this algorithm is not instrumented: its metrics are RLlib's own, means of means over workers. "
                "`config = instrument(config)` measures episodes exactly."
            )


def _error_text(trial: Any) -> str:
    path = trial.error_file
    if path and Path(path).is_file():
        return Path(path).read_text(errors="replace")[-100_000:]
    return f"trial {trial.trial_id} failed at {time.strftime('%F %T')} without an error file"
