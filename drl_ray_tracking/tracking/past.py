"""Reads a past Tune experiment out of its directory: JSON only, nothing is unpickled."""

from __future__ import annotations

import json
import logging
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError

_log = logging.getLogger(__name__)
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")  # in a repr: another one in every process
_STATUS: Final = {"TERMINATED": "FINISHED", "ERROR": "FAILED"}


@dataclass(frozen=True)
class PastTrial:
    """A trial as Tune left it; `status` is MLflow's, KILLED where Tune never ended it."""

    trial_id: str
    trainable: str
    folder: Path
    status: str
    searched: Mapping[str, Any]
    last: Mapping[str, Any]  # its last result
    criteria: Mapping[str, Any]  # thresholds of the sweep's `stop`

    def results(self) -> Iterator[dict[str, Any]]:
        """Yields the trial's results in the order they were reported; a line cut in half is left out and said."""
        path = self.folder / "result.json"
        if not path.is_file():
            return
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    result = json.loads(line)
                except ValueError:
                    _log.warning("%s: line %d is no JSON, left out", path, number)
                    continue
                if isinstance(result, dict):
                    yield result

    def config(self) -> dict[str, Any]:
        """Returns the configuration the trial began with, without addresses of code objects."""
        first = next(self.results(), {}).get("config")
        if not isinstance(first, dict):
            path = self.folder / "params.json"
            try:
                first = json.loads(path.read_text()) if path.is_file() else {}
            except ValueError:
                first = {}
        return dict(without_addresses(first))

    def error(self) -> str:
        """Returns the traceback of a trial that failed, or ''."""
        path = self.folder / "error.txt"
        return path.read_text(errors="replace")[-100_000:] if path.is_file() else ""


@dataclass(frozen=True)
class PastExperiment:
    """A Tune experiment's directory; `identity` is the content of its identity file, empty where it was not tracked."""

    folder: Path
    trials: tuple[PastTrial, ...]
    identity: Mapping[str, Any]


def read_experiment(folder: Path) -> PastExperiment:
    """Reads what Tune left in an experiment's directory.

    Raises:
        ConfigurationError: there is no such directory, or it holds no trial.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise ConfigurationError(f"there is no directory {folder}: give the directory of a Tune experiment")
    states = sorted(folder.glob("experiment_state-*.json"))
    trials = _from_state(folder, states[-1]) if states else ()
    trials = trials or _from_results(folder)
    if not trials:
        raise ConfigurationError(
            f"{folder} is no Tune experiment: it holds no experiment_state-*.json and no folder with a result.json. "
            "Give the directory that Tune names at the end of a run, such as ~/ray_results/NAME."
        )
    return PastExperiment(folder, tuple(sorted(trials, key=lambda trial: trial.trial_id)), _identity(folder))


def without_addresses(value: Any) -> Any:
    """Returns plain JSON whose texts name code objects without their addresses."""
    if isinstance(value, Mapping):
        return {str(key): without_addresses(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_addresses(item) for item in value]
    return _ADDRESS.sub("", value) if isinstance(value, str) else value


def _from_state(folder: Path, state: Path) -> tuple[PastTrial, ...]:
    try:
        stored = json.loads(state.read_text())["trial_data"]
        found = []
        for described, lived in stored:
            trial, life = json.loads(described), json.loads(lived)
            found.append(
                PastTrial(
                    trial_id=str(trial["trial_id"]),
                    trainable=str(trial["trainable_name"]),
                    folder=folder / str(trial.get("relative_logdir") or trial["trial_id"]),
                    status=_STATUS.get(str(trial["status"]), "KILLED"),
                    searched=_mapping(trial.get("evaluated_params")),
                    last=_mapping(life.get("last_result")),
                    criteria=_mapping(trial.get("stopping_criterion")),
                )
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("%s is not readable (%s): statuses are guessed from the results", state, error)
        return ()
    return tuple(found)


def _from_results(folder: Path) -> tuple[PastTrial, ...]:
    found = []
    for path in sorted(folder.glob("*/result.json")):
        trial = PastTrial("", "", path.parent, "", {}, {}, {})
        ended = deque(trial.results(), maxlen=1)
        last = ended[0] if ended else {}
        if last.get("trial_id"):
            status = "FINISHED" if last.get("done") else "KILLED"
            status = "FAILED" if (path.parent / "error.txt").is_file() else status
            trainable = path.parent.name.split(f"_{last['trial_id']}")[0]
            found.append(PastTrial(str(last["trial_id"]), trainable, path.parent, status, {}, last, {}))
    return tuple(found)


def _identity(folder: Path) -> Mapping[str, Any]:
    try:
        known = json.loads((folder / names.IDENTITY_FILE).read_text())
        return {"sweep_id": str(known["sweep_id"]), "epoch": int(known["epoch"]), "name": str(known["name"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
