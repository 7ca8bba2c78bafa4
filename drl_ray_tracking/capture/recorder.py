"""RecordEpisodes: the same exact episode records from a plain gymnasium loop, or a vector env, without Ray.

Both wrappers hand through what the environment returns, untouched, and contain their own errors as the
RLlib callback does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from drl_ray_tracking.capture.containment import Containment
from drl_ray_tracking.capture.environment import Environment, SingleEnvironment, VectorSlot
from drl_ray_tracking.capture.measured import Measurement
from drl_ray_tracking.capture.presets import trading_source
from drl_ray_tracking.capture.steps import EpisodeSteps
from drl_ray_tracking.episodes import Conventions, EpisodeMetric, EpisodeRecord, EpisodeSummary
from drl_ray_tracking.episodes.summary import merge_all
from drl_ray_tracking.errors import ConfigurationError

OnEpisode = Callable[[EpisodeRecord], None]


class _Recorded:
    """What both wrappers say of the episodes that have finished."""

    _finished: _Finished

    @property
    def summary(self) -> EpisodeSummary:
        """The episodes finished since the last `pop_summary`, merged; its KPIs are `summary.compute()`."""
        return self._finished.summary()

    @property
    def last_record(self) -> EpisodeRecord | None:
        """The record of the episode that finished last; None before the first."""
        return self._finished.last_record

    @property
    def errors(self) -> int:
        """How many errors were contained; each kind was logged once."""
        return self._finished.errors.count

    def pop_summary(self) -> EpisodeSummary:
        """Returns `summary` and starts anew."""
        return self._finished.pop()


class RecordEpisodes(_Recorded, gym.Wrapper[Any, Any, Any, Any]):
    """Records every finished episode of one environment.

    An episode that is reset before its end is not recorded. A step after the end without a reset counts as
    the reset of the next episode, as under gymnasium's `Autoreset`.

    Args:
        env: the environment.
        trading: as for `instrument`: None, a mapping of column to info key, a source, or a callable.
        metrics: KPIs of your own (see `EpisodeMetric`).
        conventions: how returns are judged; None takes `periods_per_year` from the infos.
        on_episode: called with the record of each episode as it ends.

    Raises:
        ConfigurationError: `trading` is not understood.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        *,
        trading: Any = None,
        metrics: Sequence[EpisodeMetric[Any]] = (),
        conventions: Conventions | None = None,
        on_episode: OnEpisode | None = None,
    ) -> None:
        super().__init__(env)
        self._finished = _Finished(_measurement(trading, metrics, conventions), on_episode)
        self._path = _Path(SingleEnvironment(self.env))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment; an unfinished episode is forgotten."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._path = _Path(SingleEnvironment(self.env))
        self._path.begin(info)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment and returns what it returns."""
        outcome = self.env.step(action)
        try:
            _, reward, terminated, truncated, info = outcome
            self._path.step(action, reward, info, bool(terminated), bool(truncated), self._finished)
        except Exception as error:  # noqa: BLE001 - recording must not change what the caller sees
            self._finished.errors.note("step", error)
        return outcome


class RecordVectorEpisodes(_Recorded, VectorWrapper):
    """Records every finished episode of a gymnasium vector environment, in all of its autoreset modes.

    Arguments and results are those of `RecordEpisodes`. The mode is read off the environment's metadata
    (`autoreset_mode`), next-step where it says nothing.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        *,
        trading: Any = None,
        metrics: Sequence[EpisodeMetric[Any]] = (),
        conventions: Conventions | None = None,
        on_episode: OnEpisode | None = None,
    ) -> None:
        if not isinstance(env, VectorEnv):
            raise ConfigurationError(f"env is a {type(env).__name__}, not a gymnasium VectorEnv: use RecordEpisodes")
        super().__init__(env)
        self._same_step = (env.metadata or {}).get("autoreset_mode") == AutoresetMode.SAME_STEP
        self._finished = _Finished(_measurement(trading, metrics, conventions), on_episode)
        self._paths = [_Path(VectorSlot(env, index)) for index in range(env.num_envs)]

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environments, or those that `options["reset_mask"]` names; what was unfinished is forgotten."""
        # gymnasium takes the mask out of the caller's options: read it first.
        chosen = (options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool))
        outcome = self.env.reset(seed=seed, options=options)
        try:
            infos = infos_by_env(outcome[1], self.num_envs)
            for index in np.flatnonzero(chosen):
                self._paths[index] = _Path(VectorSlot(self.env, int(index)))
                self._paths[index].begin(infos[index])
        except Exception as error:  # noqa: BLE001 - as above
            self._finished.errors.note("reset", error)
        return outcome

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps the environments and returns what they return."""
        outcome = self.env.step(actions)
        try:
            self._record(actions, *outcome[1:])
        except Exception as error:  # noqa: BLE001 - as above
            self._finished.errors.note("step", error)
        return outcome

    def _record(self, actions: Any, rewards: Any, terminated: Any, truncated: Any, vector_info: Any) -> None:
        infos = infos_by_env(vector_info, self.num_envs)
        taken = list(gym.vector.utils.iterate(self.action_space, actions))
        for index, path in enumerate(self._paths):
            info, ended = infos[index], (bool(terminated[index]), bool(truncated[index]))
            try:
                if self._same_step and any(ended):
                    path.step(taken[index], rewards[index], info.get("final_info"), *ended, self._finished)
                    path.begin({key: value for key, value in info.items() if not key.startswith("final_")})
                else:
                    path.step(taken[index], rewards[index], info, *ended, self._finished)
            except Exception as error:  # noqa: BLE001 - one environment's error is not the others'
                self._finished.errors.note("step", error)


