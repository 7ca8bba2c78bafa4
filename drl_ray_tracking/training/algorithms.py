"""From a configuration's agent to an RLlib algorithm configuration, with every wrong name refused at once."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Final

from drl_ray_tracking.capture.instrument import instrument
from drl_ray_tracking.episodes import Conventions
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.markets.datasets import market_segment
from drl_ray_tracking.markets.env import TradingEnv
from drl_ray_tracking.markets.env_settings import TradingSettings
from drl_ray_tracking.markets.shared import opened
from drl_ray_tracking.names import suggestion
from drl_ray_tracking.training.config import AgentConfig, SearchDimension, SweepConfig
from drl_ray_tracking.training.market import Market
from drl_ray_tracking.training.named import named
from drl_ray_tracking.training.start import StartingPoint

ENV_PREFIX: Final = "env/"  # of a searched key of the environment
MODEL_PREFIX: Final = "model/"  # of a searched key of the model


def algorithm_config(
    config: SweepConfig, agent: AgentConfig, market: Market, start: StartingPoint | None = None
) -> Any:
    """Returns an instrumented `AlgorithmConfig` whose searched values are Tune search spaces.

    Args:
        config: the whole configuration.
        agent: one of its agents.
        market: its data.
        start: where trials begin; None for random weights.

    Raises:
        ConfigurationError: an unknown algorithm, key or search dimension, or RLlib's own objection.
    """
    settings: Any = _default_config(agent.algorithm)
    problems = [
        f"agents: {agent.algorithm} has no setting {key!r}{suggestion(key, _settable(settings))}"
        for key in agent.training
        if key not in _settable(settings)
    ]
    searched = {**config.search, **agent.search}
    mutated = config.scheduler.mutate if config.scheduler is not None else {}
    problems += _search_problems("search", searched, settings, own_env=config.env_class is not None)
    problems += _search_problems("scheduler.mutate", mutated, settings, own_env=False)
    if problems:
        raise ConfigurationError("; ".join(problems))
    search = {key: space_of(dimension) for key, dimension in searched.items()}
    env = {key.removeprefix(ENV_PREFIX): space for key, space in search.items() if key.startswith(ENV_PREFIX)}
    model = {key.removeprefix(MODEL_PREFIX): space for key, space in search.items() if key.startswith(MODEL_PREFIX)}
    direct = {key: space for key, space in search.items() if "/" not in key}
    environments = _environments(config, market)
    windows = number_of_windows(config, environments["evaluation"])
    if config.evaluation.runners > windows:
        raise ConfigurationError(
            f"evaluation.runners is {config.evaluation.runners}, but there are only {windows} evaluation windows; "
            "use fewer runners or a shorter evaluation.window"
        )
    for key, value in {**agent.training, **direct}.items():
        setattr(settings, key, value)
    settings.environment(_registered(config), env_config={**environments["training"], **env})
    runners = config.resources.env_runners
    settings.env_runners(
        num_env_runners=0 if runners == "auto" else runners, num_envs_per_env_runner=config.resources.envs_per_runner
    )
    settings.debugging(seed=_grid(list(config.seeds)))
    settings.evaluation(
        evaluation_interval=config.evaluation.interval,
        evaluation_num_env_runners=config.evaluation.runners,
        evaluation_config={"env_config": {**environments["evaluation"], **env}},
    )
    if agent.model or model:
        settings.rl_module(model_config={**agent.model, **model})
    if start is not None:
        start.attach(settings)
    own = [callback for callback in user_callbacks(config) if not _is_tunes(callback)]
    if own:
        settings.callbacks(own)
    return instrument(
        settings,
        trading=config.trading,
        objective=config.objective.metric,
        conventions=own_conventions(config, market),
        evaluation_windows=windows,
    )


def own_conventions(config: SweepConfig, market: Market) -> Conventions | None:
    """Returns how returns of the user's environment are judged; `TradingEnv` says it in its infos: None."""
    return None if config.env_class is None else Conventions(periods_per_year=market.dataset.periods_per_year)


def user_callbacks(config: SweepConfig) -> list[Any]:
    """Returns the classes that `callbacks` names: RLlib's, which travel to the env runners, and Tune's.

    Raises:
        ConfigurationError: one is not there, or is neither.
    """
    from ray.rllib.callbacks.callbacks import RLlibCallback

    found = []
    for index, text in enumerate(config.callbacks):
        given = named(text, f"callbacks[{index}]")
        if not (isinstance(given, type) and (issubclass(given, RLlibCallback) or _is_tunes(given))):
            raise ConfigurationError(
                f"callbacks[{index}] is {text!r}, which is no class of RLlib's RLlibCallback or Tune's Callback"
            )
        found.append(given)
    return found


