"""Finds the model that a sweep starts from, and brings its checkpoint to where every node of a cluster finds it."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from drl_ray_tracking import names
from drl_ray_tracking.analysis.runs import open_client
from drl_ray_tracking.analysis.store_errors import store_errors
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.models.loading import fetch_checkpoint
from drl_ray_tracking.tracking.checkpoints import digest_of
from drl_ray_tracking.tracking.storage import below
from drl_ray_tracking.tracking.target import resolve_target
from drl_ray_tracking.training.config import SweepConfig
from drl_ray_tracking.training.start import StartingPoint

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_DEFAULT_STORAGE: Final = "~/ray_results"  # Tune's own
_FOLDER: Final = "drl_starts"


def start_of(config: SweepConfig, base_dir: Path) -> StartingPoint | None:
    """Returns where the trials of a sweep begin; None where they begin with random weights.

    Raises:
        ConfigurationError: as `starting_point`.
    """
    if config.start_from is None:
        return None
    uri = resolve_target(config.tracking.uri).uri
    return starting_point(config.start_from, base_dir=base_dir, storage=config.storage, tracking_uri=uri)


def starting_point(model: str, *, base_dir: Path, storage: str | None, tracking_uri: str | None) -> StartingPoint:
    """Returns where trials begin; an alias becomes the version it stands for now.

    Args:
        model: as `models.loading` names models; a path is relative to `base_dir`.
        base_dir: the directory of the configuration.
        storage: Tune's, which all nodes share; None for this machine's default.
        tracking_uri: the MLflow store that knows `models:` and `runs:`.

    Raises:
        ConfigurationError: there is no such model, it holds no checkpoint of RLlib's, or the storage takes no copy.
    """
    if "://" in model and not model.startswith(("models:", "runs:", "mlflow-artifacts:")):
        with tempfile.TemporaryDirectory(prefix="drl-start-") as scratch:
            fetch_checkpoint(model, Path(scratch))  # says what is wrong here, before anything starts
        return StartingPoint(model, model)
    if ":" not in model:
        model = str((base_dir / Path(model).expanduser()).resolve())
    parent = (
        _known(open_client(tracking_uri), model, tracking_uri)
        if model.startswith("models:")
        else StartingPoint(model, "")
    )
    with tempfile.TemporaryDirectory(prefix="drl-start-") as scratch:
        checkpoint = fetch_checkpoint(parent.model, Path(scratch), tracking_uri=tracking_uri)
        return replace(parent, address=_staged(checkpoint, storage or str(Path(_DEFAULT_STORAGE).expanduser())))


def _known(client: MlflowClient, address: str, tracking_uri: str | None) -> StartingPoint:
    """Returns the model an address stands for now, with the run and step it comes from."""
    path = address.removeprefix("models:/").strip("/")
    with store_errors(tracking_uri or "MLflow's default"):
        if path.startswith("m-") and "/" not in path and "@" not in path:
            found = client.get_logged_model(path)
            run = found.tags.get(names.TAG_MODEL_RUN) or found.source_run_id or ""
            return StartingPoint(address, "", str(run), found.tags.get(names.TAG_CHECKPOINT_STEP, ""))
        name, mark, alias = path.rpartition("@")
        name, number = (name, "") if mark else path.rsplit("/", 1)
        version = client.get_model_version_by_alias(name, alias) if mark else client.get_model_version(name, number)
    tags = version.tags
    known = tags.get(names.TAG_RUN, ""), tags.get(names.TAG_CHECKPOINT_STEP, "")
    return StartingPoint(f"models:/{name}/{version.version}", "", *known)


def _staged(checkpoint: Path, storage: str) -> str:
    """Copies a checkpoint into the storage, once for each content, and returns where it is."""
    address = below(below(storage, _FOLDER), digest_of(checkpoint)[:16])
    try:
        if "://" not in address:
            if not Path(address).is_dir():
                shutil.copytree(checkpoint, f"{address}.new", dirs_exist_ok=True)
                Path(f"{address}.new").replace(address)
            return address
        from pyarrow.fs import FileSystem, copy_files

        filesystem, path = FileSystem.from_uri(address)
        copy_files(str(checkpoint), path, destination_filesystem=filesystem)
    except OSError as error:
        raise ConfigurationError(
            f"start_from: the storage {storage} takes no copy of the checkpoint: {error}"
        ) from error
    return address
