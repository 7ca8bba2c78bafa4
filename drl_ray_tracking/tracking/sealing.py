"""Which runs have all their points in one file: kept while they arrive, sealed when a trial has ended, then bundled.

What a seal promises is in `trials.sealed`; this is the writers' side of it.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from drl_ray_tracking import names
from drl_ray_tracking.tracking.histories import Histories
from drl_ray_tracking.tracking.progress import SWEEP_RUN, Progress
from drl_ray_tracking.tracking.runs import Runs
from drl_ray_tracking.tracking.sink import MetricPoint, Sink
from drl_ray_tracking.trials.sealed import bundle_names

MOST_POINTS: Final = 10_000_000  # kept at once: a gigabyte of disk, which the journal's limit does not count
_log = logging.getLogger(__name__)


class Sealing:
    """Seals runs whose every point this journal delivers; without `histories` it does nothing."""

    def __init__(self, sink: Sink, progress: Progress, runs: Runs, histories: Histories | None) -> None:
        """Takes the store, what is known of the runs, the runs, and where their points are kept."""
        self._sink = sink
        self._progress = progress
        self._runs = runs
        self._histories = histories

    @property
    def wanted(self) -> bool:
        """Whether anything is ever sealed."""
        return self._histories is not None

    def made(self, trial: str) -> None:
        """Notes that this journal has made a trial's run: nobody else has written to it."""
        if self._histories is not None and self._histories.drop(trial):
            self._progress.made[trial] = 0

    def keep(self, trial: str, points: Sequence[MetricPoint]) -> None:
        """Keeps points that have arrived, of a run whose every point this journal delivers."""
        if self._histories is None or trial not in self._progress.made:
            return
        if sum(self._progress.made.values()) + len(points) > MOST_POINTS:
            _log.warning(
                "more than %d points of open trials are waiting to be files: the histories of %s are not kept, readers "
                "ask the store instead",
                MOST_POINTS,
                trial,
            )
            del self._progress.made[trial]
            self._histories.drop(trial)
            return
        try:
            self._histories.keep(trial, points)
            self._progress.made[trial] += len(points)
        except OSError as error:
            _log.warning("the histories of %s are not kept, readers ask the store instead: %s", trial, error)
            del self._progress.made[trial]

    def seal(self, trial: str) -> None:
        """Uploads all points of an ended trial's run as one file, and says in a tag what it must be like."""
        histories, at_least = self._histories, self._progress.made.get(trial)
        if histories is None or at_least is None or trial in self._progress.open_trials:
            return
        with tempfile.TemporaryDirectory(prefix="drl-track-") as scratch:
            file = Path(scratch) / names.HISTORIES_ARTIFACT
            seal = histories.write(trial, at_least, self._progress.epoch_of(trial), file)

            def upload(run_id: str) -> None:
                if seal is not None and self._runs.owns(trial, self._sink.read_tags(run_id)):
                    self._sink.log_folder(run_id, Path(scratch), "")
                    with self._runs.alone():
                        if self._runs.owns(trial, self._sink.read_tags(run_id)):  # still
                            self._sink.log(run_id, tags={names.TAG_HISTORIES: seal.to_text()})
                    histories.keep_sealed(run_id, file)

            self._runs.guarded(trial, upload)
        del self._progress.made[trial]  # opened again, it is another journal's or no longer whole
        histories.drop(trial)

    def bundle(self) -> None:
        """Uploads the files of all trials that have ended as one of the parent run."""
        if self._histories is None:
            return
        with tempfile.TemporaryDirectory(prefix="drl-track-") as scratch:
            bundle = self._histories.bundle(Path(scratch))

            def upload(run_id: str) -> None:
                if bundle is not None:
                    self._sink.log_folder(run_id, Path(scratch), "")
                    known = bundle_names(self._sink.read_tags(run_id).get(names.TAG_BUNDLES))
                    listed = list(dict.fromkeys([*known, bundle.name]))
                    self._sink.log(run_id, tags={names.TAG_BUNDLES: json.dumps(listed)})

            self._runs.guarded(SWEEP_RUN, upload)
