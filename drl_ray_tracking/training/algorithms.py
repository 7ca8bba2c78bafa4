"""From a configuration's agent to an RLlib algorithm configuration, with every wrong name refused at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drl_ray_tracking.capture.instrument import instrument
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.names import suggestion
from drl_ray_tracking.training.config import AgentConfig, SearchDimension, SweepConfig
from drl_ray_tracking.training.env import TradingEnv, TradingSettings
from drl_ray_tracking.training.market import Market

_ENV_PREFIX = "env/"
_MODEL_PREFIX = "model/"


def algorithm_config(config: SweepConfig, agent: AgentConfig, market: Market) -> Any:
    """Returns an instrumented `AlgorithmConfig` whose searched values are Tune search spaces.

    Raises:
        ConfigurationError: an unknown algorithm, key or search dimension, or RLlib's own objection.
    """
    settings: Any = _default_config(agent.algorithm)
    problems = [
        f"agents: {agent.algorithm} has no setting {key!r}{suggestion(key, _settable(settings))}"
        for key in agent.training
        if key not in _settable(settings)
    ]
    problems += _search_problems(config.search, settings)
    if problems:
        raise ConfigurationError("; ".join(problems))
    search = {key: _space(dimension) for key, dimension in config.search.items()}
    env = {key.removeprefix(_ENV_PREFIX): space for key, space in search.items() if key.startswith(_ENV_PREFIX)}
    model = {key.removeprefix(_MODEL_PREFIX): space for key, space in search.items() if key.startswith(_MODEL_PREFIX)}
    direct = {key: space for key, space in search.items() if "/" not in key}
    environments = _environments(config, market)
    windows = TradingEnv.number_of_windows(environments["evaluation"])
    if config.evaluation.runners > windows:
        raise ConfigurationError(
            f"evaluation.runners is {config.evaluation.runners}, but there are only {windows} evaluation windows; "
            "use fewer runners or a shorter evaluation.window"
        )
    for key, value in {**agent.training, **direct}.items():
        setattr(settings, key, value)
    settings.environment(TradingEnv, env_config={**environments["training"], **env})
    settings.env_runners(
        num_env_runners=config.resources.env_runners, num_envs_per_env_runner=config.resources.envs_per_runner
    )
    settings.debugging(seed=_grid(list(config.seeds)))
    settings.evaluation(
        evaluation_interval=config.evaluation.interval,
        evaluation_num_env_runners=config.evaluation.runners,
        evaluation_config={"env_config": {**environments["evaluation"], **env}},
    )
    if agent.model or model:
        settings.rl_module(model_config={**agent.model, **model})
    return instrument(settings, objective=config.objective.metric, evaluation_windows=windows)


def _environments(config: SweepConfig, market: Market) -> dict[str, dict[str, Any]]:
    """Returns the env configs for training and evaluation; checked here, before an actor starts."""
    training = {**config.env, "segments": [market.training]}
    evaluation = {
        **config.env,
        "segments": [market.validation],
        "start": "enumerate",
        "window": config.evaluation.window,
    }
    for env in (training, evaluation):
        TradingSettings.from_mapping(env)
    return {"training": training, "evaluation": evaluation}


def _default_config(algorithm: str) -> Any:
    from ray.rllib.algorithms.registry import ALGORITHMS

    if algorithm not in ALGORITHMS:
        known = sorted(ALGORITHMS)
        raise ConfigurationError(
            f"agents: unknown algorithm {algorithm!r}{suggestion(algorithm, known)}; RLlib has {', '.join(known)}"
        )
    # By its own loader: asking Tune for the name imports every algorithm and RLlib's debug environments.
    load: Any = ALGORITHMS[algorithm]
    return load()[1]


def _settable(settings: Any) -> list[str]:
    return [key for key in vars(settings) if not key.startswith("_")]


def _search_problems(search: Mapping[str, SearchDimension], settings: Any) -> list[str]:
    allowed = [*_settable(settings), *(f"{_ENV_PREFIX}{key}" for key in TradingSettings.__dataclass_fields__)]
    return [
        f"search.{key}: nothing of that name can be searched{suggestion(key, allowed)}"
        for key in search
        if key not in allowed and not key.startswith(_MODEL_PREFIX)
    ]


def _space(dimension: SearchDimension) -> Any:
    from ray import tune

    if dimension.grid is not None:
        return _grid(dimension.grid)
    if dimension.choice is not None:
        return tune.choice(dimension.choice)
    if dimension.uniform is not None:
        return tune.uniform(*dimension.uniform)
    assert dimension.loguniform is not None
    return tune.loguniform(*dimension.loguniform)


def _grid(values: list[Any]) -> Any:
    from ray import tune

    return tune.grid_search(values)
