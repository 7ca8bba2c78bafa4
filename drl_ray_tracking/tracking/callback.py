"""The Tune callback: every event becomes one INSERT into the journal, and a process of its own delivers.

A drop-in for Ray's `MLflowLoggerCallback` that uses none of its logging: that one blocks Tune's loop for
seconds per result, falls back to the global fluent run, and ends every trial at one server error. Nothing
here may raise into Tune, except for set-up errors of the user's own making, before training.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec, get_args

from ray.air.integrations.mlflow import MLflowLoggerCallback

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.names import legal_metric_name
from drl_ray_tracking.tracking import courier_status, events
from drl_ray_tracking.tracking.attachments import Attachments, send
from drl_ray_tracking.tracking.checkpoint_policy import CheckpointWishes, Upload
from drl_ray_tracking.tracking.introductions import Introductions
from drl_ray_tracking.tracking.preflight import check_store
from drl_ray_tracking.tracking.progress import SWEEP_RUN
from drl_ray_tracking.tracking.recording import Publish, Recording
from drl_ray_tracking.tracking.spool import Spool
from drl_ray_tracking.tracking.spool import journal_limit_mb as spool_limit_mb
from drl_ray_tracking.tracking.system_metrics import checked_interval
from drl_ray_tracking.tracking.target import artifact_place, checked_registry, resolve_target
from drl_ray_tracking.trials.identity import RUN_NAME, check_run_name
from drl_ray_tracking.trials.metrics import MetricSelection, NameMode, checked_globs
from drl_ray_tracking.trials.redaction import known_secrets

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")


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
        trial_tags: given Tune's trial, returns tags of its own (what it is trained on, where trials differ in that);
            a module's function, for Tune pickles callbacks. Where they name a fold, the trial's run stands below a
            run of that fold.
        tracking_token: a bearer token. Given to the courier's environment; never written down. One that is
            renewed while the sweep runs lies in a file instead, which `$DRL_TRACK_TOKEN_FILE` names.
        save_artifact: uploads the trial's whole local directory when the trial ends; without it, its TensorBoard
            event files alone.
        log_params_on_trial_end: writes parameters at the end of a trial instead of its start.
        experiment_id: instead of a name.
        artifact_location: where a new experiment keeps its artifacts; a path that a server is given is the server's.
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
        checkpoints: which of Tune's checkpoints are uploaded as loadable models: `none`, each trial's `last` or
            `best` when it ends, or `all`. Every checkpoint becomes a model without files that says where it is.
        keep_checkpoints: how many uploads of a trial stay, by score (`last`: the newest); None keeps one of
            `last` and `best`, and all of `all`. What a registered version is made of is never deleted.
        checkpoint_score, checkpoint_mode: the metric that says which is best, by either of its names; without
            it, that of Tune's CheckpointConfig.
        system_metrics: True, or the seconds between samples: every node's CPU, memory, disk, GPUs and object store
            as `system/<node>/...` of the parent run. Other nodes than the driver's get a light actor for it.
        journal_limit_mb: how large the local journal may become while the store is away; None is
            `$DRL_TRACK_JOURNAL_LIMIT_MB`, else 4096. Beyond it results are lost, counted and said.
        on_unreachable: what an unreachable server means at set-up: `spool` goes on and delivers later,
            `fail` raises ConfigurationError before the first trial trains.
        drain_timeout_s: how long the end of the sweep waits for delivery. What is left goes on being
            delivered after the program has ended.
        sweep_config: the sweep's configuration as a text, kept as an artifact of the parent run.
        pictures: has each trial's pictures drawn when it has ended, by a process of its own at the lowest priority:
            learning curves, equity and drawdown, entries and exits of the best and worst evaluation episode, and so on.

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
        checkpoints: Upload = "none",
        keep_checkpoints: int | None = None,
        checkpoint_score: str | None = None,
        checkpoint_mode: Literal["max", "min"] = "max",
        system_metrics: bool | float = False,
        journal_limit_mb: float | None = None,
        on_unreachable: Literal["spool", "fail"] = "spool",
        drain_timeout_s: float = 60.0,
        sweep_config: str | None = None,
        pictures: bool = True,
        trial_tags: Callable[[Any], Mapping[str, str]] | None = None,
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
        self.artifact_location = artifact_place(artifact_location, target)
        self.sweep_name = sweep_name
        self.run_name = run_name
        self.selection = MetricSelection(names, include, exclude)  # type: ignore[arg-type]  # checked there
        self.param_include = checked_globs("param_include", param_include)
        self.param_exclude = checked_globs("param_exclude", param_exclude)
        if publish not in get_args(Publish):
            raise ConfigurationError(f"publish={publish!r} must be one of {', '.join(get_args(Publish))}")
        self.publish = publish
        self.checkpoints = CheckpointWishes(checkpoints, keep_checkpoints, checkpoint_score, checkpoint_mode)
        self.system_interval_s = checked_interval(system_metrics)
        self.journal_limit_mb = journal_limit_mb
        spool_limit_mb(journal_limit_mb)
        self.on_unreachable = on_unreachable
        self.drain_timeout_s = drain_timeout_s
        self.sweep_config = sweep_config
        self.pictures = bool(pictures)
        self.trial_tags = trial_tags
        self._attachments = Attachments()
        self._credentials = dict(target.credentials)
        if tracking_token is not None:
            self._credentials["MLFLOW_TRACKING_TOKEN"] = tracking_token
        self._reset()

    def _reset(self) -> None:
        self.delivered = False  # whether everything was in the store when the sweep ended
        self.courier_status: courier_status.CourierStatus | None = None  # its last word when the sweep ended
        self._recording: Recording | None = None
        self._over = False
        self._errors: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks into storage that others may read: no credential, nothing of this process.
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._credentials = {}
        self._attachments = Attachments()
        self._reset()

    @property
    def sweep_id(self) -> str | None:
        """The sweep's id, once the first trial has started."""
        return self._recording.sweep_id if self._recording else None

    @property
    def spool(self) -> Spool | None:
        """The journal and its courier, from set-up on."""
        return self._recording.spool if self._recording else None

    @property
    def run_ids(self) -> dict[str, str]:
        """MLflow's run of each trial by its trial id, the parent run under ''; those that are in the store by now."""
        status = self.courier_status if self._over or self.spool is None else self.spool.status()
        return dict(status.progress.runs) if status else {}

    def check_store(self) -> None:
        """Asks the store whether it will take runs, before anything else is started.

        Raises:
            ConfigurationError: the server cannot be reached within seconds, or refuses.
        """
        check_store(self.tracking_uri, self.experiment_name or "Default", self._credentials)

    def log_artifact(self, path: str | Path, folder: str = "", *, trial: Any = None) -> None:
        """Attaches a file, or everything in a directory, to the parent run or to a trial's.

        Before a sweep it is read when the sweep begins; while one runs (from another callback of yours) it is copied
        and delivered like everything else; after one it is sent at once. In a trial's own process, where this
        callback is not, `drl_ray_tracking.log_artifact` does the same for the trial's run.

        Args:
            path: the file or directory.
            folder: the artifact folder it appears in; '' is the top.
            trial: Tune's trial, or its id; None is the parent run.

        Raises:
            ConfigurationError: there is no such file or run, `folder` leads out of the run's artifacts, or, after the
                sweep, the store does not take it.
        """
        trial_id = SWEEP_RUN if trial is None else str(getattr(trial, "trial_id", trial))
        if self._over:
            run_id = self.run_ids.get(trial_id)
            if run_id is None:
                what = f"trial {trial_id!r}" if trial_id else "the sweep"
                raise ConfigurationError(f"{what} has no run in the store; where delivery waits: `drl-track sync`")
            send(path, folder, run_id, self.tracking_uri, self._credentials)
        elif self._recording is not None and self._recording.begun:
            self._recording.attach(path, folder, trial_id)
        elif trial_id:
            raise ConfigurationError(f"trial {trial_id!r} has not started: its run takes files from then on")
        else:
            self._attachments.before(path, folder)

    # --- Tune's hooks --------------------------------------------------------------------------------

    def setup(self, *args: Any, **info: Any) -> None:
        """Opens the journal and starts the courier; called by Tune before the first trial."""
        if self._recording is not None and not self._over:
            self._recording.abandon()
        self._reset()
        secrets = known_secrets({**os.environ, **self._credentials})
        spool = Spool.open(
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
        introductions = Introductions(
            self.tags,
            self.run_name,
            self.param_include,
            self.param_exclude,
            secrets,
            self._count_error,
            self.trial_tags,
        )
        self._recording = Recording(self, spool, introductions, self._attachments)

    @_contained
    def log_trial_start(self, trial: Any) -> None:
        """Writes down that a trial starts, or starts again."""
        self._begun(trial).trial_starts(trial)

    @_contained
    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Writes down one result: the hot path of the driver, one flattening and one INSERT."""
        self._begun(trial).result(trial, result)

    @_contained
    def log_trial_save(self, trial: Any) -> None:
        """Writes down where a checkpoint is; publishes the results it covers, where only those are wanted."""
        self._begun(trial).saved(trial)

    @_contained
    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """Writes down how a trial ended. A trial that failed before it started has a run all the same."""
        self._begun(trial).trial_ends(trial, failed)

    @_contained
    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Hands over what Tune's own loggers wrote of trials that have ended: by now they have closed their files."""
        if self._recording is not None:
            self._recording.hand_over_files()

    def get_state(self) -> None:
        """Looks which trials Tune has stopped; called periodically, and at the end before Tune cleans up."""
        if self._recording is not None:
            self._recording.look_which_stopped()

    @_contained
    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Ends the sweep: waits for delivery within bounds, and says so when something is left."""
        if self._recording is None:
            return
        spool = self._recording.spool
        self._recording.sweep_ends(trials, self._errors)
        self.delivered = spool.close(self.drain_timeout_s)
        self.courier_status = spool.final_status
        self._over = True

    # --- inside --------------------------------------------------------------------------------------

    def _begun(self, trial: Any) -> Recording:
        """Returns the recording of the sweep, which begins with its first trial."""
        if self._recording is None:
            self.setup()
        assert self._recording is not None
        try:
            self._recording.begin(trial)
        except ConfigurationError:
            self._recording.abandon()
            self._recording = None
            raise
        return self._recording

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
