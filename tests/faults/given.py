"""What Tune gave the hooks, written down by the driver beside the journal and independently of it.

Each hook is noted before it is called and after it has returned. A driver killed in between leaves a
value that may or may not have reached the journal; every other value must arrive.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from drl_ray_tracking import MLflowTrackingCallback, names

Point = tuple[str, int, float]  # name, step, value


class RecordingCallback(MLflowTrackingCallback):
    """The callback as it is, whose hooks leave a trace in a file."""

    def __init__(self, record: Path, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.record = record

    def setup(self, *args: Any, **info: Any) -> None:
        self._note(what="driver")
        super().setup(*args, **info)

    def log_trial_start(self, trial: Any) -> None:
        super().log_trial_start(trial)
        self._note(what="start", trial=trial.trial_id, sweep=self.sweep_id)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        step = result.get(names.LIFETIME_STEPS, result[names.ITERATION])
        values = {
            names.legal_metric_name(path): names.finite(value)
            for path, value in names.flatten(result)
            if names.finite(value) is not None and not path.startswith("config/")
        }
        unsendable = any(_is_non_finite(value) for _, value in names.flatten(result))
        self._note(what="giving", trial=trial.trial_id, step=step, values=values, unsendable=unsendable)
        lost = self.spool.lost if self.spool else 0
        began = time.perf_counter()
        super().log_trial_result(iteration, trial, result)
        took = time.perf_counter() - began
        self._note(what="given", trial=trial.trial_id, took=took, safe=self.spool is None or self.spool.lost == lost)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        super().log_trial_end(trial, failed)
        self._note(what="end", trial=trial.trial_id, status="FAILED" if failed else "FINISHED")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        super().on_experiment_end(trials, **info)
        self._note(what="over", delivered=self.delivered, errors=self._errors)

    def _note(self, **entry: Any) -> None:
        with self.record.open("a") as file:
            file.write(f"{json.dumps(entry)}\n")


def _is_non_finite(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and not np.isfinite(value)


@dataclass
class GivenTrial:
    """The values of one trial: those that must be in the store, those that may be, those that were lost."""

    sure: Counter[Point] = field(default_factory=Counter)
    unsure: Counter[Point] = field(default_factory=Counter)
    non_finite: int = 0  # results with a value that no store takes; it must be counted there
    lost: int = 0  # results whose loss the driver was told of
    results: int = 0  # results whose hook returned
    last_step: int = 0  # of the last of them
    status: str = "KILLED"  # what its run must say


@dataclass
class Given:
    """One sweep, over all the drivers that ran it."""

    sweep_id: str = ""
    trials: dict[str, GivenTrial] = field(default_factory=dict)
    drivers: int = 0
    over: bool = False  # whether the last driver came to its end
    delivered: bool = False  # what that driver was told of delivery
    errors: Mapping[str, int] = field(default_factory=dict)  # that the callback kept from Tune
    slowest_hook_s: float = 0.0

    @property
    def status(self) -> str:
        """What the parent run must say."""
        ended = all(trial.status != "KILLED" for trial in self.trials.values())
        return "FINISHED" if self.over and ended else "KILLED"


def read_given(record: Path) -> Given:
    """Reads a trace back; a last line that a killed driver left half-written is skipped."""
    given = Given()
    pending: dict[str, Counter[Point]] = {}
    for line in record.read_text().splitlines() if record.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["what"] == "driver":
            given.drivers += 1
            given.over = False
            continue
        if entry["what"] == "over":
            given.over, given.delivered, given.errors = True, entry["delivered"], entry["errors"]
            continue
        trial = given.trials.setdefault(entry["trial"], GivenTrial())
        if entry["what"] == "start":
            given.sweep_id = entry["sweep"] or given.sweep_id
            trial.status = "KILLED"
        elif entry["what"] == "giving":
            trial.unsure.update(pending.pop(entry["trial"], Counter()))
            unsendable = entry["unsendable"]
            pending[entry["trial"]] = Counter((key, entry["step"], value) for key, value in entry["values"].items())
        elif entry["what"] == "given":
            points = pending.pop(entry["trial"])
            given.slowest_hook_s = max(given.slowest_hook_s, entry["took"])
            trial.results += 1
            trial.last_step = next(iter(points))[1]
            if entry["safe"]:
                trial.sure.update(points)
                trial.non_finite += unsendable
            else:
                trial.lost += 1
        else:
            trial.status = entry["status"]
    for trial_id, points in pending.items():
        given.trials[trial_id].unsure.update(points)
    return given
