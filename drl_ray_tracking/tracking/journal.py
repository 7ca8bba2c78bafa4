"""The journal: what the driver writes down before anything else can fail.

One directory per driver process, holding SQLite segments in WAL mode. The driver is the only writer;
readers open the segments read-only. An `append` is one INSERT: no network, no fsync on the way (WAL with
synchronous=NORMAL survives the death of the process; only a power cut may take the last moments).

Threads: one writer object may be shared by the threads of the driver; calls are serialised by a lock.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from drl_ray_tracking.errors import ConfigurationError, JournalError
from drl_ray_tracking.home import HOME_VARIABLE, home
from drl_ray_tracking.tracking.locks import hold_lock, is_locked, release

_T = TypeVar("_T")
SCHEMA_VERSION: Final = 1
SEGMENT_ROWS: Final = 20_000
SEGMENT_BYTES: Final = 16_000_000
DRIVER_LOCK: Final = "driver.lock"
NETWORK_FILESYSTEMS: Final = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "fuse.sshfs",
        "lustre",
        "glusterfs",
        "fuse.glusterfs",
        "ceph",
        "9p",
        "afs",
    }
)
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY,
    time_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    trial TEXT NOT NULL,
    payload TEXT NOT NULL
)
"""


class DamagedJournalError(JournalError):
    """Raises for a segment that was truncated, overwritten or is no journal: `repair` keeps what is whole."""


class UnwritableEventError(JournalError):
    """Raises for an event that is not JSON (NaN, a numpy number): trying again is useless, others are written."""


@dataclass(frozen=True)
class Event:
    """One thing that happened on the driver.

    `seq` counts from 1 without gaps within a journal; `time_ms` is Unix time in milliseconds; `trial`
    is the trial's id, or empty for what concerns the sweep; `payload` is plain JSON.
    """

    seq: int
    time_ms: int
    kind: str
    trial: str
    payload: Mapping[str, Any]


def filesystem_type(path: Path) -> str:
    """Returns the type of the filesystem a path lies on as Linux names it, or '' where unknown."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return ""
    best, kind = "", ""
    target = str(path.resolve())
    for line in mounts.read_text(errors="replace").splitlines():
        _, mount_point, fstype, *_ = line.split(" ")
        mount_point = mount_point.replace("\\040", " ")
        inside = target == mount_point or target.startswith(mount_point.rstrip("/") + "/")
        if inside and len(mount_point) >= len(best):
            best, kind = mount_point, fstype
    return kind


def new_journal_directory(base: Path | None = None) -> Path:
    """Creates an empty journal directory of its own, readable by its owner only.

    Raises:
        ConfigurationError: the place is on a network filesystem (WAL is unsafe there) or not writable.
    """
    root = (base or home()) / "journals"
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        kind = filesystem_type(root)
        if kind in NETWORK_FILESYSTEMS:
            raise ConfigurationError(
                f"the journal cannot lie on {root}: it is on a network filesystem ({kind}), where SQLite's "
                f"write-ahead log is unsafe. Set {HOME_VARIABLE} to a directory on a local disk."
            )
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        directory = root / f"{stamp}-{uuid.uuid4().hex[:12]}"
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise ConfigurationError(
            f"the journal's directory cannot be made under {root}: {error}. "
            f"Set {HOME_VARIABLE} to a writable directory on a local disk."
        ) from error
    return directory


class JournalWriter:
    """Appends events to a journal directory; holds the driver's lock as long as it is open."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self._clock = clock
        self._lock = threading.Lock()
        self._driver_lock = hold_lock(directory / DRIVER_LOCK)
        if self._driver_lock is None:
            raise JournalError(f"{directory} is written by another process; a journal has one writer")
        self._seq = last_sequence(directory)
        self._segment_end = 0
        self._segment_bytes = 0
        self._closed = False
        self._connection: sqlite3.Connection | None = None

    @property
    def last_seq(self) -> int:
        """The sequence number of the last event written."""
        return self._seq

    def append(self, kind: str, trial: str, payload: Mapping[str, Any], *, time_ms: int | None = None) -> int:
        """Writes one event and returns its sequence number.

        Raises:
            JournalError: the disk is full, the directory is gone, or the journal is closed.
            UnwritableEventError: the payload is not JSON.
            DamagedJournalError: the segment was damaged under the writer.
        """
        try:
            text = json.dumps(payload, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UnwritableEventError(f"a {kind!r} event cannot be written as JSON: {error}") from error
        moment = int(self._clock() * 1000) if time_ms is None else time_ms
        with self._lock:
            if self._closed:
                raise JournalError(f"the journal in {self.directory} is closed")
            seq = self._seq + 1
            try:
                if self._connection is None or seq > self._segment_end or self._segment_bytes > SEGMENT_BYTES:
                    self._open_segment(seq)
                assert self._connection is not None
                self._connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (seq, moment, kind, trial, text))
            except (sqlite3.Error, OSError) as error:
                kind_of_error = DamagedJournalError if _is_damage(error) else JournalError
                raise kind_of_error(f"cannot write to the journal in {self.directory}: {error}") from error
            self._seq = seq
            self._segment_bytes += len(text)
            return seq

    def repair(self, mend: Callable[[int], _T]) -> _T:
        """Closes the segment, lets `mend` replace files (it is told the last event), and goes on in a new one."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            return mend(self._seq)

    def close(self) -> None:
        """Closes the segment and releases the driver's lock; closing twice does nothing."""
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if self._driver_lock is not None:
                release(self._driver_lock)
                self._driver_lock = None

    def _open_segment(self, first: int) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._connection = make_segment(self.directory / f"{first:012d}.journal")
        self._segment_end = first + SEGMENT_ROWS - 1
        self._segment_bytes = 0


