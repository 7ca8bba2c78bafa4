"""The process a courier works in: started detached, exactly one per journal, ending by itself.

It is started through an intermediate process that exits at once: only so does it outlive `ray job stop`, which
kills every descendant of the driver. It holds `courier.lock` for as long as it lives.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Final

from drl_ray_tracking.errors import JournalError
from drl_ray_tracking.home import HOME_VARIABLE
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.courier import ORPHAN_LIMIT_S, Courier
from drl_ray_tracking.tracking.courier_status import LOCK_FILE, LOG_FILE
from drl_ray_tracking.tracking.locks import hold_lock, release
from drl_ray_tracking.tracking.mlflow_sink import TOKEN_FILE_VARIABLE, MlflowSink, bounded_requests
from drl_ray_tracking.tracking.repair import quarantined
from drl_ray_tracking.tracking.sink import Sink, SinkUnavailableError
from drl_ray_tracking.tracking.target import working_folder

_log = logging.getLogger(__name__)
_LOCK_PATIENCE_S: Final = 1.0
_PATHS: Final = (  # variables that name a file or directory: relative to where the driver works
    HOME_VARIABLE,
    TOKEN_FILE_VARIABLE,
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "PGPASSFILE",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
)


def start(directory: Path, credentials: dict[str, str] | None = None) -> None:
    """Starts a courier for a journal and returns at once; a second one for it exits by itself.

    Args:
        directory: the journal's directory.
        credentials: variables for the courier's environment only, such as MLFLOW_TRACKING_TOKEN.
    """
    package_root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, **(credentials or {}), **_absolute_paths()}
    environment["PYTHONPATH"] = os.pathsep.join(
        part for part in (package_root, environment.get("PYTHONPATH", "")) if part
    )
    with (directory / LOG_FILE).open("ab") as log:
        intermediate = subprocess.Popen(
            [sys.executable, "-m", __name__, str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )
    intermediate.wait(timeout=60)


def carry(directory: Path, *, orphan_limit_s: float = ORPHAN_LIMIT_S) -> bool:
    """Delivers a journal in this process; returns whether everything was delivered.

    A journal delivered in full is deleted, except where runs refused it, something in it could not be understood or
    damaged files were moved aside.
    Returns False at once where a courier already serves it.

    Args:
        directory: the journal's directory.
        orphan_limit_s: how long a store may be out of reach once the driver is dead.

    Raises:
        JournalError: the journal cannot be read.
    """
    try:
        lock = hold_lock(directory / LOCK_FILE, patience_s=_LOCK_PATIENCE_S)
    except FileNotFoundError:
        return True  # another courier has just delivered it
    if lock is None:
        _log.info("another courier serves %s", directory)
        return False
    try:
        one = Courier(directory, _mlflow_sink, orphan_limit_s=orphan_limit_s)
        # MLflow roots a new database's `Default` experiment in the working directory, see `_mlflow_sink`.
        with bounded_requests(credentials=_absolute_paths()), chdir(directory):
            complete = one.run()
        left = one.progress.refused or one.progress.malformed or quarantined(directory)
        if complete and not left:
            shutil.rmtree(directory, ignore_errors=True)
    finally:
        release(lock)
    return complete


def _absolute_paths() -> dict[str, str]:
    """Returns the variables of `_PATHS` that are relative, made absolute: a courier works in another directory."""
    given = {name: os.environ.get(name, "") for name in _PATHS}
    return {name: str(Path(path).absolute()) for name, path in given.items() if path and path[0] not in "/~"}


def _mlflow_sink(opening: events.Open) -> Sink:
    folder = working_folder(opening["tracking_uri"], opening["artifact_location"])
    try:
        if folder is not None:
            os.chdir(folder)
    except OSError as error:
        raise SinkUnavailableError(
            f"the store {opening['tracking_uri']} is out of reach: {folder} cannot be entered ({error.strerror}). "
            "Bring the directory back; where the store is gone for good, delete the journal"
        ) from error
    return MlflowSink(opening["tracking_uri"], opening["registry_uri"])


def main() -> None:
    """Runs as `python -m drl_ray_tracking.tracking.courier_process DIRECTORY`: detaches, then delivers."""
    directory = Path(sys.argv[1])
    if os.fork():
        os._exit(0)
    os.nice(10)
    # Importing MLflow makes many objects that stay: looking through them again and again took a sixth of a start's CPU.
    gc.set_threshold(20_000, 50, 50)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _log.info("courier %d serves %s", os.getpid(), directory)
    try:
        carry(directory)
    except JournalError:
        _log.exception("the journal in %s cannot be delivered", directory)


if __name__ == "__main__":
    main()
