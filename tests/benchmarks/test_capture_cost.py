"""What measuring episodes costs an env runner: CPU seconds per sampled step, with capture over without.

Two runners of one process take turns, many times, so that the machine's moods hit both alike; the interval is
a bootstrap over the pairs.
"""

from __future__ import annotations

import pickle
import time
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from drl_ray_tracking import instrument
from drl_ray_tracking.capture.measured import Measurement
from drl_ray_tracking.capture.steps import EpisodeSteps
from drl_ray_tracking.training import TradingEnv
from drl_ray_tracking.training.data import load_prices
from drl_ray_tracking.training.datasets import market_segment
from drl_ray_tracking.training.splits import chronological_split

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(1800),
    # Each runner of a process registers RLlib's environment name again.
    pytest.mark.filterwarnings("ignore:.*Overriding environment:UserWarning"),
]
PAIRS = 60


def trading() -> Any:
    dataset = chronological_split(load_prices("gym_anytrading:GOOGL"))
    env = {"segments": [market_segment(dataset, "train")], "window": 290, "lookback": 5}
    return PPOConfig().environment(TradingEnv, env_config=env)


def cartpole() -> Any:
    return PPOConfig().environment("CartPole-v1")


def cpu_s(runner: Any, steps: int) -> float:
    before = time.process_time()
    runner.sample(num_timesteps=steps)
    runner.get_metrics()
    return time.process_time() - before


CASES = [("trading env", trading, 1500, 0.99), ("CartPole", cartpole, 1500, 0.98)]


@pytest.mark.parametrize(("name", "make", "steps", "promise"), CASES, ids=[case[0] for case in CASES])
def test_sampling_with_capture_over_without(name: str, make: Any, steps: int, promise: float) -> None:
    torch.set_num_threads(1)
    bare = SingleAgentEnvRunner(config=make())
    captured = SingleAgentEnvRunner(config=instrument(make()))
    # The same policy for both: another one plays episodes of another length, and resets cost too.
    captured.set_state(bare.get_state())
    for runner in (bare, captured):
        cpu_s(runner, steps)
    pairs = []
    for turn in range(PAIRS):
        order = (bare, captured) if turn % 2 else (captured, bare)
        taken = {id(runner): cpu_s(runner, steps) for runner in order}
        pairs.append((taken[id(bare)], taken[id(captured)]))
    seconds = np.array(pairs)
    ratio = seconds[:, 0].sum() / seconds[:, 1].sum()
    draws = seconds[np.random.default_rng(0).integers(0, PAIRS, (2000, PAIRS))].sum(axis=1)
    low, high = np.quantile(draws[:, 0] / draws[:, 1], [0.025, 0.975])
    per_step = seconds[:, 0].sum() / PAIRS / steps * 1e6
    print(
        f"\n{name}: steps per CPU second with capture over without {ratio:.4f} ({low:.4f} to {high:.4f}), "
        f"promised >= {promise}; {per_step:.0f} us a step without; {PAIRS} pairs of {steps} steps"
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