def make_segment(path: Path) -> sqlite3.Connection:
    """Makes a segment file, readable by its owner only, and opens it for writing."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_SCHEMA)
        # Last: a reader takes a segment without a version for one still being made.
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def size(directory: Path) -> int:
    """Returns how many bytes a journal takes."""
    total = 0
    for entry in os.scandir(directory):
        with suppress(FileNotFoundError):  # the courier may just have dropped it
            total += entry.stat().st_size
    return total


def segments(directory: Path) -> list[Path]:
    """Returns a journal's segment files, oldest first."""
    return sorted(directory.glob("*.journal"))


def last_sequence(directory: Path) -> int:
    """Returns the number of the last event in a journal, 0 for an empty one."""
    for path in reversed(segments(directory)):
        rows = _select(path, "SELECT max(seq) FROM events")
        if rows and rows[0][0]:
            return int(rows[0][0])
    return 0


def read_events(directory: Path, *, after: int, limit: int) -> list[Event]:
    """Returns up to `limit` events with a sequence number above `after`, in order."""
    events: list[Event] = []
    files = segments(directory)
    for index, path in enumerate(files):
        following = int(files[index + 1].stem) if index + 1 < len(files) else None
        if following is not None and following <= after + 1:
            continue
        rows = _select(
            path,
            "SELECT seq, time_ms, kind, trial, payload FROM events WHERE seq > ? ORDER BY seq LIMIT ?",
            (after, limit - len(events)),
        )
        events.extend(_events(path, rows))
        if len(events) >= limit:
            break
    return events


def read_events_of(directory: Path, kind: str, trial: str, first: int, last: int) -> Iterator[Event]:
    """Yields one trial's events of one kind with sequence numbers from `first` to `last`, in order."""
    files = segments(directory)
    for path, following in itertools.zip_longest(files, files[1:]):
        if int(path.stem) > last or (following is not None and int(following.stem) <= first):
            continue
        query = (
            "SELECT seq, time_ms, kind, trial, payload FROM events "
            "WHERE seq BETWEEN ? AND ? AND kind = ? AND trial = ? ORDER BY seq"
        )
        yield from _events(path, _select(path, query, (first, last, kind, trial)))


def _events(path: Path, rows: list[Any]) -> list[Event]:
    try:
        return [Event(seq, moment, kind, trial, json.loads(text)) for seq, moment, kind, trial, text in rows]
    except (TypeError, ValueError) as error:
        raise DamagedJournalError(f"{path} cannot be read: an event is not JSON ({error})") from error


def drop_delivered_segments(directory: Path, delivered: int, *, keep_first: bool) -> int:
    """Deletes whole segments whose events are all delivered, never the newest; returns how many.

    With `keep_first` the oldest segment stays: it holds the opening event.
    """
    files = segments(directory)
    dropped = 0
    for index, (path, following) in enumerate(itertools.pairwise(files)):
        if int(following.stem) <= delivered + 1 and not (keep_first and index == 0):
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            dropped += 1
    return dropped


def driver_is_alive(directory: Path) -> bool:
    """Tells whether the journal's writer still runs: the kernel releases its lock when it dies."""
    return is_locked(directory / DRIVER_LOCK)


def _is_damage(error: Exception) -> bool:
    """Tells a file that is no database, or half of one, from a disk that is full and a lock that is held."""
    if isinstance(error, UnicodeDecodeError):  # of SQLite's own message, which quotes what it found
        return True
    name = getattr(error, "sqlite_errorname", "") or ""
    said = str(error)
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "no such table" in said or "decode to UTF-8" in said


def _select(path: Path, query: str, arguments: tuple[int | str, ...] = ()) -> list[Any]:
    """Runs a query on a segment opened read-only; a segment still being made has no rows."""
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == SCHEMA_VERSION:
                return connection.execute(query, arguments).fetchall()
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        kind_of_error = DamagedJournalError if _is_damage(error) else JournalError
        raise kind_of_error(f"{path} cannot be read: {error}") from error
    if version:
        raise JournalError(
            f"{path} has journal schema {version}, this version reads {SCHEMA_VERSION}: "
            "deliver it with the version of drl_ray_tracking that wrote it"
        )
    return []


def journals(base: Path | None = None) -> Iterator[Path]:
    """Yields every journal directory on this machine, oldest first."""
    root = (base or home()) / "journals"
    if root.is_dir():
        yield from (path for path in sorted(root.iterdir()) if path.is_dir())
