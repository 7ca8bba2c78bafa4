"""Policies whose observations or agents are not the usual ones; none of them is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations, PrevActionsPrevRewards

from drl_ray_tracking.errors import ConfigurationError, TrackingError
from drl_ray_tracking.models.backtest import backtest_env
from drl_ray_tracking.models.flavor import PolicyModel
from drl_ray_tracking.models.loading import fetch_checkpoint
from drl_ray_tracking.models.package import _example
from drl_ray_tracking.models.policy import Policy

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
VECTOR, CHOICE = gym.spaces.Box(-1.0, 1.0, (2,), np.float32), gym.spaces.Discrete(3)


def untrained(config: PPOConfig, spaces: dict[str, Any], *, module_sees: bool = False) -> Policy:
    config.env_runners(num_env_runners=0)
    env_to_module: Any = config.build_env_to_module_connector(spaces=spaces)
    module_to_env: Any = config.build_module_to_env_connector(spaces=spaces)
    if module_sees:
        spaces = {**spaces, "default_policy": (env_to_module.observation_space, spaces["default_policy"][1])}
    module = config.get_multi_rl_module_spec(spaces=spaces, inference_only=False).build()
    return Policy(module, env_to_module, module_to_env)


def of_connectors(observations: Any, *connectors: type) -> Policy:
    config = PPOConfig().env_runners(env_to_module_connector=lambda *_, **__: [one() for one in connectors])
    spaces = dict.fromkeys(("__env__", "__env_single__", "default_policy"), (observations, CHOICE))
    return untrained(config, spaces, module_sees=True)


def test_a_dict_space_is_given_as_columns_or_rows() -> None:
    space = gym.spaces.Dict({"account": VECTOR, "market": gym.spaces.Box(-1.0, 1.0, (3,), np.float32)})
    policy = of_connectors(space, FlattenObservations)
    space.seed(0)
    rows = [space.sample() for _ in range(5)]
    columns = {key: np.stack([row[key] for row in rows]) for key in space.spaces}
    np.testing.assert_array_equal(policy.predict(columns), policy.predict(rows))
    example = _example(policy)
    assert len(PolicyModel(policy).predict(example)) == len(example["account"])
    with pytest.raises(TrackingError, match=r"lack \['market'\]"):
        policy.predict({"account": columns["account"]})
    with pytest.raises(TrackingError, match="same length"):
        policy.predict({**columns, "market": columns["market"][:2]})
    with pytest.raises(TrackingError, match="which are not of"):
        policy.predict({**columns, "news": columns["market"]})


class Paying(gym.Env[Any, Any]):
    """Pays whatever it likes."""

    observation_space, action_space = VECTOR, CHOICE

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.chance, self.t = np.random.default_rng(0), 0
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self._seen(), float(self.chance.normal(0.0, 5.0)), False, self.t == 60, {}

    def _seen(self) -> Any:
        return self.chance.uniform(-1.0, 1.0, 2).astype(np.float32)


def test_a_backtest_tells_a_policy_its_rewards() -> None:
    policy = of_connectors(VECTOR, PrevActionsPrevRewards, FlattenObservations)
    (record,) = backtest_env(policy, Paying, windows=1).records
    env, player = Paying(), policy.play()
    observation, _ = env.reset()
    rewards: list[float] | None = None
    for chosen in record.actions:  # type: ignore[union-attr]
        (action,) = player.act([observation], rewards)
        assert action == chosen
        observation, reward, *_ = env.step(action)
        rewards = [reward]
    blind = policy.play()
    env.reset()
    assert [int(blind.act([observation])[0]) for _ in range(3)], "it acts without them, too"


def test_agents_that_take_turns_keep_their_memory() -> None:
    config = PPOConfig().multi_agent(policies={"p"}, policy_mapping_fn=lambda agent, *_, **__: "p")
    config.rl_module(model_config={"use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 4})
    both = gym.spaces.Dict({"l": VECTOR, "r": VECTOR}), gym.spaces.Dict({"l": CHOICE, "r": CHOICE})
    player = untrained(config, {"__env__": both, "__env_single__": both, "p": (VECTOR, CHOICE)}).play()
    for agent in ("l", "r", "l", "r", "l"):
        player.act([{agent: np.ones(2, np.float32)}])
    kept = {
        agent: one.extra_model_outputs.get("state_out") for agent, one in player._episodes[0].agent_episodes.items()
    }
    assert all(states is not None and len(states) for states in kept.values()), kept


def test_a_folder_with_several_checkpoints_is_ambiguous(tmp_path: Path) -> None:
    for number in (5, 9):
        part = tmp_path / f"checkpoint_{number:06}" / "env_runner"
        part.mkdir(parents=True)
        for folder in (part.parent, part):  # RLlib describes every part of a checkpoint
            (folder / "rllib_checkpoint.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"2 checkpoints \(checkpoint_000005, checkpoint_000009\)"):
        fetch_checkpoint(tmp_path, tmp_path)
    assert fetch_checkpoint(tmp_path / "checkpoint_000009", tmp_path).name == "checkpoint_000009"
