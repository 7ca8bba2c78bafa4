"""Freezes a policy: exports its module as a program that runs without Ray, and keeps it only if it acts the same.

Frozen are policies of one agent without memory, over a Box of observations and a Box or Discrete of actions, with
RLlib's own connectors. Whatever else there is stays with RLlib's classes, and the reason is returned.
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np

from drl_ray_tracking.models.frozen import DESCRIPTION, PROGRAM, FrozenPolicy
from drl_ray_tracking.models.policy import Policy

_BEFORE: Final = frozenset(
    {
        "AddObservationsFromEpisodesToBatch",
        "AddTimeDimToBatchAndZeroPad",
        "AddStatesFromEpisodesToBatch",
        "BatchIndividualItems",
        "NumpyToTensor",
        "MeanStdFilter",
    }
)
_AFTER: Final = frozenset(
    {
        "GetActions",
        "TensorToNumpy",
        "UnBatchToIndividualItems",
        "RemoveSingleTsTimeRankFromBatch",
        "NormalizeAndClipActions",
        "ListifyDataForVectorEnv",
    }
)
_COMPARED: Final = 256  # observations
_RANGE: Final = 10.0  # unbounded observations are compared up to here


def freeze(policy: Policy, folder: Path) -> str:
    """Writes the frozen policy into a folder that does not exist; returns '' or why it cannot be frozen.

    Args:
        policy: to freeze.
        folder: is not there afterwards where it cannot.
    """
    reason = _obstacle(policy)
    if reason:
        return reason
    folder.mkdir(parents=True)
    try:
        _export(policy, folder)
        reason = _differs(policy, FrozenPolicy.load(folder))
    except Exception as error:  # noqa: BLE001 - a module of the user's may do anything that cannot be exported
        reason = f"its module cannot be exported: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
    if reason:
        shutil.rmtree(folder, ignore_errors=True)
    return reason


def _obstacle(policy: Policy) -> str:
    """Returns why a policy cannot be frozen, as far as that can be seen from outside."""
    import gymnasium as gym

    if policy.multi_agent:
        return "it acts for several agents"
    if policy.recurrent:
        return "it remembers what it has seen"
    if not isinstance(policy.observation_space, gym.spaces.Box):
        return f"its observations are a {type(policy.observation_space).__name__}"
    if not isinstance(policy.action_space, (gym.spaces.Box, gym.spaces.Discrete)):
        return f"its actions are a {type(policy.action_space).__name__}"
    for pipeline, known in ((policy._env_to_module, _BEFORE), (policy._module_to_env, _AFTER)):
        unknown = {type(connector).__name__ for connector in pipeline.connectors} - known
        if unknown:
            return f"it has connectors of its own: {', '.join(sorted(unknown))}"
    return ""


def _export(policy: Policy, folder: Path) -> None:
    import torch

    space, actions = policy.observation_space, policy.action_space
    example = torch.zeros(2, *space.shape)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's exporter, about itself
        program = torch.export.export(
            _program(policy._module), (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
        )
    torch.export.save(program, str(folder / PROGRAM))
    bounded = hasattr(actions, "low")
    description = {
        "format": 1,
        "observation": {"shape": list(space.shape), "dtype": str(space.dtype)},
        "action": {
            "shape": list(actions.shape),
            "dtype": str(actions.dtype),
            "low": actions.low.tolist() if bounded else None,
            "high": actions.high.tolist() if bounded else None,
        },
        "filter": _described_filter(policy),
        "scaling": _scaling(policy),
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")


def _program(module: Any) -> Any:
    import torch
    from ray.rllib.core.columns import Columns

    class Greedy(torch.nn.Module):
        """From observations to actions, without exploration, as RLlib's `GetActions` takes them."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, observations: Any) -> Any:
            out = self.module.forward_inference({Columns.OBS: observations})
            if Columns.ACTIONS in out:
                return out[Columns.ACTIONS]
            distribution = self.module.get_inference_action_dist_cls().from_logits(out[Columns.ACTION_DIST_INPUTS])
            return distribution.to_deterministic().sample()

    return Greedy().eval()


def _described_filter(policy: Policy) -> dict[str, Any] | None:
    from ray.rllib.utils.numpy import SMALL_NUMBER

    for connector in policy._env_to_module.connectors:
        if type(connector).__name__ == "MeanStdFilter":
            known = connector._filters[None]
            stats = known.running_stats  # of a Box: one; RLlib nests them as the space is
            return {
                "mean": np.asarray(stats.mean).tolist() if known.demean else None,
                "deviation": (np.asarray(stats.std) + SMALL_NUMBER).tolist() if known.destd else None,
                "clip": known.clip,
            }
    return None


def _scaling(policy: Policy) -> str:
    import gymnasium as gym

    bounds = policy.action_space
    for connector in policy._module_to_env.connectors:
        if type(connector).__name__ == "NormalizeAndClipActions" and isinstance(bounds, gym.spaces.Box):
            bounded = bool(np.all(bounds.bounded_below) and np.all(bounds.bounded_above))
            if connector.normalize_actions:
                return "normalized" if bounded else "none"
            return "clipped" if connector.clip_actions else "none"
    return "none"


def _differs(policy: Policy, frozen: FrozenPolicy) -> str:
    """Returns how the two act differently, or ''."""
    space = policy.observation_space
    low = np.maximum(space.low.astype(np.float64), -_RANGE)
    high = np.minimum(space.high.astype(np.float64), _RANGE)
    rng = np.random.default_rng(0)
    observations = rng.uniform(low, np.maximum(low, high), (_COMPARED, *space.shape)).astype(space.dtype)
    expected, found = policy.predict(observations), frozen.predict(observations)
    same = expected.dtype == found.dtype and expected.shape == found.shape and bool(np.array_equal(expected, found))
    return "" if same else f"frozen it acts differently on {_COMPARED} observations"
