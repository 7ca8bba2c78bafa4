"""Salvages a damaged journal: what is whole is kept, the damaged file is moved aside, the loss is written down.

Whoever repairs is the journal's only writer at that moment: the driver itself while it lives, otherwise the
courier or `drl-track sync`, which takes the dead driver's lock for as long.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking.errors import JournalError
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.journal import (
    DRIVER_LOCK,
    SCHEMA_VERSION,
    SEGMENT_ROWS,
    JournalWriter,
    make_segment,
    segments,
)
from drl_ray_tracking.tracking.locks import hold_lock, release

_log = logging.getLogger(__name__)
_QUARANTINED: Final = ".quarantined"
_SALVAGED: Final = ".salvaged"
_LARGEST_SEGMENT: Final = 10**9  # bytes; a damaged header may claim anything
_Row = tuple[int, int, str, str, str]


@dataclass(frozen=True)
class Damage:
    """What a repair found: the files moved aside, and how many undelivered events they no longer gave.

    `lost` counts what is known to be gone; with `open_ended`, how far the last segment went is not known.
    """

    files: tuple[str, ...]
    lost: int
    open_ended: bool

    def as_loss(self) -> events.Loss:
        """Returns the event that tells the courier and the parent run."""
        more = ", and whatever followed them" if self.open_ended else ""
        return events.Loss(
            count=self.lost, reason=f"journal damaged{more}; moved aside: {', '.join(self.files)}"[:1000]
        )


def quarantined(directory: Path) -> list[Path]:
    """Returns the damaged segments that were moved aside."""
    return sorted(directory.glob(f"*.journal{_QUARANTINED}"))


def repair_orphan(directory: Path, delivered: int) -> Damage | None:
    """Repairs the journal of a driver that is dead; None where it is not damaged, or the driver is back.

    Args:
        directory: the journal's directory.
        delivered: the last event that has been delivered; what is missing before it is no loss.

    Raises:
        JournalError: nothing whole is left.
    """
    lock = hold_lock(directory / DRIVER_LOCK)
    if lock is None:
        return None
    try:
        damage = mend(directory, delivered, None)
    finally:
        release(lock)
    if damage is not None:
        with closing(JournalWriter(directory)) as writer:
            if not writer.last_seq:
                raise JournalError(
                    f"{directory} cannot be read: nothing whole was left in it. What was moved aside ends in "
                    f"{_QUARANTINED}; delete the directory if it is not needed."
                )
            writer.append(events.LOSS, "", damage.as_loss())
    return damage


def mend(directory: Path, delivered: int, last: int | None) -> Damage | None:
    """Replaces every damaged segment by what is whole in it; only for the one who may write.

    Args:
        directory: the journal's directory.
        delivered: the last event that has been delivered.
        last: the last event that was written, where that is known.
    """
    for leftover in directory.glob(f"*.journal{_SALVAGED}"):  # a repair that was killed between its moves
        target = leftover.with_name(leftover.name.removesuffix(_SALVAGED))
        if not target.exists():
            leftover.replace(target)
    files: list[str] = []
    lost = 0
    open_ended = False
    paths = segments(directory)
    for path, following in zip_longest(paths, paths[1:]):
        why = _damage(path, newest=following is None)
        if why is None:
            continue
        first = int(path.stem)
        end = int(following.stem) - 1 if following is not None else last
        rows = _whole_rows(path, first, first + SEGMENT_ROWS - 1 if end is None else end)
        if end is None:
            open_ended = True
            end = rows[-1][0] if rows else first - 1
        due = max(0, end - max(first - 1, delivered))
        missing = due - sum(row[0] > delivered for row in rows)
        _log.error("%s is damaged (%s): %d events are whole, %d are lost", path, why, len(rows), missing)
        files.append(_move_aside(path, rows))
        lost += missing
    return Damage(tuple(files), lost, open_ended) if files else None


def _damage(path: Path, *, newest: bool) -> str | None:
    """Says what is wrong with a segment; another version's segment is not wrong."""
    try:
        with closing(_open(path)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "events" not in tables:
                unmade = version == 0 and not tables and newest  # a driver is making it, or died while it did
                return None if unmade else "not a journal"
            if version not in (0, SCHEMA_VERSION):
                return None
            verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            if verdict != "ok":
                return verdict
            rows = connection.execute("SELECT seq, time_ms, kind, trial, payload FROM events")
            return None if all(_is_whole(row) for row in rows) else "an event that is not JSON"
    except sqlite3.OperationalError as error:
        name = getattr(error, "sqlite_errorname", "")  # a text that is no UTF-8 comes without one
        return None if name.startswith(("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_IOERR")) else str(error)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite quotes what it finds, text or not
        return str(error)


def _whole_rows(path: Path, first: int, last: int) -> list[_Row]:
    """Reads event by event, so that one damaged page costs only the events on it."""
    rows: list[_Row] = []
    with tempfile.TemporaryDirectory(prefix="drl-track-") as scratch:
        copy = Path(scratch) / path.name
        _copy_padded(path, copy)
        try:
            with closing(sqlite3.connect(copy)) as connection:
                for seq in range(first, last + 1):
                    row = _read_row(connection, seq)
                    if row is not None:
                        rows.append(row)
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            pass
    return rows


def _copy_padded(path: Path, copy: Path) -> None:
    """Copies a segment with its log, as long as its header says: of a shorter file SQLite reads nothing at all."""
    shutil.copyfile(path, copy)
    log = path.with_name(f"{path.name}-wal")
    if log.exists():
        shutil.copyfile(log, copy.with_name(f"{copy.name}-wal"))
    header = copy.read_bytes()[:100]
    if len(header) == 100:
        page_size = int.from_bytes(header[16:18], "big")
        whole = (65536 if page_size == 1 else page_size) * int.from_bytes(header[28:32], "big")
        if copy.stat().st_size < whole <= _LARGEST_SEGMENT:
            os.truncate(copy, whole)


def _read_row(connection: sqlite3.Connection, seq: int) -> _Row | None:
    query = "SELECT seq, time_ms, kind, trial, payload FROM events WHERE seq = ?"
    try:
        row: _Row | None = connection.execute(query, (seq,)).fetchone()
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return None
    return row if row is not None and _is_whole(row) else None


def _is_whole(row: Any) -> bool:
    seq, time_ms, kind, trial, payload = row
    if not (isinstance(seq, int) and isinstance(time_ms, int) and all(isinstance(x, str) for x in (kind, trial))):
        return False
    try:
        return isinstance(json.loads(payload), dict)
    except (TypeError, ValueError):
        return False


def _move_aside(path: Path, rows: list[_Row]) -> str:
    salvaged = path.with_name(path.name + _SALVAGED)
    salvaged.unlink(missing_ok=True)
    if rows:
        connection = make_segment(salvaged)
        try:
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
            connection.execute("COMMIT")
        finally:
            connection.close()
    # Its log goes with it: SQLite would play an old log into a new file of the same name.
    aside = path.with_name(path.name + _QUARANTINED)
    for suffix in ("-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(path.with_name(path.name + suffix + _QUARANTINED))
    path.replace(aside)
    if rows:
        salvaged.replace(path)
    return aside.name


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
