"""The smallest algorithms that RLlib starts, and environments whose episodes are known beforehand."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig

from drl_ray_tracking.markets.datasets import MarketSegment
from drl_ray_tracking.markets.env import TradingEnv
from tests.capture.episodes import market

BARS = 60
WINDOW = 20


class Dealt(gym.Env[Any, Any]):
    """Plays each of a list of episodes once, whichever worker or slot comes first, then one without an end.

    An episode is claimed by creating a file, so that it is dealt once over any number of processes.
    """

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(1)  # a policy has no choice: every layout plays the same episodes

    def __init__(self, config: Any) -> None:
        self.folder = Path(config["folder"])
        self.lengths: tuple[int, ...] = tuple(config["lengths"])
        self.t = 0
        self.infos: list[dict[str, Any]] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self.infos is None or self.t:  # RLlib resets more often than it runs episodes
            self.infos = self._claimed()
        self.t = 0
        return self._seen(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        ended = bool(self.infos) and self.t == len(self.infos or ()) - 1
        return self._seen(), 0.1 * self.t, ended, False, self._info()

    def _claimed(self) -> list[dict[str, Any]]:
        for number, length in enumerate(self.lengths):
            with contextlib.suppress(FileExistsError):
                (self.folder / str(number)).touch(exist_ok=False)
                return dealt_infos(number, length)
        return []

    def _info(self) -> dict[str, Any]:
        return self.infos[self.t] if self.infos else {}

    def _seen(self) -> Any:
        return np.zeros(2, np.float32)


def dealt_infos(number: int, length: int) -> list[dict[str, Any]]:
    """The infos of one dealt episode."""
    return market(length, seed=number, symbol="X" if number % 2 else "Y")


def segment() -> MarketSegment:
    """A deterministic market of 61 daily closes."""
    rng = np.random.default_rng(3)
    closes = BARS + 1
    return MarketSegment(
        "TEST",
        np.arange(closes) * 86_400.0,
        100.0 * np.cumprod(1.0 + rng.normal(0.0, 0.01, closes)),
        rng.normal(size=(closes, 2)).astype(np.float32),
        252.0,
        "validation",
        "single",
    )


def small_ppo(
    env: Any = "CartPole-v1", env_config: dict[str, Any] | None = None, *, batch: int = 100
) -> AlgorithmConfig:
    """PPO that samples a batch and learns from it once."""
    return (
        PPOConfig()
        .environment(env, env_config=env_config or {}, disable_env_checking=True)
        .env_runners(num_env_runners=0)
        .training(train_batch_size=batch, minibatch_size=batch, num_epochs=1)
        .rl_module(model_config={"fcnet_hiddens": [4]})
        .debugging(seed=7, log_level="ERROR")
    )


def trading_ppo() -> AlgorithmConfig:
    """PPO on `TradingEnv`, evaluated on each window of its market in order."""
    config = small_ppo(TradingEnv, {"segments": (segment(),), "window": WINDOW})
    enumerated = {"segments": (segment(),), "window": WINDOW, "start": "enumerate"}
    return config.evaluation(evaluation_interval=1, evaluation_config={"env_config": enumerated})
