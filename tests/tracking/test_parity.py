"""Ray's own callback and ours, given the same sweep: replacing the import is the whole migration."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drl_ray_tracking import MLflowTrackingCallback, names
from drl_ray_tracking.names import legal_metric_name

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.usefixtures("ray_session")]

Points = set[tuple[int, float]]


def report(config: dict[str, Any]) -> None:
    """Two results with everything a trainable may report."""
    from ray import tune

    for step in (1, 2):
        tune.report(
            {
                "loss": config["lr"] / step,
                "nested": {"deep": {"count": step}},
                "flag": step == 1,
                "small": np.float32(0.1),
                "whole": np.int64(7),
                "array0": np.array(2.5),
                "text": "left out",
                "nothing": None,
            }
        )


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's callback writes artifacts into the working directory."""
    monkeypatch.chdir(tmp_path)


def both(tmp_path: Path, stores: Callable[[], str], trainable: Any, space: Any, **ours: Any) -> tuple[Any, Any]:
    """Tunes once under both callbacks, made with the same arguments; returns the run of each."""
    from mlflow.tracking import MlflowClient
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    theirs, own = stores(), stores()
    same: dict[str, Any] = {"experiment_name": "parity", "tags": {"team": "x"}, "save_artifact": True}
    callbacks = [
        MLflowLoggerCallback(theirs, registry_uri=theirs, **same),
        MLflowTrackingCallback(own, registry_uri=own, **same, **ours),
    ]
    run_config = tune.RunConfig(
        name="exp",
        storage_path=str(tmp_path / "results"),
        callbacks=callbacks,
        stop={"training_iteration": 2},
        verbose=0,
    )
    results = tune.Tuner(trainable, param_space=space, run_config=run_config).fit()
    assert not results.errors
    assert callbacks[1].delivered
    runs = []
    for uri in (theirs, own):
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("parity")
        assert experiment is not None
        query = "" if uri == theirs else f"tags.`{names.TAG_ROLE}` = '{names.ROLE_TRIAL}'"
        (run,) = client.search_runs([experiment.experiment_id], query)
        runs.append((client, run))
    return runs[0], runs[1]


def points_of(client: Any, run: Any) -> dict[str, list[tuple[int, float]]]:
    """Returns (step, value) of every finite point by key: Ray's callback also sends NaN."""
    found = {}
    for key in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, key)
        points = sorted((point.step, point.value) for point in history if math.isfinite(point.value))
        if points:
            found[key] = points
    return found


def files_of(client: Any, run: Any, folder: str | None = None) -> set[str]:
    found = set()
    for item in client.list_artifacts(run.info.run_id, folder):
        found |= files_of(client, run, item.path) if item.is_dir else {item.path}
    return found


def is_accident(key: str) -> bool:
    """What Ray's callback logs as numbers although it is none: the configuration, and texts of digits."""
    return key.startswith("config/") or key in ("trial_id", "date", "hostname", "node_ip", "experiment_tag")


@pytest.mark.filterwarnings("default")
def test_a_function_trainable_has_the_same_keys_values_steps_and_parameters(
    tmp_path: Path, sqlite_store: Callable[[], str]
) -> None:
    space = {"lr": 0.1, "layers": [64, 64], "act": "relu", "bias": True, "clip": None, "deep": {"momentum": 1e-5}}
    (ray_client, ray_run), (client, run) = both(tmp_path, sqlite_store, report, space)
    expected = {key: points for key, points in points_of(ray_client, ray_run).items() if not is_accident(key)}
    assert {"loss", "nested/deep/count", "flag", "small", "whole", "array0"} <= set(expected)
    assert points_of(client, run) == expected
    assert run.data.params == ray_run.data.params
    assert run.data.tags["team"] == ray_run.data.tags["team"] == "x"
    assert run.data.tags["trial_name"] == ray_run.data.tags["trial_name"]
    assert run.info.status == ray_run.info.status == "FINISHED"
    assert files_of(ray_client, ray_run) <= files_of(client, run), "save_artifact"


@pytest.mark.filterwarnings("default")
def test_rllib_has_the_same_values_at_env_steps_for_the_keys_both_log(
    tmp_path: Path, sqlite_store: Callable[[], str]
) -> None:
    from ray.rllib.algorithms.ppo import PPOConfig

    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0)
        .training(train_batch_size=200, minibatch_size=100, num_epochs=1, lr=0.003)
    )
    (ray_client, ray_run), (client, run) = both(
        tmp_path, sqlite_store, config.algo_class, config, names="raw", param_include=("*",)
    )
    theirs, own = points_of(ray_client, ray_run), points_of(client, run)
    shared = {key for key in theirs if not is_accident(key)} & set(own)
    missing = {legal_metric_name(key) for key in theirs if not is_accident(key)} - set(own)
    assert not missing, "a number that Ray's callback logs and ours does not"
    steps = [int(value) for _, value in theirs["num_env_steps_sampled_lifetime"]]
    assert len(steps) == 2
    for key in shared:
        assert [value for _, value in own[key]] == [value for _, value in theirs[key]], key
        assert {step for step, _ in own[key]} <= set(steps), key
    params = set(run.data.params) & set(ray_run.data.params)
    assert len(params) > 200
    differing = {
        key: (ray_run.data.params[key], run.data.params[key])
        for key in params
        if run.data.params[key] != ray_run.data.params[key]
    }
    # Classes and objects are named by us; their own text carries memory addresses.
    named = {key for key, (text, _) in differing.items() if "<" in text or "0x" in text}
    tuples = {key for key, (text, own) in differing.items() if text.startswith("(") and own.startswith("[")}
    enums = {"torch_compile_learner_what_to_compile"}  # by their value
    assert not set(differing) - named - tuples - enums, {
        key: differing[key] for key in set(differing) - named - tuples - enums
    }
    assert run.data.params["lr"] == "0.003"
