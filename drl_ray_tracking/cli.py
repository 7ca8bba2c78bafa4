"""`drl-track`: parse, call one function, print. Exit code 2 is a mistake of the user's, said in one message."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from drl_ray_tracking.comparing import At, Choice, Mode, View, show_comparison
from drl_ray_tracking.errors import ConfigurationError, TrackingError
from drl_ray_tracking.names import DEFAULT_METRIC

if TYPE_CHECKING:
    from drl_ray_tracking.training.config import SweepConfig
    from drl_ray_tracking.training.sweep import SweepOutcome

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


Experiment = Annotated[str, typer.Argument(help="The MLflow experiment's name or id; with --tune Tune's directory.")]
Metric = Annotated[
    str | None, typer.Option(help="By its MLflow name or its Tune path; default what the sweep was tuned on.")
]
BetterIs = Annotated[Mode | None, typer.Option("--mode", help="Whether more is better; default as it was tuned.")]
By = Annotated[str, typer.Option(help="What groups trials: config_hash, a parameter or a tag.")]
Counts = Annotated[
    At, typer.Option("--at", help="Which of a trial's values counts: the last, the best, or that at equal budget.")
]
Budget = Annotated[int | None, typer.Option(help="Env steps, with --at budget; default what every trial reached.")]
Sweep = Annotated[str | None, typer.Option(help="One sweep: its id, parent run, name, or 'latest'.")]
Job = Annotated[str | None, typer.Option(help="One Ray job: its submission id or its job id.")]
Where = Annotated[list[str] | None, typer.Option(help="Only trials with this tag: NAME=VALUE. Repeatable.")]
FromTune = Annotated[bool, typer.Option("--tune", help="Read Tune's own result instead of MLflow.")]


@app.callback()
def _root() -> None:
    """Train, track and compare deep-RL sweeps on Ray with MLflow."""


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The sweep's YAML file, such as configs/demo.yaml.")],
    report: Annotated[Path | None, typer.Option(help="Also write the report into this folder.")] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with a sweep of this file that was cut off: Tune's directory of it.")
    ] = None,
) -> None:
    """Trains a sweep, tracks it, compares its trials, and says where everything is."""
    from drl_ray_tracking.training.config import load_config

    settings = load_config(config)  # before anything heavy is imported: a mistake is said at once
    from drl_ray_tracking.training.continuation import start_of
    from drl_ray_tracking.training.sweep import run_sweep, sweep_summary

    folder = config.resolve().parent
    outcome = run_sweep(settings, base_dir=folder, console=_console, start=start_of(settings, folder), resume=resume)
    undone: list[str] = []
    try:
        undone += [] if outcome.interrupted else _after(outcome, settings, folder, report)
    finally:  # whatever happens after it, a sweep that has trained says where it is
        for line in (*sweep_summary(outcome), *undone):
            _line(line)
    if outcome.interrupted:
        again = f"drl-track train {quote(str(config))} --resume {quote(outcome.result_paths[0])}"
        _line(f"Interrupted: nothing is tested or compared. Go on with it: {again}")
        raise typer.Exit(130)
    if outcome.errors or undone:
        raise typer.Exit(1)


def _after(outcome: SweepOutcome, settings: SweepConfig, folder: Path, report: Path | None) -> list[str]:
    """Tests and compares what has trained; returns what of it could not be done, and why."""
    undone = []
    if settings.wants_test or settings.ensembles:
        from drl_ray_tracking.training.market import load_markets
        from drl_ray_tracking.training.rllib_service import after_training

        try:
            after_training(outcome, settings, load_markets(settings, folder), _console)
        except TrackingError as error:
            undone.append(f"NOT DONE: the test and the ensembles: {error}")
    view = View(settings.objective.metric, settings.objective.mode)
    for sweep_id in outcome.sweep_ids if outcome.delivered else ():
        try:
            show_comparison(
                outcome.experiment, outcome.tracking_uri, view, Choice(sweep=sweep_id), _console, report=report
            )
        except TrackingError as error:
            undone.append(f"NOT DONE: the comparison: {error}")
    return undone


@app.command()
def compare(
    experiment: Experiment,
    tracking_uri: TrackingUri = None,
    metric: Metric = None,
    mode: BetterIs = None,
    by: By = "config_hash",
    at: Counts = "last",
    budget: Budget = None,
    sweep: Sweep = None,
    job: Job = None,
    where: Where = None,
    tune: FromTune = False,
    publish: Annotated[bool, typer.Option(help="Write table and pictures onto the parent run.")] = True,
    report: Annotated[Path | None, typer.Option(help="Also write the report into this folder.")] = None,
) -> None:
    """Compares the trials of an experiment, seed by seed, and says what may be concluded."""
    view, chosen = View(metric, mode, by, at, budget), Choice(sweep, job, _pairs("--where", where))
    store = _store(tracking_uri, tune)
    show_comparison(experiment, store, view, chosen, _console, publish_it=publish, page=False, report=report)


@app.command()
def report(
    experiment: Experiment,
    tracking_uri: TrackingUri = None,
    metric: Metric = None,
    mode: BetterIs = None,
    by: By = "config_hash",
    at: Counts = "last",
    budget: Budget = None,
    sweep: Sweep = None,
    job: Job = None,
    where: Where = None,
    tune: FromTune = False,
    publish: Annotated[bool, typer.Option(help="Log it on the parent run as well.")] = True,
    output: Annotated[Path | None, typer.Option(help="The folder; default report-EXPERIMENT here.")] = None,
) -> None:
    """Writes the report of an experiment: one HTML file that works offline, beside it Markdown, CSV and pictures."""
    view, chosen = View(metric, mode, by, at, budget), Choice(sweep, job, _pairs("--where", where))
    name = re.sub(r"[^\w.-]+", "-", experiment.rstrip("/").rpartition("/")[2]).strip("-.") or "experiment"
    folder = output or Path(f"report-{name}")
    store = _store(tracking_uri, tune)
    show_comparison(experiment, store, view, chosen, _console, publish_it=publish, report=folder)


def _store(tracking_uri: str | None, tune: bool) -> str | None:
    """Returns the MLflow store, or None where Tune's own files are meant."""
    from drl_ray_tracking.tracking.target import resolve_target

    return None if tune else resolve_target(tracking_uri).uri


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


