"""What is said of a sweep and of a trial when they begin: who, where, which code, which parameters; no secrets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.fingerprint import config_hash, jsonable
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.identity import (
    SweepIdentity,
    context_tags,
    defaults_of,
    installed_versions,
    working_diff,
    write_tracked,
)
from drl_ray_tracking.tracking.lineage import configured_rate
from drl_ray_tracking.trials.identity import identify_trial
from drl_ray_tracking.trials.metrics import MetricSelection, result_step
from drl_ray_tracking.trials.parameters import identifying_parameters
from drl_ray_tracking.trials.place import storage_uri
from drl_ray_tracking.trials.redaction import redact
from drl_ray_tracking.trials.tracked import Defaults, Tracked

_ON_TRIALS: Final = ("mlflow.", names.TAG_JOB_ID, names.TAG_SUBMISSION_ID)  # what a trial's run says of its sweep


@dataclass(frozen=True)
class Introduced:
    """A trial's event, and what of it the driver has to remember."""

    payload: events.Trial
    params: dict[str, str]
    config: Any
    rate: float | None


@dataclass
class Introductions:
    """Writes the events that begin a sweep and its trials.

    Attributes:
        tags: the user's, on every run.
        run_name: the pattern of trials' names.
        param_include, param_exclude: globs on parameters.
        secrets: what must not be written down.
        on_error: is told what could not be found out; its lack must not cost the sweep's tracking.
        trial_tags: says which tags a trial has beside those of all; None says none.
    """

    tags: Mapping[str, str]
    run_name: str
    param_include: tuple[str, ...]
    param_exclude: tuple[str, ...]
    secrets: tuple[str, ...]
    on_error: Callable[[str, Exception], None]
    trial_tags: Callable[[Any], Mapping[str, str]] | None = None
    _context: dict[str, str] = field(init=False, default_factory=dict)
    _defaults: dict[str, Defaults] = field(init=False, default_factory=dict)

    def sweep(
        self,
        identity: SweepIdentity,
        storage: Any,
        *,
        name: str | None,
        config: str | None,
        extra_tags: Mapping[str, str],
        checkpoints: events.CheckpointPolicy,
    ) -> events.Sweep:
        """Returns what begins a sweep, or goes on with it.

        Args:
            identity: which sweep it is.
            storage: Tune's storage context.
            name: the parent run's; None is that of Tune's experiment directory.
            config: the sweep's configuration as a text, where there is one.
            extra_tags: on the parent run only.
            checkpoints: which of them are uploaded.
        """
        self._context = self._found(context_tags) or {}
        where = storage_uri(storage.storage_filesystem, storage.experiment_fs_path)
        payload = events.Sweep(
            sweep_id=identity.sweep_id,
            epoch=identity.epoch,
            name=name or identity.name,
            tags=redact({**self.tags, **self._context, names.TAG_STORAGE: where, **extra_tags}, self.secrets),
            checkpoints=checkpoints,
        )
        diff = self._found(partial(working_diff, self.secrets))
        if diff:
            payload["diff"] = diff
        texts = {names.VERSIONS_ARTIFACT: self._found(installed_versions), names.SWEEP_ARTIFACT: config}
        payload["texts"] = {file: str(redact(text, self.secrets)) for file, text in texts.items() if text}
        return payload

    def trial(self, trial: Any) -> Introduced:
        """Returns what begins a trial, or goes on with it.

        Args:
            trial: Tune's.
        """
        plain = redact(jsonable(trial.config), ())  # by names only: what another machine's secrets are is no identity
        config = redact(plain, self.secrets)
        searched = redact(jsonable(trial.evaluated_params or {}), self.secrets)
        params = identifying_parameters(
            config, self._defaults_of(trial).named, searched, self.param_include, self.param_exclude
        )
        tags_of_its_own = self._own_tags(trial)
        self._keep_own(trial, tags_of_its_own)
        own = {**self.tags, **tags_of_its_own}
        identity = identify_trial(trial.trial_id, trial.trainable_name, config, config_hash(plain), own)
        resumed = trial.latest_checkpoint_result
        tags = {
            **own,
            **{key: value for key, value in self._context.items() if key.startswith(_ON_TRIALS)},
            **identity.tags(),
            names.TAG_STORAGE: trial_storage(trial),
            "trial_name": str(trial),
        }
        payload = events.Trial(
            name=identity.run_name(self.run_name),
            params=params,
            tags=redact(tags, self.secrets),
            resumed_step=result_step(resumed.metrics) if resumed is not None and resumed.metrics else 0,
        )
        if names.TAG_FOLD in own:
            payload["fold"] = own[names.TAG_FOLD]
        return Introduced(payload, params, config, configured_rate(plain))

    def _own_tags(self, trial: Any) -> dict[str, str]:
        tell = self.trial_tags
        found = self._found(lambda: tell(trial)) if tell is not None else None
        return {names.legal_metric_name(str(key)): str(value) for key, value in (found or {}).items()}

    def _found(self, find: Callable[[], Any]) -> Any:
        """Returns what is good to know of a sweep, or None."""
        try:
            return find()
        except Exception as error:  # noqa: BLE001 - git, Ray's runtime context, the user's environment
            self.on_error("identity", error)
            return None

    def _defaults_of(self, trial: Any) -> Defaults:
        name = str(trial.trainable_name)
        if name not in self._defaults:
            self._defaults[name] = defaults_of(trial.get_trainable_cls())
        return self._defaults[name]

    def _keep_own(self, trial: Any, tags: Mapping[str, str]) -> None:
        """Keeps a trial's own tags among the files that Tune brings to its storage, for readers of those."""
        if tags:
            self._found(partial(_write_tags, Path(trial.local_path), json.dumps(redact(dict(tags), self.secrets))))

    def keep_tracked(self, trial: Any, selection: MetricSelection) -> None:
        """Keeps beside the sweep's identity how its trials are tracked, for readers of Tune's own files."""
        storage, tags = trial.storage, redact(dict(self.tags), self.secrets)
        tracked = Tracked(
            tags, self.run_name, selection, self.param_include, self.param_exclude, self._defaults_of(trial)
        )
        self._found(partial(write_tracked, storage.storage_filesystem, storage.experiment_fs_path, tracked))


def _write_tags(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names.TAGS_FILE).write_text(text, encoding="utf-8")


def trial_storage(trial: Any, folder: str = "") -> str:
    """Returns where a trial's files are in Tune's storage, or a folder below it."""
    storage = trial.storage
    path = f"{storage.trial_fs_path}/{folder}" if folder else storage.trial_fs_path
    return storage_uri(storage.storage_filesystem, path)
