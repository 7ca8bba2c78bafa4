"""What follows on training: nothing after Ctrl-C, and a summary in any case."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from drl_ray_tracking import cli
from drl_ray_tracking.comparing import _mode
from drl_ray_tracking.errors import DataError
from drl_ray_tracking.training import sweep
from drl_ray_tracking.training.config import parse_config
from drl_ray_tracking.training.progress import SweepProgress
from drl_ray_tracking.training.rllib_service import after_training
from drl_ray_tracking.training.sweep import SweepOutcome

GIVEN: dict[str, Any] = {
    "experiment": "e",
    "data": {"source": "gym_anytrading:GOOGL"},
    "agents": [{"algorithm": "PPO"}],
    "stop": {"training_iteration": 1},
    "test": True,
}


def outcome(**changes: Any) -> SweepOutcome:
    given: dict[str, Any] = {
        "experiment": "e",
        "tracking_uri": "sqlite:////nowhere/mlflow.db",
        "sweep_ids": ("s",),
        "result_paths": ("/results/my sweep",),
        "trials": 3,
        "errors": (),
        "delivered": True,
    }
    return SweepOutcome(**{**given, **changes})


def train(folder: Path, monkeypatch: pytest.MonkeyPatch, done: SweepOutcome, **changes: Any) -> Any:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({**GIVEN, **changes}))
    monkeypatch.setattr(sweep, "run_sweep", lambda *given, **more: done)
    stream = io.StringIO()
    monkeypatch.setattr(cli, "_console", Console(file=stream, width=200))
    result = CliRunner().invoke(cli.app, ["train", str(file)])
    return result.exit_code, stream.getvalue(), result


def test_an_interrupted_sweep_spends_no_look_at_the_test_bars() -> None:
    cut = outcome(interrupted=True)
    assert after_training(cut, parse_config(GIVEN, "here"), [], Console(quiet=True)) is cut


def test_ctrl_c_says_how_to_go_on_and_compares_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "show_comparison", lambda *given, **more: pytest.fail("it was compared"))
    code, output, _ = train(tmp_path, monkeypatch, outcome(interrupted=True))
    assert code == 130
    assert f"drl-track train {tmp_path}/sweep.yaml --resume '/results/my sweep'" in output
    assert "3 trials in experiment 'e'" in output


def test_a_comparison_that_fails_does_not_replace_the_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **more: Any) -> None:
        raise DataError("two runs have other bars")

    monkeypatch.setattr(cli, "show_comparison", refuse)
    code, output, _ = train(tmp_path, monkeypatch, outcome(), test=False)
    assert code == 1
    assert "3 trials in experiment 'e'" in output
    assert "NOT DONE: the comparison: two runs have other bars" in output


def test_the_last_look_at_the_trials_tells_whether_all_came_to_their_end() -> None:
    class _Tracking:
        spool = None

    progress = SweepProgress(Console(quiet=True), _Tracking(), metric="eval/return_mean", mode="max")  # type: ignore[arg-type]
    trials = [SimpleNamespace(status="TERMINATED", is_finished=lambda: True)]
    running = SimpleNamespace(status="RUNNING", is_finished=lambda: False)
    progress.on_step_end(1, trials)
    assert not progress.unfinished
    progress.on_step_end(2, [*trials, running])
    running.is_finished = lambda: True  # as Tune marks it while it cleans up
    assert progress.unfinished


@pytest.mark.parametrize(
    ("asked", "mode"),
    [(None, "min"), ("eval/trading/max_drawdown", "min"), ("evaluation/env_runners/trading/max_drawdown", "min"),
     ("eval/trading/sharpe", "max")],
)  # fmt: skip
def test_the_metric_a_sweep_was_tuned_on_keeps_its_mode_when_it_is_named(asked: str | None, mode: str) -> None:
    assert _mode(asked, "eval/trading/max_drawdown", "min") == mode
