"""`instrument(config)`: attaches the whole capture side to an RLlib configuration in one line."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback

from drl_ray_tracking import names
from drl_ray_tracking.capture.callback import CaptureSettings, EpisodeCapture
from drl_ray_tracking.capture.measured import Measurement
from drl_ray_tracking.capture.presets import trading_source
from drl_ray_tracking.episodes import Conventions, EpisodeMetric
from drl_ray_tracking.errors import ConfigurationError

_log = logging.getLogger(__name__)
_Config = TypeVar("_Config", bound=AlgorithmConfig)


def instrument(
    config: _Config,
    *,
    trading: Any = None,
    metrics: Sequence[EpisodeMetric[Any]] = (),
    objective: str | None = None,
    conventions: Conventions | None = None,
    evaluation_windows: int | None = None,
    write_series: bool = True,
    solved_return: float | None = None,
) -> _Config:
    """Makes an RLlib algorithm measure its episodes exactly, and returns the same configuration.

    Afterwards every result carries the KPIs as plain numbers: `env_runners/trading/sharpe`,
    `evaluation/env_runners/episode/return_mean` and so on; with several agents also under
    `module/<id>/...` and `agent/<id>/...`, and trading KPIs only there. Callbacks that are already there stay; calling
    it again replaces the settings. Call it last: `config.evaluation(...)` afterwards may undo it.

    Args:
        config: an `AlgorithmConfig` on the new API stack.
        trading: where equity, position, price, fee and time are found: None takes `TradingEnv`'s info
            keys where an episode has them; else a mapping of column to info key, a `TradingSource`, or a
            callable of `EpisodeSteps`.
        metrics: KPIs of your own (see `EpisodeMetric`).
        objective: a metric, by its Tune path or its MLflow name, that every result will carry, whether or
            not an evaluation ended in its iteration: fit for Tune's `metric`, ASHA, PBT, checkpoints.
        conventions: periods per year, risk-free rate and so on; None takes `periods_per_year` from infos.
        evaluation_windows: how many market windows an evaluation enumerates. Sets one slot per evaluation
            runner, one deterministic episode per window; the environment must go on to its next window
            at each reset after a finished one (as `TradingEnv` with `start="enumerate"` does).
        solved_return: the mean training return that counts as solved, for `stability/steps_to_threshold`.
        write_series: keeps the bars of evaluation episodes as Parquet in the trial's storage.

    Raises:
        ConfigurationError: no AlgorithmConfig, the old API stack, or arguments that contradict it; every
            problem is named.
    """
    path = names.tune_path(objective) if objective is not None else None
    problems = _problems(config, metrics, evaluation_windows, path)
    if problems:
        raise ConfigurationError("instrument(): " + "; ".join(problems))
    settings = CaptureSettings(
        measurement=Measurement(trading_source(trading), tuple(metrics), conventions),
        objective=path,
        write_series=write_series,
        evaluation_windows=evaluation_windows,
        solved_return=solved_return,
    )
    _attach(config, settings)
    return config


def _attach(config: Any, settings: CaptureSettings) -> None:
    capture: Any = functools.partial(EpisodeCapture, settings)
    config.callbacks([*_kept_callbacks(config.callbacks_class), capture])
    overrides = config.evaluation_config or {}
    overriding = {key: overrides[key] for key in ("callbacks", "callbacks_class") if key in overrides}
    if overriding:
        config.evaluation(
            evaluation_config={key: [*_kept_callbacks(there), capture] for key, there in overriding.items()}
        )
    if settings.evaluation_windows is not None:
        _enumerate_windows(config, settings.evaluation_windows)
    elif config.evaluation_interval and _evaluation_slots(config) > 1:
        _log.warning(
            "evaluation runs %d slots at once: `num_episodes` sampling then favours short episodes. "
            "Give evaluation_windows=, or num_envs_per_env_runner=1 in evaluation_config.",
            _evaluation_slots(config),
        )


def _problems(config: Any, metrics: Sequence[Any], evaluation_windows: int | None, objective: str | None) -> list[str]:
    if not isinstance(config, AlgorithmConfig):
        return [f"config is a {type(config).__name__}, not an RLlib AlgorithmConfig (such as PPOConfig())"]
    problems = []
    if not (config.enable_rl_module_and_learner and config.enable_env_runner_and_connector_v2):
        problems.append(
            "the config uses RLlib's old API stack, which is not supported; call config.api_stack("
            "enable_rl_module_and_learner=True, enable_env_runner_and_connector_v2=True)"
        )
    if objective is not None and objective.startswith(f"{names.EVALUATION}/") and not config.evaluation_interval:
        problems.append(
            f"objective {objective!r} needs evaluations, but evaluation_interval is {config.evaluation_interval!r}: "
            "set config.evaluation(evaluation_interval=...)"
        )
    overrides: Any = config.evaluation_config
    if isinstance(overrides, AlgorithmConfig):  # RLlib would take it as it is, without our callback
        problems.append("evaluation_config was assigned directly; give it by config.evaluation(evaluation_config=...)")
    for metric in metrics:
        lacking = [part for part in ("name", "empty", "of", "merge", "compute") if not hasattr(metric, part)]
        if lacking:
            problems.append(f"{metric!r} in metrics= is no EpisodeMetric: it lacks {', '.join(lacking)}")
    called = [str(getattr(metric, "name", "")) for metric in metrics]
    twice = sorted({name for name in called if called.count(name) > 1})
    if twice:
        problems.append(f"metrics= has more than one metric named {', '.join(twice)}: give each a name of its own")
    if evaluation_windows is not None and evaluation_windows < 1:
        problems.append(f"evaluation_windows={evaluation_windows} must be at least 1")
    return problems


def _kept_callbacks(there: Any) -> list[Any]:
    there = list(there) if isinstance(there, (list, tuple)) else [there]
    return [item for item in there if item is not RLlibCallback and getattr(item, "func", None) is not EpisodeCapture]


def _evaluation_slots(config: Any) -> int:
    overrides = config.evaluation_config
    if isinstance(overrides, Mapping) and "num_envs_per_env_runner" in overrides:
        return int(overrides["num_envs_per_env_runner"])
    return int(config.num_envs_per_env_runner)


def _enumerate_windows(config: Any, windows: int) -> None:
    overrides = dict(config.evaluation_config or {})
    overrides.update(num_envs_per_env_runner=1, explore=False)
    config.evaluation(
        evaluation_duration=windows,
        evaluation_duration_unit="episodes",
        evaluation_config=overrides,
    )
