"""The environment: accounts to the cent, windows in order, the gymnasium contract, errors all at once."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from drl_ray_tracking.errors import ConfigurationError, TrackingError
from drl_ray_tracking.markets.datasets import MarketSegment
from drl_ray_tracking.markets.env import TradingEnv
from drl_ray_tracking.markets.env_settings import TradingSettings

SHORT, FLAT, LONG = 0, 1, 2


def segment(prices: Any, symbol: str = "X", width: int = 1, split: str = "train") -> MarketSegment:
    price = np.asarray(prices, dtype=float)
    features = np.arange(len(price) * width, dtype=np.float32).reshape(len(price), width)
    return MarketSegment(symbol, 86_400.0 * np.arange(len(price)), price, features, 252.0, split, "single")


def walk(bars: int, symbol: str = "X", seed: int = 0) -> MarketSegment:
    return segment(100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.02, bars))), symbol)


def env_of(prices: Any, **config: Any) -> TradingEnv:
    return TradingEnv({"segments": [segment(prices)], "fee": 0.0, "initial_equity": 1000.0, "start": 0, **config})


def run(env: TradingEnv, actions: Any) -> list[tuple[Any, float, bool, bool, dict[str, Any]]]:
    env.reset(seed=0)
    return [env.step(action) for action in actions]


class WorkerConfig(dict[str, Any]):
    """A config with the attributes of RLlib's EnvContext."""

    def __init__(self, config: dict[str, Any], worker_index: int, num_workers: int, vector_index: int = 0) -> None:
        super().__init__(config)
        self.worker_index, self.num_workers, self.vector_index = worker_index, num_workers, vector_index


# Accounts


def test_the_hand_worked_example() -> None:
    """Long at 100 with 1 % fee and 1 % slippage, held over 110, flipped short at 121, back to cash at 110."""
    env = env_of([100.0, 110.0, 121.0, 110.0, 110.0], fee=0.01, slippage=0.01)
    steps = run(env, [LONG, LONG, SHORT, FLAT])
    infos = [step[-1] for step in steps]

    bought = 1000 / 1.02  # x of notional costs 0.02 x, and all that is left is invested
    assert infos[0]["traded"] == pytest.approx(bought)
    assert infos[0]["fee"] == pytest.approx(0.01 * bought)
    assert infos[0]["slippage"] == pytest.approx(0.01 * bought)
    assert infos[0]["equity"] == pytest.approx(bought * 1.1)

    assert [infos[1][key] for key in ("traded", "fee", "slippage")] == [0.0, 0.0, 0.0]
    held = bought * 1.21
    assert infos[1]["equity"] == pytest.approx(held)

    short_equity = held * (1 - 0.02) / (1 + 0.02)  # E' = E - 0.02 (held + E'), with E = held
    shorted = held + short_equity
    assert infos[2]["traded"] == pytest.approx(shorted)
    assert infos[2]["position"] == pytest.approx(-1.0)
    after_fall = short_equity * (1 + 11 / 121)
    assert infos[2]["equity"] == pytest.approx(after_fall)

    covered = short_equity * 110 / 121
    assert infos[3]["traded"] == pytest.approx(covered)
    assert infos[3]["equity"] == pytest.approx(after_fall - 0.02 * covered)
    assert infos[3]["position"] == 0.0
    assert [step[3] for step in steps] == [False, False, False, True]
    assert not any(step[2] for step in steps)


def test_units_are_held_while_the_target_stays() -> None:
    """Half long, the price doubles: 5 units and 500 cash become 1500, of which 2/3 is invested; nothing is traded."""
    env = env_of([100.0, 200.0, 400.0], positions=(0.0, 0.5), fee=0.1)
    infos = [step[-1] for step in run(env, [1, 1])]
    invested = 0.5 * 1000 / 1.05
    assert infos[0]["equity"] == pytest.approx(3 * invested)
    assert infos[1]["traded"] == 0.0
    assert infos[1]["position"] == pytest.approx(2 / 3)
    assert infos[1]["equity"] == pytest.approx(5 * invested)


