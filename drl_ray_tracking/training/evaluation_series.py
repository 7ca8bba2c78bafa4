"""The evaluation bars of a manual run, as a trial's: what pictures, verdicts and rules are made of later."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from drl_ray_tracking import names
from drl_ray_tracking.capture.series import series_columns, series_table
from drl_ray_tracking.episodes import EpisodeRecord
from drl_ray_tracking.tracking.tracked_run import TrackedRun


def log_series(run: TrackedRun, episodes: Sequence[EpisodeRecord], *, step: int) -> bool:
    """Logs every bar of one evaluation as a run's series; returns whether there were any.

    Args:
        run: where; it has one series, the last one logged.
        episodes: of the evaluation, in their order; those that do not trade are left out.
        step: env steps of the weights evaluated.
    """
    import pyarrow.parquet as pq

    columns = [bars for record in episodes if (bars := series_columns(record, None)) is not None]
    if not columns:
        return False
    with tempfile.TemporaryDirectory(prefix="drl-track-") as folder:
        file = Path(folder) / names.SERIES_FILE
        pq.write_table(series_table(columns, iteration=1, step=step), file)
        run.log_artifact(file, names.SERIES_ARTIFACT)
    return True
