"""What is compared: runs, their parameters and tags, and their histories, whatever store they came from.

A `RunSet` is a value: narrowing it or adding histories makes another one. It knows no store; where more is to
be read (a history nobody asked for yet, a return series), it asks its `Source`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any, Final, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from drl_ray_tracking import names
from drl_ray_tracking.analysis.budget import WindowBudget
from drl_ray_tracking.analysis.histories import histories_frame, typed_frame
from drl_ray_tracking.analysis.lineage import alerts, handovers
from drl_ray_tracking.analysis.sweeps import choose_sweep
from drl_ray_tracking.errors import ConfigurationError, DataError

Mode = Literal["max", "min"]
STATUSES: Final = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
_LISTED: Final = 12


@dataclass(frozen=True)
class Unreadable:
    """A run of which something could not be read, and why; its other data are there."""

    run_id: str
    reason: str


class Source(Protocol):
    """Where a `RunSet` reads more from."""

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> tuple[pd.DataFrame, tuple[Unreadable, ...]]:
        """Returns the points that count as a long table (`histories.COLUMNS`), and what could not be read."""

    def series(self, run_id: str) -> pd.DataFrame:
        """Returns the evaluation return series of a run, one row a bar; the caller may change it.

        Raises:
            DataError: the run kept none, or it cannot be read.
        """


def _no_points() -> pd.DataFrame:
    return histories_frame([])


@dataclass(frozen=True, eq=False)
class RunSet:
    """Runs read back for comparison.

    Attributes:
        runs: index `run_id`; columns `name`, `status`, `start_ms`, `end_ms`, `parent_run_id`, one for each tag
            `drl.<column>` (`sweep_id`, `trial_id`, `config_hash`, `seed`, `algorithm`, ...; text or missing),
            `tag.<name>` for other tags and `param.<name>` for parameters (text or missing).
        histories: columns `run_id` and `metric` (categories), `step` (env steps), `value` (NaN: undefined),
            `time_ms`; sorted by run in the order of `runs`, metric, step.
        parents: index `run_id` of the sweeps; columns `name`, `status`, `start_ms`, `end_ms`, `sweep_id`.
        unreadable: what could not be read.
        tracking_uri: the store, as MLflow takes it; may hold a password. Empty for a Tune result.
        notes: what a reader of any result has to know.
        metrics: names of all metrics the runs have, loaded or not; sorted.
        loaded: names of the metrics whose histories are in `histories`.
        source: where more is read from.
        test_evaluations: how often the experiments' test windows were looked at, see `analysis.budget`; None where
            that is not known.
        test_windows: the last of those looks by window id, where they can be read.
    """

    runs: pd.DataFrame
    histories: pd.DataFrame = field(default_factory=_no_points)
    parents: pd.DataFrame = field(default_factory=pd.DataFrame)
    unreadable: tuple[Unreadable, ...] = ()
    tracking_uri: str = field(default="", repr=False)
    notes: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    loaded: frozenset[str] = frozenset()
    source: Source | None = field(default=None, repr=False)
    test_evaluations: int | None = 0
    test_windows: Mapping[str, WindowBudget] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        typed = typed_frame(self.histories, list(self.runs.index), self.metrics)
        object.__setattr__(self, "histories", typed)

    def __len__(self) -> int:
        return len(self.runs)

    @classmethod
    def from_tune(cls, source: Any, *, filesystem: Any = None) -> RunSet:
        """Reads the trials of a Tune experiment out of its own files; see `tune_source.read_tune`."""
        from drl_ray_tracking.analysis.tune_source import read_tune

        return read_tune(source, filesystem=filesystem)

    def equals(self, other: RunSet) -> bool:
        """Tells whether both hold the same trials with the same values, whatever stores they were read from.

        Trials are paired by `trial_id`; names, statuses, identifying tags, parameters and every point of every
        metric must agree. Run ids and times are a store's own and do not count.
        """
        from drl_ray_tracking.analysis.sameness import differences

        return not differences(self, other)

    def resolve(self, metric: str) -> str:
        """Returns the name in `metrics` of a metric given by its MLflow name or its Tune path.

        Raises:
            DataError: no run has it; names what they have.
        """
        found = self._own_name(metric)
        if found is not None:
            return found
        published = names.mlflow_name(metric)
        if not self.metrics:
            raise DataError(f"none of the {len(self)} runs has any metric, so not {metric!r} either")
        folder = published.rpartition("/")[0]
        near = [name for name in self.metrics if name.rpartition("/")[0] == folder]
        shown = ", ".join((near or list(self.metrics))[:_LISTED])
        raise DataError(
            f"none of the {len(self)} runs has the metric {metric!r}{names.suggestion(published, self.metrics)}. "
            f"They have {len(self.metrics)} metrics, among them: {shown}"
        )

    @property
    def evaluation_marker(self) -> str | None:
        """The name in `metrics` of the one that says which evaluations there were; None where no run has it."""
        return self._own_name(names.EVALUATION_MARKER)

    def _own_name(self, metric: str) -> str | None:
        published, path = names.mlflow_name(metric), names.tune_path(metric)
        known = (metric, published, names.legal_metric_name(published), path, names.legal_metric_name(path))
        return next((name for name in known if name in self.metrics), None)

    def with_metrics(self, *patterns: str) -> RunSet:
        """Returns this set with the histories of more metrics; those it already holds are not read again.

        With a metric of evaluations comes the one that says which evaluations there were.

        Args:
            patterns: MLflow names, Tune paths, or globs over MLflow names (`eval/trading/*`).

        Raises:
            DataError: no run has a metric of that name, or none matches the glob.
        """
        wanted: dict[str, None] = {}
        for pattern in patterns:
            if any(sign in pattern for sign in "*?["):
                matching = [name for name in self.metrics if fnmatchcase(name, pattern)]
                if not matching:
                    raise DataError(f"none of the {len(self.metrics)} metrics of the runs matches {pattern!r}")
                wanted.update(dict.fromkeys(matching))
            else:
                wanted[self.resolve(pattern)] = None
        if self.evaluation_marker is not None and any(is_evaluated(name) for name in wanted):
            wanted[self.evaluation_marker] = None
        missing = [name for name in wanted if name not in self.loaded]
        if not missing or self.source is None:
            return self
        run_ids = list(self.runs.index)
        points, unreadable = self.source.histories(run_ids, missing)
        together = pd.concat([self.histories, typed_frame(points, run_ids, self.metrics)], ignore_index=True)
        order = np.lexsort((together["step"], together["metric"].cat.codes, together["run_id"].cat.codes))
        return replace(
            self,
            histories=together.iloc[order].reset_index(drop=True),
            unreadable=(*self.unreadable, *unreadable),
            loaded=self.loaded | frozenset(missing),
        )

    def history(self, metric: str) -> pd.DataFrame:
        """Returns a metric over env steps: index `step`, a column for each run that has a point.

        Args:
            metric: MLflow name or Tune path.

        Returns:
            Missing where a run has no point at that step or the value is undefined.
        """
        return self._points(metric).pivot(index="step", columns="run_id", values="value")

    def curves(self, metric: str) -> dict[str, pd.Series[float]]:
        """Returns a metric of each run that has a point of it over its own env steps, in the order of `runs`.

        Returns:
            Run id -> values, index `step`, missing where undefined.
        """
        points = self._points(metric)
        codes, step, value = points["run_id"].cat.codes.to_numpy(), points["step"].to_numpy(), points["value"]
        found, first = np.unique(codes, return_index=True)
        run_ids = points["run_id"].cat.categories
        return {
            str(run_ids[code]): pd.Series(value.to_numpy()[part], index=pd.Index(step[part], name="step"))
            for code, part in zip(found, (slice(*edge) for edge in pairwise([*first, len(codes)])), strict=True)
        }

    def run_history(self, metric: str, run_id: str) -> pd.Series[float]:
        """Returns a metric of one run over its own env steps: index `step`, missing where undefined.

        For many runs `curves` is the faster way.
        """
        self._known(run_id)
        points = self._points(metric)
        one = points[points["run_id"] == run_id]
        return pd.Series(one["value"].to_numpy(), index=pd.Index(one["step"], name="step"), name=run_id)

    def final(self, metric: str) -> pd.DataFrame:
        """Returns each run's value at its last point of a metric.

        The last point of an evaluation's metric is the last evaluation, also where the metric is undefined in it:
        an older value is not taken in its place.

        Returns:
            Index `run_id`, every run in the order of `runs`; columns `value` and `step`, both missing for a
            run without the metric, `value` alone missing where the last point is undefined.
        """
        return self._row_of_each_run(_last_rows(self._points(metric)))

    def at_budget(self, metric: str, step: int) -> pd.DataFrame:
        """Returns each run's value at its last point of a metric at or before an env step; columns as of `final`."""
        points = self._points(metric)
        return self._row_of_each_run(_last_rows(points[points["step"] <= step]))

    def best(self, metric: str, mode: Mode = "max") -> pd.DataFrame:
        """Returns each run's best defined value of a metric, and the first env step that had it.

        A maximum over evaluations is optimistic: it was chosen because it is high.
        """
        points = self._points(metric).dropna(subset=["value"]).reset_index(drop=True)
        by_run = points.groupby("run_id", sort=False, observed=True)["value"]
        rows = by_run.idxmax() if check_mode(mode) == "max" else by_run.idxmin()
        return self._row_of_each_run(points.loc[rows])

    def points_of(self, metric: str) -> pd.Series[int]:
        """Returns how many points of a metric each run has, undefined ones included; index `run_id`, every run."""
        counts = self._points(metric)["run_id"].value_counts(sort=False)
        return pd.Series(counts.to_numpy(), index=counts.index.astype("str"), dtype="int64").reindex(
            self.runs.index, fill_value=0
        )

    def series(self, run_id: str) -> pd.DataFrame:
        """Returns the evaluation return series of a run, one row a bar of an evaluation episode.

        Columns: iteration, step (env steps of the weights), episode, symbol, window, split, fold,
        periods_per_year, bar, timestamp (epoch seconds, or text), equity, price, position, fee, reward, action; where
        an episode has them also leverage, slippage, reward/<component> and action/<dimension>.

        Raises:
            DataError: the run is not in this set, kept no series, or they cannot be read.
        """
        self._known(run_id)
        if self.source is None:
            raise DataError(f"run {run_id} was not read from a store that keeps evaluation series")
        return self.source.series(run_id)

    def handovers(self) -> pd.DataFrame:
        """Returns whose checkpoints trials went on from and what changed then (PBT, PB2); see `lineage.handovers`."""
        return handovers(self.runs)

    def alerts(self) -> pd.DataFrame:
        """Returns which trials collapsed, lost their entropy and so on, and when; see `lineage.alerts`."""
        return alerts(self.runs)

    def with_status(self, *statuses: str) -> RunSet:
        """Returns the runs that have one of the statuses (`FINISHED`, `FAILED`, `KILLED`, `RUNNING`, ...)."""
        unknown = [status for status in statuses if status not in STATUSES]
        if unknown or not statuses:
            raise ConfigurationError(f"status must be among {', '.join(STATUSES)} but got {unknown or 'nothing'}")
        return self._narrowed(self.runs["status"].isin(statuses))

    def sweep(self, which: str) -> RunSet:
        """Returns the runs of one sweep, given by sweep id, parent run id or parent run name.

        Raises:
            ConfigurationError: no such sweep among these runs, or several of that name.
        """
        wanted = choose_sweep(self.parents, which, also=self.runs["sweep_id"].dropna().unique())
        return self._narrowed(self.runs["sweep_id"] == wanted)

    def _narrowed(self, mask: pd.Series[bool]) -> RunSet:
        runs = self.runs[mask]
        unreadable = tuple(item for item in self.unreadable if item.run_id in runs.index)
        parents = self.parents[_of_runs(self.parents, runs)] if len(self.parents) else self.parents
        return replace(self, runs=runs, unreadable=unreadable, parents=parents)

    def _points(self, metric: str) -> pd.DataFrame:
        """Returns the points of a metric, sorted by run and step, with the evaluations in which it is undefined."""
        name = self.resolve(metric)
        runs = self.with_metrics(name)
        points = runs._loaded_points(name)
        marker = self.evaluation_marker
        if marker is None or not is_evaluated(name):
            return points
        evaluated = runs._loaded_points(marker)
        undefined = evaluated[~np.isin(_places(evaluated), _places(points))]
        if undefined.empty:
            return points
        together = pd.concat([points, undefined.assign(value=np.nan)], ignore_index=True)
        return together.iloc[np.argsort(_places(together), kind="stable")]

    def _loaded_points(self, name: str) -> pd.DataFrame:
        codes = self.histories["metric"].cat
        wanted = codes.categories.get_loc(name)
        return self.histories.loc[codes.codes == wanted, ["run_id", "step", "value", "time_ms"]]

    def _row_of_each_run(self, points: pd.DataFrame) -> pd.DataFrame:
        rows = points[["value", "step"]].set_axis(pd.Index(points["run_id"].astype("str"), name="run_id"))
        return rows.reindex(self.runs.index)

    def _known(self, run_id: str) -> None:
        if run_id not in self.runs.index:
            raise DataError(f"run {run_id!r} is not among these {len(self)} runs")