def test_a_trade_happens_at_the_old_close_and_none_at_the_last() -> None:
    env = env_of([100.0, 150.0, 75.0])
    infos = [step[-1] for step in run(env, [FLAT, LONG])]
    assert infos[0]["equity"] == 1000.0  # the rise was over before the purchase
    assert infos[1]["equity"] == pytest.approx(500.0)
    assert infos[1]["position"] == 1.0  # still invested at the end: no liquidation nobody asked for


def test_buy_and_hold_without_costs_is_the_price_ratio() -> None:
    bars = walk(2000)
    env = TradingEnv({"segments": [bars], "fee": 0.0})
    for _, _, _, _, info in run(env, [LONG] * 1999):
        ratio = info["price"] / bars.price[0]
        assert abs(info["equity"] / 10_000.0 / ratio - 1) < 1e-12
        assert abs(info["position"] - 1) < 1e-12
    assert info["timestamp"] == bars.timestamp[-1]


def test_a_flat_agent_keeps_its_cash() -> None:
    env = TradingEnv({"segments": [walk(300)], "fee": 0.01, "slippage": 0.01})
    assert {(step[-1]["equity"], step[1]) for step in run(env, [FLAT] * 299)} == {(10_000.0, 0.0)}


@given(
    seed=st.integers(0, 10_000),
    fee=st.floats(0, 0.1),
    slippage=st.floats(0, 0.1),
    volatility=st.sampled_from([0.001, 0.02, 0.3]),
    actions=st.sampled_from(["discrete", "continuous"]),
    reward=st.sampled_from(["log_return", "simple_return", "pnl"]),
)
@settings(max_examples=80, deadline=None)
def test_costs_and_market_explain_every_change_of_equity(
    seed: int, fee: float, slippage: float, volatility: float, actions: str, reward: str
) -> None:
    rng = np.random.default_rng(seed)
    prices = 50 * np.exp(np.cumsum(rng.normal(0, volatility, 60)))
    env = env_of(prices, fee=fee, slippage=slippage, actions=actions, reward=reward, reward_scale=3.0)
    _, last = env.reset(seed=seed)
    env.action_space.seed(seed)
    done = False
    while not done:
        _, gained, terminated, truncated, info = env.step(env.action_space.sample())
        done = terminated or truncated
        before, equity, costs = last["equity"], info["equity"], info["fee"] + info["slippage"]
        move = info["price"] / last["price"] - 1
        tolerance = 1e-9 * max(before, 1.0)
        assert equity == pytest.approx((before - costs) * (1 + info["position"] * move), abs=tolerance)
        assert info["fee"] == pytest.approx(fee * info["traded"], abs=tolerance)
        assert info["slippage"] == pytest.approx(slippage * info["traded"], abs=tolerance)
        components = info["reward_components"]
        assert gained == components["market"] + components["cost"]
        if reward == "pnl":
            assert components["cost"] == pytest.approx(-3 * costs, abs=tolerance)
            assert gained == pytest.approx(3 * (equity - before), abs=10 * tolerance)
        elif reward == "simple_return":
            assert gained == pytest.approx(3 * (equity / before - 1), abs=1e-8)
        elif equity > 1e-3 * before:
            assert gained == pytest.approx(3 * math.log(equity / before), abs=1e-8)
        assert terminated == (equity <= 0)
        last = info


@given(seed=st.integers(0, 1000), first=st.floats(-1, 1), second=st.floats(-1, 1))
@settings(max_examples=60, deadline=None)
def test_a_trade_ends_exactly_at_its_target(seed: int, first: float, second: float) -> None:
    prices = 10 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.1, 3)))
    env = env_of(prices, actions="continuous", fee=0.03, slippage=0.02)
    for target, step in zip((first, second), run(env, [np.array([first]), np.array([second])]), strict=True):
        if step[-1]["traded"]:
            assert step[-1]["position"] == pytest.approx(target, abs=1e-12)


# Ruin


