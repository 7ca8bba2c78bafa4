"""Manual research through the same door: runs of your own loop, tracked, named, delivered and compared as trials are.

What is logged goes into a journal on this machine and is delivered by a process of its own: no server slows your loop
down, none has to be reachable, and a killed script or notebook loses nothing.
"""

from __future__ import annotations

import atexit
import os
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.checkpoint_policy import CheckpointWishes, Upload
from drl_ray_tracking.tracking.earlier_runs import EarlierRun, find_run
from drl_ray_tracking.tracking.session import Session, SessionWishes, here, new_session_name, session_id
from drl_ray_tracking.tracking.target import resolve_target
from drl_ray_tracking.tracking.tracked_run import TrackedRun, ending, identity_tags, plain_params, texts
from drl_ray_tracking.trials.redaction import known_secrets, redact


class ExperimentService:
    """Tracks runs of your own; use it as a context manager, or call `close`.

        with ExperimentService(experiment_name="ideas") as service:
            with service.start_run("wider-stops", params={"stop": 0.03, "seed": 1}) as run:
                env = RecordEpisodes(my_env, on_episode=run.log_episode)
                ...

    A service is this process's part in a *session*: a parent run, with every `start_run` below it. Processes that
    give the same `session` share the parent run, which ends when the last of them on this machine has left.

    Args:
        tracking_uri: as for `MLflowTrackingCallback`; None is `$MLFLOW_TRACKING_URI`, else `mlflow.db` in the
            working directory. A server that is not reachable gets everything later.
        experiment_name: made if it does not exist; None is `$MLFLOW_EXPERIMENT_NAME`, else `Default`.
        session: the parent run's name; a name that was there before goes on with it, in this process or any other.
            None makes a new one (`service.session` is its name).
        tags: on the parent run and every run.
        checkpoints: which of `log_checkpoint`'s are uploaded, see `MLflowTrackingCallback`.
        steps_per_point: env steps whose training episodes are measured together where `log_episode` is given no step.
        drain_timeout_s: how long leaving a run, and `close`, wait for delivery; what is left is delivered later.

    Raises:
        ConfigurationError: the URI is malformed, a number makes no sense, or the journal cannot be kept.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        experiment_name: str | None = None,
        session: str | None = None,
        tags: Mapping[str, Any] | None = None,
        checkpoints: Upload = "none",
        steps_per_point: int = 1000,
        drain_timeout_s: float = 30.0,
    ) -> None:
        if steps_per_point < 1:
            raise ConfigurationError(f"steps_per_point={steps_per_point!r} must be 1 or more")
        target = resolve_target(tracking_uri)
        self.tracking_uri: str = target.uri
        self.experiment_name: str = experiment_name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"
        self.session: str = session or new_session_name()
        self._wishes = SessionWishes(
            target=target,
            experiment=self.experiment_name,
            tags=texts(tags or {}),
            checkpoints=CheckpointWishes(checkpoints),
            secrets=known_secrets({**os.environ, **target.credentials}),
            drain_timeout_s=drain_timeout_s,
        )
        self._steps_per_point = steps_per_point
        self._sessions: dict[str, Session] = {}  # by sweep id: a run that is resumed may be of another
        atexit.register(self.close)

    def start_run(
        self,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        *,
        resume: str | None = None,
        at_step: int | None = None,
        parent: TrackedRun | str | None = None,
    ) -> TrackedRun:
        """Starts a run, or goes on with one.

        Args:
            name: None makes one of the session's name and some letters.
            params: hyperparameters; runs with equal ones (but `seed`) form a group when they are compared.
            tags: of this run only.
            resume: the run to go on with: an id of it, or its name (of several, the newest). Found in the store,
                and in what this machine has not delivered yet.
            at_step: with `resume`, the step your loop goes on from, where that is before the last one logged:
                what was logged after it is superseded.
            parent: the run to nest this one below; from another process, its id or name.

        Raises:
            ConfigurationError: there is no such run, it cannot be looked up, or it still runs.
        """
        if at_step is not None and resume is None:
            raise ConfigurationError(f"at_step={at_step} says where a resumed run goes on: give `resume`, too")
        found = self._resumable(resume) if resume is not None else None
        over = self._parent(parent)
        session = self._session(found or over)
        trial = found.trial if found is not None else uuid.uuid4().hex[:12]
        payload = self._introduced(session, trial, name, params or {}, tags or {}, found)
        if found is not None:
            payload["epoch"] = found.epoch + 1
            payload["resumed_step"] = found.step if at_step is None else min(int(at_step), found.step)
            if found.above is not None:
                payload["parent"] = found.above
        if over is not None:
            if over.trial == trial:
                raise ConfigurationError(f"run {over.name} cannot be nested below itself")
            payload["parent"] = events.Above(trial=over.trial, name=over.name)
        session.append(events.TRIAL, trial, payload)
        return TrackedRun(self, session, trial, payload, self._steps_per_point)

    def _introduced(
        self,
        session: Session,
        trial: str,
        name: str | None,
        params: Mapping[str, Any],
        tags: Mapping[str, Any],
        found: EarlierRun | None,
    ) -> events.Trial:
        """Returns what the journal says of a run as it begins: of one that is resumed, what it was, too."""
        plain = plain_params(params, self._wishes.secrets)
        carried: dict[str, str] = {}
        if found is not None:
            plain = {**found.params, **plain}
            carried = dict(found.tags)
            name = name or found.name
        own = {**here(), names.TAG_MANUAL: "true", names.TAG_SESSION: session.name}
        shown = {**carried, **self._wishes.tags, **own, **identity_tags(plain), **texts(tags)}
        return events.Trial(
            name=name or f"{session.name}-{trial[:5]}",
            params=plain,
            tags=redact(shown, self._wishes.secrets),
            resumed_step=0,
        )

    def close(self, status: str = "FINISHED") -> bool:
        """Leaves the session and waits for delivery within bounds; returns whether all has arrived."""
        atexit.unregister(self.close)
        delivered = [session.close(status) for session in self._sessions.values()]
        self._sessions.clear()
        return all(delivered)

    def __enter__(self) -> ExperimentService:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(ending(kind))

    def _resumable(self, which: str) -> EarlierRun:
        found = find_run(which, self._wishes.target, self.experiment_name)
        if found.is_open:
            raise ConfigurationError(
                f"run {found.name!r} still runs in a process of this machine: two that write one run would both be "
                "in it. End it there, or start another (nested below it with parent=)"
            )
        return found

    def _parent(self, parent: TrackedRun | str | None) -> EarlierRun | None:
        if isinstance(parent, TrackedRun):
            return parent.as_parent()
        return find_run(parent, self._wishes.target, self.experiment_name) if parent is not None else None

    def _session(self, of: EarlierRun | None) -> Session:
        name = of.session if of is not None else self.session
        sweep_id = of.sweep_id if of is not None else session_id(self.experiment_name, self.session)
        if sweep_id not in self._sessions:
            self._sessions[sweep_id] = Session(name, sweep_id, self._wishes)
        return self._sessions[sweep_id]
