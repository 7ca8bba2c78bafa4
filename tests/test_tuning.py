"""Any KPI as Tune's metric: real sweeps on an evaluation KPI that most iterations do not measure.

The environment stops trading in its second evaluation, so that the ratio becomes undefined: the objective
must then be NaN, never the good score of before.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray import tune
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining
from ray.tune.search.optuna import OptunaSearch

from drl_ray_tracking import instrument, names

pytestmark = [pytest.mark.scenarios, pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
METRIC = "evaluation/env_runners/trading/sharpe"


class FadingMarket(gym.Env[Any, Any]):
    """Twenty bars of a random walk; as an evaluation environment it holds still from its second episode on."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self._fades = bool(config.get("fades"))
        self._episodes = 0
        self._rng = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._bar, self._equity = 0, 100.0
        return self._observation(), {"equity": self._equity}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._bar += 1
        if not (self._fades and self._episodes):
            self._equity *= 1 + self._rng.normal(0.001, 0.01)
        done = self._bar == 20
        self._episodes += done
        info = {"equity": self._equity, "periods_per_year": 252, "window": 0}
        return self._observation(), float(action), False, done, info

    def _observation(self) -> Any:
        return np.array([self._bar / 20, 0.0], np.float32)


def config() -> Any:
    settings = (
        PPOConfig()
        .environment(FadingMarket)
        .env_runners(num_env_runners=0)
        .training(train_batch_size=40, minibatch_size=20, num_epochs=1, lr=tune.loguniform(1e-4, 1e-2))
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .evaluation(evaluation_interval=2, evaluation_config={"env_config": {"fades": True}})
    )
    return instrument(settings, objective="eval/trading/sharpe", evaluation_windows=1)


def schedulers() -> dict[str, dict[str, Any]]:
    population = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=2,
        hyperparam_mutations={"lr": tune.loguniform(1e-4, 1e-2)},
    )
    return {
        "fifo": {},
        "asha": {"scheduler": ASHAScheduler(time_attr="training_iteration", grace_period=2, max_t=6)},
        "pbt": {"scheduler": population},
        "optuna": {"search_alg": OptunaSearch()},
    }


# RLlib's algorithms cannot be reset in place, whatever PBT recommends.
@pytest.mark.filterwarnings("ignore:Consider boosting PBT performance:UserWarning")
@pytest.mark.parametrize("kind", ["fifo", "asha", "pbt", "optuna"])
def test_tuning_on_an_evaluation_kpi(kind: str, tmp_path: Path) -> None:
    checkpoints = tune.CheckpointConfig(
        checkpoint_score_attribute=METRIC, checkpoint_frequency=2, checkpoint_score_order="max"
    )
    results = tune.Tuner(
        PPO,  # the class: by its name, Tune imports every algorithm and their debug environments
        param_space=config(),
        tune_config=tune.TuneConfig(metric=METRIC, mode="max", num_samples=2, **schedulers()[kind]),
        run_config=tune.RunConfig(
            name=kind,
            storage_path=str(tmp_path),
            stop={"training_iteration": 6},
            checkpoint_config=checkpoints,
            verbose=0,
        ),
    ).fit()
    assert not results.errors
    assert len(results) == 2
    for result in results:
        rows = [json.loads(line) for line in (Path(result.path) / "result.json").read_text().splitlines()]
        states = {row["training_iteration"]: row[names.OBJECTIVE_STATE] for row in rows}
        values = {row["training_iteration"]: row["evaluation"]["env_runners"]["trading"]["sharpe"] for row in rows}
        assert states[1] == names.OBJECTIVE_NONE and math.isnan(values[1])
        assert states[2] == names.OBJECTIVE_FRESH and math.isfinite(values[2])
        if 3 in states:
            assert states[3] == names.OBJECTIVE_CARRIED and values[3] == values[2]
        for iteration in (4, 6):
            if kind != "pbt" and iteration in states:  # PBT starts an actor anew, whose environment trades again
                assert states[iteration] == names.OBJECTIVE_UNDEFINED and math.isnan(values[iteration])
        if kind != "pbt" and 5 in states:
            assert states[5] == names.OBJECTIVE_CARRIED and math.isnan(values[5]), "never the good score of before"
    assert 2 <= max(row["training_iteration"] for row in rows) <= 6
    assert result.checkpoint is not None


def test_a_kpi_as_stop_criterion(tmp_path: Path) -> None:
    results = tune.Tuner(
        PPO,  # the class: by its name, Tune imports every algorithm and their debug environments
        param_space=config(),
        tune_config=tune.TuneConfig(metric=METRIC, mode="max", num_samples=1),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path), stop={"env_runners/episode/count": 2, "training_iteration": 5}, verbose=0
        ),
    ).fit()
    assert not results.errors
    assert results[0].metrics["training_iteration"] == 1, "two episodes of twenty bars end in each iteration"
