"""One small PPO sweep on GOOGL, tracked in one of three ways; run as a program by `test_sweep_overhead`.

    python sweep_variant.py untracked|ours|ray FOLDER

Prints one line of JSON: wall-clock seconds of `Tuner.fit`, and for ours the CPU seconds of the hooks and the courier.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.rllib.algorithms.ppo import PPOConfig

from drl_ray_tracking import MLflowTrackingCallback, instrument
from drl_ray_tracking.markets.data import load_prices
from drl_ray_tracking.markets.datasets import market_segment
from drl_ray_tracking.markets.splits import chronological_split
from drl_ray_tracking.training import TradingEnv

ITERATIONS = 24


class TimedHooks(MLflowTrackingCallback):
    """The callback as it is; adds up the CPU seconds Tune's loop spends in its hooks, the last one's waiting too."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.hooks_cpu_s = 0.0

    def _timed(self, hook: Any, *args: Any, **keywords: Any) -> Any:
        before = time.thread_time()
        try:
            return hook(*args, **keywords)
        finally:
            self.hooks_cpu_s += time.thread_time() - before

    def setup(self, *args: Any, **info: Any) -> None:
        self._timed(super().setup, *args, **info)

    def log_trial_start(self, trial: Any) -> None:
        self._timed(super().log_trial_start, trial)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        self._timed(super().log_trial_result, iteration, trial, result)

    def log_trial_save(self, trial: Any) -> None:
        self._timed(super().log_trial_save, trial)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self._timed(super().log_trial_end, trial, failed)

    def get_state(self) -> None:
        self._timed(super().get_state)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._timed(super().on_experiment_end, trials, **info)


def sweep_config() -> tuple[Any, int]:
    dataset = chronological_split(load_prices("gym_anytrading:GOOGL"))
    shared = {"fee": 0.0005, "lookback": 5}
    training = {**shared, "segments": [market_segment(dataset, "train")], "window": 250}
    evaluation = {**shared, "segments": [market_segment(dataset, "validation")], "start": "enumerate"}
    config = (
        PPOConfig()
        .environment(TradingEnv, env_config=training)
        .env_runners(num_env_runners=0)
        .training(train_batch_size=2000, minibatch_size=250, num_epochs=6)
        .evaluation(
            evaluation_interval=2,
            evaluation_duration=1,
            evaluation_config={"env_config": evaluation, "explore": False, "num_envs_per_env_runner": 1},
        )
        .debugging(seed=tune.grid_search([1, 2, 3, 4]))
    )
    return config, TradingEnv.number_of_windows(evaluation)


def main() -> None:
    variant, folder = sys.argv[1], Path(sys.argv[2])
    logging.disable(logging.WARNING)
    store = f"sqlite:///{folder}/mlflow.db"
    config, windows = sweep_config()
    callbacks: list[Any] = []
    if variant == "ours":
        config = instrument(config, evaluation_windows=windows)
        callbacks = [TimedHooks(store, experiment_name="bench")]
    elif variant == "ray":
        callbacks = [MLflowLoggerCallback(store, experiment_name="bench")]
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    started = time.monotonic()
    result = tune.Tuner(
        "PPO",
        param_space=config,
        run_config=tune.RunConfig(
            name="bench",
            storage_path=str(folder / "results"),
            stop={"training_iteration": ITERATIONS},
            callbacks=callbacks,
            verbose=0,
        ),
    ).fit()
    wall = time.monotonic() - started
    assert not result.errors
    said: dict[str, float] = {"wall_s": wall}
    if variant == "ours":
        status = callbacks[0].courier_status
        said |= {"courier_start_cpu_s": status.startup_cpu_s, "courier_cpu_s": status.cpu_s}
        said["hooks_cpu_s"] = callbacks[0].hooks_cpu_s
    ray.shutdown()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
