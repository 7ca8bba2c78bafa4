"""A sweep of real RLlib algorithms, tracked live and imported from its directory: the same runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drl_ray_tracking import MLflowTrackingCallback, instrument, names
from drl_ray_tracking.tracking.import_tune import import_tune

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.usefixtures("ray_session")]


def trials_of(uri: str) -> dict[str, tuple[Any, dict[str, list[tuple[int, float]]]]]:
    """Trial id -> its run, and (step, value) of every point by key."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("e")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`{names.TAG_ROLE}` = '{names.ROLE_TRIAL}'")
    found = {}
    for run in runs:
        points = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
        found[run.data.tags[names.TAG_TRIAL_ID]] = (
            run,
            {key: sorted((point.step, point.value) for point in history) for key, history in points.items()},
        )
    return found


def test_an_imported_sweep_is_the_tracked_one(tmp_path: Path, sqlite_store: Callable[[], str]) -> None:
    from ray import tune
    from ray.rllib.algorithms.ppo import PPOConfig

    live, later = sqlite_store(), sqlite_store()
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0)
        .training(
            train_batch_size=200, minibatch_size=100, num_epochs=1, lr=tune.grid_search([0.003, 0.001]), gamma=0.9
        )
        .debugging(seed=3)
    )
    tracking = MLflowTrackingCallback(live, experiment_name="e")
    run_config = tune.RunConfig(
        name="exp", storage_path=str(tmp_path), callbacks=[tracking], stop={"training_iteration": 2}, verbose=0
    )
    results = tune.Tuner(config.algo_class, param_space=instrument(config), run_config=run_config).fit()
    assert not results.errors
    assert tracking.delivered

    outcome = import_tune(tmp_path / "exp", later, "e", now_ms=lambda: int(time.time() * 1000))
    assert (outcome.sweep_id, outcome.runs, outcome.journal) == (tracking.sweep_id, 3, None)
    tracked, imported = trials_of(live), trials_of(later)
    assert set(tracked) == set(imported)
    for trial_id, (run, points) in tracked.items():
        other, found = imported[trial_id]
        assert "train/episode/return_mean" in points
        assert found == points
        assert other.data.params == run.data.params
        assert other.info.run_name == run.info.run_name
        same = (names.TAG_CONFIG_HASH, names.TAG_SEED, names.TAG_ALGORITHM, names.TAG_ENV)
        assert {key: other.data.tags.get(key) for key in same} == {key: run.data.tags.get(key) for key in same}

    for uri in (live, later):
        again = import_tune(tmp_path / "exp", uri, "e", now_ms=lambda: int(time.time() * 1000))
        assert (again.runs, again.points) == (0, 0)
    assert trials_of(live).keys() == tracked.keys()
    assert {key: points for key, (_, points) in trials_of(live).items()} == {
        key: points for key, (_, points) in tracked.items()
    }
