"""Reads a past Tune experiment out of its directory: JSON only, nothing is unpickled."""

from __future__ import annotations

import json
import logging
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.trials.place import Place
from drl_ray_tracking.trials.tracked import Tracked

_log = logging.getLogger(__name__)
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")  # in a repr: another one in every process
_CLASS: Final = re.compile(r"<class '(?P<module>[\w.]+)\.(?P<name>\w+)'>")
_RESULTS: Final = "result.json"
_CONFIG: Final = "params.json"  # written anew at every start of the trial
_ERROR: Final = "error.txt"
_EXPLOITS: Final = "pbt_global.txt"
_STATUS: Final = {"TERMINATED": "FINISHED", "ERROR": "FAILED"}


@dataclass(frozen=True)
class PastTrial:
    """A trial as Tune left it; `status` is MLflow's, KILLED where Tune never ended it."""

    trial_id: str
    trainable: str
    folder: Place
    status: str
    searched: Mapping[str, Any]
    last: Mapping[str, Any]  # its last result
    criteria: Mapping[str, Any]  # thresholds of the sweep's `stop`
    label: str = ""  # Tune's experiment tag, by which its files about PBT name a trial
    donations: tuple[tuple[int, str], ...] = ()  # PBT: (own iteration at which, trial whose checkpoint it was given)

    def results(self) -> Iterator[dict[str, Any]]:
        """Yields the trial's results in the order they were reported; a line cut in half is left out and said.

        Tune may end before it has written a trial's last results to its storage; the very last is in its state too,
        unless PBT has put the donor's in its place.
        """
        latest = 0.0
        for number, line in enumerate(self.folder.lines(_RESULTS), start=1):
            try:
                result = json.loads(line)
            except ValueError:
                _log.warning("%s/%s: line %d is no JSON, left out", self.folder, _RESULTS, number)
                continue
            if isinstance(result, dict):
                latest = names.finite(result.get(names.ITERATION)) or latest
                yield result
        own = self.last.get("trial_id", self.trial_id) == self.trial_id
        if latest and own and (names.finite(self.last.get(names.ITERATION)) or 0.0) > latest:
            yield dict(self.last)

    def config(self) -> dict[str, Any]:
        """Returns the configuration the trial began with, without addresses of code objects."""
        first = next(self.results(), {}).get("config")
        return dict(without_addresses(first)) if isinstance(first, dict) else self.last_config()

    def last_config(self) -> dict[str, Any]:
        """Returns the configuration the trial was last started with, without addresses; empty where not kept.

        PBT may start a trial anew after its last result: only this file knows.
        """
        try:
            last = json.loads(self.folder.text(_CONFIG) or "{}")
        except ValueError:
            last = {}
        return dict(without_addresses(last)) if isinstance(last, dict) else {}

    def tags(self) -> dict[str, str]:
        """Returns the tags that the trial was given beside those of its sweep; empty where it was given none."""
        try:
            kept = json.loads(self.folder.text(names.TAGS_FILE) or "{}")
        except ValueError:
            kept = {}
        return {str(key): str(value) for key, value in kept.items()} if isinstance(kept, dict) else {}

    def error(self) -> str:
        """Returns the traceback of a trial that failed, or ''."""
        return (self.folder.text(_ERROR) or "")[-100_000:]


@dataclass(frozen=True)
class PastExperiment:
    """A Tune experiment's directory.

    `identity` is the content of its identity file and `tracked` how its trials were tracked: empty and None where
    they were not.
    """

    folder: Place
    trials: tuple[PastTrial, ...]
    identity: Mapping[str, Any]
    tracked: Tracked | None = None


def read_experiment(folder: Place) -> PastExperiment:
    """Reads what Tune left in an experiment's directory.

    Raises:
        ConfigurationError: there is no such directory, or it holds no trial.
    """
    try:
        there = folder.entries() if folder.exists() else None
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be read: {error}") from error
    if there is None:
        raise ConfigurationError(f"there is no directory {folder}: give the directory of a Tune experiment")
    states = [name for name in there if fnmatchcase(name, "experiment_state-*.json")]
    trials = _from_state(folder, states[-1]) if states else ()
    trials = trials or _from_results(folder)
    if not trials:
        raise ConfigurationError(
            f"{folder} is no Tune experiment: it holds no experiment_state-*.json and no folder with a result.json. "
            "Give the directory that Tune names at the end of a run, such as ~/ray_results/NAME."
        )
    given = _donations(folder, {trial.label.partition("@perturbed")[0]: trial.trial_id for trial in trials})
    ordered = tuple(
        replace(trial, donations=tuple(given.get(trial.trial_id, ())))
        for trial in sorted(trials, key=lambda trial: trial.trial_id)
    )
    return PastExperiment(folder, ordered, identity_in(folder), Tracked.from_text(folder.text(names.TRIALS_FILE) or ""))


