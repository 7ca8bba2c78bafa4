"""Everything delivered of the trials that are still open, kept beside the journal until it becomes one file of a run.

The journal drops what has arrived, and reading a run back would take a request a metric. The files of trials that have
ended stay until the sweep has, to be bundled.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import sqlite3
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking.tracking.sink import MetricPoint
from drl_ray_tracking.trials.sealed import COLUMNS, LEAST_BUNDLED, Seal, member_name

_SEALED: Final = "sealed"
_ROWS: Final = 50_000  # in memory at once
Row = tuple[Any, ...]  # one value for each of COLUMNS


@contextmanager
def _sorted(rows: Iterator[Row]) -> Iterator[tuple[int, Iterator[list[Row]]]]:
    """Gives how many rows there are, and the distinct ones in order, some at a time.

    They are sorted in a file of SQLite's own that goes by itself: in memory, a long trial's took 0.4 kB a point. While
    they arrive they are only appended, which costs a third of an INSERT.
    """
    with closing(sqlite3.connect("", isolation_level=None)) as table:
        try:
            table.execute("PRAGMA journal_mode=OFF")
            key = ", ".join(COLUMNS)
            table.execute(f"CREATE TABLE points ({key}, PRIMARY KEY ({key})) WITHOUT ROWID")
            given = 0
            while some := list(itertools.islice(rows, _ROWS)):
                table.executemany("INSERT OR IGNORE INTO points VALUES (?, ?, ?, ?)", some)
                given += len(some)
            found = table.execute(f"SELECT {key} FROM points ORDER BY {key}")
            yield given, iter(lambda: found.fetchmany(_ROWS), [])
        except sqlite3.Error as error:
            raise OSError(f"points cannot be sorted: {error}") from error


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

        Raises:
            OSError: there is no room for it, or for sorting.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema(zip(COLUMNS, (pa.string(), pa.int64(), pa.float64(), pa.int64()), strict=True))
        points = 0
        with _sorted(self._rows(trial)) as (given, chunks):
            if not given or given < at_least:
                return None
            with pq.ParquetWriter(target, schema, compression="zstd") as file:
                for rows in chunks:
                    file.write_table(pa.table(list(zip(*rows, strict=True)), schema=schema))
                    points += len(rows)
        with target.open("rb") as content:
            return Seal(hashlib.file_digest(content, "sha256").hexdigest(), points, epoch)

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

    def _rows(self, trial: str) -> Iterator[Row]:
        try:
            with self._path(trial).open(encoding="utf-8") as lines:
                for line in lines:
                    yield from (tuple(row) for row in json.loads(line))
        except (OSError, ValueError):  # half a line after a power cut: fewer points than were kept
            return

    def _path(self, trial: str) -> Path:
        # A trial's id may be anything a Tune user chose.
        return self._folder / f"{hashlib.sha256(trial.encode()).hexdigest()[:32]}.jsonl"
