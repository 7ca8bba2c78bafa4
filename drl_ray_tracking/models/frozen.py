"""FrozenPolicy: acts as a policy does with torch and numpy alone; Ray is neither needed nor imported.

What is frozen is the module's exported program between the observation filter before it and the scaling of actions
after it. `models.freeze` makes one, and only where it gives the very actions that RLlib's classes give.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drl_ray_tracking.errors import ConfigurationError, TrackingError

FOLDER: Final = "drl_frozen"  # beside the checkpoint in a packaged model
PROGRAM: Final = "program.pt2"
DESCRIPTION: Final = "policy.json"
_FORMAT: Final = 1


class FrozenPolicy:
    """The greedy policy of one agent without memory.

    Attributes:
        observation_shape, observation_dtype: of one observation.
        action_dtype: of one action.
        multi_agent, recurrent: never.
    """

    multi_agent = False
    recurrent = False

    def __init__(self, program: Any, description: dict[str, Any]) -> None:
        """Takes the exported program, and what `models.freeze` wrote about it."""
        self._program = program
        self.observation_shape = tuple(description["observation"]["shape"])
        self.observation_dtype = np.dtype(description["observation"]["dtype"])
        self.action_dtype = np.dtype(description["action"]["dtype"])
        self._filter = _Filter.of(description["filter"])
        self._scaling = description["scaling"]
        self._low, self._high = (
            None if description["action"][end] is None else np.asarray(description["action"][end], self.action_dtype)
            for end in ("low", "high")
        )

    @classmethod
    def load(cls, folder: str | Path) -> FrozenPolicy:
        """Reads one from a local directory. torch's loader may execute pickles: load only what you trust.

        Raises:
            ConfigurationError: there is none, or it was frozen by another version in another format.
        """
        import torch

        place = Path(folder)
        try:
            description = json.loads((place / DESCRIPTION).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{place} holds no frozen policy: {error}") from error
        if description.get("format") != _FORMAT:
            raise ConfigurationError(f"{place} is frozen in format {description.get('format')}, {_FORMAT} is known")
        return cls(torch.export.load(str(place / PROGRAM)).module(), description)

    def predict(self, observations: Any) -> NDArray[Any]:
        """Returns the actions for a batch of observations, ready for the environment's `step`.

        Args:
            observations: (n, ...) array.

        Returns:
            (n, ...) array of the action space's dtype.

        Raises:
            TrackingError: the shape does not fit; says which is needed.
        """
        import torch

        given = np.asarray(observations)
        if given.ndim == 0 or given.shape[1:] != self.observation_shape:
            shape = ", ".join(str(size) for size in ("n", *self.observation_shape))
            raise TrackingError(f"observations has shape {given.shape}; ({shape}) is needed, the first axis the batch")
        if not len(given):
            raise TrackingError("predict() was given no observation: the first axis is the batch, and it is empty")
        seen = self._filter(given.astype(self.observation_dtype, copy=False))
        with torch.no_grad():
            actions = self._program(torch.from_numpy(np.ascontiguousarray(seen, dtype=np.float32))).numpy()
        return self._scaled(actions).astype(self.action_dtype, copy=False)

    def play(self, slots: int = 1) -> FrozenPolicy:
        """Returns what plays so many episodes at once; nothing is remembered, so it is this."""
        return self

    def act(self, observations: Sequence[Any], rewards: Sequence[float] | None = None) -> list[Any]:
        """Returns one action for the next observation of each episode."""
        return list(self.predict(np.stack([np.asarray(observation) for observation in observations])))

    def _scaled(self, actions: NDArray[Any]) -> NDArray[Any]:
        low, high = self._low, self._high
        if low is None or high is None or self._scaling == "none":
            return actions
        if self._scaling == "normalized":  # RLlib's arithmetic, operation by operation
            actions = low + (actions + 1.0) * (high - low) / 2.0
        clipped: NDArray[Any] = np.clip(actions, low, high)
        return clipped


class _Filter:
    """RLlib's mean and standard deviation filter, as it is when nothing is learned any more."""

    def __init__(self, mean: Any, deviation: Any, clip: float | None) -> None:
        self._mean, self._deviation, self._clip = mean, deviation, clip

    @classmethod
    def of(cls, described: dict[str, Any] | None) -> _Filter:
        if described is None:
            return cls(None, None, None)
        mean, deviation = (
            None if described[key] is None else np.asarray(described[key]) for key in ("mean", "deviation")
        )
        return cls(mean, deviation, described["clip"])

    def __call__(self, observations: NDArray[Any]) -> NDArray[Any]:
        dtype = observations.dtype
        if self._mean is not None:
            observations = observations - self._mean
        if self._deviation is not None:
            observations = observations / self._deviation
        if self._clip:
            observations = np.clip(observations, -self._clip, self._clip)
        return observations.astype(dtype, copy=False)
