"""The backtest of a checkpoint is the evaluation that was recorded when it was written, on real market data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from drl_ray_tracking import instrument
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.markets.data import load_prices
from drl_ray_tracking.markets.datasets import market_segment
from drl_ray_tracking.markets.env import TradingEnv
from drl_ray_tracking.markets.splits import chronological_split
from drl_ray_tracking.models import Policy
from drl_ray_tracking.models.backtest import backtest
from tests.models.conftest import ppo

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore:.*Overriding environment:UserWarning")]


def test_it_repeats_the_recorded_evaluation(ray_session: None, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    dataset = chronological_split(load_prices("gym_anytrading:GOOGL"))
    common = {"lookback": 5, "positions": [0, 1], "allow_short": False, "fee": 0.0005}
    validation: dict[str, Any] = {**common, "segments": [market_segment(dataset, "validation")], "window": 150}
    config = ppo().environment(
        TradingEnv, env_config={**common, "segments": [market_segment(dataset, "train")], "window": 100}
    )
    config.evaluation(
        evaluation_interval=1,
        evaluation_num_env_runners=0,
        evaluation_config={"env_config": {**validation, "start": "enumerate"}},
    )
    windows = TradingEnv.number_of_windows(validation)
    algorithm = instrument(config, evaluation_windows=windows).debugging(seed=1).build_algo()
    result = algorithm.train()
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    recorded = result["evaluation"]["env_runners"]

    done = backtest(Policy.load(tmp_path / "checkpoint"), validation)
    assert len(done.records) == windows > 1
    for kpi in ("sharpe", "total_return", "fees", "bars", "trades"):
        assert done.kpis[f"trading/{kpi}"] == recorded["trading"][kpi], kpi
    assert done.kpis["episode/return_mean"] == recorded["episode"]["return_mean"]
    dearer = backtest(Policy.load(tmp_path / "checkpoint"), validation, cost_factor=3.0)
    assert dearer.kpis["trading/fees"] > done.kpis["trading/fees"]
    assert dearer.kpis["trading/total_return"] < done.kpis["trading/total_return"]
    with pytest.raises(ConfigurationError, match="cost_factor is -1"):
        backtest(Policy.load(tmp_path / "checkpoint"), validation, cost_factor=-1)
