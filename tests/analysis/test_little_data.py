"""Little, broken and ill-matched data, through `compare`, `drl-track compare` and `drl-track report`: sentences."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from drl_ray_tracking import cli, compare, load_runs, names
from drl_ray_tracking.errors import TrackingError
from tests.tracking.test_import_tune import experiment

pytestmark = pytest.mark.mlflow
METRIC = names.DEFAULT_METRIC
Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Trial:
    """A trial as it is put into the store."""

    seed: str
    points: Points
    config: str = "c1"
    status: str = "FINISHED"
    evaluated: tuple[int, ...] = ()
    metric: str = METRIC


@dataclass(frozen=True)
class Case:
    """Trials, what the comparison says of them, and whether there is one at all."""

    trials: tuple[Trial, ...]
    said: tuple[str, ...]
    refused: bool = False


STEPS: Points = [(100, 0.5), (200, 1.0)]
CASES = {
    "one run": Case(
        (Trial("1", STEPS),),
        ("One group, 1 seed: nothing to rank it against.", "The only value is 1", "no return series of its evaluation"),
    ),
    "two seeds": Case(
        tuple(Trial(seed, STEPS, config) for config in ("c1", "c2") for seed in ("1", "2")),
        ("2 seeds each: no ranking; at least 3 are needed.",),
    ),
    "no finished run": Case(
        (Trial("1", STEPS, status="RUNNING"), Trial("2", STEPS, status="FAILED")),
        ("none of the 2 runs can be compared", "1 run with status FAILED", "1 run with status RUNNING"),
        refused=True,
    ),
    "no run has the metric": Case(
        (Trial("1", STEPS, metric="loss"), Trial("2", STEPS, metric="loss")),
        ("none of the 2 runs has the metric 'eval/trading/sharpe'", "They have 1 metrics, among them: loss"),
        refused=True,
    ),
    "NaN metrics": Case(
        (Trial("1", STEPS), Trial("2", [(100, 0.5), (200, math.nan)]), Trial("3", [(100, math.nan)])),
        (
            "Left out: 1 run without any defined point of eval/trading/sharpe",
            "is undefined (an older one is not taken)",
        ),
    ),
    "undefined at the last evaluation": Case(
        (Trial("1", STEPS, evaluated=(100, 200)), Trial("2", STEPS, evaluated=(100, 200, 300))),
        ("is undefined (an older one is not taken): trial-2.",),
    ),
    "metrics missing in some runs": Case(
        (Trial("1", STEPS), Trial("2", STEPS, metric="loss"), Trial("3", [])),
        ("Left out: 2 runs without any defined point of eval/trading/sharpe: trial-2, trial-3.",),
    ),
    "different step grids": Case(
        (Trial("1", STEPS), Trial("2", [(7, 0.1), (33, 0.2), (5000, 0.3)]), Trial("3", [(9000, 1.0)])),
        ("The values were taken at different env steps, 200 to 9,000: some runs had less training.",),
    ),
}


def fill(uri: str, trials: tuple[Trial, ...]) -> None:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.create_experiment("little", artifact_location=str(Path(uri.removeprefix("sqlite:///")).parent))
    parent = client.create_run(experiment, tags={names.TAG_ROLE: names.ROLE_SWEEP, names.TAG_SWEEP_ID: "s"}).info.run_id
    for number, trial in enumerate(trials):
        tags = {
            names.TAG_ROLE: names.ROLE_TRIAL,
            names.TAG_SWEEP_ID: "s",
            names.TAG_TRIAL_ID: f"t{number}",
            names.TAG_SEED: trial.seed,
            names.TAG_CONFIG_HASH: trial.config,
            "mlflow.parentRunId": parent,
        }
        run_id = client.create_run(experiment, tags=tags, run_name=f"trial-{trial.seed}").info.run_id
        points = [Metric(trial.metric, value, 1000 + step, step) for step, value in trial.points]
        points += [Metric(names.EVALUATION_MARKER, step, 1000 + step, step) for step in trial.evaluated]
        client.log_batch(run_id, metrics=points)
        if trial.status != "RUNNING":
            client.set_terminated(run_id, trial.status)


def run_command(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Runs the command line in this process; returns the exit code and everything printed, on one line."""
    monkeypatch.setattr(sys, "argv", ["drl-track", *arguments])
    capsys.readouterr()
    try:
        cli.main()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    printed = capsys.readouterr()
    return code, " ".join((printed.out + printed.err).split())


@pytest.mark.parametrize("case", CASES)
def test_it_is_said_in_sentences(
    case: str,
    sqlite_store: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri, given = sqlite_store(), CASES[case]
    fill(uri, given.trials)
    monkeypatch.chdir(tmp_path)
    try:
        runs = load_runs(uri, "little", metrics=[])
        by_library = compare(runs).to_markdown().replace("\\", "")
    except TrackingError as error:
        assert given.refused
        by_library = str(error)
    outputs = [by_library]
    for command in ("compare", "report"):
        code, printed = run_command([command, "little", "--tracking-uri", uri], monkeypatch, capsys)
        assert (code, "Traceback" in printed) == (2 if given.refused else 0, False), printed
        outputs.append(printed)
    page = tmp_path / "report-little" / "report.html"
    assert page.exists() is not given.refused
    for sentence in given.said[: 2 if case == "one run" else None]:
        assert sentence in by_library
    for sentence in given.said:
        assert all(sentence in " ".join(printed.replace("│", " ").split()) for printed in outputs[1:]), outputs[1:]
    if not given.refused:
        summary = (tmp_path / "report-little" / "report.md").read_text().replace("\\", "")
        assert all(sentence in summary for sentence in given.said)


def test_without_a_metric_it_is_what_the_sweep_was_tuned_on(
    sqlite_store: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mlflow.tracking import MlflowClient

    uri = sqlite_store()
    fill(uri, tuple(Trial(str(seed), [(100, float(seed))], metric="loss") for seed in (1, 2, 3)))
    monkeypatch.chdir(tmp_path)
    client = MlflowClient(uri)
    for run_id in load_runs(uri, "little", metrics=[]).runs.index:
        client.set_tag(run_id, names.TAG_OBJECTIVE, "loss")
        client.set_tag(run_id, names.TAG_OBJECTIVE_MODE, "min")
    code, printed = run_command(["compare", "little", "--tracking-uri", uri], monkeypatch, capsys)
    assert code == 0 and "The best single value, 1 (trial-1), is the best of 3 trials" in printed
    code, printed = run_command(["compare", "little", "--tracking-uri", uri, "--mode", "max"], monkeypatch, capsys)
    assert "The best single value, 3 (trial-3)" in printed
    code, printed = run_command(
        ["compare", "little", "--tracking-uri", uri, "--at", "budget", "--budget", "50"], monkeypatch, capsys
    )
    assert code == 2 and "3 runs without a point of loss within 50 env steps" in printed


def test_tunes_own_result_through_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = experiment(tmp_path)
    monkeypatch.chdir(tmp_path)
    arguments = [str(folder), "--tune", "--metric", "loss", "--mode", "min"]
    code, printed = run_command(["report", *arguments], monkeypatch, capsys)
    assert code == 0 and "report: report-old/report.html" in printed
    assert (tmp_path / "report-old" / "report.html").exists()
    code, printed = run_command(["compare", *arguments, "--sweep", "latest"], monkeypatch, capsys)
    assert code == 2 and "leave them out with --tune" in printed
