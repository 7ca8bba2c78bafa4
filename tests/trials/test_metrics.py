"""Which values of a result are published: tens of names for RLlib, every key for others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.trials.metrics import NON_FINITE, MetricSelection, result_step


def rllib_result(**changes: Any) -> dict[str, Any]:
    """A result as PPO with capture gives it, shortened."""
    return {
        "num_env_steps_sampled_lifetime": 4000,
        "training_iteration": 2,
        "time_total_s": 12.5,
        "timesteps_total": None,
        "done": False,
        "hostname": "node",
        "evaluated": True,
        "config": {"lr": 0.001},
        "timers": {"training_step": 1.0, "env_runner_sampling_timer": 0.5},
        "env_runners": {
            "episode_return_mean": 8.05,
            "episode": {"return_mean": 9.0, "return_p05": 1.0, "length_sd": 2.0},
            "trading": {"sharpe": 0.5, "cagr": 0.1, "by_symbol": {"GOOGL": {"sharpe": 0.5}}},
            "undefined": {"sortino": {"few": 1}},
        },
        "evaluation": {"env_runners": {"trading": {"sharpe": 1.25, "cagr": 0.2}}, "weights_step": 4000},
        "learners": {"default_policy": {"vf_loss": 0.25, "num_module_steps_trained": 4000}},
        **changes,
    }


def test_the_vocabulary_is_what_people_read() -> None:
    assert MetricSelection().select(rllib_result()) == {
        "progress/env_steps": 4000.0,
        "progress/iteration": 2.0,
        "progress/wall_time_s": 12.5,
        "perf/sampling_time_s": 0.5,
        "train/episode/return_mean": 9.0,
        "train/trading/sharpe": 0.5,
        "eval/trading/sharpe": 1.25,
        "eval/trading/cagr": 0.2,
        "eval/weights_step": 4000.0,
        "learner/default_policy/value_loss": 0.25,
    }


def test_a_stale_evaluation_is_not_published() -> None:
    chosen = MetricSelection(names="both").select(rllib_result(evaluated=False))
    assert not [key for key in chosen if key.startswith("eval") and key != "evaluated"]


def test_rllibs_own_mean_stands_in_where_there_is_no_exact_one() -> None:
    plain = rllib_result(env_runners={"episode_return_mean": 8.05})
    assert MetricSelection().select(plain)["train/rllib/episode_return_mean"] == 8.05
    assert "train/rllib/episode_return_mean" not in MetricSelection().select(rllib_result())


def test_raw_is_every_number_rllib_wrote() -> None:
    result = rllib_result()
    expected = {
        path: names.finite(value)
        for path, value in names.flatten(result)
        if names.finite(value) is not None and not path.startswith("config/")
    }
    assert MetricSelection(names="raw").select(result) == expected
    both = MetricSelection(names="both").select(result)
    assert both == {**expected, **MetricSelection().select(result)}


def test_several_symbols_are_shown_one_by_one() -> None:
    result = rllib_result()
    result["env_runners"]["trading"]["by_symbol"]["AMZN"] = {"sharpe": 0.75}
    chosen = MetricSelection().select(result)
    assert chosen["train/trading/by_symbol/AMZN/sharpe"] == 0.75
    assert chosen["train/trading/by_symbol/GOOGL/sharpe"] == 0.5


def test_other_trainables_keep_every_key() -> None:
    result = {
        "loss": 0.5,
        "train/trading/cagr": 1.0,
        "a": {"undefined": {"b": 2}},
        "x/rllib/y": 3.0,
        "train/episode/return_mean": 1.0,
        "by": {"by_symbol": {"A": {"n": 4}}},
        "evaluation": {"score": 5},
        "evaluated": False,
        "text": "no number",
    }
    assert MetricSelection().select(result) == {
        "loss": 0.5,
        "train/trading/cagr": 1.0,
        "a/undefined/b": 2.0,
        "x/rllib/y": 3.0,
        "train/episode/return_mean": 1.0,
        "by/by_symbol/A/n": 4.0,
        "evaluation/score": 5.0,
        "evaluated": 0.0,
    }


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("inf")])
def test_what_is_not_finite_is_counted_not_sent(bad: float) -> None:
    assert MetricSelection().select({"a": bad, "b": 1, "c": "text"}) == {"b": 1.0, NON_FINITE: 1.0}


def test_include_and_exclude() -> None:
    result = rllib_result()
    assert set(MetricSelection(include=("eval/*",), exclude=("*/cagr",)).select(result)) == {
        "eval/trading/sharpe",
        "eval/weights_step",
    }
    everything = MetricSelection(include=("*",)).select(result)
    assert {"train/trading/cagr", "train/episode/return_p05", "train/undefined/sortino/few"} <= set(everything)
    assert MetricSelection(exclude=("l*",)).select({"loss": 1, "gain": 2}) == {"gain": 2.0}


def test_illegal_names_become_legal() -> None:
    assert MetricSelection().select({"q@5": 1.0}) == {"q_x40_5": 1.0}


@pytest.mark.parametrize("setting", [{"names": "all"}, {"include": "train/*"}, {"exclude": [1]}])
def test_a_wrong_setting_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        MetricSelection(**setting)


@pytest.mark.parametrize(
    ("result", "step"),
    [
        ({"num_env_steps_sampled_lifetime": 4000, "training_iteration": 2}, 4000),
        ({"num_env_steps_sampled_lifetime": 0, "training_iteration": 1}, 0),
        ({"timesteps_total": 300, "training_iteration": 3}, 300),
        ({"timesteps_total": 0, "training_iteration": 3}, 3),
        ({"timesteps_total": None, "training_iteration": 3}, 3),
        ({}, 0),
    ],
)
def test_the_x_axis(result: dict[str, Any], step: int) -> None:
    assert result_step(result) == step