def _look_for_code(*files: Path | None) -> None:
    """Makes the user's modules that a sweep names importable: those here, and those beside the files given."""
    from drl_ray_tracking.training.named import look_in

    for folder in {Path.cwd(), *(file.resolve().parent for file in files if file is not None)}:
        look_in(folder)


@app.command()
def promote(
    experiment: Annotated[str, typer.Argument(help="The MLflow experiment's name or id.")],
    config: Annotated[Path, typer.Option(help="Name of the model, window and gates, such as configs/promote.yaml.")],
    tracking_uri: TrackingUri = None,
    metric: Annotated[str, typer.Option(help="What the best checkpoint is chosen by.")] = DEFAULT_METRIC,
    mode: Annotated[Mode, typer.Option(help="Whether more is better.")] = "max",
    sweep_config: Annotated[Path | None, typer.Option(help="The sweep's YAML, where its runs do not keep it.")] = None,
) -> None:
    """Registers the best checkpoint; it becomes champion if it passes every gate. Exit code 1 if it does not."""
    from drl_ray_tracking.promotion.gates import load_promotion
    from drl_ray_tracking.promotion.promote import promote as promote_best
    from drl_ray_tracking.tracking.target import resolve_target

    _look_for_code(config, sweep_config)
    uri = resolve_target(tracking_uri).uri
    done = promote_best(uri, experiment, load_promotion(config), metric=metric, mode=mode, sweep_config=sweep_config)
    _line(f"{done.model} version {done.version}\n{done.text}")
    if not done.champion:
        raise typer.Exit(1)


@app.command()
def reproduce(
    run_id: Annotated[str, typer.Argument(help="A trial's MLflow run.")],
    tracking_uri: TrackingUri = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE: a searched key that shall differ; repeat it.")
    ] = None,
    sweep_config: Annotated[Path | None, typer.Option(help="The sweep's YAML, where its runs do not keep it.")] = None,
) -> None:
    """Trains a recorded trial again and compares every metric. Exit code 1 where one differs."""
    from drl_ray_tracking.promotion.reproduce import reproduce as train_again
    from drl_ray_tracking.tracking.target import resolve_target

    _look_for_code(sweep_config)
    uri = resolve_target(tracking_uri).uri
    done = train_again(uri, run_id, changes=_pairs("--set", change), sweep_config=sweep_config)
    for difference in done.differences:
        _line(f"not as it was: {difference}")
    for row in done.rows:
        if row.agreement != "equal":
            _line(f"{row.agreement}: {row.metric} recorded {row.recorded}, now {row.new}")
    equal = sum(row.agreement == "equal" for row in done.rows)
    _line(f"{equal} of {len(done.rows)} metrics are equal")
    if not done.agrees:
        raise typer.Exit(1)


@app.command()
def submit(
    config: Annotated[Path, typer.Argument(help="The sweep's YAML file; it and the data file it names are sent.")],
    address: Annotated[
        str | None, typer.Option(help="The head's dashboard; default $RAY_API_SERVER_ADDRESS, else this machine's.")
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", help="The MLflow server, as the cluster's head reaches it.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once instead of following the log.")] = False,
    working_dir: Annotated[
        Path | None, typer.Option(help="Send this folder whole instead; the configuration lies in it.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="A variable of the job: NAME=VALUE. Repeatable; no secrets.")
    ] = None,
    submission_id: Annotated[str | None, typer.Option(help="The job's id; default a new one.")] = None,
    python: Annotated[str, typer.Option(help="The interpreter's command on the head.")] = "python",
) -> None:
    """Runs a sweep as a job of a Ray cluster; the exit code is the job's."""
    from drl_ray_tracking.training.submit import Submission
    from drl_ray_tracking.training.submit import submit as submit_job

    variables = _pairs("--env", env)
    request = Submission(config, address, tracking_uri, working_dir, variables, submission_id, python)
    raise typer.Exit(submit_job(request, _line, follow=not detach))


@app.command()
def doctor(tracking_uri: TrackingUri = None) -> None:
    """Looks at everything tracking rests on and says what to do; exit code 1 where something is wrong."""
    from drl_ray_tracking.tracking.doctor import examine

    if not examine(tracking_uri, _line):
        raise typer.Exit(1)


def _pairs(option: str, given: Sequence[str] | None) -> dict[str, str]:
    """Returns repeated NAME=VALUE options as a mapping."""
    wrong = [text for text in given or () if not text.partition("=")[0] or "=" not in text]
    if wrong:
        raise ConfigurationError(f"{option} takes NAME=VALUE but got {', '.join(map(repr, wrong))}")
    return {text.partition("=")[0]: text.partition("=")[2] for text in given or ()}


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