def test_a_short_squeezed_to_nothing_is_terminated_with_a_finite_reward() -> None:
    env = env_of([100.0, 250.0, 100.0])
    _, gained, terminated, truncated, info = run(env, [SHORT])[0]
    assert (terminated, truncated) == (True, False)
    assert info["equity"] == pytest.approx(-500.0)
    assert gained == pytest.approx(math.log(1e-4))
    with pytest.raises(TrackingError, match="call reset"):
        env.step(FLAT)


def test_ruin_at_the_last_bar_is_termination_not_truncation() -> None:
    assert run(env_of([100.0, 200.0]), [SHORT])[0][2:4] == (True, False)


def test_the_ruin_level_is_a_fraction_of_initial_equity() -> None:
    prices = [100.0, 51.0, 50.0, 49.0]
    assert [step[2] for step in run(env_of(prices, ruin_fraction=0.5), [LONG, LONG])] == [False, True]
    assert not any(step[2] for step in run(env_of(prices, ruin_fraction=0.4), [LONG] * 3))


def test_costs_that_eat_the_account_liquidate_it() -> None:
    """A short has grown to 19 times the equity; covering it at 20 % costs more than there is."""
    env = env_of([100.0, 195.0, 195.0], fee=0.2, positions=(-0.8, 0.0, 1.0), reward="simple_return")
    steps = run(env, [0, 2])
    info = steps[1][-1]
    assert steps[1][2]
    assert info["equity"] < 0
    assert info["position"] == 0.0
    assert info["equity"] == pytest.approx(steps[0][-1]["equity"] - info["fee"])
    assert info["reward_components"]["market"] == 0.0


# Observations


