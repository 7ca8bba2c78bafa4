"""Somebody else's environment and a KPI of one's own: through RLlib, Tune, MLflow and back into a comparison."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from ray import tune
from ray.rllib.algorithms.ppo import PPO, PPOConfig

from drl_ray_tracking import MLflowTrackingCallback, compare, instrument, load_runs, names
from drl_ray_tracking.episodes import Conventions
from drl_ray_tracking.episodes.under_water import TimeUnderWater

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.usefixtures("ray_session")]
OWN = "train/trading/time_under_water"


def anytrading(config: dict[str, Any]) -> gym.Env[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gym_anytrading
        from gym_anytrading.datasets import STOCKS_GOOGL
    assert gym_anytrading
    env = gym.make(
        "stocks-v0", df=STOCKS_GOOGL, window_size=10, frame_bound=(50, 120), disable_env_checker=True
    )  # 69 steps an episode
    return gym.wrappers.FlattenObservation(env)


def test_a_foreign_environment_and_a_kpi_of_ones_own(sqlite_store: Callable[[], str], tmp_path: Path) -> None:
    tune.register_env("anytrading", anytrading)
    config = (
        PPOConfig()
        .environment("anytrading")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .training(train_batch_size=280, minibatch_size=140, num_epochs=1)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=tune.grid_search([1, 2, 3]))
    )
    config = instrument(
        config,
        trading="gym-anytrading",
        metrics=[TimeUnderWater()],
        conventions=Conventions(periods_per_year=252),
        objective=OWN,
    )
    store = sqlite_store()
    results = tune.Tuner(
        PPO,
        param_space=config,
        tune_config=tune.TuneConfig(metric="env_runners/trading/time_under_water", mode="min"),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "results"),
            stop={"training_iteration": 2},
            callbacks=[MLflowTrackingCallback(store, experiment_name="foreign")],
            verbose=0,
        ),
    ).fit()
    assert not results.errors
    best = results.get_best_result()
    assert best.metrics is not None
    share = best.metrics["env_runners"]["trading"]["time_under_water"]
    assert 0.0 < share < 1.0
    runs = load_runs(store, "foreign", metrics=[OWN, "train/trading/bars"])
    assert set(runs.final("train/trading/bars")["value"]) == {276.0}, "four episodes of 69 bars an iteration"
    assert runs.final(OWN)["value"].min() == pytest.approx(share)
    assert runs.runs["trading_source"].str.startswith("gym-anytrading: position from infos").all()
    page = compare(runs, metric=OWN, mode="min").to_markdown()
    assert "time\\_under\\_water" in page or OWN in page
    assert names.mlflow_name("env_runners/trading/time_under_water") == OWN
