"""A team's own training, which knows nothing of Ray or of tracking; nothing of this package is imported here.

It has the shape such code has around Stable-Baselines3: bare containers of frames, an environment, models with
`learn(total_timesteps, callback=...)`, `predict` and `save`, and a service that returns environments and agents by
name. `track_team_training.py` makes tracked runs of it without changing a line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd

Callback = Callable[[dict[str, Any], dict[str, Any]], bool]


@dataclass
class SplitDataSetContainer:
    """Three frames in time order, and not a word about what they are."""

    training_data: pd.DataFrame
    validation_data: pd.DataFrame
    test_data: pd.DataFrame


class LongOrFlat(gym.Env[np.ndarray, int]):
    """Holds the instrument or cash, bar by bar; sees the last five returns."""

    LOOKBACK = 5

    def __init__(self, frame: pd.DataFrame, fee: float = 0.0005) -> None:
        self._close = frame["Close"].to_numpy(dtype=float)
        self._times = frame.index
        self._fee = fee
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (self.LOOKBACK + 1,))
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._bar, self._equity, self._held = self.LOOKBACK, 10_000.0, 0
        return self._seen(), self._info(0.0)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        before = self._equity
        fee = before * self._fee if int(action) != self._held else 0.0
        self._held = int(action)
        earned = self._close[self._bar + 1] / self._close[self._bar] - 1.0
        self._equity = (before - fee) * (1.0 + self._held * earned)
        self._bar += 1
        over = self._bar == len(self._close) - 1
        return self._seen(), float(np.log(self._equity / before)), False, over, self._info(fee)

    def _seen(self) -> np.ndarray:
        recent = np.diff(np.log(self._close[self._bar - self.LOOKBACK : self._bar + 1]))
        return np.append(recent * 100.0, float(self._held))

    def _info(self, fee: float) -> dict[str, Any]:
        return {
            "equity": self._equity,
            "position": float(self._held),
            "price": self._close[self._bar],
            "fee": fee,
            "timestamp": self._times[self._bar].timestamp(),
        }


class PolicyGradient:
    """REINFORCE with a linear policy, in the shape of a Stable-Baselines3 model."""

    def __init__(self, env: gym.Env[Any, Any], learning_rate: float = 0.05, seed: int = 0) -> None:
        self.env, self.learning_rate, self.seed = env, learning_rate, seed
        self.num_timesteps = 0
        self.logger = SimpleNamespace(name_to_value={})
        self._rng = np.random.default_rng(seed)
        self._weights = np.zeros((2, int(np.prod(env.observation_space.shape or (1,))) + 1))

    def learn(self, total_timesteps: int, callback: Callback | None = None) -> PolicyGradient:
        while self.num_timesteps < total_timesteps:
            observation, _ = self.env.reset(seed=self.seed)
            done, rewards, gradients = False, [], []
            while not done:
                shares = self._shares(observation)
                action = int(self._rng.random() < shares[1])
                gradients.append(np.outer(np.eye(2)[action] - shares, np.append(observation, 1.0)))
                observation, reward, terminated, truncated, info = self.env.step(action)
                done = terminated or truncated
                rewards.append(reward)
                self.num_timesteps += 1
                infos = [info]
                if callback is not None and callback(locals(), globals()) is False:
                    return self
            advantages = np.array(rewards) - np.mean(rewards)
            update = np.tensordot(advantages, np.array(gradients), axes=1)
            self._weights += self.learning_rate * update / (np.linalg.norm(update) + 1e-8)
            self.logger.name_to_value = {
                "train/loss": -float(np.sum(rewards)),
                "train/learning_rate": self.learning_rate,
            }
        return self

    def predict(self, observation: np.ndarray) -> int:
        return int(np.argmax(self._shares(observation)))

    def save(self, path: Path) -> None:
        np.savez(path, weights=self._weights)

    def _shares(self, observation: np.ndarray) -> np.ndarray:
        scores = self._weights @ np.append(observation, 1.0)
        powers = np.exp(scores - scores.max())
        return np.asarray(powers / powers.sum())


class TeamTrainingService:
    """Makes environments of a container and trains the team's agents in them, with whatever callback it is given."""

    def __init__(
        self,
        total_timesteps: int = 5000,
        callback: Callback | None = None,
        env_wrapper: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] | None = None,
    ) -> None:
        self.total_timesteps = total_timesteps
        self._callback = callback
        self._env_wrapper = env_wrapper or (lambda env: env)

    def create_env_and_train_agents(
        self, container: SplitDataSetContainer, seed: int = 0
    ) -> tuple[dict[str, gym.Env[Any, Any]], dict[str, PolicyGradient]]:
        """Returns environments by split, and trained agents by name."""
        environments = {
            "training": self._env_wrapper(LongOrFlat(container.training_data)),
            "validation": LongOrFlat(container.validation_data),
            "test": LongOrFlat(container.test_data),
        }
        agents = {}
        for name, learning_rate in (("slow", 0.02), ("fast", 0.2)):
            model = PolicyGradient(environments["training"], learning_rate, seed)
            agents[name] = model.learn(self.total_timesteps, callback=self._callback)
        return environments, agents
