"""What is compared: runs, their parameters and tags, and their histories, whatever store they came from.

A `RunSet` is a value: narrowing it or adding histories makes another one. It knows no store; where more is to
be read (a history nobody asked for yet, a return series), it asks its `Source`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final, Literal, Protocol

import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.analysis.histories import COLUMNS
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
    return pd.DataFrame({column: [] for column in COLUMNS})


@dataclass(frozen=True, eq=False)
class RunSet:
    """Runs read back for comparison.

    Attributes:
        runs: index `run_id`; columns `name`, `status`, `start_ms`, `end_ms`, `parent_run_id`, one for each tag
            `drl.<column>` (`sweep_id`, `trial_id`, `config_hash`, `seed`, `algorithm`, ...; text or missing),
            `tag.<name>` for other tags and `param.<name>` for parameters (text or missing).
        histories: columns `run_id`, `metric`, `step` (env steps), `value` (NaN: undefined), `time_ms`; sorted.
        parents: index `run_id` of the sweeps; columns `name`, `status`, `start_ms`, `end_ms`, `sweep_id`.
        unreadable: what could not be read.
        tracking_uri: the store, as MLflow takes it; may hold a password.
        notes: what a reader of any result has to know.
        metrics: names of all metrics the runs have, loaded or not; sorted.
        loaded: names of the metrics whose histories are in `histories`.
        source: where more is read from.
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

    def __len__(self) -> int:
        return len(self.runs)

    def resolve(self, metric: str) -> str:
        """Returns the name in `metrics` of a metric given by its MLflow name or its Tune path.

        Raises:
            DataError: no run has it; names what they have.
        """
        published = names.mlflow_name(metric)
        for name in (metric, published, names.legal_metric_name(published)):
            if name in self.metrics:
                return name
        if not self.metrics:
            raise DataError(f"none of the {len(self)} runs has any metric, so not {metric!r} either")
        folder = published.rpartition("/")[0]
        near = [name for name in self.metrics if name.rpartition("/")[0] == folder]
        shown = ", ".join((near or list(self.metrics))[:_LISTED])
        raise DataError(
            f"none of the {len(self)} runs has the metric {metric!r}{names.suggestion(published, self.metrics)}. "
            f"They have {len(self.metrics)} metrics, among them: {shown}"
        )

    def with_metrics(self, *patterns: str) -> RunSet:
        """Returns this set with the histories of more metrics; those it already holds are not read again.

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
        missing = [name for name in wanted if name not in self.loaded]
        if not missing or self.source is None:
            return self
        points, unreadable = self.source.histories(list(self.runs.index), missing)
        parts = [part for part in (self.histories, points) if len(part)]
        together = pd.concat(parts, ignore_index=True) if parts else points
        return replace(
            self,
            histories=together.sort_values(["run_id", "metric", "step"], ignore_index=True),
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

    def run_history(self, metric: str, run_id: str) -> pd.Series[float]:
        """Returns a metric of one run over its own env steps: index `step`, missing where undefined."""
        self._known(run_id)
        points = self._points(metric)
        one = points[points["run_id"] == run_id]
        return pd.Series(one["value"].to_numpy(), index=pd.Index(one["step"], name="step"), name=run_id)

    def final(self, metric: str) -> pd.DataFrame:
        """Returns each run's value at its last point of a metric.

        Returns:
            Index `run_id`, every run in the order of `runs`; columns `value` and `step`, both missing for a
            run without the metric, `value` alone missing where the last point is undefined.
        """
        return self._row_of_each_run(self._points(metric).groupby("run_id", sort=False).tail(1))

    def best(self, metric: str, mode: Mode = "max") -> pd.DataFrame:
        """Returns each run's best defined value of a metric, and the first env step that had it.

        A maximum over evaluations is optimistic: it was chosen because it is high.
        """
        points = self._points(metric).dropna(subset=["value"])
        by_run = points.groupby("run_id", sort=False)["value"]
        rows = by_run.idxmax() if check_mode(mode) == "max" else by_run.idxmin()
        return self._row_of_each_run(points.loc[rows])

    def points_of(self, metric: str) -> pd.Series[int]:
        """Returns how many defined points of a metric each run has; index `run_id`, every run."""
        points = self._points(metric).dropna(subset=["value"])
        return points.groupby("run_id").size().reindex(self.runs.index, fill_value=0)

    def series(self, run_id: str) -> pd.DataFrame:
        """Returns the evaluation return series of a run, one row a bar of an evaluation episode.

        Columns: iteration, step (env steps of the weights), episode, symbol, window, split, fold,
        periods_per_year, bar, timestamp (epoch seconds, or text), equity, price, position, fee, reward, action.

        Raises:
            DataError: the run is not in this set, kept no series, or they cannot be read.
        """
        self._known(run_id)
        if self.source is None:
            raise DataError(f"run {run_id} was not read from a store that keeps evaluation series")
        return self.source.series(run_id)

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
        points = self.histories[self.histories["run_id"].isin(runs.index)].reset_index(drop=True)
        unreadable = tuple(item for item in self.unreadable if item.run_id in runs.index)
        parents = self.parents[self.parents.index.isin(runs["parent_run_id"])] if len(self.parents) else self.parents
        return replace(self, runs=runs, histories=points, unreadable=unreadable, parents=parents)

    def _points(self, metric: str) -> pd.DataFrame:
        name = self.resolve(metric)
        points = self.with_metrics(name).histories
        return points[points["metric"] == name]

    def _row_of_each_run(self, points: pd.DataFrame) -> pd.DataFrame:
        return points.set_index("run_id")[["value", "step"]].reindex(self.runs.index)

    def _known(self, run_id: str) -> None:
        if run_id not in self.runs.index:
            raise DataError(f"run {run_id!r} is not among these {len(self)} runs")


def check_mode(mode: str) -> str:
    """Returns `max` or `min`; raises ConfigurationError for anything else."""
    if mode not in ("max", "min"):
        raise ConfigurationError(f"mode must be 'max' or 'min' but got {mode!r}")
    return mode


def choose_sweep(parents: pd.DataFrame, which: str, also: Iterable[str] = ()) -> str:
    """Returns the sweep id of a sweep given by `latest`, sweep id, parent run id or parent run name.

    Args:
        parents: the sweeps' parent runs, as `RunSet.parents`.
        which: how the sweep is given.
        also: sweep ids known without a parent run.

    Raises:
        ConfigurationError: there is none, or there are several of that name.
    """
    if not len(parents):
        if which in set(also):
            return which
        raise ConfigurationError(f"there is no sweep {which!r}: these runs have no parent run at all")
    newest_first = parents.sort_values("start_ms", ascending=False)
    if which == "latest":
        return str(newest_first["sweep_id"].iloc[0])
    found = newest_first[(newest_first["sweep_id"] == which) | (newest_first.index == which)]
    if found.empty and which in set(also):
        return which
    if found.empty:
        found = newest_first[newest_first["name"] == which]
    if len(found) > 1:
        raise ConfigurationError(
            f"{len(found)} sweeps are named {which!r}: give one by its id, newest first: {', '.join(found['sweep_id'])}"
        )
    if found.empty:
        known = [str(name) for name in newest_first["name"]]
        raise ConfigurationError(
            f"there is no sweep {which!r}{names.suggestion(which, known)}. Newest first there are: "
            f"{', '.join(known[:_LISTED])}; 'latest' takes the newest, a sweep id or parent run id works too"
        )
    return str(found["sweep_id"].iloc[0])
