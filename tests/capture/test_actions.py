"""What is measured of continuous actions is what the environment was given."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from drl_ray_tracking.capture.actions import SentActions
from drl_ray_tracking.capture.measured import Measurement
from drl_ray_tracking.episodes import EpisodeRecord

pytestmark = pytest.mark.filterwarnings("ignore:.*already in registry:UserWarning")
SPACE = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
OBSERVATIONS = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


class Listening(gym.Env[Any, Any]):
    """Notes what it is told."""

    observation_space, action_space = OBSERVATIONS, SPACE
    told: list[float] = []  # noqa: RUF012 - shared on purpose

    def __init__(self, config: Any = None) -> None:
        Listening.told.clear()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        Listening.told.append(float(action[0]))
        self.t += 1
        return np.zeros(2, np.float32), 0.0, False, self.t == 20, {}


class Alone(MultiAgentEnv):
    """One agent that listens, with a name."""

    def __init__(self, config: Any = None) -> None:
        super().__init__()
        self.env = Listening()
        self.agents = self.possible_agents = ["a"]
        self.observation_spaces, self.action_spaces = {"a": OBSERVATIONS}, {"a": SPACE}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observation, info = self.env.reset()
        return {"a": observation}, {"a": info}

    def step(self, action_dict: Any) -> Any:
        observation, reward, _, truncated, info = self.env.step(action_dict["a"])
        return {"a": observation}, {"a": reward}, {"__all__": False}, {"__all__": truncated}, {"a": info}


def recorded(runner: Any, config: Any) -> list[EpisodeRecord]:
    def fail(where: str, error: Exception) -> None:
        pytest.fail(f"{where}: {error}")

    measured = [
        Measurement().of([episode], fail, sent=SentActions.of(config)) for episode in runner.sample(num_episodes=3)
    ]
    return [record for _, parts in measured for record, _ in parts]


@pytest.mark.parametrize(
    "settings", [{}, {"normalize_actions": False, "clip_actions": True}, {"normalize_actions": False}]
)
@pytest.mark.parametrize("agents", ["one", "named"])
def test_they_are_those_that_the_environment_was_given(settings: dict[str, bool], agents: str) -> None:
    config = PPOConfig().environment(Listening if agents == "one" else Alone, **settings)
    config.env_runners(num_env_runners=0)
    if agents == "named":
        config.multi_agent(policies={"a"}, policy_mapping_fn=lambda agent, *_, **__: "a")
    runner = (SingleAgentEnvRunner if agents == "one" else MultiAgentEnvRunner)(config=config)
    try:
        records = recorded(runner, config)
    finally:
        runner.stop()
    seen = np.concatenate([record.actions for record in records if record.actions is not None]).ravel()
    assert seen == pytest.approx(Listening.told[-len(seen) :])  # before that RLlib tried the environment
    assert len(seen) == 60
    assert (seen.min() < 0.0) == (settings == {"normalize_actions": False}), "raw actions leave the bounds"
