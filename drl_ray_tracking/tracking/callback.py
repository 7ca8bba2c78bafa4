"""The Tune callback: every event becomes one INSERT into the journal, and a process of its own delivers.

A drop-in for Ray's `MLflowLoggerCallback` that uses none of its logging: that one blocks Tune's loop for
seconds per result, falls back to the global fluent run, and ends every trial at one server error. Nothing
here may raise into Tune, except for set-up errors of the user's own making, before training.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, ParamSpec, get_args

from ray.air.integrations.mlflow import MLflowLoggerCallback

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.fingerprint import config_hash, jsonable
from drl_ray_tracking.names import legal_metric_name
from drl_ray_tracking.tracking import courier, events
from drl_ray_tracking.tracking.endings import stopped_by, trial_ending
from drl_ray_tracking.tracking.identity import (
    RUN_NAME,
    SweepIdentity,
    check_run_name,
    claim_sweep,
    context_tags,
    identify_trial,
    working_diff,
)
from drl_ray_tracking.tracking.lineage import configured_rate, donor_of, learns_at_another_rate
from drl_ray_tracking.tracking.metrics import MetricSelection, NameMode, checked_globs, result_step
from drl_ray_tracking.tracking.parameters import identifying_parameters
from drl_ray_tracking.tracking.preflight import check_store
from drl_ray_tracking.tracking.redaction import known_secrets, redact
from drl_ray_tracking.tracking.spool import Spool
from drl_ray_tracking.tracking.spool import journal_limit_mb as spool_limit_mb
from drl_ray_tracking.tracking.storage import storage_uri
from drl_ray_tracking.tracking.target import checked_registry, resolve_target

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
Publish = Literal["live", "checkpointed"]
_ALERTS: Final = ("collapsed", "entropy_collapsed", "non_finite_losses")
_LEARNING_RATE: Final = "learning_rate"  # the alert: a learner does not use the rate that is configured
_VERDICT_WAIT_S: Final = 20.0


@dataclass
class _TrialState:
    """What the driver remembers of a trial between hooks."""

    params: dict[str, str]
    trial: Any  # Tune's, for its status
    open: bool = True
    stopped: bool = False  # by Tune, before it cleaned up
    lr: float | None = None  # the configured learning rate, where it is one number
    changed: set[str] = field(default_factory=set)  # parameters that have changed since the trial began
    donor: tuple[str, str] = ("", "")  # the trial and the checkpoint it last went on from, not its own
    stopped_by: str = ""  # why its last result was said to be its last
    held: list[tuple[int, int]] = field(default_factory=list)  # (event, step) of results without a checkpoint
    capture: str = ""  # "exact" or "none", once a result of RLlib has shown it
    trading_source: str = ""
    alerts: set[str] = field(default_factory=set)


def _contained(hook: Callable[_P, None]) -> Callable[_P, None]:
    """Keeps an error of tracking's own out of Tune's loop; it is counted and said once per kind."""

    @functools.wraps(hook)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            hook(*args, **kwargs)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - a tracking failure must not end a sweep
            callback: Any = args[0]
            callback._count_error(hook.__name__, error)

    return guarded


class MLflowTrackingCallback(MLflowLoggerCallback):
    """Tracks a Tune sweep in MLflow: one parent run per sweep, one child run per trial.

    The first seven arguments are those of Ray's callback and mean the same.

    Args:
        tracking_uri: `sqlite:///...`, `http(s)://...` or a database; None is `$MLFLOW_TRACKING_URI`, else
            `mlflow.db` in the working directory.
        registry_uri: the model registry, where it differs.
        experiment_name: made if it does not exist; None is `$MLFLOW_EXPERIMENT_NAME`, else `Default`.
        tags: tags on the parent run and every trial's run.
        tracking_token: a bearer token. Given to the courier's environment; never written down.
        save_artifact: uploads the trial's local directory when the trial ends.
        log_params_on_trial_end: writes parameters at the end of a trial instead of its start.
        experiment_id: instead of a name.
        artifact_location: where a new experiment keeps its artifacts.
        sweep_name: the parent run's name; None is the name of Tune's experiment directory.
        run_name: the pattern of trials' names, see `TrialIdentity.run_name`.
        names: `vocabulary` (tens of names people read), `raw` (RLlib's own keys) or `both`; other
            trainables' keys are never renamed.
        include, exclude: globs on metric names, such as `train/*`; `names.LESS_READ` lists what is left out
            without them.
        param_include, param_exclude: globs on parameters' slash-joined names; without them, the parameters are
            the search space and what differs from the algorithm's defaults.
        publish: `live` sends every result; `checkpointed` only results that a checkpoint of Tune's covers, and
            the rest when the trial finishes: nothing in the store is ever superseded by a restore.
        journal_limit_mb: how large the local journal may become while the store is away; None is
            `$DRL_TRACK_JOURNAL_LIMIT_MB`, else 4096. Beyond it results are lost, counted and said.
        on_unreachable: what an unreachable server means at set-up: `spool` goes on and delivers later,
            `fail` raises ConfigurationError before the first trial trains.
        drain_timeout_s: how long the end of the sweep waits for delivery. What is left goes on being
            delivered after the program has ended.

    Raises:
        ConfigurationError: the URI is malformed, a `file:` store, inside a Ray session directory, or the
            experiment is deleted.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        registry_uri: str | None = None,
        experiment_name: str | None = None,
        tags: Mapping[str, Any] | None = None,
        tracking_token: str | None = None,
        save_artifact: bool = False,
        log_params_on_trial_end: bool = False,
        experiment_id: str | None = None,
        artifact_location: str | None = None,
        sweep_name: str | None = None,
        run_name: str = RUN_NAME,
        names: NameMode = "vocabulary",
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        param_include: Sequence[str] = (),
        param_exclude: Sequence[str] = (),
        publish: Publish = "live",
        journal_limit_mb: float | None = None,
        on_unreachable: Literal["spool", "fail"] = "spool",
        drain_timeout_s: float = 60.0,
    ) -> None:
        # Not super().__init__(): it would make a tracking client and keep the token as an attribute,
        # which Tune pickles in clear into its storage.
        target = resolve_target(tracking_uri)
        check_run_name(run_name)
        if on_unreachable not in ("spool", "fail"):
            raise ConfigurationError(f"on_unreachable={on_unreachable!r} must be 'spool' or 'fail'")
        self.tracking_uri: str = target.uri
        self.registry_uri = checked_registry(registry_uri)
        self.experiment_name = experiment_name or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        self.experiment_id = experiment_id or os.environ.get("MLFLOW_EXPERIMENT_ID")
        if experiment_name is not None:
            self.experiment_id = experiment_id
        self.tags: dict[str, str] = {legal_metric_name(str(key)): str(value) for key, value in (tags or {}).items()}
        self.should_save_artifact = save_artifact
        self.log_params_on_trial_end = log_params_on_trial_end
        self.artifact_location = artifact_location or target.artifact_root
        self.sweep_name = sweep_name
        self.run_name = run_name
        self.selection = MetricSelection(names, include, exclude)  # type: ignore[arg-type]  # checked there
        self.param_include = checked_globs("param_include", param_include)
        self.param_exclude = checked_globs("param_exclude", param_exclude)
        if publish not in get_args(Publish):
            raise ConfigurationError(f"publish={publish!r} must be one of {', '.join(get_args(Publish))}")
        self.publish = publish
        self.journal_limit_mb = journal_limit_mb
        spool_limit_mb(journal_limit_mb)
        self.on_unreachable = on_unreachable
        self.drain_timeout_s = drain_timeout_s
        self._credentials = dict(target.credentials)
        if tracking_token is not None:
            self._credentials["MLFLOW_TRACKING_TOKEN"] = tracking_token
        self._reset()

    def _reset(self) -> None:
        self.delivered = False  # whether everything was in the store when the sweep ended
        self.courier_status: courier.CourierStatus | None = None  # its last word when the sweep ended
        self._spool: Spool | None = None
        self._sweep: SweepIdentity | None = None
        self._announced = False
        self._context: dict[str, str] = {}
        self._trials: dict[str, _TrialState] = {}
        self._defaults: dict[str, dict[str, Any]] = {}
        self._secrets: tuple[str, ...] = ()
        self._errors: dict[str, int] = {}
        self._said_uncaptured = False

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks into storage that others may read: no credential, nothing of this process.
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._credentials = {}
        self._reset()

    @property
    def sweep_id(self) -> str | None:
        """The sweep's id, once the first trial has started."""
        return self._sweep.sweep_id if self._sweep else None

    @property
    def spool(self) -> Spool | None:
        """The journal and its courier, between set-up and the end of the sweep."""
        return self._spool

    def check_store(self) -> None:
        """Asks the store whether it will take runs, before anything else is started.

        Raises:
            ConfigurationError: the server cannot be reached within seconds, or refuses.
        """
        check_store(self.tracking_uri, self.experiment_name or "Default", self._credentials)

    # --- Tune's hooks --------------------------------------------------------------------------------

    def setup(self, *args: Any, **info: Any) -> None:
        """Opens the journal and starts the courier; called by Tune before the first trial."""
        self._abandon()
        self._reset()
        self._secrets = known_secrets({**os.environ, **self._credentials})
        self._spool = Spool.open(
            events.Open(
                tracking_uri=self.tracking_uri,
                registry_uri=self.registry_uri,
                experiment_name=self.experiment_name,
                experiment_id=self.experiment_id,
                artifact_location=self.artifact_location,
            ),
            credentials=self._credentials,
            limit_mb=self.journal_limit_mb,
        )

    @_contained
    def log_trial_start(self, trial: Any) -> None:
        """Writes down that a trial starts, or starts again."""
        spool = self._require_sweep(trial)
        before = self._trials.get(trial.trial_id)
        plain = redact(jsonable(trial.config), ())  # by names only: what another machine's secrets are is no identity
        config = redact(plain, self._secrets)
        searched = redact(jsonable(trial.evaluated_params or {}), self._secrets)
        params = identifying_parameters(
            config, self._default_config(trial), searched, self.param_include, self.param_exclude
        )
        identity = identify_trial(trial.trial_id, trial.trainable_name, config, config_hash(plain), self.tags)
        resumed = trial.latest_checkpoint_result
        resumed_step = result_step(resumed.metrics) if resumed is not None and resumed.metrics else 0
        tags = {
            **self.tags,
            **{key: value for key, value in self._context.items() if key.startswith("mlflow.")},
            **identity.tags(),
            names.TAG_STORAGE: _trial_storage(trial),
            "trial_name": str(trial),
        }
        payload = events.Trial(
            name=identity.run_name(self.run_name),
            params={} if self.log_params_on_trial_end or before else params,
            tags=redact(tags, self._secrets),
            resumed_step=resumed_step,
        )
        if before is None:
            payload["config"] = config
        if not spool.append(events.TRIAL, trial.trial_id, payload):
            return  # said again at the trial's next result
        state = self._trials[trial.trial_id] = before or _TrialState(params, trial)
        state.trial = trial
        state.open, state.stopped, state.stopped_by = True, False, ""
        state.held.clear()
        state.alerts.discard(_LEARNING_RATE)
        state.lr = configured_rate(plain)
        if before is None:
            state.donor = donor_of(trial)  # an earlier driver has said so
        else:
            self._note_change(spool, trial, state, params, resumed_step)

    def _note_change(self, spool: Spool, trial: Any, state: _TrialState, params: dict[str, str], step: int) -> None:
        """Writes down what PBT, PB2 or an edited restore changed, and whose checkpoint the trial goes on from."""
        changed = {key: value for key, value in params.items() if state.params.get(key) != value}
        donor = donor_of(trial)
        copied = donor != ("", "") and donor != state.donor
        if changed or copied:
            payload = events.Hparams(step=step, changed=changed)
            # Charts begin with the value the trial began with.
            initial = {key: state.params[key] for key in changed if key in state.params and key not in state.changed}
            if initial:
                payload["initial"] = initial
            if donor[0]:
                payload["donor"] = donor[0]
            spool.append(events.HPARAMS, trial.trial_id, payload)
        state.changed |= set(changed)
        state.params, state.donor = params, donor

    @_contained
    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Writes down one result: the hot path of the driver, one flattening and one INSERT."""
        spool = self._require_sweep(trial)
        if trial.trial_id not in self._trials:
            self.log_trial_start(trial)
        self._look_for_capture(trial.trial_id, result)
        metrics = self.selection.select(result)
        payload = events.Result(step=result_step(result), metrics=metrics)
        alerts = self._new_alerts(trial.trial_id, result, payload["step"])
        if alerts:
            payload["tags"] = alerts
        state = self._trials.get(trial.trial_id)
        if state is not None:
            state.stopped_by = stopped_by(trial, result)
        if state is None or self.publish == "live":
            spool.append(events.RESULT, trial.trial_id, payload)
        elif event := spool.append(events.HELD, trial.trial_id, payload):
            state.held.append((event, payload["step"]))

    @_contained
    def log_trial_save(self, trial: Any) -> None:
        """Publishes the results that the checkpoint just saved covers, where only those are wanted."""
        state, saved = self._trials.get(trial.trial_id), trial.latest_checkpoint_result
        if state is not None and state.held and saved is not None and saved.metrics:
            self._release(self._require_sweep(trial), trial.trial_id, state, result_step(saved.metrics))

    def _release(self, spool: Spool, trial_id: str, state: _TrialState, step: int) -> None:
        covered = [event for event, at in state.held if at <= step]
        if covered and spool.append(events.RELEASE, trial_id, events.Release(upto=covered[-1])):
            state.held = [(event, at) for event, at in state.held if event > covered[-1]]

    @_contained
    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """Writes down how a trial ended. A trial that failed before it started has a run all the same."""
        spool = self._require_sweep(trial)
        if trial.trial_id not in self._trials:
            self.log_trial_start(trial)
        reason = names.END_ERROR if failed else trial_ending(trial, self._trials[trial.trial_id].stopped_by)
        self._end_trial(spool, trial, "FAILED" if failed else "FINISHED", reason)

    def _end_trial(self, spool: Spool, trial: Any, status: str, reason: str) -> None:
        state = self._trials[trial.trial_id]
        state.open = False
        if status == "FINISHED" and state.held:
            self._release(spool, trial.trial_id, state, state.held[-1][1])
        folders = {names.SERIES_ARTIFACT: f"{_trial_storage(trial)}/{names.SERIES_DIR}"}
        if self.should_save_artifact and trial.local_path:
            folders[""] = str(trial.local_path)
        said = {names.TAG_CAPTURE: state.capture, names.TAG_TRADING_SOURCE: state.trading_source}
        tags = {key: value for key, value in said.items() if value} | {names.TAG_END_REASON: reason}
        payload = events.TrialEnd(status=status, tags=tags, folders=folders)
        if self.log_params_on_trial_end:
            payload["params"] = state.params
        if status == "FAILED":
            text = redact(_error_text(trial), self._secrets)
            payload["traceback"] = text
            payload["tags"] = {
                **tags,
                names.TAG_ERROR: text.strip().splitlines()[-1][:500] if text.strip() else "unknown",
            }
        spool.append(events.TRIAL_END, trial.trial_id, payload)

    def get_state(self) -> None:
        """Looks which trials Tune has stopped; called periodically, and at the end before Tune cleans up.

        Cleaning up marks whatever still runs as terminated: after that, SIGINT and a time budget look the same.
        """
        for state in self._trials.values():
            state.stopped = state.open and state.trial.status == "TERMINATED"

    @_contained
    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Ends the sweep: waits for delivery within bounds, and says so when something is left."""
        spool = self._spool
        if spool is None:
            return
        left_open = [state for state in self._trials.values() if state.open]
        interrupted = any(not state.stopped and state.trial.status != "ERROR" for state in left_open)
        interrupted = interrupted or any(not trial.is_finished() for trial in trials)
        for state in left_open:
            self._end_open_trial(spool, state)
        tags = {f"tracking.errors.{key}": str(count) for key, count in self._errors.items()}
        tags[names.TAG_END_REASON] = names.END_INTERRUPTED if interrupted else names.END_COMPLETED
        ending = events.SweepEnd(status="KILLED" if interrupted else "FINISHED", tags=tags)
        spool.append(events.SWEEP_END, "", ending)
        self.delivered = spool.close(self.drain_timeout_s)
        self.courier_status = spool.final_status

    # --- inside --------------------------------------------------------------------------------------

    @_contained
    def _end_open_trial(self, spool: Spool, state: _TrialState) -> None:
        """Ends a trial whose end Tune did not announce: SIGINT, a time budget, Stopper.stop_all, fail_fast."""
        if state.trial.status == "ERROR":
            self._end_trial(spool, state.trial, "FAILED", names.END_ERROR)
        elif state.stopped:
            self._end_trial(spool, state.trial, "FINISHED", names.END_SWEEP_STOPPED)
        else:
            self._end_trial(spool, state.trial, "KILLED", names.END_INTERRUPTED)

    def _require_sweep(self, trial: Any) -> Spool:
        """Returns the spool; at the first trial it learns which sweep this is and what the store says."""
        if self._spool is None:
            self.setup()
        assert self._spool is not None
        if self._sweep is None:
            self._raise_refusal(self._spool)
            storage = trial.storage
            self._sweep = claim_sweep(
                storage.storage_filesystem, storage.experiment_fs_path, storage.experiment_dir_name
            )
        if not self._announced:
            self._announced = self._announce(self._spool, self._sweep, trial.storage)
        return self._spool

    def _announce(self, spool: Spool, sweep: SweepIdentity, storage: Any) -> bool:
        self._context = self._optional(context_tags) or {}
        tags = {**self.tags, **self._context, names.TAG_STORAGE: _experiment_storage(storage)}
        if self.publish != "live":
            tags[names.TAG_PUBLISH] = self.publish
        payload = events.Sweep(
            sweep_id=sweep.sweep_id,
            epoch=sweep.epoch,
            name=self.sweep_name or sweep.name,
            tags=redact(tags, self._secrets),
        )
        diff = self._optional(functools.partial(working_diff, self._secrets))
        if diff:
            payload["diff"] = diff
        return bool(spool.append(events.SWEEP, "", payload))

    def _optional(self, find: Callable[[], Any]) -> Any:
        """Returns what is good to know of a sweep, or None: its lack must not cost the sweep's tracking."""
        try:
            return find()
        except Exception as error:  # noqa: BLE001 - git, Ray's runtime context, the user's environment
            self._count_error("identity", error)
            return None

    def _raise_refusal(self, spool: Spool) -> None:
        """Raises what only the store could tell: the trials' actors have started, nothing has trained."""
        status = spool.wait_for(lambda now: now.phase != courier.STARTING, timeout_s=_VERDICT_WAIT_S)
        if status is not None and status.phase == courier.REFUSED:
            self._abandon()
            raise ConfigurationError(f"MLflow at {self.tracking_uri} refuses this sweep: {status.message}")
        if status is None or status.phase != courier.DELIVERING:
            reason = status.message if status else "the courier has not answered yet"
            if self.on_unreachable == "fail":
                self._abandon()
                raise ConfigurationError(
                    f"MLflow at {self.tracking_uri} cannot be reached: {reason}. Start the server, or go on "
                    "without it: on_unreachable='spool' delivers later."
                )
            _log.warning(
                "MLflow at %s cannot be reached (%s): results are kept in %s and delivered when it can",
                self.tracking_uri,
                reason,
                spool.directory,
            )

    def _new_alerts(self, trial_id: str, result: Mapping[str, Any], step: int) -> dict[str, str]:
        """Returns a tag for each alert this result is the first of its trial to raise."""
        state, stability = self._trials.get(trial_id), result.get(names.STABILITY)
        if state is None:
            return {}
        found = {alert for alert in _ALERTS if isinstance(stability, Mapping) and stability.get(alert, 0) > 0}
        if learns_at_another_rate(result, state.lr):
            found.add(_LEARNING_RATE)
        raised = found - state.alerts
        state.alerts |= raised
        return {f"{names.TAG_ALERT}.{alert}": str(step) for alert in raised}

    def _look_for_capture(self, trial_id: str, result: Mapping[str, Any]) -> None:
        state = self._trials.get(trial_id)
        if state is None or state.trading_source or not names.is_rllib_result(result):
            return
        state.capture = "exact" if names.EVALUATED in result else "none"
        state.trading_source = str(result.get(names.TRADING_SOURCE, ""))
        if state.capture == "none" and not self._said_uncaptured:
            self._said_uncaptured = True
            _log.warning(
                "this algorithm is not instrumented: its metrics are RLlib's own, means of means over workers. "
                "`config = instrument(config)` measures episodes exactly."
            )

    def _abandon(self) -> None:
        if self._spool is not None:
            self._spool.abandon()
            self._spool = None

    def _default_config(self, trial: Any) -> dict[str, Any]:
        name = str(trial.trainable_name)
        if name not in self._defaults:
            default: Any = {}
            trainable = trial.get_trainable_cls()
            if hasattr(trainable, "get_default_config"):
                default = trainable.get_default_config()
                default = default.to_dict() if hasattr(default, "to_dict") else default
            self._defaults[name] = jsonable(default)
        return self._defaults[name]

    def _count_error(self, where: str, error: Exception) -> None:
        seen = self._errors.get(where, 0)
        self._errors[where] = seen + 1
        if not seen:
            _log.error(
                "tracking failed in %s, training goes on: %s: %s",
                where,
                type(error).__name__,
                error,
                exc_info=error,
            )


def _trial_storage(trial: Any) -> str:
    storage = trial.storage
    return storage_uri(storage.storage_filesystem, storage.trial_fs_path)


def _experiment_storage(storage: Any) -> str:
    return storage_uri(storage.storage_filesystem, storage.experiment_fs_path)


def _error_text(trial: Any) -> str:
    path = trial.error_file
    if path and Path(path).is_file():
        return Path(path).read_text(errors="replace")[-100_000:]
    return f"trial {trial.trial_id} failed at {time.strftime('%F %T')} without an error file"
