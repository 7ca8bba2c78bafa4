"""What measuring episodes costs an env runner: CPU seconds per sampled step, with capture over without.

A remote env runner samples with and without its callback in turns, many times. The same runner, because two
equal ones differ by a per cent or two for as long as they live, by where their memory happens to lie.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from drl_ray_tracking import instrument
from drl_ray_tracking.capture.measured import Measurement
from drl_ray_tracking.capture.series import series_columns
from drl_ray_tracking.capture.steps import EpisodeSteps
from drl_ray_tracking.markets.data import load_prices
from drl_ray_tracking.markets.datasets import market_segment
from drl_ray_tracking.markets.splits import chronological_split
from drl_ray_tracking.training import TradingEnv

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]
PAIRS = 60
STEPS = 1500


class TimedRunner(SingleAgentEnvRunner):
    """An env runner that says what samples cost its process."""

    def cpu_s(self, captured: bool) -> float:
        """Samples once, with its callbacks or without; returns CPU seconds."""
        torch.set_num_threads(1)
        callbacks = self._callbacks
        self._callbacks = callbacks if captured else []
        before = time.process_time()
        self.sample(num_timesteps=STEPS)
        self.get_metrics()
        taken = time.process_time() - before
        self._callbacks = callbacks
        return taken


def trading() -> Any:
    dataset = chronological_split(load_prices("gym_anytrading:GOOGL"))
    env = {"segments": [market_segment(dataset, "train")], "window": 290, "lookback": 5}
    return PPOConfig().environment(TradingEnv, env_config=env)


def evaluation() -> Any:
    """As evaluation runners are: every bar of every episode is sent as well."""
    config = trading()
    config.in_evaluation = True
    return config


def cartpole() -> Any:
    return PPOConfig().environment("CartPole-v1")


@pytest.fixture(scope="module", autouse=True)
def own_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


CASES = [
    ("trading env", trading, 0.99),
    ("trading env, evaluated with its bars", evaluation, 0.98),
    ("CartPole", cartpole, 0.98),
]


@pytest.mark.parametrize(("name", "make", "promise"), CASES, ids=[case[0] for case in CASES])
def test_sampling_with_capture_over_without(name: str, make: Any, promise: float) -> None:
    remote: Any = ray.remote(num_cpus=1)(TimedRunner)
    runner = remote.remote(config=instrument(make()))

    def cpu_s(captured: bool) -> float:
        return float(ray.get(runner.cpu_s.remote(captured)))

    for captured in (False, True):
        cpu_s(captured)
    rng = np.random.default_rng(0)
    pairs = np.empty((PAIRS, 2))
    for pair in pairs:
        for captured in rng.permutation(2):
            pair[captured] = cpu_s(bool(captured))
    ray.kill(runner)
    draws = pairs[rng.integers(0, PAIRS, (4000, PAIRS))].sum(axis=1)
    low, high = np.quantile(draws[:, 0] / draws[:, 1], [0.025, 0.975])
    without, with_it = pairs.sum(axis=0)
    fastest = pairs.min(axis=0)
    print(
        f"\n{name}: steps per CPU second with capture over without {without / with_it:.4f} ({low:.4f} to {high:.4f}), "
        f"by the fastest samples {fastest[0] / fastest[1]:.4f}, promised >= {promise}; "
        f"{without / PAIRS / STEPS * 1e6:.0f} us a step without; one remote runner, {PAIRS} pairs of {STEPS} steps"
    )


def test_bytes_per_episode_do_not_grow_with_its_length() -> None:
    rng = np.random.default_rng(0)
    print()
    for length in (1_000, 10_000, 100_000):
        equity = 1e4 * np.cumprod(1 + rng.normal(0, 0.01, length + 1))
        infos = [{"equity": float(value), "position": 1.0, "price": float(value), "fee": 0.0} for value in equity]
        steps = EpisodeSteps(infos, rng.normal(size=length), list(rng.integers(0, 3, length)), False, True)
        measurement = Measurement()
        record = measurement.record(steps, lambda where, error: None)
        print(f"{length:>7,} steps: {len(pickle.dumps(measurement.summary(record))):,} bytes")


def test_bytes_of_a_trace_per_bar() -> None:
    rng = np.random.default_rng(0)
    length = 1_000
    infos = [
        {"equity": 1e4 + value, "position": 1.0, "price": value, "fee": 0.0, "timestamp": value, "leverage": 1.0,
         "reward_components": {"market": value, "cost": 0.0}}
        for value in rng.normal(1e4, 1.0, length + 1)
    ]  # fmt: skip
    steps = EpisodeSteps(infos, rng.normal(size=length), list(rng.integers(0, 3, length)), False, True)
    record = Measurement().record(steps, lambda where, error: None)
    columns = series_columns(record, steps)
    assert columns is not None
    trace = {name: values for name, values in columns.items() if name == "leverage" or "/" in name}
    returns = {name: values for name, values in columns.items() if name not in trace}
    sizes = [len(pickle.dumps(part)) / length for part in (returns, trace)]
    print(f"\na bar of evaluation travels in {sizes[0]:.0f} bytes, its trace in {sizes[1]:.0f} more")
