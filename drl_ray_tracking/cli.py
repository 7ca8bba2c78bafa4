"""`drl-track`: parse, call one function, print. Exit code 2 is a mistake of the user's, said in one message."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from drl_ray_tracking.errors import TrackingError
from drl_ray_tracking.names import DEFAULT_METRIC

app = typer.Typer(
    name="drl-track",
    help="Train, track and compare deep-RL sweeps on Ray with MLflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_console = Console()
if not _console.is_terminal and "COLUMNS" not in os.environ:
    _console = Console(width=140)  # a log file or a job's output has no width to fit into
_errors = Console(stderr=True)

TrackingUri = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="MLflow store; default $MLFLOW_TRACKING_URI, else ./mlflow.db."),
]


Mode = Literal["max", "min"]
At = Literal["last", "best"]


@app.callback()
def _root() -> None:
    """Train, track and compare deep-RL sweeps on Ray with MLflow."""


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The sweep's YAML file, such as configs/demo.yaml.")],
    report: Annotated[Path | None, typer.Option(help="Also write the comparison and its pictures here.")] = None,
) -> None:
    """Trains a sweep, tracks it, compares its trials, and says where everything is."""
    from drl_ray_tracking.training.config import load_config
    from drl_ray_tracking.training.sweep import run_sweep, sweep_summary

    settings = load_config(config)
    outcome = run_sweep(settings, base_dir=config.resolve().parent, console=_console)
    if outcome.delivered:
        for sweep_id in outcome.sweep_ids:
            _compare(
                outcome.experiment,
                outcome.tracking_uri,
                settings.objective.metric,
                settings.objective.mode,
                sweep=sweep_id,
                report=report,
            )
    for line in sweep_summary(outcome):
        _console.print(line, highlight=False, soft_wrap=True)
    if outcome.errors:
        raise typer.Exit(1)


@app.command()
def compare(
    experiment: Annotated[str, typer.Argument(help="The MLflow experiment's name or id.")],
    tracking_uri: TrackingUri = None,
    metric: Annotated[str, typer.Option(help="By its MLflow name or its Tune path.")] = DEFAULT_METRIC,
    mode: Annotated[Mode, typer.Option(help="Whether more is better.")] = "max",
    by: Annotated[str, typer.Option(help="What groups trials: config_hash, a parameter or a tag.")] = "config_hash",
    at: Annotated[At, typer.Option(help="Which of a trial's values counts.")] = "last",
    sweep: Annotated[str | None, typer.Option(help="One sweep: its id, parent run, name, or 'latest'.")] = None,
    publish: Annotated[bool, typer.Option(help="Write table and pictures onto the parent run.")] = True,
    report: Annotated[Path | None, typer.Option(help="Also write the comparison and its pictures here.")] = None,
) -> None:
    """Compares the trials of an experiment, seed by seed, and says what may be concluded."""
    from drl_ray_tracking.tracking.target import resolve_target

    uri = resolve_target(tracking_uri).uri
    _compare(experiment, uri, metric, mode, by=by, at=at, sweep=sweep, publish_it=publish, report=report)


def _compare(
    experiment: str,
    tracking_uri: str,
    metric: str,
    mode: Mode,
    *,
    by: str = "config_hash",
    at: At = "last",
    sweep: str | None = None,
    publish_it: bool = True,
    report: Path | None = None,
) -> None:
    from drl_ray_tracking.analysis.compare import compare as compare_runs
    from drl_ray_tracking.analysis.publish import publish, write_report
    from drl_ray_tracking.analysis.runs import load_runs

    runs = load_runs(tracking_uri, experiment, sweep=sweep, metrics=[metric])
    comparison = compare_runs(runs, metric=metric, mode=mode, by=by, at=at)
    _console.print(comparison.to_rich())
    if publish_it:
        publish(comparison, runs, tracking_uri=tracking_uri)
    if report is not None:
        _console.print(f"report: {write_report(comparison, runs, report)}", highlight=False, soft_wrap=True)


@app.command()
def sync() -> None:
    """Delivers what earlier sweeps left behind on this machine."""
    from drl_ray_tracking.tracking.leftovers import sync_leftovers

    if not sync_leftovers(_console.print):
        raise typer.Exit(1)


@app.command()
def reconcile(
    tracking_uri: TrackingUri = None,
    experiment: Annotated[str | None, typer.Option(help="One experiment's name or id; default all.")] = None,
    older_than: Annotated[float, typer.Option(help="Minutes without a heartbeat that make a sweep dead.")] = 60.0,
) -> None:
    """Closes the running runs of sweeps that died without a word; never a live sweep's, never a stranger's."""
    from drl_ray_tracking.tracking.reconcile import reconcile as close_dead_runs

    close_dead_runs(tracking_uri, _line, experiment=experiment, older_than_min=older_than)


@app.command(name="import-tune")
def import_tune(
    directory: Annotated[Path, typer.Argument(help="A Tune experiment's directory, such as ~/ray_results/NAME.")],
    tracking_uri: TrackingUri = None,
    experiment: Annotated[str | None, typer.Option(help="MLflow experiment; default the directory's name.")] = None,
) -> None:
    """Makes runs of a past Tune experiment; run twice it adds nothing."""
    from drl_ray_tracking.tracking.import_tune import import_tune as import_experiment

    name = experiment or directory.expanduser().resolve().name
    outcome = import_experiment(directory, tracking_uri, name, now_ms=lambda: int(time.time() * 1000))
    if outcome.journal is not None:
        _line(f"not everything could be delivered: the rest waits in {outcome.journal}; run `drl-track sync`")
        raise typer.Exit(1)
    _line(f"sweep {outcome.sweep_id}: {outcome.runs} runs and {outcome.points} values added to {name!r}")


@app.command()
def doctor(tracking_uri: TrackingUri = None) -> None:
    """Looks at everything tracking rests on and says what to do; exit code 1 where something is wrong."""
    from drl_ray_tracking.tracking.doctor import examine

    if not examine(tracking_uri, _line):
        raise typer.Exit(1)


def _line(text: str) -> None:
    _console.print(text, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Runs the command line; a mistake of the user's ends with one message and exit code 2."""
    try:
        app()
    except TrackingError as error:
        _errors.print(f"[bold red]error:[/] {_plain(error)}", highlight=False, soft_wrap=True)
        raise SystemExit(2) from None


def _plain(error: TrackingError) -> str:
    from rich.markup import escape

    return escape(str(error))


if __name__ == "__main__":
    main()
