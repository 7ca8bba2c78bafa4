"""Files that the driver's side adds to runs: the user's, and what Tune's own loggers wrote.

While a sweep runs they go through its journal. Tune's loggers (TensorBoard, CSV, JSON) keep a trial's files on the
driver's disk and close them after our hook for the trial's end: they are handed over at the next step of Tune's loop.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.introductions import trial_storage
from drl_ray_tracking.tracking.kept import checked_folder, keep
from drl_ray_tracking.tracking.mlflow_sink import MlflowSink, bounded_requests
from drl_ray_tracking.tracking.progress import SWEEP_RUN
from drl_ray_tracking.tracking.sink import SinkRefusedError, SinkUnavailableError
from drl_ray_tracking.tracking.spool import Spool
from drl_ray_tracking.tracking.trial_files import legal_tree


class Attachments:
    """Waits with files until there is a run to attach them to."""

    def __init__(self) -> None:
        self._early: list[tuple[Path, str]] = []  # of the parent run, from before the sweep
        self._ended: list[Any] = []  # Tune's trials whose loggers have not closed their files yet

    def before(self, path: str | Path, folder: str) -> None:
        """Takes a file for the parent run of a sweep that has not begun; it is read when the sweep begins.

        Raises:
            ConfigurationError: there is no such file, or `folder` leads out of the run's artifacts.
        """
        if not Path(path).exists():
            raise ConfigurationError(f"there is no file or directory {path} to log")
        self._early.append((Path(path).absolute(), checked_folder(folder)))

    def begin(self, spool: Spool) -> None:
        """Attaches what was given before the sweep."""
        early, self._early = self._early, []
        for path, folder in early:
            spool.append(events.FILES, SWEEP_RUN, keep(spool.directory, path, folder))

    def trial_ended(self, trial: Any) -> None:
        """Takes note of a trial whose files on this disk are complete once every logger has seen its end."""
        self._ended.append(trial)

    def hand_over(self, spool: Spool, *, everything: bool, restored: bool) -> None:
        """Attaches the files that Tune's loggers wrote for trials that have ended.

        Args:
            spool: of the sweep.
            everything: the whole local directory, not its TensorBoard event files alone.
            restored: earlier drivers wrote event files, too: those that Tune has kept go first.
        """
        ended, self._ended = self._ended, []
        kind = "" if everything else names.TENSORBOARD_ARTIFACT
        for trial in ended:
            places = [(names.TENSORBOARD_ARTIFACT, trial_storage(trial))] if restored else []
            places += [(kind, str(trial.local_path))] if trial.local_path else []
            for folder, place in places:
                spool.append(events.FILES, trial.trial_id, events.Files(folder=folder, path=place, stays=True))


def send(path: str | Path, folder: str, run_id: str, tracking_uri: str, credentials: Mapping[str, str]) -> None:
    """Uploads a file or directory at once.

    Raises:
        ConfigurationError: there is no such file, `folder` leads out of the run's artifacts, or the store does not
            take it now.
    """
    with tempfile.TemporaryDirectory(prefix="drl-track-") as scratch, bounded_requests(credentials=credentials):
        kept = legal_tree(Path(keep(Path(scratch), path, folder)["path"]), Path(scratch))
        try:
            MlflowSink(tracking_uri).log_folder(run_id, kept, names.legal_artifact_path(folder))
        except (SinkUnavailableError, SinkRefusedError) as error:
            raise ConfigurationError(f"{path} cannot be sent to {tracking_uri}: {error}") from error