def is_evaluated(metric: str) -> bool:
    """Tells whether every evaluation has a value of the metric, unless it is undefined."""
    published = names.mlflow_name(metric)
    return published.startswith(("eval/", f"{names.EVALUATION}/")) and published != names.EVALUATION_MARKER


def _of_runs(parents: pd.DataFrame, runs: pd.DataFrame) -> pd.Series[bool]:
    """Tells which sweeps some runs are of; the trials of a Tune result have no parent run, only a sweep's id."""
    sweeps = runs.get("sweep_id", pd.Series(dtype="object")).dropna()
    return parents["sweep_id"].isin(sweeps) | parents.index.isin(runs["parent_run_id"])


def _places(points: pd.DataFrame) -> NDArray[np.int64]:
    """Returns one number for the run and step of each point, in the order of runs and steps."""
    run, step = points["run_id"].cat.codes.to_numpy(dtype=np.int64), points["step"].to_numpy(dtype=np.int64)
    return np.asarray((run << 40) + step, dtype=np.int64)


def _last_rows(points: pd.DataFrame) -> pd.DataFrame:
    codes = points["run_id"].cat.codes.to_numpy()
    return points[np.append(codes[1:] != codes[:-1], True)[: len(codes)]]


def objective_of(runs: RunSet) -> tuple[str, Mode]:
    """Returns what the runs were tuned on and whether more of it is better; the default metric where they disagree."""
    told = {
        (str(row.get("objective")), str(row.get("objective_mode")))
        for row in runs.runs.reindex(columns=["objective", "objective_mode"]).to_dict("records")
    }
    metric, mode = next(iter(told)) if len(told) == 1 else ("", "")
    with suppress(DataError):
        if mode in ("max", "min"):
            return runs.resolve(metric), "min" if mode == "min" else "max"
    return names.DEFAULT_METRIC, "max"


def check_mode(mode: str) -> str:
    """Returns `max` or `min`; raises ConfigurationError for anything else."""
    if mode not in ("max", "min"):
        raise ConfigurationError(f"mode must be 'max' or 'min' but got {mode!r}")
    return mode
