"""Everything delivered of the trials that are still open, kept beside the journal until it becomes one file of a run.

The journal drops what has arrived, and reading a run back would take a request a metric. The files of trials that have
ended stay until the sweep has, to be bundled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking.tracking.sink import MetricPoint
from drl_ray_tracking.trials.sealed import COLUMNS, LEAST_BUNDLED, Seal, member_name

_SEALED: Final = "sealed"


class Histories:
    """Keeps points by trial in a folder; a repeated point is one point. Used by one thread of one process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, trial: str, points: Sequence[MetricPoint]) -> None:
        """Adds points that have arrived in the store.

        Raises:
            OSError: they cannot be kept.
        """
        rows = [[point.key, point.step, point.value, point.time_ms] for point in points]
        self._folder.mkdir(exist_ok=True, mode=0o700)
        with self._path(trial).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(rows) + "\n")

    def write(self, trial: str, at_least: int, epoch: int, target: Path) -> Seal | None:
        """Writes a trial's points as one Parquet file and returns its seal; None where points were lost.

        Args:
            trial: its id.
            at_least: how many points were given to `keep`, repeated ones included.
            epoch: of the run.
            target: the file.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = list(self._rows(trial))
        if not rows or len(rows) < at_least:
            return None
        columns = dict(zip(COLUMNS, zip(*sorted(set(rows)), strict=True), strict=True))
        kinds = dict(zip(COLUMNS, (pa.string(), pa.int64(), pa.float64(), pa.int64()), strict=True))
        table = pa.table({name: pa.array(columns[name], kinds[name]) for name in COLUMNS})
        pq.write_table(table, target, compression="zstd")
        return Seal(hashlib.sha256(target.read_bytes()).hexdigest(), table.num_rows, epoch)

    def keep_sealed(self, run_id: str, file: Path) -> None:
        """Keeps a run's file for the bundle; where that cannot be, the bundle lacks it."""
        with suppress(OSError):
            (self._folder / _SEALED).mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copyfile(file, self._folder / _SEALED / member_name(run_id))

    def bundle(self, folder: Path) -> Path | None:
        """Writes the files kept for it into one zip file; None where they are too few."""
        files = sorted((self._folder / _SEALED).glob("*.parquet"))
        if len(files) < LEAST_BUNDLED:
            return None
        scratch = folder / "bundle.zip"
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_STORED) as bundle:
            for file in files:
                bundle.writestr(zipfile.ZipInfo(file.name), file.read_bytes())  # without its time: the same again
        with scratch.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()[:12]
        # By its content: another journal of the same sweep must not overwrite it.
        return scratch.rename(folder / f"histories-{digest}.zip")

    def drop(self, trial: str) -> bool:
        """Forgets a trial's points; returns whether that could be done."""
        try:
            self._path(trial).unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _rows(self, trial: str) -> Iterator[tuple[Any, ...]]:
        try:
            with self._path(trial).open(encoding="utf-8") as lines:
                for line in lines:
                    yield from (tuple(row) for row in json.loads(line))
        except (OSError, ValueError):  # half a line after a power cut: fewer points than were kept
            return

    def _path(self, trial: str) -> Path:
        # A trial's id may be anything a Tune user chose.
        return self._folder / f"{hashlib.sha256(trial.encode()).hexdigest()[:32]}.jsonl"