def _is_tunes(given: Any) -> bool:
    from ray.tune import Callback

    return isinstance(given, type) and issubclass(given, Callback)


def tune_callbacks(config: SweepConfig) -> list[Any]:
    """Returns those of the user's callbacks that Tune calls, made without arguments."""
    return [callback() for callback in user_callbacks(config) if _is_tunes(callback)]


def environment_class(config: SweepConfig) -> Any:
    """Returns what environments are made of: the user's class or function, or `TradingEnv`.

    Raises:
        ConfigurationError: the module, or the name in it, is not there.
    """
    return TradingEnv if config.env_class is None else named(config.env_class, "env_class")


def number_of_windows(config: SweepConfig, env_config: Mapping[str, Any]) -> int:
    """Returns how many episodes one evaluation is: the windows the environment walks; 1 where it does not say."""
    count = getattr(environment_class(config), "number_of_windows", None)
    return int(count(env_config)) if count is not None else 1


def _registered(config: SweepConfig) -> Any:
    """Returns the environment as RLlib takes it; one of the user's by a name that all processes know."""
    if config.env_class is None:
        return TradingEnv
    from ray.tune import register_env

    make = environment_class(config)
    register_env(config.env_class, lambda env_config: make(with_open_segments(env_config)))
    return config.env_class


def with_open_segments(env_config: Any) -> Any:
    """Returns an env config whose `segments` are bars, not what stands for them in the object store.

    RLlib's own mapping, which knows its worker, stays one.
    """
    if "segments" not in env_config:
        return env_config
    copied = copy.copy(env_config)
    copied["segments"] = opened(env_config["segments"])
    return copied


def _environments(config: SweepConfig, market: Market) -> dict[str, dict[str, Any]]:
    """Returns the env configs for training and evaluation; checked here, before an actor starts."""
    training = {**config.env, "segments": [market.training]}
    evaluation = evaluation_environment(config, market)
    if config.env_class is None:
        for env in (training, evaluation):
            TradingSettings.from_mapping(env)
    else:
        environment_class(config)
        training["split"] = "train"
    return {"training": training, "evaluation": evaluation}


def evaluation_environment(config: SweepConfig, market: Market, split: str = "validation") -> dict[str, Any]:
    """Returns the env config that walks every evaluation window of a piece of the history, in order.

    Raises:
        ConfigurationError: `split` is none of train, validation and test.
    """
    segment = market.validation if split == "validation" else market_segment(market.dataset, split)
    if config.env_class is not None:
        return {**config.env, "segments": [segment], "split": split}
    return {**config.env, "segments": [segment], "start": "enumerate", "window": config.evaluation.window}


def known_algorithms(asked: Iterable[str]) -> None:
    """Raises ConfigurationError where RLlib has no algorithm of a name; says which there are."""
    from ray.rllib.algorithms.registry import ALGORITHMS

    known = sorted(ALGORITHMS)
    problems = [f"unknown algorithm {one!r}{suggestion(one, known)}" for one in asked if one not in ALGORITHMS]
    if problems:
        raise ConfigurationError(f"agents: {'; '.join(problems)}; RLlib has {', '.join(known)}")


def _default_config(algorithm: str) -> Any:
    from ray.rllib.algorithms.registry import ALGORITHMS

    known_algorithms([algorithm])
    # By its own loader: asking Tune for the name imports every algorithm and RLlib's debug environments.
    load: Any = ALGORITHMS[algorithm]
    return load()[1]


def _settable(settings: Any) -> list[str]:
    return [key for key in vars(settings) if not key.startswith("_")]


def _search_problems(where: str, search: Mapping[str, SearchDimension], settings: Any, *, own_env: bool) -> list[str]:
    allowed = [*_settable(settings), *(f"{ENV_PREFIX}{key}" for key in TradingSettings.__dataclass_fields__)]
    return [
        f"{where}.{key}: nothing of that name can be searched{suggestion(key, allowed)}"
        for key in search
        if key not in allowed and not key.startswith(MODEL_PREFIX) and not (own_env and key.startswith(ENV_PREFIX))
    ]


def space_of(dimension: SearchDimension) -> Any:
    """Returns Tune's search space of a dimension."""
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
