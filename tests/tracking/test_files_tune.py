"""Files of runs through a real Tuner on a real Ray into a real server: logged from everywhere, traced, drawn."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from drl_ray_tracking import MLflowTrackingCallback, names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.journal import journals
from tests.capture.algorithms import trading_ppo
from tests.tracking.test_lifecycle_tune import fit
from tests.waiting import wait_until

pytestmark = [pytest.mark.scenarios, pytest.mark.ray, pytest.mark.mlflow, pytest.mark.usefixtures("ray_session")]
HOSTILE = ["#1?.txt", "a%2fb.txt", "ünï 漢字 🦄", "new\nline", "x" * 255, "..dots"]


def drawn() -> None:
    """Waits for the couriers, which draw after the sweep has ended."""
    wait_until(lambda: not list(journals()), timeout_s=120, what="the courier has drawn everything and is gone")


def artifacts(uri: str, run_id: str, folder: str | None = None) -> dict[str, int]:
    """Path -> size of every artifact of a run."""
    from mlflow.tracking import MlflowClient

    found: dict[str, int] = {}
    for item in MlflowClient(uri).list_artifacts(run_id, folder):
        found |= artifacts(uri, run_id, item.path) if item.is_dir else {item.path: item.file_size}
    return found


def read(uri: str, run_id: str, path: str, folder: Path) -> bytes:
    from mlflow.tracking import MlflowClient

    folder.mkdir(exist_ok=True)
    return Path(MlflowClient(uri).download_artifacts(run_id, path, str(folder))).read_bytes()


def writing(config: dict[str, Any]) -> None:
    """A trial that attaches files of its own, some with names that no URL can carry, and some that lead nowhere."""
    from pathlib import Path

    from ray import tune

    from drl_ray_tracking import log_artifact
    from drl_ray_tracking.errors import ConfigurationError

    folder = Path("made here")
    folder.mkdir(exist_ok=True)
    for name in config["names"]:
        (folder / name).write_text(f"{config['number']} {name}")
    for step in (1, 2):
        Path("plot.txt").write_text(f"plot of {config['number']} at {step}")
        assert log_artifact("plot.txt", f"plots/step {step}")
        tune.report({"loss": 1.0 / step})
    assert log_artifact(folder)
    refused = 0
    for wrong in ("../../x", "/tmp/x", "a/../../b"):
        try:
            log_artifact("plot.txt", wrong)
        except ConfigurationError:
            refused += 1
    assert refused == 3
    assert not log_artifact("plot.txt", "x" * 300), "no file system takes it: said, and the trial goes on"


def attaching(tracking: MLflowTrackingCallback, note: Path) -> Any:
    from ray import tune

    class Attaching(tune.Callback):
        """A callback of the user's, that attaches files to a trial and to the sweep."""

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
            note.write_text(f"result {result['training_iteration']} of {trial.trial_id}")
            tracking.log_artifact(note, "notes", trial=trial)
            tracking.log_artifact(note, f"of {trial.trial_id}")
            with pytest.raises(ConfigurationError, match="there is no trial 'nobody'"):
                tracking.log_artifact(note, trial="nobody")

    return Attaching()


def test_files_logged_in_trials_and_on_the_driver_before_during_and_after(tmp_path: Path, mlflow_server: str) -> None:
    from ray import tune

    note = tmp_path / "note.txt"
    note.write_text("before")
    tracking = MLflowTrackingCallback(mlflow_server, experiment_name=f"files-{uuid.uuid4().hex[:8]}")
    with pytest.raises(ConfigurationError, match="there is no file"):
        tracking.log_artifact(tmp_path / "missing")
    with pytest.raises(ConfigurationError, match="leads out"):
        tracking.log_artifact(note, "../x")
    with pytest.raises(ConfigurationError, match="has not started"):
        tracking.log_artifact(note, trial="t")
    tracking.log_artifact(note, "early")
    results = tune.Tuner(
        writing,
        param_space={"number": tune.grid_search([1, 2]), "names": HOSTILE},
        run_config=tune.RunConfig(
            name="exp", storage_path=str(tmp_path / "results"), verbose=0,
            callbacks=[tracking, attaching(tracking, note)],
        ),
    ).fit()  # fmt: skip
    assert not results.errors
    assert tracking.delivered
    parent = tracking.run_ids[""]
    note.write_text("after")
    tracking.log_artifact(note, "late")
    hostile = tmp_path / "#late?.txt"
    hostile.write_text("hostile")
    tracking.log_artifact(hostile, "100%")
    trials = {result.metrics["trial_id"]: result for result in results}  # type: ignore[index]
    with pytest.raises(ConfigurationError, match="trial 'nobody' has no run"):
        tracking.log_artifact(note, trial="nobody")
    assert read(mlflow_server, parent, "early/note.txt", tmp_path / "a") == b"before"
    assert read(mlflow_server, parent, "late/note.txt", tmp_path / "b") == b"after"
    assert read(mlflow_server, parent, "100_x25_/_x23_late_x3f_.txt", tmp_path / "c") == b"hostile"
    for trial_id, result in trials.items():
        run_id = tracking.run_ids[trial_id]
        said = f"result 2 of {trial_id}".encode()
        assert read(mlflow_server, parent, f"of {trial_id}/note.txt", tmp_path / trial_id) == said
        assert read(mlflow_server, run_id, "notes/note.txt", tmp_path / f"{trial_id}n") == said
        found = artifacts(mlflow_server, run_id)
        number = result.config["number"]  # type: ignore[index]
        for step in (1, 2):
            there = read(mlflow_server, run_id, f"plots/step {step}/plot.txt", tmp_path / f"{trial_id}{step}")
            assert there == f"plot of {number} at {step}".encode()
        own = {path.removeprefix("made here/") for path in found if path.startswith("made here/")}
        assert {names.original_metric_name(name) for name in own} == set(HOSTILE)
        for name in own:
            there = read(mlflow_server, run_id, f"made here/{name}", tmp_path / f"{trial_id}h")
            assert there.decode() == f"{number} {names.original_metric_name(name)}"
        (events,) = Path(result.path).glob("events.out.tfevents.*")
        kept = read(mlflow_server, run_id, f"{names.TENSORBOARD_ARTIFACT}/{events.name}", tmp_path / f"{trial_id}t")
        assert kept == events.read_bytes(), "whole: Tune's logger had closed it"
        assert not [path for path in found if "results" in path or path.startswith(("..", "/"))]
    drawn()
    for trial_id in trials:
        assert f"{names.PICTURES_ARTIFACT}/learning_curves.png" in artifacts(mlflow_server, tracking.run_ids[trial_id])


