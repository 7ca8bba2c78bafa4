"""Small algorithms, trained once and checkpointed, with what RLlib's own env runner then did, exploring nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from drl_ray_tracking import instrument

STEPS = 1000


class Watched(gym.Wrapper[Any, Any, Any, Any]):
    """Notes what it shows and what it is told, in every process it lives in."""

    episodes: list[list[tuple[Any, Any]]] = []  # noqa: RUF012 - shared on purpose

    def __init__(self, config: Any) -> None:
        super().__init__(gym.make(config["name"]))
        self.shown: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.shown, info = self.env.reset(seed=seed, options=options)
        self.played: list[tuple[Any, Any]] = []
        Watched.episodes.append(self.played)
        return self.shown, info

    def step(self, action: Any) -> Any:
        self.played.append((np.array(self.shown), np.array(action)))
        outcome = self.env.step(action)
        self.shown = outcome[0]
        return outcome


class Pair(MultiAgentEnv):
    """Two agents, each with a CartPole of its own, until the first of them falls."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.envs = {agent: gym.make("CartPole-v1") for agent in ("left", "right")}
        self.agents = self.possible_agents = list(self.envs)
        self.observation_spaces = {agent: env.observation_space for agent, env in self.envs.items()}
        self.action_spaces = {agent: env.action_space for agent, env in self.envs.items()}
        self.shown: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        found = {agent: env.reset(seed=seed) for agent, env in self.envs.items()}
        self.shown = {agent: observation for agent, (observation, _) in found.items()}
        self.played: list[tuple[Any, Any]] = []
        Watched.episodes.append(self.played)
        return self.shown, {agent: info for agent, (_, info) in found.items()}

    def step(self, action_dict: Any) -> Any:
        self.played.append((self.shown, dict(action_dict)))
        found = {agent: self.envs[agent].step(action) for agent, action in action_dict.items()}
        columns = [{agent: outcome[part] for agent, outcome in found.items()} for part in range(5)]
        self.shown = columns[0]
        for part in (2, 3):
            columns[part]["__all__"] = any(columns[part].values())
        return tuple(columns)


@dataclass(frozen=True)
class Trained:
    """A checkpoint, and the episodes of (observation, action) that RLlib's own env runner played."""

    checkpoint: Path
    episodes: list[list[tuple[Any, Any]]]


def ppo() -> Any:
    config = PPOConfig().env_runners(num_env_runners=0)
    return config.training(train_batch_size=200, minibatch_size=100, num_epochs=1)


def filtered(env: Any = None, spaces: Any = None, device: Any = None) -> Any:
    return MeanStdFilter()


KINDS: dict[str, Callable[[], Any]] = {
    "discrete": lambda: ppo().environment(Watched, env_config={"name": "CartPole-v1"}),
    "continuous": lambda: (
        ppo().environment(Watched, env_config={"name": "Pendulum-v1"}).env_runners(env_to_module_connector=filtered)
    ),
    "sac": lambda: (
        SACConfig()
        .environment(Watched, env_config={"name": "Pendulum-v1"})
        .env_runners(num_env_runners=0)
        .training(train_batch_size=32, num_steps_sampled_before_learning_starts=64)
    ),
    "recurrent": lambda: (
        ppo()
        .environment(Watched, env_config={"name": "CartPole-v1"})
        .rl_module(model_config={"use_lstm": True, "lstm_cell_size": 16, "max_seq_len": 8})
    ),
    "agents": lambda: (
        ppo()
        .environment(Pair)
        .multi_agent(policies={"a", "b"}, policy_mapping_fn=lambda agent, *_, **__: {"left": "a"}.get(agent, "b"))
    ),
}


@pytest.fixture(scope="session")
def trained(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Trains an algorithm of a kind for one iteration, checkpoints it and lets RLlib play; once a kind."""
    made: dict[str, Trained] = {}

    def of(kind: str) -> Trained:
        if kind not in made:
            config = instrument(KINDS[kind]()).debugging(seed=1)
            algorithm = config.build_algo()
            algorithm.train()
            folder = tmp_path_factory.mktemp(kind) / "checkpoint"
            algorithm.save_to_path(str(folder))
            Watched.episodes = []
            runner = algorithm.env_runner
            for connector in runner._env_to_module.connectors:
                # Not an evaluation: with a local runner RLlib gives that one no filter's state.
                connector._update_stats = False
            runner.sample(num_timesteps=STEPS, explore=False, force_reset=True)
            played = [episode for episode in Watched.episodes if episode]
            algorithm.stop()
            made[kind] = Trained(folder, played)
        return made[kind]

    return of
