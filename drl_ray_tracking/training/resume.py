"""Going on with a sweep that was cut off: only with the configuration it was begun with, into the runs it has."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml
from ray.tune import Callback

from drl_ray_tracking import names
from drl_ray_tracking.analysis.runs import open_client
from drl_ray_tracking.analysis.store_errors import store_errors
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.mlflow_models import pages
from drl_ray_tracking.training.config import SweepConfig, dump_config, parse_config
from drl_ray_tracking.trials.past import identity_in
from drl_ray_tracking.trials.place import Place
from drl_ray_tracking.trials.redaction import REDACTED, known_secrets, redact

_log = logging.getLogger(__name__)
_MAY_DIFFER: Final = ("tracking", "storage")  # where runs and results are, not what they are
_MOST_SAID: Final = 10


class KeptConfig(Callback):
    """Keeps a sweep's configuration in Tune's experiment directory, beside its identity, when its first trial starts.

    Args:
        text: from `dump_config`.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._kept = False

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Writes it down once; never over what is there."""
        if self._kept:
            return
        self._kept = True
        place = Place(trial.storage.storage_filesystem, trial.storage.experiment_fs_path)
        try:
            if place.text(names.SWEEP_FILE) is None:
                place.keep(names.SWEEP_FILE, str(redact(self._text, known_secrets())))  # others may read this storage
        except OSError as error:  # training goes on; to resume it, the configuration is not compared
            _log.warning("the sweep's configuration is not kept in %s: %s", place, error)


def kept_config(directory: str, config: SweepConfig, base_dir: Path) -> str | None:
    """Returns the configuration a sweep was begun with, as it kept it; None where it kept none.

    Args:
        directory: of Tune's experiment; a relative one is relative to the working directory.
        config: with which it shall go on.
        base_dir: what relative data paths are relative to.

    Raises:
        ConfigurationError: `config` is another one; says which keys differ. What would be new in it would be ignored:
            Tune goes on with the trials as they were made.
    """
    place = Place.at(directory)
    text = place.text(names.SWEEP_FILE)
    if text is None:
        return None
    then = parse_config(yaml.safe_load(text), f"{names.SWEEP_FILE} in {place}", recorded=True)
    now = parse_config(yaml.safe_load(dump_config(config, base_dir)), "the configuration", recorded=True)
    before, after = _flat(then), _flat(now)
    keys = [key for key in {**before, **after} if not _same(before.get(key), after.get(key))]
    if keys:
        said = "".join(f"\n  {key}: was {before.get(key)!r}, is {after.get(key)!r}" for key in keys[:_MOST_SAID])
        rest = f"\n  and {len(keys) - _MOST_SAID} more" if len(keys) > _MOST_SAID else ""
        raise ConfigurationError(
            f"the sweep in {place} was begun with another configuration, and goes on with none but that:{said}{rest}\n"
            f"Put these back to resume it (only {' and '.join(_MAY_DIFFER)} may differ), or train anew without --resume"
        )
    return text


def _same(before: Any, after: Any) -> bool:
    return before == after or REDACTED in str(before)  # a secret is nowhere written down


def _flat(config: SweepConfig) -> dict[str, Any]:
    plain = config.model_dump(mode="json", exclude=set(_MAY_DIFFER))
    return dict(_leaves(plain, ""))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    elif isinstance(value, str) and value.startswith("/"):
        yield path, value.rpartition("/")[2]  # a job has its files elsewhere each time; their content is compared
    else:
        yield path, value


def resumed_tuner(directory: str, settings: Sequence[Any], callbacks: Sequence[Any]) -> Any:
    """Returns the Tuner that goes on with a sweep.

    Args:
        directory: of Tune's experiment; a relative one is relative to the working directory.
        settings: as for `sweep_tuner`; the sweep's data must be in the object store again.
        callbacks: in the place of those that Tune has pickled, in the same order.

    Raises:
        ConfigurationError: there is no sweep of this configuration in the directory.
    """
    from ray import tune

    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    where = directory if "://" in directory else Place.at(directory).path
    try:
        tuner: Any = tune.Tuner.restore(
            where, trainable=settings[0].algo_class, resume_unfinished=True, resume_errored=True
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"there is no sweep of this configuration to resume in {directory}: {error}"
        ) from error
    # A pickled callback has lost what belongs to its process: terminal, credentials, journal.
    tuner._local_tuner.get_run_config().callbacks = list(callbacks)
    return tuner


def kept_sweep_id(directory: str) -> str | None:
    """Returns the id of the sweep in Tune's directory; None where it was not tracked."""
    known: str | None = identity_in(Place.at(directory)).get("sweep_id")
    return known


def recorded_runs(tracking_uri: str, experiment: str, sweep_id: str, say: Callable[[str], None]) -> dict[str, str]:
    """Returns the runs that a sweep has in the store, by trial id, its parent run under ''.

    A trial that had come to its end is not started again: no driver but the first has heard of its run.
    """
    client, query = open_client(tracking_uri), f"tags.`{names.TAG_SWEEP_ID}` = '{sweep_id}'"
    try:
        with store_errors(tracking_uri):
            known = client.get_experiment_by_name(experiment)
            ids = [] if known is None else [str(known.experiment_id)]
            runs = list(pages(partial(client.search_runs, ids, query))) if ids else []
    except ConfigurationError as error:
        say(f"the runs of trials that have ended are not known: {error}")
        return {}
    wanted = (names.ROLE_SWEEP, names.ROLE_TRIAL)
    return {
        run.data.tags.get(names.TAG_TRIAL_ID, ""): str(run.info.run_id)
        for run in runs
        if run.data.tags.get(names.TAG_ROLE) in wanted
    }
