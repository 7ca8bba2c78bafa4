"""Checkpoints through a real Tuner on a real Ray into a real store, out of local and of S3-compatible storage."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drl_ray_tracking import MLflowTrackingCallback, names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.checkpoints import digest_of
from tests.tracking.test_callback_tune import runs_of
from tests.tracking.test_lifecycle_tune import fit

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.usefixtures("ray_session")]


def saving(config: dict[str, Any]) -> None:
    """Four results whose score rises and falls, each with a checkpoint."""
    import tempfile
    from pathlib import Path

    from ray import tune

    for step, score in enumerate((1.0, 3.0, float("nan"), 2.0), start=1):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "weights").write_text(f"{config['lr']} {step}")
            tune.report({"score": score * config["lr"]}, checkpoint=tune.Checkpoint.from_directory(folder))


def models_of(uri: str, role: str) -> dict[tuple[str, int], Any]:
    """(run id, step) -> model."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("e")
    assert experiment is not None
    found = client.search_logged_models([experiment.experiment_id], f"tags.`{names.TAG_MODEL_ROLE}` = '{role}'")
    by_key = {(model.tags[names.TAG_MODEL_RUN], int(model.tags[names.TAG_CHECKPOINT_STEP])): model for model in found}
    assert len(by_key) == len(found)
    assert {str(model.status) for model in found} <= {"READY"}
    return by_key


def files_of(uri: str, model: Any, target: Path) -> Path:
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(model.artifact_location, dst_path=str(target), tracking_uri=uri))


def test_the_best_checkpoint_of_each_trial_is_a_model_and_the_others_are_pointed_at(
    tmp_path: Path, sqlite_store: Callable[[], str]
) -> None:
    from ray import tune

    uri = sqlite_store()
    callback = MLflowTrackingCallback(uri, experiment_name="e", checkpoints="best", checkpoint_score="score")
    results = fit(tmp_path, saving, callback, {"lr": tune.grid_search([1.0, 2.0])})
    assert callback.delivered
    trials = {run.info.run_id: run for key, run in runs_of(uri, "e").items() if key}
    assert len(trials) == len(results) == 2
    pointers, uploads = models_of(uri, names.MODEL_POINTER), models_of(uri, names.MODEL_UPLOADED)
    assert set(pointers) == {(run_id, step) for run_id in trials for step in (1, 2, 3, 4)}
    assert set(uploads) == {(run_id, 2) for run_id in trials}
    for (run_id, step), pointer in pointers.items():
        folder = Path(pointer.tags[names.TAG_CHECKPOINT_URI])
        assert (folder / "weights").read_text() == f"{trials[run_id].data.params['lr']} {step}"
        assert pointer.tags[names.TAG_CHECKPOINT_DIGEST] == digest_of(folder)
        values = {metric.key: (metric.value, metric.step) for metric in pointer.metrics}
        assert ("score" in values) == (step != 3), "a NaN is not sent"
        if step == 2:
            assert values["score"] == (3.0 * float(trials[run_id].data.params["lr"]), 2)
    for key, model in uploads.items():
        assert model.tags[names.TAG_MODEL_SOURCE] == pointers[key].model_id
        assert model.tags[names.TAG_MODEL_LOADABLE].startswith("not packaged: ")
        assert (files_of(uri, model, tmp_path / key[0]) / "weights").is_file()
        assert digest_of(files_of(uri, model, tmp_path / key[0])) == model.tags[names.TAG_CHECKPOINT_DIGEST]


def test_tunes_own_score_is_taken_where_none_is_given_and_keeping_too_few_is_said(
    tmp_path: Path, sqlite_store: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    from ray import tune

    uri = sqlite_store()
    callback = MLflowTrackingCallback(uri, experiment_name="e", checkpoints="best", keep_checkpoints=2)
    kept = tune.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="score", checkpoint_score_order="min")
    with caplog.at_level(logging.WARNING):
        fit(tmp_path, saving, callback, {"lr": 1.0}, checkpoint_config=kept)
    assert "Tune keeps 1 per trial, by its own score" in caplog.text
    assert "num_to_keep=2" in caplog.text
    pointers = {step: model for (_, step), model in models_of(uri, names.MODEL_POINTER).items()}
    assert set(pointers) == {1, 2, 3, 4}
    assert float(pointers[1].tags[names.TAG_CHECKPOINT_SCORE]) == -1.0
    gone = {step for step, model in pointers.items() if names.TAG_CHECKPOINT_GONE in model.tags}
    there = {step for step, model in pointers.items() if names.TAG_CHECKPOINT_DIGEST in model.tags}
    assert gone | there == {1, 2, 3, 4}
    # Tune keeps the best and the newest; of the two best by this order the courier may have come too late for one.
    uploaded = {step for _, step in models_of(uri, names.MODEL_UPLOADED)}
    assert 1 in uploaded <= {1, 4}