def test_an_observation_is_the_last_rows_then_the_account() -> None:
    env = TradingEnv({"segments": [segment([100.0, 110.0, 99.0, 99.0], width=2)], "fee": 0.0, "lookback": 2})
    first, _ = env.reset(seed=0)
    np.testing.assert_allclose(first, [0, 1, 0, 1, 0, 0])  # no row before the first: it stands in
    observations = [env.step(action)[0] for action in (LONG, SHORT, SHORT)]
    np.testing.assert_allclose(observations[0], [0, 1, 2, 3, 1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(observations[1], [2, 3, 4, 5, -0.9 / 1.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(observations[2][:4], [4, 5, 6, 7])
    assert all(observation.dtype == np.float32 for observation in observations)


def test_the_entry_price_averages_additions_and_ignores_reductions() -> None:
    env = env_of([100.0, 200.0, 200.0, 200.0], actions="continuous")
    steps = run(env, [np.array([0.5]), np.array([1.0]), np.array([0.25])])
    assert steps[0][0][-1] == pytest.approx(1.0)
    # 5 units at 100, then 1500 / 200 = 7.5 units: 2.5 more at 200 make an average of 133.33
    assert steps[1][0][-1] == pytest.approx(0.5)
    assert steps[2][0][-1] == pytest.approx(0.5)


def test_an_environment_without_features_sees_its_account() -> None:
    env = TradingEnv({"segments": [segment([1.0, 2.0, 3.0], width=0)], "lookback": 5})
    assert env.observation_space.shape == (2,)
    assert env.reset(seed=0)[0].shape == (2,)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"window": 20},
        {"window": 20, "start": "enumerate"},
        {"actions": "continuous", "lookback": 3},
        {"actions": "continuous", "allow_short": False, "start": 5},
    ],
)
def test_the_gymnasium_contract_holds_without_a_warning(config: dict[str, Any]) -> None:
    gym.register("TradingContract-v0", entry_point=TradingEnv)
    try:
        made = gym.make("TradingContract-v0", config={"segments": [walk(100), walk(80, "Y", 1)], **config})
        check_env(made.unwrapped)
        made.close()
    finally:
        gym.registry.pop("TradingContract-v0")


# Actions


def test_positions_follow_allow_short() -> None:
    assert env_of([1.0, 2.0]).action_space == gym.spaces.Discrete(3)
    assert env_of([1.0, 2.0], allow_short=False).action_space == gym.spaces.Discrete(2)
    assert TradingSettings((segment([1.0, 2.0]),), allow_short=False).positions == (0.0, 1.0)
    box = env_of([1.0, 2.0], actions="continuous", allow_short=False).action_space
    assert box == gym.spaces.Box(0.0, 1.0, (1,), np.float32)


@pytest.mark.parametrize(("allow_short", "asked", "held"), [(True, -7.0, -1.0), (True, 9.0, 1.0), (False, -0.5, 0.0)])
def test_continuous_actions_are_cut(allow_short: bool, asked: float, held: float) -> None:
    env = env_of([100.0, 101.0], actions="continuous", allow_short=allow_short)
    assert run(env, [np.array([asked], dtype=np.float32)])[0][-1]["position"] == held


@pytest.mark.parametrize("action", [-1, 3])
def test_an_index_without_a_position_is_refused(action: int) -> None:
    with pytest.raises(TrackingError, match="a whole number from 0 to 2"):
        run(env_of([1.0, 2.0]), [action])


def test_a_diverged_policy_is_named_as_such() -> None:
    with pytest.raises(TrackingError, match="not finite"):
        run(env_of([1.0, 2.0], actions="continuous"), [np.array([np.nan])])


def test_a_step_before_reset_is_refused() -> None:
    with pytest.raises(TrackingError, match="call reset"):
        env_of([1.0, 2.0]).step(0)


# Windows


def finished(env: TradingEnv) -> Iterator[tuple[str, str, int]]:
    """Runs episodes to their end, for ever: (symbol, window label, bars earned)."""
    while True:
        _, info = env.reset()
        bars, done = 0, False
        while not done:
            _, _, terminated, truncated, last = env.step(FLAT)
            bars, done = bars + 1, terminated or truncated
        assert last["window"] == info["window"]
        yield info["symbol"], info["window"], bars


def test_enumeration_earns_every_bar_once_and_wraps() -> None:
    config = {"segments": [walk(26), walk(11, "Y")], "window": 10, "start": "enumerate"}
    assert TradingEnv.number_of_windows(config) == 4
    episodes = finished(TradingEnv(config))
    one_pass = [next(episodes) for _ in range(4)]
    assert one_pass == [("X", "0", 10), ("X", "1", 10), ("X", "2", 5), ("Y", "3", 10)]
    assert [next(episodes) for _ in range(4)] == one_pass


@given(lengths=st.lists(st.integers(2, 40), min_size=1, max_size=3), window=st.none() | st.integers(1, 50))
@settings(max_examples=50, deadline=None)
def test_windows_tile_every_segment(lengths: list[int], window: int | None) -> None:
    config = {
        "segments": [walk(bars, str(number)) for number, bars in enumerate(lengths)],
        "window": window,
        "start": "enumerate",
    }
    env = TradingEnv(config)
    earned: list[tuple[str, float]] = []
    for _ in range(TradingEnv.number_of_windows(config)):
        env.reset()
        done = False
        while not done:
            _, _, _, done, info = env.step(FLAT)
            earned.append((info["symbol"], info["timestamp"]))
    assert earned == [(str(n), 86_400.0 * t) for n, bars in enumerate(lengths) for t in range(1, bars)]


def test_extra_resets_repeat_the_window_whatever_the_seed() -> None:
    env = TradingEnv({"segments": [walk(31)], "window": 10, "start": "enumerate"})
    for seed in (None, 1, 2):
        assert env.reset(seed=seed)[1]["window"] == "0"
    env.step(FLAT)
    assert env.reset()[1]["window"] == "0"
    for _ in range(10):
        env.step(FLAT)
    assert [env.reset(seed=7)[1]["window"] for _ in range(3)] == ["1", "1", "1"]


def test_a_ruined_window_counts_as_finished() -> None:
    env = env_of([100.0, 300.0, 300.0, 300.0, 300.0], start="enumerate", window=2)
    env.reset()
    assert env.step(SHORT)[2]
    assert env.reset()[1]["window"] == "1"


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_workers_share_the_windows(workers: int) -> None:
    config = {"segments": [walk(41)], "window": 10, "start": "enumerate"}
    seen: list[str] = []
    for worker in range(1, workers + 1):
        episodes = finished(TradingEnv(WorkerConfig(config, worker, workers)))
        mine = len(range(worker - 1, 4, workers))
        labels = [next(episodes)[1] for _ in range(mine)]
        assert next(episodes)[1] == labels[0]
        seen += labels
    assert sorted(seen) == ["0", "1", "2", "3"]


def test_the_local_worker_walks_all_windows() -> None:
    config = {"segments": [walk(31)], "window": 10, "start": "enumerate"}
    episodes = finished(TradingEnv(WorkerConfig(config, 0, 2)))
    assert [next(episodes)[1] for _ in range(4)] == ["0", "1", "2", "0"]


def test_a_worker_without_windows_and_a_second_slot_are_refused() -> None:
    config = {"segments": [walk(31)], "window": 10, "start": "enumerate"}
    with pytest.raises(ConfigurationError, match="worker 4 of 4 has no window"):
        TradingEnv(WorkerConfig(config, 4, 4))
    with pytest.raises(ConfigurationError, match="one env per worker"):
        TradingEnv(WorkerConfig(config, 1, 1, vector_index=1))
    TradingEnv(WorkerConfig({**config, "start": "random"}, 4, 4, vector_index=1))


@pytest.mark.parametrize("start", ["enumerate", "random", 0])
def test_options_jump_to_a_window(start: str | int) -> None:
    env = TradingEnv({"segments": [walk(31), walk(11, "Y")], "window": 10, "start": start})
    _, info = env.reset(options={"window": 3})
    assert (info["symbol"], info["window"], info["timestamp"]) == ("Y", "3", 0.0)
    with pytest.raises(ConfigurationError, match=r"options\['window'\] is 4; a whole number from 0 to 3"):
        env.reset(options={"window": 4})


def test_enumeration_goes_on_from_where_it_was_sent() -> None:
    env = TradingEnv({"segments": [walk(31)], "window": 10, "start": "enumerate"})
    env.reset(options={"window": 1})
    for _ in range(10):
        env.step(FLAT)
    assert env.reset()[1]["window"] == "2"


def test_random_starts_reach_every_bar_and_stay_inside() -> None:
    bars = walk(14)
    env = TradingEnv({"segments": [bars], "window": 10})
    env.reset(seed=0)
    starts = {env.reset()[1]["timestamp"] for _ in range(200)}
    assert starts == {0.0, 86_400.0, 2 * 86_400.0, 3 * 86_400.0}


def test_random_starts_visit_every_segment() -> None:
    env = TradingEnv({"segments": [walk(12), walk(12, "Y")], "window": 10})
    env.reset(seed=0)
    assert {env.reset()[1]["symbol"] for _ in range(50)} == {"X", "Y"}


def test_a_fixed_start_begins_there() -> None:
    env = TradingEnv({"segments": [walk(30)], "window": 10, "start": 19})
    assert env.reset(seed=3)[1]["timestamp"] == 19 * 86_400.0
    assert [step[3] for step in run(env, [FLAT] * 10)] == [False] * 9 + [True]
    to_the_end = TradingEnv({"segments": [walk(30)], "start": 19})
    assert len(run(to_the_end, [FLAT] * 10)) == 10


def test_equal_seeds_give_equal_episodes() -> None:
    config = {"segments": [walk(200), walk(150, "Y", 1)], "window": 20, "lookback": 3}
    histories = []
    for seed in (5, 5, 6):
        env = TradingEnv(config)
        env.action_space.seed(0)
        env.reset(seed=seed)
        histories.append(
            [env.reset()[1]["timestamp"] for _ in range(10)]
            + [env.step(env.action_space.sample())[-1]["equity"] for _ in range(20)]
        )
    assert histories[0] == histories[1] != histories[2]


# Infos


def test_infos_are_plain_json_with_the_same_keys_from_reset_and_step() -> None:
    env = TradingEnv({"segments": [segment([1.0, 2.0, 3.0], split="validation")], "start": "enumerate"})
    _, first = env.reset(seed=0)
    later = env.step(np.int64(LONG))[-1]
    assert list(first) == list(later)
    assert json.loads(json.dumps([first, later])) == [first, later]
    assert first == {
        "equity": 10_000.0,
        "position": 0.0,
        "price": 1.0,
        "fee": 0.0,
        "slippage": 0.0,
        "traded": 0.0,
        "timestamp": 0.0,
        "symbol": "X",
        "split": "validation",
        "fold": "single",
        "window": "0",
        "periods_per_year": 252.0,
        "reward_components": {"market": 0.0, "cost": 0.0},
    }
    assert {type(value) for value in later.values()} == {float, str, dict}


def test_the_env_pickles_in_the_middle_of_an_episode() -> None:
    env = env_of(walk(30).price)
    run(env, [LONG, SHORT])
    copy = pickle.loads(pickle.dumps(env))
    np.testing.assert_equal(copy.step(FLAT), env.step(FLAT))


# Configuration


def test_every_bad_setting_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        TradingEnv(
            {
                "segments": [walk(5), walk(50), segment([1.0, 2.0], "Z", width=3), "prices"],
                "windows": 10,
                "window": 10,
                "start": "randomly",
                "actions": "box",
                "fee": -0.1,
                "slippage": True,
                "initial_equity": 0,
                "lookback": 0,
                "reward": "sharpe",
                "reward_scale": math.nan,
                "ruin_fraction": 1.0,
                "allow_short": "no",
                "positions": [1, 1],
            }
        )
    message = str(caught.value)
    for expected in (
        "unknown key 'windows'; did you mean 'window'?",
        "segments holds str",
        "segments differ in their number of features (X: 1, X: 1, Z: 3)",
        "start is 'randomly'",
        "actions is 'box'; allowed are discrete, continuous",
        "fee is -0.1",
        "slippage is True",
        "initial_equity is 0; a number positive and finite is needed",
        "lookback is 0",
        "reward is 'sharpe'; allowed are log_return, simple_return, pnl",
        "reward_scale is nan",
        "ruin_fraction is 1.0",
        "allow_short is 'no'",
        "positions is (1, 1); two or more different targets",
    ):
        assert expected in message, message


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"segments": []}, "segments is empty"),
        ({}, "segments is empty"),
        ({"window": 0}, "window is 0"),
        ({"window": True}, "window is True"),
        ({"window": 30}, "segment X train has 30 closes; window 30 from bar 0 needs 31"),
        ({"start": 29}, "window None from bar 29 needs 31"),
        ({"start": -1}, "start is -1"),
        ({"positions": (0.0, math.inf)}, "finite numbers"),
        ({"positions": (-1.0, 1.0), "allow_short": False}, "while allow_short is false"),
        ({"positions": (0.0, 4.0), "fee": 0.3}, "exceed the equity"),
        ({"colour": "red"}, "unknown key 'colour'; known are segments, window"),
    ],
)
def test_single_mistakes(config: dict[str, Any], expected: str) -> None:
    base = {} if not config else {"segments": [walk(30)]}
    with pytest.raises(ConfigurationError) as caught:
        TradingEnv({**base, **config})
    assert expected in str(caught.value)


def test_a_window_longer_than_a_segment_is_short_in_enumeration() -> None:
    config = {"segments": [walk(5)], "window": 100, "start": "enumerate"}
    assert TradingEnv.number_of_windows(config) == 1
    assert next(finished(TradingEnv(config))) == ("X", "0", 4)


def test_a_worker_loads_neither_ray_nor_pandas() -> None:
    code = (
        "import sys; import drl_ray_tracking.markets.env;"
        "print(sorted({'ray', 'mlflow', 'torch', 'pandas', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