def with_modules(value: Any, named: Any, written: Any) -> Any:
    """Returns a configuration of a file with its code objects named as a live one names them.

    Args:
        value: a configuration as `without_addresses` returned it.
        named, written: the defaults, as `jsonable` names code objects and as Tune writes them. A function that
            differs from the default keeps its text: Tune does not write which module it is of.
    """
    if value == written:
        return named
    if isinstance(value, Mapping):
        defaults, texts = (part if isinstance(part, Mapping) else {} for part in (named, written))
        return {key: with_modules(item, defaults.get(key), texts.get(key, ...)) for key, item in value.items()}
    if isinstance(value, list):
        return [with_modules(item, None, ...) for item in value]
    found = _CLASS.fullmatch(value) if isinstance(value, str) else None
    return f"{found['module']}:{found['name']}" if found else value


def without_addresses(value: Any) -> Any:
    """Returns plain JSON whose texts name code objects without their addresses."""
    if isinstance(value, Mapping):
        return {str(key): without_addresses(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_addresses(item) for item in value]
    return _ADDRESS.sub("", value) if isinstance(value, str) else value


def _from_state(folder: Place, state: str) -> tuple[PastTrial, ...]:
    try:
        stored = json.loads(folder.text(state) or "")["trial_data"]
        found = []
        for described, lived in stored:
            trial, life = json.loads(described), json.loads(lived)
            found.append(
                PastTrial(
                    trial_id=str(trial["trial_id"]),
                    trainable=str(trial["trainable_name"]),
                    folder=folder.below(str(trial.get("relative_logdir") or trial["trial_id"])),
                    status=_STATUS.get(str(trial["status"]), "KILLED"),
                    searched=_mapping(trial.get("evaluated_params")),
                    last=_mapping(life.get("last_result")),
                    criteria=_mapping(trial.get("stopping_criterion")),
                    label=str(trial.get("experiment_tag") or ""),
                )
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("%s/%s is not readable (%s): statuses are guessed from the results", folder, state, error)
        return ()
    return tuple(found)


def _from_results(folder: Place) -> tuple[PastTrial, ...]:
    found = []
    for name in folder.entries():
        trial = PastTrial("", "", folder.below(name), "", {}, {}, {})
        try:
            ended = deque(trial.results(), maxlen=1)
        except OSError:  # a file, no folder
            continue
        last = ended[0] if ended else {}
        if last.get("trial_id"):
            status = "FINISHED" if last.get("done") else "KILLED"
            status = "FAILED" if _ERROR in trial.folder.entries() else status
            trainable = name.split(f"_{last['trial_id']}")[0]
            found.append(PastTrial(str(last["trial_id"]), trainable, trial.folder, status, {}, last, {}))
    return tuple(found)


def _donations(folder: Place, ids: Mapping[str, str]) -> dict[str, list[tuple[int, str]]]:
    """Returns whose checkpoints PBT gave to whom: trial id -> (its iteration, donor), in order."""
    given: dict[str, list[tuple[int, str]]] = {}
    for line in folder.lines(_EXPLOITS):
        try:
            receiver, donor, iteration, *_ = json.loads(line)
            given.setdefault(ids[receiver], []).append((int(iteration), ids[donor]))
        except (ValueError, KeyError, TypeError):
            _log.warning("%s/%s: a line cannot be read, left out", folder, _EXPLOITS)
    return given


def identity_in(folder: Place) -> Mapping[str, Any]:
    """Returns sweep_id, epoch and name of the sweep in a Tune experiment's directory; nothing of one not tracked."""
    try:
        known = json.loads(folder.text(names.IDENTITY_FILE) or "")
        return {"sweep_id": str(known["sweep_id"]), "epoch": int(known["epoch"]), "name": str(known["name"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
