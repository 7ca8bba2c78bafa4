"""The presets against the real packages: gym-anytrading always, the others where `make test-packages` put them."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest

from drl_ray_tracking.capture.presets import PRESETS, GymAnytrading, trading_source
from drl_ray_tracking.capture.recorder import RecordEpisodes
from drl_ray_tracking.episodes import Conventions
from drl_ray_tracking.errors import ConfigurationError

PACKAGES = os.environ.get("DRL_OTHER_PACKAGES", "")
other_packages = pytest.mark.skipif(not PACKAGES, reason="their pins would hurt ours: `make test-packages` runs these")
DAILY = Conventions(periods_per_year=252)


def play(env: gym.Env[Any, Any], seed: int, *, hold: int = 1) -> RecordEpisodes:
    """Plays one episode, drawing a new action every `hold` steps."""
    rng = np.random.default_rng(seed)
    recorded = env if isinstance(env, RecordEpisodes) else RecordEpisodes(env)
    recorded.reset(seed=seed)
    done, step = False, 0
    action: Any = None
    while not done:
        if step % hold == 0:
            recorded.action_space.seed(int(rng.integers(1 << 30)))
            action = recorded.action_space.sample()
        _, _, terminated, truncated, _ = recorded.step(action)
        done, step = terminated or truncated, step + 1
    return recorded


@pytest.fixture
def anytrading(request: pytest.FixtureRequest) -> gym.Env[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gym_anytrading
        from gym_anytrading.datasets import FOREX_EURUSD_1H_ASK, STOCKS_GOOGL
    assert gym_anytrading
    name, options = request.param
    frame = STOCKS_GOOGL if name == "stocks-v0" else FOREX_EURUSD_1H_ASK
    return gym.make(name, df=frame, window_size=10, frame_bound=(50, 250), disable_env_checker=True, **options)


MARKETS = [("stocks-v0", {}), ("forex-v0", {"unit_side": "left"}), ("forex-v0", {"unit_side": "right"})]


@pytest.mark.parametrize("anytrading", MARKETS, ids=["stocks", "forex-left", "forex-right"], indirect=True)
@pytest.mark.parametrize("hold", [1, 7])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rebuilt_equity_ends_at_the_environments_own_profit(anytrading: Any, seed: int, hold: int) -> None:
    env = RecordEpisodes(anytrading, trading="gym-anytrading", conventions=DAILY)
    play(env, seed, hold=hold)
    record = env.last_record
    assert env.errors == 0
    assert record is not None and record.equity is not None
    assert record.equity[0] == 1.0
    assert record.equity[-1] == pytest.approx(anytrading.unwrapped._total_profit, rel=2e-5), "it computes in float32"
    assert record.length == 199
    assert env.summary.compute()["trading/bars"] == 199


@pytest.mark.parametrize("anytrading", MARKETS[:1], ids=["stocks"], indirect=True)
def test_equity_moves_while_a_trade_is_open(anytrading: Any) -> None:
    env = RecordEpisodes(anytrading, trading="gym-anytrading")
    env.reset()
    for _ in range(198):
        _, _, _, _, info = env.step(1)
        assert info["total_profit"] == 1.0, "the package's own number stands still until the trade closes"
    env.step(1)
    record = env.last_record
    assert record is not None and record.equity is not None and record.price is not None
    entry = 1  # the flip is executed at the close after the decision
    held = record.price[entry:-1] / record.price[entry] * (1 - 0.005)
    np.testing.assert_allclose(record.equity[entry + 1 : -1], held[1:], rtol=1e-12)
    assert record.labels["trading_source"].startswith("gym-anytrading")
    assert record.timestamp is not None
    assert record.timestamp[0] == anytrading.unwrapped.df.index[50], "the first mark is where the frame begins"


def test_another_environment_is_an_error_that_costs_only_the_trading_columns() -> None:
    env = RecordEpisodes(gym.make("CartPole-v1"), trading="gym-anytrading")
    play(env, 0)
    assert env.errors == 1
    assert env.last_record is not None and env.last_record.equity is None


def test_a_misspelt_preset_names_what_there_is() -> None:
    with pytest.raises(ConfigurationError, match=r"no preset \(did you mean 'gym-anytrading'\?\); there are .*finrl"):
        trading_source("gym-anytradin")
    assert isinstance(trading_source("gym-anytrading"), GymAnytrading)
    assert set(PRESETS) == {"gym-anytrading", "gym-trading-env", "finrl"}


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(PACKAGES)
    return Path(PACKAGES)


@other_packages
def test_gym_trading_env_is_read_marked_to_market(packages: Path) -> None:
    with warnings.catch_warnings():  # the package turns all warnings into errors at import
        warnings.simplefilter("ignore")
        from gym_trading_env.environments import TradingEnv
    close = 100 * np.cumprod(1 + np.random.default_rng(0).normal(0, 0.01, 120))
    frame = pd.DataFrame(
        {"open": close, "high": close, "low": close, "close": close, "feature_x": np.zeros(120)},
        index=pd.date_range("2020-01-01", periods=120, freq="D"),
    )
    inner = TradingEnv(df=frame, positions=[0, 1], trading_fees=0.001, borrow_interest_rate=0.0, verbose=0)
    env = RecordEpisodes(inner, trading="gym-trading-env", conventions=DAILY)
    play(env, 1)
    record = env.last_record
    assert env.errors == 0
    assert record is not None and record.equity is not None and record.position is not None
    np.testing.assert_allclose(record.equity, inner.historical_info["portfolio_valuation"].astype(float))
    flat = record.position == 0
    unchanged = flat & np.insert(flat[:-1], 0, False)
    np.testing.assert_allclose(np.diff(record.equity)[unchanged], 0.0, atol=1e-9)
    assert str(record.timestamp[0]).startswith("2020-01-01")  # type: ignore[index]


@other_packages
def test_finrls_memories_are_read_from_the_environment(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its package imports brokers and data vendors; the environment's own file needs none of them.
    path = packages / "finrl" / "meta" / "env_stock_trading" / "env_stocktrading.py"
    spec = importlib.util.spec_from_file_location("finrl_env_stocktrading", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    days, rng = 60, np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "date": np.repeat(pd.date_range("2021-01-04", periods=days, freq="B").strftime("%Y-%m-%d"), 2),
            "tic": ["A", "B"] * days,
            "close": 50 * np.cumprod(1 + rng.normal(0, 0.01, 2 * days)),
            "macd": 0.0,
            "turbulence": 0.0,
        },
        index=np.repeat(np.arange(days), 2),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = module.StockTradingEnv(
            df=frame, stock_dim=2, hmax=10, initial_amount=100_000, num_stock_shares=[0, 0], buy_cost_pct=[0.001] * 2,
            sell_cost_pct=[0.001] * 2, reward_scaling=1e-4, state_space=1 + 2 * 2 + 2, action_space=2,
            tech_indicator_list=["macd"], print_verbosity=10**9,
        )  # fmt: skip
        env = RecordEpisodes(inner, trading="finrl", conventions=DAILY)
        play(env, 3)
    record = env.last_record
    kpis = env.summary.compute()
    assert env.errors == 0
    assert record is not None and record.equity is not None
    np.testing.assert_allclose(record.equity[:-1], inner.asset_memory)
    assert kpis["trading/bars"] == days - 1, "the terminal call is no bar"
    assert kpis["trading/fees"] == pytest.approx(inner.cost)
    assert str(record.timestamp[0]) == "2021-01-04"  # type: ignore[index]
