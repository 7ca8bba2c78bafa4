"""Whole sweeps through a real Tuner on a real Ray into a real store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from drl_ray_tracking import MLflowTrackingCallback, names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.journal import journals
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.usefixtures("ray_session")]


def train(config: dict[str, Any]) -> None:
    """Two results with a checkpoint each, continued after a restore; `fails` says at which step it raises."""
    import json
    import tempfile
    from pathlib import Path

    from ray import tune

    start = 0
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            start = json.loads((Path(folder) / "state.json").read_text())
    for step in range(start + 1, 4):
        if step == config.get("fails") and not Path(config.get("mended", "/nonexistent")).exists():
            raise ValueError(f"boom at {step}")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "state.json").write_text(json.dumps(step))
            tune.report(
                {"loss": 1.0 / step, "nested": {"x@y": config["lr"]}, "train/trading/cagr": 2.0},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


def fit(tmp_path: Path, callback: MLflowTrackingCallback, space: dict[str, Any]) -> Any:
    from ray import tune

    run_config = tune.RunConfig(name="exp", storage_path=str(tmp_path / "results"), callbacks=[callback], verbose=0)
    return tune.Tuner(train, param_space=space, run_config=run_config).fit()


def runs_of(uri: str, experiment: str) -> Mapping[str, Any]:
    """Trial id, or '' for the parent -> MLflow run; and nothing anywhere else in the store."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    runs = {}
    for found in client.search_experiments():
        for run in client.search_runs([found.experiment_id]):
            assert found.name == experiment, f"a stray run in {found.name}"
            assert runs.setdefault(run.data.tags.get(names.TAG_TRIAL_ID, ""), run) is run, "a run was made twice"
    return runs


def test_a_sweep_in_which_a_trial_fails_before_its_first_result(
    tmp_path: Path, sqlite_store: Callable[[], str]
) -> None:
    from mlflow.tracking import MlflowClient
    from ray import tune

    uri = sqlite_store()
    callback = MLflowTrackingCallback(uri, experiment_name="e", tags={"team": "x"}, tracking_token="t0k3n-t0k3n")
    results = fit(tmp_path, callback, {"lr": 0.1, "api_key": "c0nfig-s3cret", "fails": tune.grid_search([1, None])})
    assert callback.delivered
    assert len(results.errors) == 1
    runs = runs_of(uri, "e")
    parent = runs[""]
    assert len(runs) == 3
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "exp"
    assert parent.data.tags[names.TAG_SWEEP_ID] == callback.sweep_id
    client = MlflowClient(uri)
    for outcome in results:
        trial_id = next(key for key in runs if key and key in str(outcome.path))
        run = runs[trial_id]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["team"] == "x"
        if outcome.error:
            assert run.info.status == "FAILED"
            assert "boom at 1" in run.data.tags[names.TAG_ERROR]
            assert names.ERROR_ARTIFACT in {file.path for file in client.list_artifacts(run.info.run_id)}
            continue
        assert run.info.status == "FINISHED"
        assert run.data.params["lr"] == "0.1"
        numeric = {
            names.legal_metric_name(path): names.finite(value)
            for path, value in names.flatten(outcome.metrics)
            if names.finite(value) is not None and not path.startswith("config/")
        }
        # `done` and the checkpoint's name come with the last result, after the reported ones.
        assert {"loss", "nested/x_x40_y", "train/trading/cagr", "training_iteration"} <= set(numeric)
        assert {key: run.data.metrics[key] for key in numeric if key != "done"} == {
            key: value for key, value in numeric.items() if key != "done"
        }
        history = client.get_metric_history(run.info.run_id, "loss")
        assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    wait_until(lambda: not list(journals()), timeout_s=20, what="the delivered journal is removed")
    for path in (tmp_path / "results").rglob("tuner.pkl"):
        assert b"t0k3n" not in path.read_bytes()


def test_a_restore_continues_the_same_runs(tmp_path: Path, sqlite_store: Callable[[], str]) -> None:
    from mlflow.tracking import MlflowClient
    from ray import tune

    uri = sqlite_store()
    mended = tmp_path / "mended"
    fit(tmp_path, MLflowTrackingCallback(uri, experiment_name="e"), {"lr": 0.1, "fails": 2, "mended": str(mended)})
    before = runs_of(uri, "e")
    (trial_id,) = [key for key in before if key]
    assert before[trial_id].info.status == "FAILED"
    mended.touch()
    tuner = tune.Tuner.restore(str(tmp_path / "results" / "exp"), trainable=train, resume_errored=True)
    assert not tuner.fit().errors
    after = runs_of(uri, "e")
    assert {key: run.info.run_id for key, run in after.items()} == {key: run.info.run_id for key, run in before.items()}
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    attempts = json.loads(after[trial_id].data.tags[names.TAG_ATTEMPTS])
    assert [attempt[0] for attempt in attempts] == [1, 2]
    assert attempts[1][2] == 1, "resumed from the checkpoint at step 1"
    assert after[""].data.tags[names.TAG_EPOCH] == "2"
    history = MlflowClient(uri).get_metric_history(after[trial_id].info.run_id, "loss")
    assert [point.step for point in history] == [1, 2, 3]


def test_a_deleted_experiment_is_an_error_before_training(tmp_path: Path, sqlite_store: Callable[[], str]) -> None:
    from mlflow.tracking import MlflowClient

    uri = sqlite_store()
    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(ConfigurationError, match="is deleted"):
        fit(tmp_path, MLflowTrackingCallback(uri, experiment_name="gone"), {"lr": 0.1})
    assert not list((tmp_path / "results").rglob("state.json"))
    wait_until(lambda: not list(journals()), timeout_s=20, what="the journal of nothing is removed")
