"""What `train`, `compare` and `report` show: runs read, compared and judged, the verdict printed and published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.names import mlflow_name

Mode = Literal["max", "min"]
At = Literal["last", "best", "budget"]


@dataclass(frozen=True)
class Choice:
    """Which trials of an experiment are meant; nothing given means all of them."""

    sweep: str | None = None
    job: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """How trials are compared; without a metric, by what the sweep was tuned on."""

    metric: str | None = None
    mode: Mode | None = None
    by: str = "config_hash"
    at: At = "last"
    budget: int | None = None


def show_comparison(
    experiment: str,
    tracking_uri: str | None,
    view: View,
    chosen: Choice,
    console: Console,
    *,
    publish_it: bool = True,
    page: bool = True,
    report: Path | None = None,
) -> None:
    """Compares runs and shows what may be concluded.

    Args:
        experiment: MLflow's name or id; without a store Tune's directory.
        tracking_uri: of the store; None reads Tune's own files.
        view: how they are compared.
        chosen: which of the experiment's runs.
        console: where it is shown.
        publish_it: writes table and pictures onto the parent run, with `page` the report, too.
        page: see `publish_it`.
        report: the folder that takes the report as well; None for none.

    Raises:
        ConfigurationError, DataError: the store does not answer, or there is nothing to compare.
    """
    from drl_ray_tracking.analysis.compare import compare as compare_runs
    from drl_ray_tracking.analysis.publish import publish, write_report
    from drl_ray_tracking.analysis.runs import load_runs
    from drl_ray_tracking.analysis.runset import RunSet, objective_of
    from drl_ray_tracking.analysis.verdict import judged

    if tracking_uri is None:
        if chosen != Choice():
            raise ConfigurationError(
                "--sweep, --job and --where choose among MLflow's runs: leave them out with --tune"
            )
        runs, everything = RunSet.from_tune(experiment), None
    else:
        runs = load_runs(tracking_uri, experiment, sweep=chosen.sweep, job=chosen.job, where=chosen.where, metrics=[])
        # Other sweeps on the same bars were tries too: what was chosen was chosen from them as well.
        everything = load_runs(tracking_uri, experiment, metrics=[]) if chosen != Choice() else runs
    tuned_on, better = objective_of(runs)
    metric, mode = view.metric or tuned_on, view.mode or _mode(view.metric, tuned_on, better)
    compared = compare_runs(runs, metric=metric, mode=mode, by=view.by, at=view.at, budget=view.budget)
    comparison = judged(compared, runs, everything)
    console.print(comparison.to_rich())
    title = experiment.rstrip("/").rpartition("/")[2] if tracking_uri is None else experiment
    if publish_it and tracking_uri is not None:
        publish(comparison, runs, tracking_uri=tracking_uri, title=title, page=page)
    if report is not None:
        told = f"report: {write_report(comparison, runs, report, title)}"
        console.print(told, markup=False, highlight=False, soft_wrap=True)


def _mode(asked: str | None, tuned_on: str, better: Mode) -> Mode:
    """Returns whether more is better: as it was tuned, where that very metric is asked for."""
    return better if asked is None or mlflow_name(asked) == mlflow_name(tuned_on) else "max"
