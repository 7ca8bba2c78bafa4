"""What RLlib sends to an environment: its episodes keep the policy's own actions, before they are scaled or cut.

RLlib draws continuous actions around zero and, on the way to the environment, stretches them to the bounds of the
action space (`normalize_actions`) or cuts them to it (`clip_actions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import gymnasium as gym
import numpy as np


@dataclass(frozen=True)
class SentActions:
    """How the actions of an episode become those that its environment was given."""

    normalized: bool = False
    clipped: bool = False

    @classmethod
    def of(cls, config: Any) -> SentActions:
        """Reads an `AlgorithmConfig`; without RLlib's default connectors, nothing changes an action that we know of."""
        if not getattr(config, "add_default_connectors_to_module_to_env_pipeline", True):
            return cls()
        return cls(*(bool(getattr(config, name, False)) for name in ("normalize_actions", "clip_actions")))

    def __call__(self, actions: Sequence[Any], space: Any) -> Sequence[Any]:
        """Returns actions, one a step, as the environment was given them.

        Args:
            actions: of one agent.
            space: the environment's action space for it; only a Box changes anything.
        """
        if not (self.normalized or self.clipped) or not isinstance(space, gym.spaces.Box) or not len(actions):
            return actions
        from ray.rllib.utils.spaces.space_utils import clip_action, unsquash_action

        rows = np.asarray(actions)
        sent: Sequence[Any] = (unsquash_action if self.normalized else clip_action)(rows, space)  # type: ignore[no-untyped-call]
        return sent


UNCHANGED: Final = SentActions()
