"""Files on their way into a run's artifacts: copied beside the journal as they are when they are logged.

`log_artifact` means the same everywhere: the file, or everything in a directory under its name, appears below an
artifact folder of the run.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking import events

_KEPT: Final = "kept"


def keep(directory: Path, path: str | Path, folder: str = "") -> events.Files:
    """Copies a file or directory beside a journal and returns the event that has it uploaded.

    Args:
        directory: of the journal.
        path: what to keep.
        folder: the artifact folder; '' is the top.

    Raises:
        ConfigurationError: there is no such file, or `folder` leads out of the run's artifacts.
    """
    source = Path(path)
    if not source.exists():
        raise ConfigurationError(f"there is no file or directory {source} to log")
    place = new_place(directory, folder)
    if source.is_dir():
        shutil.copytree(source, place / source.resolve().name)
    else:
        shutil.copy2(source, place / source.name)
    return events.Files(folder=folder, path=str(place))


def new_place(directory: Path, folder: str) -> Path:
    """Returns a new directory beside a journal, for files on their way into an artifact folder.

    Raises:
        ConfigurationError: `folder` leads out of the run's artifacts.
    """
    checked_folder(folder)
    place = directory / _KEPT / uuid.uuid4().hex[:12]
    place.mkdir(parents=True)
    return place


def checked_folder(folder: str) -> str:
    """Returns an artifact folder; raises ConfigurationError where it leads out of the run's artifacts."""
    if names.leads_out(folder):
        raise ConfigurationError(f"the artifact folder {folder!r} leads out of the run's artifacts: give one below it")
    return folder
