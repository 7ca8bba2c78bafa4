"""`instrument`: what it refuses, what it keeps. Starts no Ray."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback

from drl_ray_tracking.capture.callback import EpisodeCapture
from drl_ray_tracking.capture.instrument import instrument
from drl_ray_tracking.episodes.under_water import TimeUnderWater
from drl_ray_tracking.errors import ConfigurationError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class First(RLlibCallback):
    """A user's."""


class Second(RLlibCallback):
    """Another."""


def attached(callbacks: Any) -> list[Any]:
    return [item.func if isinstance(item, functools.partial) else item for item in callbacks]


@pytest.mark.parametrize(
    ("there", "expected"), [(None, []), (First, [First]), ([First], [First]), ([First, Second], [First, Second])]
)
def test_the_users_callbacks_stay_and_come_first(there: Any, expected: list[Any]) -> None:
    config = PPOConfig()
    if there is not None:
        config.callbacks(there)
    assert instrument(config) is config
    assert attached(config.callbacks_class) == [*expected, EpisodeCapture]


def test_calling_it_again_replaces_the_settings() -> None:
    config = instrument(instrument(PPOConfig().callbacks(First)), objective="train/episode/return_mean")
    assert attached(config.callbacks_class) == [First, EpisodeCapture]
    (settings,) = config.callbacks_class[-1].args
    assert settings.objective == "env_runners/episode/return_mean"


def test_an_evaluation_config_of_its_own_is_instrumented_too() -> None:
    own = PPOConfig().callbacks(First)
    config = instrument(PPOConfig().callbacks(Second).evaluation(evaluation_interval=1, evaluation_config=own))
    assert attached(config.callbacks_class) == [Second, EpisodeCapture]
    assert attached(config.get_evaluation_config_object().callbacks_class) == [First, EpisodeCapture]
    overriding = PPOConfig().evaluation(evaluation_interval=1, evaluation_config={"callbacks_class": First})
    instrument(overriding, evaluation_windows=3)
    assert attached(overriding.evaluation_config["callbacks_class"]) == [First, EpisodeCapture]


def test_enumerated_windows_need_one_deterministic_slot() -> None:
    config = (
        PPOConfig().env_runners(num_envs_per_env_runner=4).evaluation(evaluation_interval=1, evaluation_config={"x": 1})
    )
    instrument(config, evaluation_windows=5)
    assert (config.evaluation_duration, config.evaluation_duration_unit) == (5, "episodes")
    assert config.evaluation_config == {"x": 1, "num_envs_per_env_runner": 1, "explore": False}


def test_several_evaluation_slots_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    instrument(PPOConfig().env_runners(num_envs_per_env_runner=4).evaluation(evaluation_interval=1))
    assert "evaluation runs 4 slots at once" in caplog.text
    caplog.clear()
    instrument(PPOConfig().env_runners(num_envs_per_env_runner=4))
    instrument(PPOConfig().evaluation(evaluation_interval=1))
    assert not caplog.text


def test_the_old_api_stack_is_refused_with_the_remedy() -> None:
    old = PPOConfig().api_stack(enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False)
    with pytest.raises(ConfigurationError, match=r"old API stack, which is not supported; call config\.api_stack\("):
        instrument(old)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        instrument(
            PPOConfig(),
            objective="eval/trading/sharpe",
            metrics=[object(), TimeUnderWater(), TimeUnderWater()],
            evaluation_windows=0,  # type: ignore[list-item]
        )
    for part in (
        "needs evaluations, but evaluation_interval is",
        "is no EpisodeMetric: it lacks name, empty, of, merge, compute",
        "more than one metric named time_under_water",
        "evaluation_windows=0 must be at least 1",
    ):
        assert part in str(caught.value)


def assigned(config: PPOConfig) -> PPOConfig:
    config.evaluation_config = PPOConfig()
    return config


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ({"lr": 1}, {}, r"config is a dict, not an RLlib AlgorithmConfig \(such as PPOConfig\(\)\)"),
        (assigned(PPOConfig()), {}, "evaluation_config was assigned directly"),
        (PPOConfig(), {"trading": {"equty": "nav"}}, "did you mean 'equity'"),
    ],
)
def test_what_is_refused(config: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        instrument(config, **options)
