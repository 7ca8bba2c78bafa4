"""The MLflow flavour: `mlflow.pyfunc.load_model(uri).predict(observations)` gives a policy's actions.

MLflow imports this module by the name that `models.package` wrote into the model, and calls `_load_pyfunc`. A model
that carries a frozen policy acts with torch alone; the others load RLlib's classes, and so Ray, but start no cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from drl_ray_tracking.models.frozen import FOLDER, FrozenPolicy
from drl_ray_tracking.models.policy import Policy


class PolicyModel:
    """What `mlflow.pyfunc` wraps: a policy that also takes data frames."""

    def __init__(self, policy: Policy | FrozenPolicy) -> None:
        self.policy = policy

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Returns the actions for a batch of observations; see `Policy.predict`.

        Args:
            model_input: array, mapping of agent id to array, or a data frame with one column a number of the
                observation.
            params: taken for MLflow's sake; there are none.
        """
        if isinstance(self.policy, Policy) and self.policy.multi_agent and isinstance(model_input, Mapping):
            # MLflow's signatures name inputs by text; agents may be numbers.
            known = {str(agent): agent for agent in self.policy.observation_space.spaces}
            actions = self.policy.predict({known.get(str(key), key): value for key, value in model_input.items()})
            return {str(agent): values for agent, values in actions.items()}
        if hasattr(model_input, "to_numpy"):
            model_input = model_input.to_numpy(dtype=np.float32)
        return self.policy.predict(model_input)


def _load_pyfunc(path: str) -> PolicyModel:
    frozen = Path(path).parent / FOLDER
    return PolicyModel(FrozenPolicy.load(frozen) if frozen.is_dir() else Policy.load(path))
