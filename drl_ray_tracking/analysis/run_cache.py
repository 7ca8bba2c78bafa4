"""Copies of what finished runs hold, kept on this machine, so that reading them again asks the server for nothing.

A copy is found by its store, its run and a fingerprint of everything the store says of the run when it lists it
(status, end, attempts, seal, the latest point of every metric): a run that was touched again has another fingerprint,
and its old copies go. `$DRL_TRACK_CACHE=off` turns it off; a path puts it elsewhere, into a
folder `drl_track_cache` of its own there: nothing but what was kept here is ever deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.home import home

CACHE_VARIABLE: Final = "DRL_TRACK_CACHE"
_FOLDER: Final = "drl_track_cache"
_MARKER: Final = ".drl_track_cache"  # in the folder of each store: what lies beside it is ours to delete
_HASHED: Final = re.compile(r"[0-9a-f]{16}")
_OFF: Final = ("off", "0", "no", "false")
_LIMIT_BYTES: Final = 2_000_000_000
_FINISHED: Final = ("FINISHED", "FAILED", "KILLED")
_TAGS: Final = (names.TAG_ATTEMPTS, names.TAG_EPOCH, names.TAG_HISTORIES)

Latest = tuple[int, int, float]  # step, Unix ms, value


def is_finished(status: str) -> bool:
    """Tells whether a run has ended; one that runs may have more in the next moment."""
    return status in _FINISHED


def fingerprint(status: str, end_ms: int | None, tags: Mapping[str, str], latest: Mapping[str, Latest]) -> str:
    """Returns 16 hexadecimal digits that change with whatever the store's list of runs can tell of a change."""
    state = [status, end_ms, [tags.get(tag) for tag in _TAGS], sorted(latest.items())]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]


class RunCache:
    """Files by run and fingerprint; without a root it keeps nothing."""

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._written = False

    @classmethod
    def of(cls, tracking_uri: str, *, wanted: bool = True) -> RunCache:
        """Returns the cache of a store, or one that keeps nothing where it is turned off."""
        given = os.environ.get(CACHE_VARIABLE, "")
        if not wanted or given.lower() in _OFF:
            return cls(None)
        root = (Path(given).expanduser() if given else home()) / _FOLDER
        # A password may change, the store is the same.
        store = re.sub(r"//[^/@]*@", "//", tracking_uri)
        return cls(root / hashlib.sha256(store.encode()).hexdigest()[:16])

    def find(self, run_id: str, mark: str, name: str) -> Path | None:
        """Returns a file kept of a run in this state, or None."""
        if self._root is None:
            return None
        path = self._root / run_id / mark / name
        return path if path.is_file() else None

    def keep(self, run_id: str, mark: str, name: str, content: bytes) -> None:
        """Keeps a file of a run; a full or read-only disk keeps nothing, and that is all."""
        if self._root is None:
            return
        folder = self._root / run_id / mark
        with suppress(OSError):
            if not folder.is_dir():
                self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
                (self._root / _MARKER).touch()
                shutil.rmtree(folder.parent, ignore_errors=True)  # of the run as it was before
                folder.mkdir(parents=True, mode=0o700)
            scratch = folder / f".{uuid.uuid4().hex}"
            scratch.write_bytes(content)
            scratch.replace(folder / name)
            self._written = True

    def prune(self, limit_bytes: int = _LIMIT_BYTES) -> None:
        """Deletes the runs whose copies were written longest ago, until what is left fits; where any was written."""
        if self._root is None or not self._written:
            return
        self._written = False
        with suppress(OSError):
            runs: list[tuple[float, int, Path]] = []
            for folder in _kept_runs(self._root.parent):
                files: list[Any] = [path.stat() for path in folder.rglob("*") if path.is_file()]
                newest = max((file.st_mtime for file in files), default=0.0)
                runs.append((newest, sum(file.st_size for file in files), folder))
            total = sum(size for _, size, _ in runs)
            for _, size, folder in sorted(runs):
                if total <= limit_bytes:
                    return
                shutil.rmtree(folder, ignore_errors=True)
                total -= size


def _kept_runs(root: Path) -> Iterator[Path]:
    """Yields the folders of runs that this cache made: those with hashed names of states, in stores with a marker."""
    for store in root.iterdir():
        if not _HASHED.fullmatch(store.name) or store.is_symlink() or not (store / _MARKER).is_file():
            continue
        for run in store.iterdir():
            if run.is_dir() and not run.is_symlink() and all(_HASHED.fullmatch(state.name) for state in run.iterdir()):
                yield run
