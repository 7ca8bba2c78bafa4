"""Brings a checkpoint to this machine, wherever it is named from, and loads what RLlib makes of it.

A model is named by a local path (a checkpoint, or a packaged model), `models:/m-...`, `models:/NAME/VERSION`,
`models:/NAME@ALIAS`, `runs:/RUN/PATH`, or an address that pyarrow opens (`s3://...`). A model that is only a
pointer leads to the checkpoint it points at. Loading executes pickles: load only what you trust.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.models.policy import Policy
from drl_ray_tracking.tracking.storage import download

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_CHECKPOINT_FILE: Final = "rllib_checkpoint.json"
_SHOWN: Final = 5  # checkpoints, where there is more than one
_MLFLOW: Final = ("models:", "runs:", "mlflow-artifacts:")


def load_policy(model: str | Path, *, tracking_uri: str | None = None) -> Policy:
    """Returns the greedy policy of a model; see `Policy`.

    Args:
        model: a path or an address, as this module's first lines list them.
        tracking_uri: the MLflow store that knows `models:` and `runs:`; needed for these, and never guessed.

    Raises:
        ConfigurationError: there is no such model, or it holds no checkpoint of RLlib's.
    """
    with checkpoint_of(model, tracking_uri=tracking_uri) as folder:
        return Policy.load(folder)


def load_rl_module(model: str | Path, *, tracking_uri: str | None = None) -> Any:
    """Returns the model's `MultiRLModule`, one module an id, without Ray running; arguments as of `load_policy`.

    Raises:
        ConfigurationError: there is no such model, or it holds no checkpoint of RLlib's.
    """
    with checkpoint_of(model, tracking_uri=tracking_uri) as folder:
        return Policy.load(folder).modules


def load_algorithm(model: str | Path, *, tracking_uri: str | None = None) -> Any:
    """Returns the model's `Algorithm`, ready to train on; Ray must be running, and its environment importable.

    Arguments are those of `load_policy`.

    Raises:
        ConfigurationError: there is no such model, it holds no checkpoint of RLlib's, or Ray is not running.
    """
    import ray
    from ray.rllib.algorithms.algorithm import Algorithm

    if not ray.is_initialized():
        raise ConfigurationError("load_algorithm() needs Ray: call ray.init() first; load_policy() does without")
    scratch = tempfile.mkdtemp(prefix="drl-model-")
    algorithm: Any = Algorithm.from_checkpoint(str(fetch_checkpoint(model, Path(scratch), tracking_uri=tracking_uri)))
    # RLlib reads its runners' state again when it restarts one: the files stay as long as the algorithm does.
    weakref.finalize(algorithm, rmtree, scratch, ignore_errors=True)
    return algorithm


@contextmanager
def checkpoint_of(model: str | Path, *, tracking_uri: str | None = None) -> Iterator[Path]:
    """Lends a local folder with the model's checkpoint; what was fetched for it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="drl-model-") as scratch:
        yield fetch_checkpoint(model, Path(scratch), tracking_uri=tracking_uri)


def fetch_checkpoint(model: str | Path, scratch: Path, *, tracking_uri: str | None = None) -> Path:
    """Returns a local folder with the model's checkpoint; fetches it into `scratch` where it is elsewhere.

    Raises:
        ConfigurationError: there is no such model, no checkpoint of RLlib's in it, or more than one.
    """
    text = str(model)
    if text.startswith(_MLFLOW):
        folder = _from_mlflow(text, scratch, tracking_uri)
    elif "://" in text:
        folder = _from_storage(text, scratch)
    else:
        folder = Path(text).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigurationError(f"there is no folder {folder} to load a checkpoint from")
    described = {path.parent for path in folder.rglob(_CHECKPOINT_FILE)}  # a checkpoint, and each of its parts
    inside = sorted(path for path in described if described.isdisjoint(path.parents))
    if not inside:
        raise ConfigurationError(
            f"{text} holds no checkpoint of an RLlib algorithm (a folder with {_CHECKPOINT_FILE}): give a checkpoint "
            "that `Algorithm.save_to_path` or Tune wrote, or a model that was made of one"
        )
    if len(inside) > 1:
        found = ", ".join(str(path.relative_to(folder)) for path in inside[:_SHOWN])
        more = f" and {len(inside) - _SHOWN} more" if len(inside) > _SHOWN else ""
        raise ConfigurationError(f"{text} holds {len(inside)} checkpoints ({found}{more}): give one of them")
    return inside[0]


def _from_mlflow(address: str, scratch: Path, tracking_uri: str | None) -> Path:
    from mlflow.artifacts import download_artifacts
    from mlflow.tracking import MlflowClient

    from drl_ray_tracking.analysis.store_errors import store_errors

    if tracking_uri is None:
        raise ConfigurationError(f"{address} is known to an MLflow store only: give its address as tracking_uri")
    client = MlflowClient(tracking_uri, registry_uri=tracking_uri)
    with store_errors(tracking_uri):
        pointed = _pointed_at(client, address)
        if pointed is None:
            # An address of MLflow's own kind would be looked up in its global store.
            location = _location(client, address)
            return Path(download_artifacts(location, dst_path=str(scratch), tracking_uri=tracking_uri))
    return _from_storage(pointed, scratch) if "://" in pointed else Path(pointed)


def _location(client: MlflowClient, address: str) -> str:
    """Returns where the files of a `models:` or `runs:` address are."""
    scheme, _, path = address.partition(":")
    path = path.strip("/")
    if scheme == "runs":
        run_id, _, inside = path.partition("/")
        return f"{client.get_run(run_id).info.artifact_uri}/{inside}".rstrip("/")
    if scheme != "models":
        return address
    if path.startswith("m-") and "/" not in path and "@" not in path:
        return str(client.get_logged_model(path).artifact_location)
    if "@" in path:
        name, _, alias = path.rpartition("@")
        version = client.get_model_version_by_alias(name, alias).version
    else:
        name, _, version = path.rpartition("/")
    return str(client.get_model_version_download_uri(name, version))


def _pointed_at(client: MlflowClient, address: str) -> str | None:
    """Returns where the checkpoint is that a pointer points at; None for a model with files of its own."""
    model_id = address.removeprefix("models:/").strip("/")
    if not address.startswith("models:/m-") or "/" in model_id:
        return None
    tags = client.get_logged_model(model_id).tags
    return tags.get(names.TAG_CHECKPOINT_URI) if tags.get(names.TAG_MODEL_ROLE) == names.MODEL_POINTER else None


def _from_storage(address: str, scratch: Path) -> Path:
    target = scratch / "checkpoint"
    try:
        download(address, target)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{address} cannot be fetched: {error}") from error
    return target
