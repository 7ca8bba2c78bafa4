"""What configs/own_environment.yaml names: bars, an environment and a callback of one's own."""

from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
from ray.rllib.callbacks.callbacks import RLlibCallback


def load_bars() -> pd.DataFrame:
    """Returns bars with a time and a close; open, high, low and volume are optional."""
    rng = np.random.default_rng(7)
    moves = 0.01 * np.sin(np.arange(900) / 15) + rng.normal(0.0, 0.01, 900)
    index = pd.date_range("2019-01-01", periods=900, freq="D", name="timestamp")
    return pd.DataFrame({"close": 100 * np.exp(np.cumsum(moves) / 3)}, index=index)


class WaveEnv(gym.Env[Any, Any]):
    """In or out of the market; sees the last five returns and whether it is in."""

    def __init__(self, config: dict[str, Any]) -> None:
        (self.bars,) = config["segments"]
        self.fee = config["fee"]
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (6,), dtype=np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.bar, self.value, self.exposure = 5, 10_000.0, 0
        return self._seen(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        paid = self.fee if int(action) != self.exposure else 0.0
        self.exposure = int(action)
        self.bar += 1
        earned = self.exposure * (self.bars.price[self.bar] / self.bars.price[self.bar - 1] - 1.0)
        self.value *= (1.0 - paid) * (1.0 + earned)
        return self._seen(), float(earned - paid), False, self.bar == len(self.bars) - 1, self._info()

    def _seen(self) -> Any:
        window = self.bars.price[self.bar - 5 : self.bar + 1]
        return np.append(100 * np.diff(np.log(window)), self.exposure).astype(np.float32)

    def _info(self) -> dict[str, Any]:
        return {
            "portfolio_value": self.value,
            "exposure": float(self.exposure),
            "close": float(self.bars.price[self.bar]),
            "timestamp": float(self.bars.timestamp[self.bar]),
        }


class CountsEpisodes(RLlibCallback):
    """Adds a number of its own to every result."""

    def on_train_result(self, *, result: dict[str, Any], **_: Any) -> None:
        result["my_callback"] = 1.0
