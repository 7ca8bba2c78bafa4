"""From a configuration to an RLlib algorithm configuration: what is refused, and what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.training.algorithms import algorithm_config
from drl_ray_tracking.training.config import SweepConfig, parse_config
from drl_ray_tracking.training.market import Market, load_market


@pytest.fixture(scope="module")
def market() -> Market:
    config = sweep()
    return load_market(config.data, config.split, config.features, Path())


def sweep(**changes: Any) -> SweepConfig:
    given: dict[str, Any] = {
        "experiment": "e",
        "data": {"source": "gym_anytrading:GOOGL"},
        "agents": [{"algorithm": "PPO", "training": {"train_batch_size": 500}, "model": {"fcnet_hiddens": [16]}}],
        "search": {
            "lr": {"grid": [0.1, 0.2]},
            "env/fee": {"uniform": [0.0, 0.01]},
            "model/fcnet_hiddens": {"grid": [[8]]},
        },
        "stop": {"training_iteration": 1},
        "env": {"window": 50},
        "evaluation": {"interval": 2, "window": 100},
    }
    return parse_config({**given, **changes}, "here")


def built(config: SweepConfig, market: Market) -> Any:
    return algorithm_config(config, config.agents[0], market)


def test_searched_values_become_tune_spaces_where_they_belong(market: Market) -> None:
    settings = built(sweep(), market)
    assert settings.lr == {"grid_search": [0.1, 0.2]}
    assert settings.seed == {"grid_search": [1, 2, 3]}
    assert settings.train_batch_size == 500
    assert type(settings.env_config["fee"]).__name__ == "Float"
    assert type(settings.evaluation_config["env_config"]["fee"]).__name__ == "Float"
    assert settings._model_config["fcnet_hiddens"] == {"grid_search": [[8]]}


def test_evaluation_runs_every_validation_window_once(market: Market) -> None:
    settings = built(sweep(), market)
    bars = len(market.validation) - 1
    assert settings.evaluation_duration == -(-bars // 100)
    assert settings.evaluation_duration_unit == "episodes"
    assert settings.evaluation_config["num_envs_per_env_runner"] == 1
    assert settings.evaluation_config["explore"] is False
    assert settings.evaluation_config["env_config"]["start"] == "enumerate"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agents": [{"algorithm": "POP"}]}, r"unknown algorithm 'POP' \(did you mean 'PPO'\?\); RLlib has APPO"),
        ({"agents": [{"algorithm": "PPO", "training": {"train_batch_sise": 1}}]}, "did you mean 'train_batch_size'"),
        ({"search": {"lrr": {"grid": [1]}}}, r"search\.lrr: nothing of that name can be searched"),
        ({"search": {"env/feee": {"grid": [1]}}}, r"did you mean 'env/fee'\?"),
        ({"env": {"fe": 0.1}}, "fe"),
        ({"evaluation": {"runners": 3}}, "only 1 evaluation windows"),
        ({"agents": [{"algorithm": "PPO", "training": {"enable_rl_module_and_learner": False}}]}, "old API stack"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    changes: dict[str, Any], message: str, market: Market
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        built(sweep(**changes), market)


def test_two_problems_are_one_error(market: Market) -> None:
    config = sweep(agents=[{"algorithm": "PPO", "training": {"gama": 1}}], search={"clipp_param": {"grid": [1]}})
    with pytest.raises(ConfigurationError, match=r"'gama' \(did you mean 'gamma'\?\); search\.clipp_param"):
        built(config, market)
