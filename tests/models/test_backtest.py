"""The backtest of a checkpoint is the evaluation that was recorded when it was written, on real market data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from drl_ray_tracking import instrument
from drl_ray_tracking.markets.data import load_prices
from drl_ray_tracking.markets.datasets import market_segment
from drl_ray_tracking.markets.env import TradingEnv
from drl_ray_tracking.markets.splits import chronological_split
from drl_ray_tracking.models import Policy
from drl_ray_tracking.models.backtest import Backtest, backtest_env
from tests.models.conftest import ppo

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore:.*Overriding environment:UserWarning")]


def test_it_repeats_the_recorded_evaluation(ray_session: None, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    dataset = chronological_split(load_prices("gym_anytrading:GOOGL"))
    common: dict[str, Any] = {"lookback": 5, "positions": [0, 1], "allow_short": False, "fee": 0.0005}
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

    def backtest(**changes: Any) -> Backtest:
        settings = {**validation, "start": "enumerate", **changes}
        return backtest_env(Policy.load(tmp_path / "checkpoint"), lambda: TradingEnv(settings), windows=windows)

    done = backtest()
    assert len(done.records) == windows > 1
    for kpi in ("sharpe", "total_return", "fees", "bars", "trades"):
        assert done.kpis[f"trading/{kpi}"] == recorded["trading"][kpi], kpi
    assert done.kpis["episode/return_mean"] == recorded["episode"]["return_mean"]
    dearer = backtest(fee=3 * common["fee"])
    assert dearer.kpis["trading/fees"] > done.kpis["trading/fees"]
    assert dearer.kpis["trading/total_return"] < done.kpis["trading/total_return"]
