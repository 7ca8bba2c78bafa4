"""Which costs a stressed backtest raises: ours always, of the user's environment those that its sweep sets."""

from __future__ import annotations

from typing import Any

import pytest

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.markets.env_settings import TradingSettings
from drl_ray_tracking.training.backtests import raised_costs
from drl_ray_tracking.training.config import SweepConfig, parse_config


def sweep(**more: Any) -> SweepConfig:
    base = {"experiment": "e", "data": {"source": "gym_anytrading:GOOGL"}, "agents": [{"algorithm": "PPO"}]}
    return parse_config({**base, "stop": {"training_iteration": 1}, **more}, "test")


def test_our_environment_has_costs_whether_the_sweep_sets_them_or_not() -> None:
    assert raised_costs(sweep(env={"fee": 0.001}), 3.0) == {"fee": 0.003, "slippage": 3.0 * TradingSettings.slippage}


def test_of_the_users_environment_only_what_its_sweep_sets_is_raised() -> None:
    own = {"env_class": "mine:Env"}
    assert raised_costs(sweep(**own, env={"fee": 0.001, "window": 5}), 2.0) == {"fee": 0.002}
    assert raised_costs(sweep(**own), 2.0) == {}


@pytest.mark.parametrize("factor", [-1, float("nan")])
def test_costs_do_not_become_income(factor: float) -> None:
    with pytest.raises(ConfigurationError, match=f"cost_factor is {factor}"):
        raised_costs(sweep(), factor)
