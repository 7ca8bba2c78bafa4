"""A recorded PPO result and trials to replay it with: what the driver's hooks are measured on."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pyarrow.fs import LocalFileSystem
from ray.rllib.algorithms.ppo import PPO, PPOConfig

from drl_ray_tracking import instrument
from drl_ray_tracking.markets.data import load_prices
from drl_ray_tracking.markets.datasets import market_segment
from drl_ray_tracking.markets.splits import chronological_split
from drl_ray_tracking.training import TradingEnv


def recorded() -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains PPO on GOOGL for one iteration; returns its result and its configuration."""
    dataset = chronological_split(load_prices("gym_anytrading:GOOGL"))
    training = {"segments": [market_segment(dataset, "train")], "window": 250}
    evaluation = {"segments": [market_segment(dataset, "validation")], "start": "enumerate"}
    config = (
        PPOConfig()
        .environment(TradingEnv, env_config=training)
        .env_runners(num_env_runners=0)
        .training(train_batch_size=500, minibatch_size=250, num_epochs=1)
        .evaluation(evaluation_interval=1, evaluation_config={"env_config": evaluation})
    )
    algorithm = instrument(config, evaluation_windows=1).build_algo()
    try:
        result = algorithm.train()
    finally:
        algorithm.stop()
    return result, config.to_dict()


@dataclass(eq=False)
class ReplayedTrial:
    """What the callbacks, ours and Ray's, read of a Tune trial."""

    trial_id: str
    config: dict[str, Any]
    storage: Any
    local_path: str
    trainable_name: str = "PPO"
    evaluated_params: dict[str, Any] = field(default_factory=dict)
    latest_checkpoint_result: Any = None
    error_file: str | None = None
    status: str = "RUNNING"
    experiment_tag: str = ""
    last_result: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"PPO_TradingEnv_{self.trial_id}"

    def get_trainable_cls(self) -> Any:
        return PPO

    def is_finished(self) -> bool:
        return True


def trials(count: int, config: dict[str, Any], folder: Path) -> list[ReplayedTrial]:
    """Makes trials of one experiment that differ in their seed."""
    made = []
    for number in range(count):
        storage = SimpleNamespace(
            storage_filesystem=LocalFileSystem(),
            experiment_fs_path=str(folder),
            experiment_dir_name=folder.name,
            trial_fs_path=str(folder / f"trial{number}"),
        )
        made.append(
            ReplayedTrial(f"t{number:05d}", {**config, "seed": number}, storage, str(folder / f"trial{number}"))
        )
    return made


def result_at(result: dict[str, Any], iteration: int) -> dict[str, Any]:
    """Returns the recorded result as that of another iteration."""
    later = copy.copy(result)
    later["training_iteration"] = iteration
    later["num_env_steps_sampled_lifetime"] = 500 * iteration
    return later
