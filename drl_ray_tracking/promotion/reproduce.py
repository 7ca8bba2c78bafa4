"""Reproduce: train a recorded trial again from its run alone, and say for each metric whether it came out the same.

Before that it says what is not as it was: versions, commit, uncommitted changes. Other data are refused.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml
from ray.tune import Callback

from drl_ray_tracking import names
from drl_ray_tracking.analysis.runs import open_client
from drl_ray_tracking.analysis.store_errors import store_errors
from drl_ray_tracking.errors import ConfigurationError, DataError
from drl_ray_tracking.promotion.rebuild import market_of, read_text, trial_config
from drl_ray_tracking.tracking.identity import context_tags, installed_versions, working_diff
from drl_ray_tracking.training.algorithms import ENV_PREFIX, algorithm_config
from drl_ray_tracking.training.config import SearchDimension, SweepConfig
from drl_ray_tracking.training.continuation import starting_point
from drl_ray_tracking.training.resources import fit
from drl_ray_tracking.training.sweep import cores, start_ray, sweep_tuner
from drl_ray_tracking.trials.metrics import MetricSelection

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

Agreement = Literal["equal", "close", "differs", "missing"]
CLOSE: Final = 1e-6  # relative: another processor adds up in another order
_TIMED: Final = ("perf/", "progress/wall_time_s", "hparam/", "tracker/", "system/")  # these never repeat
_CLOCKS: Final = re.compile(r"(^|/)(time_|timestamp|pid$)|timer|throughput")  # in RLlib's own names
_NOT_TRAINED: Final = ("test/", f"{names.RULES}/")  # what was done with the agent afterwards
_DECIDING: Final = ("drl-ray-tracking", "gymnasium", "numpy", "ray", "torch")


@dataclass(frozen=True)
class Row:
    """A metric's last value, as recorded and as it is now; None where there is none."""

    metric: str
    recorded: float | None
    new: float | None

    @property
    def agreement(self) -> Agreement:
        """`equal`, `close` (relative difference up to `CLOSE`), `differs`, or `missing` on one side."""
        if self.recorded is None or self.new is None:
            return "missing"
        if self.recorded == self.new:
            return "equal"
        return "close" if math.isclose(self.recorded, self.new, rel_tol=CLOSE, abs_tol=1e-12) else "differs"


@dataclass(frozen=True)
class Reproduction:
    """What came out.

    Attributes:
        run_id: of the recorded trial.
        differences: what is not as it was then, in words.
        rows: one a metric that training determines, sorted by name.
    """

    run_id: str
    differences: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def agrees(self) -> bool:
        """Whether every metric is equal or close."""
        return all(row.agreement in ("equal", "close") for row in self.rows)


def reproduce(
    tracking_uri: str | None,
    run_id: str,
    *,
    changes: Mapping[str, Any] | None = None,
    sweep_config: Path | None = None,
) -> Reproduction:
    """Trains a recorded trial again, for as many iterations, and compares the last value of each metric.

    Args:
        tracking_uri: the MLflow store.
        run_id: the trial's run.
        changes: searched keys that shall have another value, to see what they decide; a text is read as YAML.
        sweep_config: the sweep's YAML, where its runs do not carry it.

    Raises:
        ConfigurationError: no such run, or what is needed was not recorded.
        DataError: the data are not those of the run any more, or the new trial failed.
    """
    client = open_client(tracking_uri)
    with store_errors(tracking_uri or "MLflow's default"):
        run = client.get_run(run_id)
        config = _changed(trial_config(client, run, sweep_config), changes or {})
        differences = tuple(_differences(client, run))
    market = market_of(config, run)
    iterations = int(run.data.metrics.get("progress/iteration", 0))
    if iterations < 1:
        raise ConfigurationError(f"run {run_id} has no finished iteration: there is nothing to reproduce")
    start_ray()
    last = _LastValues(MetricSelection(config.tracking.names, config.tracking.include, config.tracking.exclude))
    with tempfile.TemporaryDirectory(prefix="drl-reproduce-") as scratch:
        start = None
        if config.start_from is not None:
            start = starting_point(config.start_from, base_dir=Path.cwd(), storage=scratch, tracking_uri=tracking_uri)
        settings = algorithm_config(config, config.agents[0], market, start)
        # More than there are cores would wait for ever; with fewer it may come out otherwise, which is said.
        differences += tuple(fit([settings], config.resources, trials=1, cores=cores()))
        again = config.model_copy(update={"storage": scratch, "stop": {names.ITERATION: float(iterations)}})
        results = sweep_tuner(again, [settings], "reproduce", [last]).fit()
    if results.errors:
        raise DataError(f"the trial failed this time: {results.errors[0]}")
    recorded = {name: value for name, value in run.data.metrics.items() if _repeats(name)}
    rows = [Row(name, recorded.get(name), last.values.get(name)) for name in sorted({*recorded, *last.values})]
    return Reproduction(run_id, differences, tuple(rows))


class _LastValues(Callback):
    """Keeps the last value of every metric of the one trial, by its MLflow name."""

    def __init__(self, selection: MetricSelection) -> None:
        self.values: dict[str, float] = {}
        self._selection = selection

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Takes a result's values."""
        selected = self._selection.select(result)
        self.values.update({name: value for name, value in selected.items() if _repeats(name)})


def _repeats(name: str) -> bool:
    """Tells whether training alone determines a metric."""
    return not _CLOCKS.search(name) and not (names.published_name(name) or name).startswith((*_TIMED, *_NOT_TRAINED))


def _changed(config: SweepConfig, changes: Mapping[str, Any]) -> SweepConfig:
    env, search = dict(config.env), dict(config.search)
    for key, given in changes.items():
        value = yaml.safe_load(given) if isinstance(given, str) else given
        if key.startswith(ENV_PREFIX):
            env[key.removeprefix(ENV_PREFIX)] = value
        else:
            search[key] = SearchDimension(grid=[value])
    return config.model_copy(update={"env": env, "search": search})


def _differences(client: MlflowClient, run: Run) -> Iterator[str]:
    """Yields what is not as it was when the run was made."""
    parent = names.sweep_run(run.data.tags) or ""
    text = read_text(client, parent, names.VERSIONS_ARTIFACT) if parent else None
    if text is None:
        yield "the versions of that time were not recorded"
    else:
        then, now = _parsed(text), _parsed(installed_versions())
        changed = sorted(name for name in then if name in now and then[name] != now[name])
        gone = sorted(set(then) - set(now))
        deciding = [f"{name} {then[name]} -> {now[name]}" for name in changed if name in _DECIDING]
        others = len(changed) - len(deciding)
        if deciding:
            yield f"versions: {', '.join(deciding)}"
        if others or gone:
            yield f"{others} other distributions have another version, {len(gone)} are not installed any more"
    then_commit, now_commit = (tags.get("mlflow.source.git.commit", "") for tags in (run.data.tags, context_tags()))
    if then_commit != now_commit:
        yield f"commit: {then_commit or 'unknown'} -> {now_commit or 'unknown'}"
    diff_then = (read_text(client, parent, names.DIFF_ARTIFACT) if parent else None) or ""
    if diff_then != working_diff(()):
        yield "uncommitted changes of the work tree are not those of that time"


def _parsed(text: str) -> dict[str, str]:
    return {name: version for name, _, version in (line.partition("==") for line in text.splitlines()) if name}
