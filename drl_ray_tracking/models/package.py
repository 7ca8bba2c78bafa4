"""Makes a loadable MLflow model of an RLlib checkpoint: a folder with the checkpoint, its signature and an example.

Where the policy can be frozen (see `models.freeze`), the model acts without Ray; its checkpoint is in it all the same.

Run as `python -m drl_ray_tracking.models.package CHECKPOINT FOLDER`, in a process of its own: it loads the
policy, and so torch. Exit code 3 and one line on stderr where the directory is no checkpoint of RLlib's.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.models.freeze import freeze
from drl_ray_tracking.models.frozen import FOLDER
from drl_ray_tracking.models.policy import Policy

if TYPE_CHECKING:
    from mlflow.models.signature import ModelSignature

NO_CHECKPOINT: Final = 3
_EXAMPLES: Final = 4
_RUNS_WITH: Final = ("drl-ray-tracking", "ray", "torch", "gymnasium", "numpy")
WARNING: Final = (
    "Loading this model executes code that it carries (pickles of an RLlib checkpoint, an exported torch program): "
    "load it only if you trust who made it."
)


def package(checkpoint: str | Path, folder: str | Path) -> None:
    """Writes the model; the folder must not exist.

    Raises:
        ConfigurationError: the directory is no checkpoint of an RLlib algorithm.
    """
    policy = Policy.load(checkpoint)
    with tempfile.TemporaryDirectory(prefix="drl-freeze-") as scratch:
        frozen = Path(scratch) / FOLDER
        reason = freeze(policy, frozen)
        _save(policy, checkpoint, folder, "yes" if not reason else f"no: {reason}")
        if not reason:
            shutil.copytree(frozen, Path(folder) / "data" / FOLDER)


def _save(policy: Policy, checkpoint: str | Path, folder: str | Path, frozen: str) -> None:
    import mlflow.pyfunc

    mlflow.pyfunc.save_model(
        str(folder),
        loader_module="drl_ray_tracking.models.flavor",
        data_path=str(checkpoint),
        signature=_signature(policy),
        input_example=_example(policy),
        pip_requirements=[f"{name}=={version(name)}" for name in _RUNS_WITH],
        metadata={
            "warning": WARNING,
            "frozen": frozen,
            "recurrent": policy.recurrent,
            "multi_agent": policy.multi_agent,
            "observation_space": str(policy.observation_space),
            "action_space": str(policy.action_space),
        },
    )


def _signature(policy: Policy) -> ModelSignature | None:
    from mlflow.models.signature import ModelSignature
    from mlflow.types.schema import Schema

    try:
        inputs, outputs = (_tensors(space) for space in (policy.observation_space, policy.action_space))
    except (AttributeError, TypeError):  # a Tuple space, or one nested deeper: MLflow has no schema for it
        return None
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def _tensors(space: Any) -> list[Any]:
    from mlflow.types.schema import TensorSpec

    if hasattr(space, "spaces"):
        return [TensorSpec(np.dtype(part.dtype), (-1, *part.shape), str(name)) for name, part in space.spaces.items()]
    return [TensorSpec(np.dtype(space.dtype), (-1, *space.shape))]


def _example(policy: Policy) -> Any:
    """Returns observations from the middle of their space: sampling one would make every package another."""
    space = policy.observation_space
    if hasattr(space, "spaces"):
        return {str(name): _middle(part) for name, part in space.spaces.items()}
    return _middle(space)


def _middle(space: Any) -> Any:
    low, high = getattr(space, "low", np.zeros(space.shape)), getattr(space, "high", np.zeros(space.shape))
    center = np.clip(np.zeros(space.shape), low, high).astype(space.dtype)
    return np.stack([center] * _EXAMPLES)


def main() -> None:
    """Runs the command."""
    checkpoint, folder = sys.argv[1:3]
    try:
        package(checkpoint, folder)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(NO_CHECKPOINT) from None


if __name__ == "__main__":
    main()
