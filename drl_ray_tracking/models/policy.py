"""Policy: acts as a checkpointed RLlib algorithm would, without Ray running, its configuration or its environment.

A checkpoint holds the trained modules and both connector pipelines with their state (observation filters,
un-squashing of actions). Observations go through the very classes RLlib's env runners use, so the
actions are theirs. Loading executes pickles of the checkpoint: load only what you trust.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from drl_ray_tracking.errors import ConfigurationError, TrackingError

_MODULES: Final = "learner_group/learner/rl_module"
_ENV_TO_MODULE: Final = "env_runner/env_to_module_connector"
_MODULE_TO_ENV: Final = "env_runner/module_to_env_connector"
_SINGLE: Final = "default_policy"


class Policy:
    """The greedy policy of a checkpoint: no exploration, the same action for the same observation.

    Attributes:
        observation_space, action_space: gymnasium spaces of one observation and one action; with several
            agents, `Dict` spaces by agent id.
        multi_agent: whether it acts for several agents.
        recurrent: whether a module remembers what it has seen.
        modules: RLlib's `MultiRLModule`, one module an id.
    """

    def __init__(self, modules: Any, env_to_module: Any, module_to_env: Any) -> None:
        self.modules: Any = modules
        self._env_to_module = env_to_module
        self._module_to_env = module_to_env
        self.observation_space: Any = env_to_module.input_observation_space
        self.action_space: Any = env_to_module.input_action_space
        self.multi_agent = any(_maps_agents(part) for part in env_to_module.connectors)
        self.recurrent = any(module.is_stateful() for _, module in modules.items())
        self._module: Any = modules if self.multi_agent else modules[_SINGLE]
        for connector in env_to_module.connectors:
            if hasattr(connector, "_update_stats"):
                connector._update_stats = False  # what it is asked must not change how it sees

    @classmethod
    def load(cls, checkpoint: str | Path) -> Policy:
        """Reads a checkpoint of an RLlib algorithm (new API stack) from a local directory.

        Raises:
            ConfigurationError: it is no such checkpoint; says what is missing.
        """
        folder = Path(checkpoint).expanduser().resolve()
        missing = [part for part in (_MODULES, _ENV_TO_MODULE, _MODULE_TO_ENV) if not (folder / part).is_dir()]
        if missing:
            raise ConfigurationError(
                f"{folder} is no checkpoint of an RLlib algorithm on the new API stack: it lacks {', '.join(missing)}. "
                "Give the directory that `Algorithm.save_to_path` or Tune wrote, such as .../checkpoint_000004."
            )
        from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
        from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule

        return cls(
            MultiRLModule.from_checkpoint(folder / _MODULES),
            ConnectorPipelineV2.from_checkpoint(folder / _ENV_TO_MODULE),
            ConnectorPipelineV2.from_checkpoint(folder / _MODULE_TO_ENV),
        )

    def play(self, slots: int = 1) -> Player:
        """Returns a player for so many episodes at once, each at its first observation."""
        return Player(self, slots)

    def predict(self, observations: Any) -> Any:
        """Returns the actions for a batch of observations, ready for the environment's `step`.

        Args:
            observations: (n, ...) array, each row the first of an episode of its own; of a recurrent policy
                the consecutive observations of one episode. For a Dict space also a mapping of its keys to such
                arrays. With several agents, a mapping of agent id to such arrays. All are of the same n.

        Returns:
            (n, ...) array of the action space's dtype, or a mapping of agent id to such arrays.

        Raises:
            TrackingError: a shape does not fit; says which is needed.
        """
        rows = self._rows(observations)
        if not rows:
            raise TrackingError("predict() was given no observation: the first axis is the batch, and it is empty")
        if self.recurrent:
            player = self.play()
            actions = [player.act([row])[0] for row in rows]
        else:
            actions = self.play(len(rows)).act(rows)
        if not self.multi_agent:
            return _stacked(actions, self.action_space)
        return {
            agent: _stacked([action[agent] for action in actions], self.action_space[agent]) for agent in actions[0]
        }

    def _rows(self, observations: Any) -> list[Any]:
        space = self.observation_space
        if not self.multi_agent:
            if isinstance(observations, Mapping) and hasattr(space, "spaces"):
                if missing := [key for key in space.spaces if key not in observations]:
                    raise TrackingError(f"observations lack {missing}; each is a mapping with {list(space.spaces)}")
                return _zipped(observations, space)
            return list(_checked(observations, space, "observations"))
        agents = list(space.spaces)
        if not isinstance(observations, Mapping) or not set(observations) <= set(agents):
            given = list(observations) if isinstance(observations, Mapping) else type(observations).__name__
            raise TrackingError(f"observations must map agents to arrays; agents are {agents}, given {given}")
        return _zipped(observations, space)


class Player:
    """Plays episodes step by step and remembers what a recurrent or frame-stacking policy needs."""

    def __init__(self, policy: Policy, slots: int) -> None:
        if slots < 1:
            raise TrackingError(f"slots is {slots}; at least one episode is played")
        self._policy = policy
        self._episodes = [self._fresh() for _ in range(slots)]
        self._shared: dict[str, Any] = {}
        self._last: list[tuple[Any, dict[str, Any]]] = []

    def act(self, observations: Sequence[Any], rewards: Sequence[float] | None = None) -> list[Any]:
        """Returns one action for the next observation of each episode.

        Args:
            observations: one a slot; with several agents, a mapping of agent id to observation each.
            rewards: of the last actions, for policies that look at them; None for zeros.

        Raises:
            TrackingError: their number is not that of the slots.
        """
        from ray.rllib.core.columns import Columns

        if len(observations) != len(self._episodes):
            raise TrackingError(f"{len(observations)} observations were given for {len(self._episodes)} slots")
        import torch

        for slot, (episode, observation) in enumerate(zip(self._episodes, observations, strict=True)):
            self._advance(episode, observation, slot, 0.0 if rewards is None else float(rewards[slot]))
        policy = self._policy
        with torch.no_grad():
            common = {
                "rl_module": policy._module,
                "episodes": self._episodes,
                "explore": False,
                "shared_data": self._shared,
                "metrics": None,
            }
            seen = policy._env_to_module(batch={}, **common)
            batch = policy._module_to_env(batch=policy._module.forward_inference(seen), **common)
        actions = batch.pop(Columns.ACTIONS)
        for_environment = batch.pop(Columns.ACTIONS_FOR_ENV, actions)
        self._last = [
            (actions[slot], {key: values[slot] for key, values in batch.items()}) for slot in range(len(self._episodes))
        ]
        return list(for_environment)

    def _fresh(self) -> Any:
        if self._policy.multi_agent:
            from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

            (mapping,) = [part for part in self._policy._env_to_module.connectors if _maps_agents(part)]
            return MultiAgentEpisode(
                observation_space=self._policy.observation_space,
                action_space=self._policy.action_space,
                agent_to_module_mapping_fn=mapping._agent_to_module_mapping_fn,
            )
        from ray.rllib.env.single_agent_episode import SingleAgentEpisode

        return SingleAgentEpisode(
            observation_space=self._policy.observation_space, action_space=self._policy.action_space
        )

    def _advance(self, episode: Any, observation: Any, slot: int, reward: float) -> None:
        if not self._last:
            if self._policy.multi_agent:
                episode.add_env_reset(observations=observation)
            else:
                episode.add_env_reset(observation=observation)
            return
        action, extra = self._last[slot]
        if self._policy.multi_agent:
            episode.add_env_step(
                observations=observation,
                actions=action,
                rewards=dict.fromkeys(observation, reward),
                extra_model_outputs={
                    agent: {key: values[agent] for key, values in extra.items() if agent in values}
                    for agent in action  # one that is not seen next needs its memory when it is seen again
                },
            )
        else:
            episode.add_env_step(observation=observation, action=action, reward=reward, extra_model_outputs=extra)


def _maps_agents(connector: Any) -> bool:
    return type(connector).__name__ == "AgentToModuleMapping"


def _stacked(actions: Sequence[Any], space: Any) -> Any:
    return np.stack([np.asarray(action) for action in actions]).astype(space.dtype, copy=False)


def _zipped(columns: Mapping[Any, Any], space: Any) -> list[dict[Any, Any]]:
    """Returns the rows of a batch that is given as columns.

    Raises:
        TrackingError: there is no such column, or they differ in length.
    """
    if unknown := [key for key in columns if key not in space.spaces]:
        raise TrackingError(f"observations have {unknown}, which are not of {list(space.spaces)}")
    checked = {key: _checked(column, space[key], f"observations[{key!r}]") for key, column in columns.items()}
    counts = {key: len(column) for key, column in checked.items()}
    if len(set(counts.values())) > 1:
        raise TrackingError(f"each of the observations' arrays must have the same length but they have {counts}")
    return [{key: column[row] for key, column in checked.items()} for row in range(min(counts.values(), default=0))]


def _checked(given: Any, space: Any, name: str) -> Any:
    """Returns a batch of observations as an array of the space's shape and dtype."""
    array = np.asarray(given)
    if space.shape is None:
        return given  # a Dict or Tuple space: RLlib's connectors know what to do with each row
    if array.shape[1:] != space.shape or array.ndim == 0:
        shape = ", ".join(str(size) for size in ("n", *space.shape))
        raise TrackingError(f"{name} has shape {array.shape}; ({shape}) is needed, the first axis being the batch")
    return array.astype(space.dtype, copy=False)
