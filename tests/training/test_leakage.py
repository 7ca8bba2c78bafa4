"""The look for leaks: environments and features that know later bars are caught, honest ones are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest

from drl_ray_tracking.errors import DataError
from drl_ray_tracking.markets.data import load_prices
from drl_ray_tracking.markets.datasets import MarketSegment, SplitDataSet, market_segment
from drl_ray_tracking.markets.features import FeatureConfig, price_features
from drl_ray_tracking.markets.splits import chronological_split, walk_forward_folds
from drl_ray_tracking.training import TradingEnv
from drl_ray_tracking.training.config import parse_config
from drl_ray_tracking.training.leakage import (
    dataset_leaks,
    environment_leaks,
    knowing_features,
    look_for_leaks,
    peeking_features,
)
from drl_ray_tracking.training.market import Market


@pytest.fixture(scope="module")
def dataset() -> SplitDataSet:
    return chronological_split(load_prices("gym_anytrading:GOOGL"))


@pytest.fixture(scope="module")
def segment(dataset: SplitDataSet) -> MarketSegment:
    return market_segment(dataset, "validation")


class Watching(gym.Env[Any, Any]):
    """Shows the close of the bar it is at, or of one `ahead` of it."""

    ahead = 0
    timed = True

    def __init__(self, config: Any) -> None:
        (self.segment,) = config["segments"]
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), dtype=np.float64)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.bar = 0
        return self._seen(), self._info()

    def step(self, action: Any) -> Any:
        self.bar += 1
        return self._seen(), 0.0, False, self.bar >= len(self.segment) - 2, self._info()

    def _seen(self) -> Any:
        return self.segment.price[self.bar + self.ahead : self.bar + self.ahead + 1].copy()

    def _info(self) -> dict[str, Any]:
        return {"timestamp": float(self.segment.timestamp[self.bar])} if self.timed else {}


class Peeking(Watching):
    ahead = 1


class Untimed(Watching):
    timed = False


class UntimedPeeking(Peeking):
    timed = False


@pytest.mark.parametrize("start", ["enumerate", "random"])
def test_the_reference_environment_shows_nothing_of_later_bars(segment: MarketSegment, start: str) -> None:
    env_config = {"start": start, "window": 200, "lookback": 5}
    assert environment_leaks(TradingEnv, env_config, segment) == []


@pytest.mark.parametrize("honest", [Watching, Untimed])
def test_an_honest_environment_passes(segment: MarketSegment, honest: Any) -> None:
    assert environment_leaks(honest, {}, segment) == []


@pytest.mark.parametrize("peeking", [Peeking, UntimedPeeking])
def test_an_environment_that_peeks_one_bar_ahead_is_caught(segment: MarketSegment, peeking: Any) -> None:
    (said,) = environment_leaks(peeking, {}, segment)
    assert "the environment peeks: its observation after" in said
    assert ("no `timestamp`" in said) == (peeking is UntimedPeeking)


def test_the_features_of_this_package_do_not_change_with_later_bars() -> None:
    bars = load_prices("gym_anytrading:GOOGL").frame.iloc[:400]
    rng = np.random.default_rng(1)
    assert peeking_features(lambda frame: price_features(frame, FeatureConfig()), bars, rng) == []


def test_a_feature_of_the_whole_history_is_caught() -> None:
    bars = load_prices("gym_anytrading:GOOGL").frame.iloc[:400]

    def compute(frame: pd.DataFrame) -> pd.DataFrame:
        close = frame["close"]
        return pd.DataFrame({"feature_scaled": close / close.max(), "feature_change": close.pct_change()})

    (said,) = peeking_features(compute, bars, np.random.default_rng(1))
    assert "feature_scaled" in said and "changes with later bars" in said


def test_a_feature_that_knows_the_next_bar_is_caught(dataset: SplitDataSet) -> None:
    assert dataset_leaks(dataset) == []
    frame = dataset.training.copy()
    frame["feature_oracle"] = frame["close"].pct_change().shift(-1).fillna(0.0)
    (said,) = knowing_features(frame)
    assert "feature_oracle knows the next bar's return" in said


def test_folds_share_no_bar_with_their_own_training() -> None:
    folds = walk_forward_folds(load_prices("gym_anytrading:EURUSD"), n_folds=3, train_bars=2000, validation_bars=500,
                               test_bars=500, embargo=24, mode="anchored")  # fmt: skip
    for fold in folds:
        assert dataset_leaks(fold) == []
        bars = load_prices("gym_anytrading:EURUSD").frame.index
        for earlier, later in ((fold.training, fold.validation), (fold.validation, fold.test)):
            between = bars.get_loc(later.index[0]) - bars.get_loc(earlier.index[-1]) - 1  # type: ignore[operator]
            assert between == 24, "the embargo is purged"


def config(**changes: Any) -> Any:
    given = {
        "experiment": "e",
        "data": {"source": "gym_anytrading:GOOGL"},
        "agents": [{"algorithm": "PPO"}],
        "stop": {"training_iteration": 1},
        "env_class": f"{__name__}:Peeking",
    }
    return parse_config({**given, **changes}, "here")


def test_a_leak_is_refused_before_anything_trains_or_only_said(dataset: SplitDataSet) -> None:
    markets = [Market.of(dataset)]
    with pytest.raises(DataError, match="the environment peeks"):
        look_for_leaks(config(), markets, lambda text: None)
    said: list[str] = []
    look_for_leaks(config(leakage="warn"), markets, said.append)
    assert len(said) == 1 and "warning: 1 leak(s)" in said[0] and "peeks" in said[0]
    look_for_leaks(config(leakage="off"), markets, said.append)
    assert len(said) == 1


def test_the_command_refuses_an_environment_that_peeks(tmp_path: Path) -> None:
    from rich.console import Console

    from drl_ray_tracking.training.sweep import run_sweep

    with pytest.raises(DataError, match="leakage: warn"):
        run_sweep(config(), base_dir=tmp_path, console=Console(quiet=True))
