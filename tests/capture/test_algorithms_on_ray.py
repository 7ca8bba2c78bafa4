"""On a real Ray: other algorithms, several agents, users' own callbacks, and errors that must not matter."""

from __future__ import annotations

from typing import Any

import pytest
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.examples.envs.classes.multi_agent import MultiAgentCartPole

from drl_ray_tracking import names
from drl_ray_tracking.capture.instrument import instrument
from tests.capture.algorithms import small_ppo, trading_ppo

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]


def trained(config: AlgorithmConfig, iterations: int = 1, **options: Any) -> list[dict[str, Any]]:
    algorithm = instrument(config, **options).build_algo()
    try:
        return [algorithm.train() for _ in range(iterations)]
    finally:
        algorithm.stop()


class Theirs(RLlibCallback):
    """A user's own callback: logs into the group we write to, and reads what we wrote before Tune does."""

    def on_episode_end(self, *, metrics_logger: Any, **_: Any) -> None:
        metrics_logger.log_value("theirs", 1, reduce="sum")

    def on_train_result(self, *, result: dict[str, Any], **_: Any) -> None:
        result["they_saw"] = True


class Others(RLlibCallback):
    def on_train_result(self, *, result: dict[str, Any], **_: Any) -> None:
        result["others_saw"] = True


def count_one(*, metrics_logger: Any, **_: Any) -> None:
    metrics_logger.log_value("by_function", 1, reduce="sum")


def explode(_: Any) -> Any:
    raise RuntimeError("boom")


def test_users_callbacks_work_beside_ours_while_ours_fails(ray_session: None) -> None:
    config = small_ppo().callbacks([Theirs, Others], on_episode_end=count_one)
    config.env_runners(num_env_runners=1)
    first, second = trained(config, 2, trading=explode)
    for result in (first, second):
        runners = result["env_runners"]
        episodes = runners["episode"]["count"]
        assert runners["theirs"] == runners["by_function"] == runners["capture"]["errors"] == episodes > 0
        assert result["they_saw"]
        assert result["others_saw"]
        assert "trading" not in runners
    assert second[names.LIFETIME_STEPS] == 200


def test_one_callback_class_and_what_vectorised_infos_turn_integers_into(ray_session: None) -> None:
    config = trading_ppo().callbacks(Theirs).env_runners(num_envs_per_env_runner=2)
    config.evaluation(evaluation_interval=None)
    (result,) = trained(config)
    runners = result["env_runners"]
    assert runners["theirs"] == runners["episode"]["count"] > 0
    assert runners["reward"]["cost_mean"] <= 0.0
    assert "undefined" not in runners or not [
        key for key in runners["undefined"]["trading"]["sharpe"] if "period" in key
    ]


def test_two_modules_of_agents(ray_session: None) -> None:
    config = small_ppo(MultiAgentCartPole, {"num_agents": 3}, batch=150)
    config.multi_agent(
        policies={"p0", "p1"}, policy_mapping_fn=lambda agent, episode, **_: "p1" if agent == 1 else "p0"
    )
    config.env_runners(rollout_fragment_length=20)
    (result,) = trained(config)
    runners = result["env_runners"]
    whole, modules, agents = runners["episode"], runners["module"], runners["agent"]
    assert "capture" not in runners
    assert sorted(modules) == ["p0", "p1"]
    assert sorted(agents) == ["0", "1", "2"]
    count = whole["count"]
    assert count > 0
    assert modules["p1"]["episode"]["count"] == count
    assert modules["p0"]["episode"]["count"] == 2 * count
    parts = sum(agent["episode"]["return_mean"] for agent in agents.values())
    assert whole["return_mean"] == pytest.approx(parts, rel=1e-12)
    assert whole["return_mean"] == pytest.approx(runners["episode_return_mean"], rel=0.05)
    assert names.published_name("env_runners/module/p0/episode/return_mean") == "train/module/p0/episode/return_mean"


def test_off_policy(ray_session: None) -> None:
    config = (
        DQNConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0)
        .training(train_batch_size=8, num_steps_sampled_before_learning_starts=50)
        .reporting(min_sample_timesteps_per_iteration=120, min_time_s_per_iteration=0)
        .rl_module(rl_module_spec=RLModuleSpec(model_config={"fcnet_hiddens": [4]}))
        .debugging(log_level="ERROR")
    )
    config.evaluation(evaluation_interval=2, evaluation_duration=1)
    first, second = trained(config, 2, objective="eval/episode/return_mean")
    assert first["env_runners"]["episode"]["count"] > 0
    assert [result[names.OBJECTIVE_STATE] for result in (first, second)] == [
        names.OBJECTIVE_NONE,
        names.OBJECTIVE_FRESH,
    ]
    assert second["evaluation"]["env_runners"]["episode"]["count"] == 1.0


def test_asynchronous(ray_session: None) -> None:
    config = (
        APPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=1, rollout_fragment_length=25)
        .training(train_batch_size=50)
        .learners(num_learners=0)
        .reporting(min_sample_timesteps_per_iteration=100, min_time_s_per_iteration=1)
        .rl_module(model_config={"fcnet_hiddens": [4]})
        .debugging(log_level="ERROR")
    )
    config.evaluation(evaluation_interval=1, evaluation_duration=1)
    results = trained(config, 2, objective="eval/episode/return_mean")
    assert sum(result["env_runners"].get("episode", {}).get("count", 0.0) for result in results) > 0
    assert [result["evaluation"]["env_runners"]["episode"]["count"] for result in results] == [1.0, 1.0]
    assert [result[names.OBJECTIVE_STATE] for result in results] == [names.OBJECTIVE_FRESH] * 2
    assert not [path for result in results for path, _ in names.flatten(result) if "drl_" in path]