def test_the_best_without_a_score_is_refused_before_anything_trains(
    tmp_path: Path, sqlite_store: Callable[[], str]
) -> None:
    callback = MLflowTrackingCallback(sqlite_store(), experiment_name="e", checkpoints="best")
    with pytest.raises(Exception, match=r"checkpoints='best' needs a score"):  # Tune may wrap it
        fit(tmp_path, saving, callback, {"lr": 1.0})


@pytest.mark.parametrize(
    "wrong",
    [{"checkpoints": "newest"}, {"keep_checkpoints": 0}, {"keep_checkpoints": 1.5}, {"checkpoint_mode": "most"}],
)
def test_a_wrong_wish_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        MLflowTrackingCallback("sqlite:///x.db", **wrong)


@pytest.mark.filterwarnings("ignore:.*Overriding environment:UserWarning")
@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")  # of MLflow's own models, when it is imported
def test_a_checkpoint_of_an_algorithm_is_a_model_that_loads_without_ray(
    tmp_path: Path, sqlite_store: Callable[[], str]
) -> None:
    import mlflow.pyfunc
    from ray import tune
    from ray.rllib.algorithms.ppo import PPO, PPOConfig

    from drl_ray_tracking import instrument
    from drl_ray_tracking.models import Policy

    config = instrument(
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0)
        .training(train_batch_size=200, minibatch_size=100, num_epochs=1)
        .debugging(seed=1)
    )
    uri = sqlite_store()
    callback = MLflowTrackingCallback(uri, experiment_name="e", checkpoints="last", drain_timeout_s=120)
    saved = tune.CheckpointConfig(checkpoint_frequency=1, checkpoint_at_end=True)
    stop = {"training_iteration": 2}
    results = fit(tmp_path, PPO, callback, config, stop=stop, checkpoint_config=saved)
    assert callback.delivered
    assert len(models_of(uri, names.MODEL_POINTER)) == 2
    ((_, step), model), *others = models_of(uri, names.MODEL_UPLOADED).items()
    assert (step, others) == (400, [])
    assert model.tags[names.TAG_MODEL_LOADABLE] == "true"
    loaded = mlflow.pyfunc.load_model(str(files_of(uri, model, tmp_path / "downloaded")))
    checkpoint = results[0].checkpoint
    assert checkpoint is not None
    observations = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    np.testing.assert_array_equal(loaded.predict(observations), Policy.load(checkpoint.path).predict(observations))


def test_checkpoints_come_out_of_s3_compatible_storage(
    tmp_path: Path, sqlite_store: Callable[[], str], s3: str
) -> None:
    from pyarrow.fs import S3FileSystem
    from ray import tune

    uri = sqlite_store()
    callback = MLflowTrackingCallback(uri, experiment_name="e", checkpoints="last", drain_timeout_s=120)
    storage = S3FileSystem(
        endpoint_override=s3,
        scheme="http",
        region="us-east-1",
        access_key="testing",
        secret_key="a-secret-nobody-may-write-down",
    )
    results = tune.Tuner(
        saving,
        param_space={"lr": 2.0},
        run_config=tune.RunConfig(
            name="exp", storage_path="sweeps/here", storage_filesystem=storage, callbacks=[callback], verbose=0
        ),
    ).fit()
    assert not results.errors
    assert callback.delivered
    pointers = {step: model for (_, step), model in models_of(uri, names.MODEL_POINTER).items()}
    assert set(pointers) == {1, 2, 3, 4}
    assert len({pointer.tags[names.TAG_CHECKPOINT_DIGEST] for pointer in pointers.values()}) == 4
    for pointer in pointers.values():
        assert pointer.tags[names.TAG_CHECKPOINT_URI].startswith("s3://sweeps/here/exp/")
        assert "secret" not in str(pointer.tags)
    ((_, step), model), *others = models_of(uri, names.MODEL_UPLOADED).items()
    assert (step, others) == (4, [])
    assert (files_of(uri, model, tmp_path / "downloaded") / "weights").read_text() == "2.0 4"