def infos_by_env(vector_info: Mapping[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Takes gymnasium's vectorised info apart: one plain info per environment.

    Args:
        vector_info: `info[key]` of shape (num_envs, ...) with `info["_" + key]`, a mask of which
            environments said it; nested mappings likewise.
        num_envs: how many environments there are.
    """
    infos: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for key, values in vector_info.items():
        mask = vector_info.get(f"_{key}")
        if mask is None:  # a mask itself, or something that is not per environment
            continue
        parts = infos_by_env(values, num_envs) if isinstance(values, Mapping) else values
        for index in np.flatnonzero(mask):
            infos[index][key] = parts[index]
    return infos


class _Finished:
    """Measures what has ended. Keeps one summary per episode until popped, for an order-independent merge."""

    def __init__(self, measurement: Measurement, on_episode: OnEpisode | None) -> None:
        self.errors = Containment()
        self.last_record: EpisodeRecord | None = None
        self._measurement = measurement
        self._on_episode = on_episode
        self._summaries: list[EpisodeSummary] = []

    def add(self, steps: EpisodeSteps) -> None:
        record = self._measurement.record(steps, self.errors.note)
        self._summaries.append(self._measurement.summary(record))
        self.last_record = record
        if self._on_episode is not None:
            self._on_episode(record)

    def summary(self) -> EpisodeSummary:
        return merge_all(self._summaries) if self._summaries else EpisodeSummary.empty(self._measurement.metrics)

    def pop(self) -> EpisodeSummary:
        popped = self.summary()
        self._summaries = []
        return popped


class _Path:
    """The steps of the episode that one environment is in; copies what the environment may reuse."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._infos: list[Mapping[str, Any]] = []
        self._rewards: list[float] = []
        self._actions: list[Any] = []

    def begin(self, info: Any) -> None:
        self._infos, self._rewards, self._actions = [_copied(info)], [], []

    def step(self, action: Any, reward: Any, info: Any, terminated: bool, truncated: bool, finished: _Finished) -> None:
        if not self._infos:  # this step was the automatic reset
            self.begin(info)
            return
        self._rewards.append(float(reward))
        self._infos.append(_copied(info))
        self._actions.append(action.copy() if isinstance(action, np.ndarray) else action)
        if terminated or truncated:
            plain = not isinstance(action, (Mapping, tuple))
            steps = EpisodeSteps(
                infos=self._infos,
                rewards=np.asarray(self._rewards, dtype=np.float64),
                actions=self._actions if plain else [],
                terminated=terminated,
                truncated=truncated,
                environment=self._environment,
            )
            self._infos, self._rewards, self._actions = [], [], []
            finished.add(steps)


def _copied(info: Any) -> Mapping[str, Any]:
    return dict(info) if isinstance(info, Mapping) else {}


def _measurement(trading: Any, metrics: Sequence[EpisodeMetric[Any]], conventions: Conventions | None) -> Measurement:
    return Measurement(trading_source(trading), tuple(metrics), conventions)
