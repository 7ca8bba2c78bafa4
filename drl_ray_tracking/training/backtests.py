"""What an agent of a sweep does on a piece of its market: in the environment it was trained in, ours or the user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.markets.env_settings import TradingSettings
from drl_ray_tracking.models.backtest import Acting, Backtest, backtest_env
from drl_ray_tracking.training.algorithms import (
    environment_class,
    evaluation_environment,
    number_of_windows,
    own_conventions,
)
from drl_ray_tracking.training.config import SweepConfig
from drl_ray_tracking.training.market import Market

_COSTS: Final = ("fee", "slippage")


def backtest_agent(
    policy: Acting, config: SweepConfig, market: Market, split: str, env_changes: Mapping[str, Any] | None = None
) -> Backtest:
    """Runs a policy over every evaluation window of a piece of the history.

    Args:
        policy: what acts.
        config: of its sweep.
        market: what it was trained on.
        split: `train`, `validation` or `test`.
        env_changes: keys of the environment's configuration with other values than the sweep's: searched ones,
            raised costs.
    """
    env_config = {**evaluation_environment(config, market, split), **(env_changes or {})}
    make = environment_class(config)
    return backtest_env(
        policy,
        lambda: make(env_config),
        windows=number_of_windows(config, env_config),
        trading=config.trading,
        conventions=own_conventions(config, market),
    )


def raised_costs(config: SweepConfig, factor: float) -> dict[str, float]:
    """Returns the environment's costs times a factor; of the user's environment those that the sweep sets.

    Args:
        config: of the sweep.
        factor: what `fee` and `slippage` are multiplied with.

    Raises:
        ConfigurationError: `factor` is below 0 or no number.
    """
    if not factor >= 0.0:
        raise ConfigurationError(f"cost_factor is {factor!r}; a number of 0 or more is needed")
    ours = {key: float(getattr(TradingSettings, key)) for key in _COSTS} if config.env_class is None else {}
    given = {key: float(config.env[key]) for key in _COSTS if isinstance(config.env.get(key), int | float)}
    return {key: factor * cost for key, cost in {**ours, **given}.items()}
