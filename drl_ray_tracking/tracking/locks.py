"""Locks between processes of one machine: files that the kernel unlocks when their holder dies.

A lock belongs to every copy of its descriptor: a forked child closes those it inherits, and `release` unlocks before it
closes.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from drl_ray_tracking.home import home

_log = logging.getLogger(__name__)
_POLL_S: Final = 0.05
_SAID_AFTER_S: Final = 30.0
_open_here: set[int] = set()  # this process's descriptors of lock files


def hold_lock(path: Path, *, patience_s: float = 0.0) -> int | None:
    """Takes an exclusive lock on a file and returns its descriptor, or None where another holds it.

    Args:
        path: the file; created where it does not exist.
        patience_s: how long to try: somebody may just be looking whether it is locked.
    """
    descriptor = _opened(path, os.O_CREAT | os.O_RDWR)
    deadline = time.monotonic() + patience_s
    while not _try_lock(descriptor, fcntl.LOCK_EX):
        if time.monotonic() >= deadline:
            release(descriptor)
            return None
        time.sleep(_POLL_S)
    return descriptor


def release(descriptor: int) -> None:
    """Gives a lock back, whoever holds copies of its descriptor; in a forked child, which has none, it does nothing."""
    if descriptor in _open_here:
        _open_here.discard(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Tells whether somebody holds the exclusive lock on a file; creates nothing."""
    try:
        descriptor = _opened(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)  # shared: two who look do not see each other
    finally:
        release(descriptor)


@contextmanager
def sweep_lock(sweep_id: str) -> Iterator[None]:
    """Makes what this machine's couriers do to one sweep's runs happen one at a time."""
    folder = home() / "locks"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{sweep_id}.lock"
    descriptor = _opened(path, os.O_CREAT | os.O_RDWR)
    started, said = time.monotonic(), False
    try:
        # However long it takes: whoever went on would make a run that the holder is about to make.
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if not said and time.monotonic() - started > _SAID_AFTER_S:
                said = True
                _log.warning("a courier that does not go on holds %s; this one waits until it does, or is ended", path)
            time.sleep(_POLL_S)
        yield
    finally:
        release(descriptor)


def join_sweep(sweep_id: str) -> int:
    """Says that this process has a part in a sweep that several may share; `release` takes it back."""
    descriptor = _opened(_drivers_file(sweep_id), os.O_CREAT | os.O_RDWR)
    while not _try_lock(descriptor, fcntl.LOCK_SH):  # somebody is just looking
        time.sleep(_POLL_S)
    return descriptor


def has_drivers(sweep_id: str) -> bool:
    """Tells whether a process on this machine has joined a sweep and still lives."""
    try:
        descriptor = _opened(_drivers_file(sweep_id), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_EX)
    finally:
        release(descriptor)


def _opened(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags, 0o600)
    _open_here.add(descriptor)
    return descriptor


def _leave_to_parent() -> None:
    """Closes in a forked child what belongs to its parent: it would keep the locks for as long as it lives."""
    for descriptor in _open_here:
        with suppress(OSError):
            os.close(descriptor)
    _open_here.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def _drivers_file(sweep_id: str) -> Path:
    folder = home() / "locks"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder / f"{sweep_id}.drivers"


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