def test_a_trial_that_trades_is_traced_and_drawn(tmp_path: Path, mlflow_server: str) -> None:
    from matplotlib.image import imread
    from ray.rllib.algorithms.ppo import PPO

    from drl_ray_tracking import instrument, log_artifact

    def attach(*, algorithm: Any, result: dict[str, Any], **_: Any) -> None:
        note = Path(algorithm.logdir) / "weights.txt"
        note.write_text(f"at {result['training_iteration']}")
        log_artifact(note, "of mine", trainable=algorithm)

    config = instrument(trading_ppo().callbacks(on_train_result=attach), evaluation_windows=3)
    tracking = MLflowTrackingCallback(mlflow_server, experiment_name=f"traces-{uuid.uuid4().hex[:8]}")
    results = fit(tmp_path, PPO, tracking, config, stop={"training_iteration": 3})
    assert not results.errors and tracking.delivered
    ((_, run_id),) = [item for item in tracking.run_ids.items() if item[0]]

    def table(file: str) -> pd.DataFrame:
        path = f"{names.SERIES_ARTIFACT}/{file}"
        return pd.read_parquet(io.BytesIO(read(mlflow_server, run_id, path, tmp_path / file)))

    series = table(names.SERIES_FILE)
    assert series["iteration"].unique().tolist() == [1, 2, 3] and len(series) == 3 * 63
    returns = series.groupby(["iteration", "episode"])["equity"].agg(lambda equity: equity.iloc[-1] / equity.iloc[0])
    for file, chosen in ((names.BEST_EPISODE_FILE, returns.max()), (names.WORST_EPISODE_FILE, returns.min())):
        trace = table(file)
        assert trace["equity"].iloc[-1] / trace["equity"].iloc[0] == chosen
        for column in ("timestamp", "price", "action", "position", "fee", "reward", "reward/cost", "reward/market"):
            assert trace[column].iloc[1:].notna().all(), column
        parts = trace["reward/cost"] + trace["reward/market"]
        np.testing.assert_allclose(parts.iloc[1:], trace["reward"].iloc[1:], atol=1e-6)
    assert read(mlflow_server, run_id, "of mine/weights.txt", tmp_path / "w") == b"at 3"
    drawn()
    found = artifacts(mlflow_server, run_id)
    pictures = {path.split("/")[1] for path in found if path.startswith(f"{names.PICTURES_ARTIFACT}/")}
    assert pictures == {
        "action_mix.png",
        "equity_curve.png",
        "learning_curves.png",
        "return_distribution.png",
        "trades_best_episode.png",
        "trades_worst_episode.png",
    }, "this market has bar numbers for times: no months"
    for picture in pictures:
        image = imread(io.BytesIO(read(mlflow_server, run_id, f"{names.PICTURES_ARTIFACT}/{picture}", tmp_path / "p")))
        assert image.std() > 0.02, f"{picture} is empty"
    symbols = pd.read_csv(io.BytesIO(read(mlflow_server, run_id, names.SYMBOLS_ARTIFACT, tmp_path / "s")))
    (row,) = symbols.to_dict("records")
    from mlflow.tracking import MlflowClient

    metrics = MlflowClient(mlflow_server).get_run(run_id).data.metrics
    for kpi in ("total_return", "sharpe", "max_drawdown", "trades"):
        assert row[kpi] == pytest.approx(metrics[f"eval/trading/{kpi}"], rel=1e-12), kpi


def test_event_files_of_every_driver_of_a_sweep_are_there(tmp_path: Path, sqlite_store: Callable[[], str]) -> None:
    from ray import tune

    from tests.tracking.test_callback_tune import runs_of, train

    uri = sqlite_store()
    mended = tmp_path / "mended"
    space = {"lr": 0.1, "fails": 3, "mended": str(mended)}
    results = fit(tmp_path, train, MLflowTrackingCallback(uri, experiment_name="e"), space)
    assert results.errors
    mended.touch()
    again = tune.Tuner.restore(str(tmp_path / "results" / "exp"), trainable=train, resume_errored=True).fit()
    assert not again.errors
    drawn()
    (run,) = [run for key, run in runs_of(uri, "e").items() if key]
    found = [path for path in artifacts(uri, run.info.run_id) if path.startswith(names.TENSORBOARD_ARTIFACT)]
    assert len(found) == len(list(Path(again[0].path).glob("events.out.tfevents.*"))) == 2
