"""log_artifact: a file that a trial adds to its own run, from its own process, wherever that is.

The file is copied into the trial's storage, which the driver sees too; the tracker sends what lies there within a
minute or two, and the rest when the trial ends. A trial's process needs neither MLflow nor a connection to its
server, and a restored trial finds its files again.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError

_log = logging.getLogger(__name__)


def log_artifact(path: str | Path, folder: str = "", *, trainable: Any = None) -> bool:
    """Attaches a file, or everything in a directory, to the run of the trial this process runs.

    Args:
        path: the file or directory; read now.
        folder: the artifact folder it appears in; '' is the top.
        trainable: the `Algorithm` in a callback of RLlib's, `self` in a class trainable; None in a function that
            Tune runs.

    Returns:
        Whether it is safe; False, and one warning, where the storage does not take it: a trial does not end over a
        picture of its own.

    Raises:
        ConfigurationError: there is no such file, `folder` leads out of the run's artifacts, or this is no trial.
    """
    source = Path(path)
    if not source.exists():
        raise ConfigurationError(f"there is no file or directory {source} to log")
    if names.leads_out(folder):
        raise ConfigurationError(f"the artifact folder {folder!r} leads out of the run's artifacts: give one below it")
    storage = _storage_of(trainable)
    target = "/".join(part for part in (storage.trial_fs_path, names.FILES_DIR, folder, source.resolve().name) if part)
    try:
        _copy(source, storage.storage_filesystem, target)
    except Exception as error:  # noqa: BLE001 - whatever a remote storage raises
        _log.warning("%s is not attached to the trial's run: %s", source, error)
        return False
    return True


def _copy(source: Path, filesystem: Any, target: str) -> None:
    from pyarrow.fs import LocalFileSystem, copy_files

    filesystem.create_dir(target if source.is_dir() else target.rpartition("/")[0], recursive=True)
    copy_files(str(source.resolve()), target, source_filesystem=LocalFileSystem(), destination_filesystem=filesystem)


def _storage_of(trainable: Any) -> Any:
    storage = getattr(trainable, "_storage", None)
    if trainable is None:
        from ray.train._internal.session import get_session

        session = get_session()
        storage = getattr(session, "storage", None)
    if storage is None or not getattr(storage, "trial_dir_name", None):
        raise ConfigurationError(
            "log_artifact() is for a trial's own process: give trainable=algorithm in a callback of RLlib's, or "
            "trainable=self in a class of yours. The driver has MLflowTrackingCallback.log_artifact()"
        )
    return storage
