"""What a trial asks for is fitted to the machine."""

from __future__ import annotations

from typing import Any

import pytest
from ray.rllib.algorithms.ppo import PPOConfig

from drl_ray_tracking.training.config import ResourceConfig
from drl_ray_tracking.training.resources import fit


def settings(runners: int = 0, evaluators: int = 0) -> Any:
    return PPOConfig().env_runners(num_env_runners=runners).evaluation(evaluation_num_env_runners=evaluators)


def test_what_fits_stays_and_nothing_is_said() -> None:
    one = settings(2, 1)
    assert fit([one], ResourceConfig(env_runners=2), trials=4, cpus=4) == []
    assert (one.num_env_runners, one.evaluation_num_env_runners) == (2, 1)


def test_more_than_the_machine_has_is_cut_and_said_once() -> None:
    both = [settings(8, 2), settings(8, 2)]
    (said,) = fit(both, ResourceConfig(env_runners=8), trials=4, cpus=4)
    assert "PPO: 8 env runners and 2 for evaluation do not fit into 4 cores; 3 and 0 are used" in said
    assert all((one.num_env_runners, one.evaluation_num_env_runners) == (3, 0) for one in both)


@pytest.mark.parametrize(("trials", "cpus", "runners"), [(1, 8, 7), (4, 8, 1), (100, 8, 0), (2, 2, 0), (3, 16, 4)])
def test_auto_gives_each_trial_that_runs_at_once_its_share(trials: int, cpus: float, runners: int) -> None:
    one = settings()
    assert fit([one], ResourceConfig(env_runners="auto"), trials=trials, cpus=cpus) == []
    assert one.num_env_runners == runners


def test_auto_knows_how_many_may_run_at_once() -> None:
    one = settings()
    fit([one], ResourceConfig(env_runners="auto", max_concurrent=2), trials=100, cpus=8)
    assert one.num_env_runners == 3
