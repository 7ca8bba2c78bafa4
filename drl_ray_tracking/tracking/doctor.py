"""Looks at everything tracking rests on, before a sweep does: versions, journal, store, storage.

Nothing is left behind: whether the store takes writes is tried with a tag that is taken away again.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from drl_ray_tracking.errors import ConfigurationError, JournalError
from drl_ray_tracking.home import HOME_VARIABLE, home
from drl_ray_tracking.tracking.courier_status import read_status
from drl_ray_tracking.tracking.journal import (
    NETWORK_FILESYSTEMS,
    driver_is_alive,
    filesystem_type,
    journals,
    last_sequence,
)
from drl_ray_tracking.tracking.mlflow_sink import MlflowSink, bounded_requests
from drl_ray_tracking.tracking.remedies import remedy
from drl_ray_tracking.tracking.sink import SinkRefusedError, SinkUnavailableError
from drl_ray_tracking.tracking.spool import journal_limit_mb
from drl_ray_tracking.tracking.target import Target, resolve_target

Version = tuple[int, ...]
SUPPORTED: Final[Mapping[str, tuple[Version, Version | None]]] = {
    # From this version on, below that one: as pyproject.toml has it.
    "ray": ((2, 60), (3,)),
    "mlflow": ((3, 17), (4,)),
    "torch": ((2, 6), None),
}
_PACKAGE: Final = "drl-ray-tracking"
_LEAST_FREE_BYTES: Final = 1_000_000_000
_TIMEOUT_S: Final = 5.0
_PROBE: Final = "drl.doctor"


@dataclass(frozen=True)
class Finding:
    """One line of the examination: what was looked at, whether it is right, and what to do."""

    right: bool
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{'ok   ' if self.right else 'WRONG'} {self.what} - {self.advice}"


def examine(tracking_uri: str | None, say: Callable[[str], None]) -> bool:
    """Says what is right and what is wrong, a line each; returns whether nothing is wrong.

    Args:
        tracking_uri: the store, as `resolve_target` takes it.
        say: takes one line for a person.
    """
    findings = [*_versions(), *_journal_home(), *_left_overs(), *_store(tracking_uri), _storage()]
    for finding in findings:
        say(str(finding))
    return all(finding.right for finding in findings)


def _versions() -> list[Finding]:
    findings = []
    for package, (least, below) in SUPPORTED.items():
        wanted = f">={_dotted(least)}" + (f",<{_dotted(below)}" if below else "")
        version = _installed(package)
        right = version is not None and least <= _numbers(version) and (below is None or _numbers(version) < below)
        advice = "nothing to do" if right else f"install '{package}{wanted}' in this environment"
        findings.append(Finding(right, f"{package} {version or 'is not installed'}", advice))
    own = _installed(_PACKAGE)
    findings.append(
        Finding(
            True,
            f"{_PACKAGE} {own or 'not installed, run from its source'}",
            "nothing to do" if own else "on a cluster, every node needs it: install it, or ship it with runtime_env",
        )
    )
    return findings


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> Version:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _journal_home() -> list[Finding]:
    place = home()
    try:
        limit = journal_limit_mb(None)
    except ConfigurationError as error:
        return [Finding(False, "journal limit", str(error))]
    existing = _existing(place)
    kind = filesystem_type(existing)
    free = shutil.disk_usage(existing).free
    what = f"journal home {place} ({kind or 'unknown filesystem'}, {_gb(free)} free, {limit:.0f} MB per sweep)"
    if kind in NETWORK_FILESYSTEMS:
        return [Finding(False, what, f"a network filesystem is unsafe for it: set {HOME_VARIABLE} to a local disk")]
    if not os.access(existing, os.W_OK | os.X_OK):
        return [Finding(False, what, f"not writable by this user: set {HOME_VARIABLE} to a directory that is")]
    if free < _LEAST_FREE_BYTES:
        return [Finding(False, what, f"make room, or set {HOME_VARIABLE} to a larger local disk")]
    return [Finding(True, what, "nothing to do")]


def _left_overs() -> list[Finding]:
    findings = []
    for directory in journals():
        if driver_is_alive(directory):
            findings.append(Finding(True, f"journal {directory.name}: its sweep is running", "nothing to do"))
            continue
        status = read_status(directory)
        try:
            waiting = last_sequence(directory) - (status.progress.acked if status else 0)
            what = f"journal {directory.name}: {waiting} events wait"
        except JournalError as error:
            what = f"journal {directory.name}: {error}"
        findings.append(Finding(False, what, f"run `drl-track sync`; delete {directory} if it is not needed"))
    return findings or [Finding(True, "no journal is left over", "nothing to do")]


def _store(tracking_uri: str | None) -> list[Finding]:
    try:
        target = resolve_target(tracking_uri)
    except ConfigurationError as error:
        return [Finding(False, "tracking store", str(error))]
    if target.uri.startswith("sqlite"):
        path = Path(target.uri.split(":///", 1)[1].split("?")[0])
        kind = filesystem_type(path.parent)
        if kind in NETWORK_FILESYSTEMS:
            advice = f"SQLite is unsafe on a network filesystem ({kind}): use a local disk or a tracking server"
            return [Finding(False, f"tracking store {target.uri}", advice)]
        if not path.exists():
            return [Finding(True, f"tracking store {target.uri} does not exist yet", "the first sweep makes it")]
    with bounded_requests(_TIMEOUT_S, target.credentials):
        return _ask(target)


def _ask(target: Target) -> list[Finding]:
    shown = f"tracking store {target.uri}"
    try:
        sink = MlflowSink(target.uri)
        experiment_id = sink.try_reading()
    except (SinkUnavailableError, SinkRefusedError) as error:
        return [Finding(False, f"{shown} does not answer: {_short(error)}", remedy(error, target.uri))]
    reached = Finding(True, f"{shown} answers", "nothing to do")
    if experiment_id is None:
        return [reached, Finding(True, "writing was not tried: there is no experiment", "the first sweep makes one")]
    try:
        sink.try_writing(experiment_id, f"{_PROBE}.{uuid.uuid4().hex[:8]}")
    except (SinkUnavailableError, SinkRefusedError) as error:
        what = f"{shown} takes no write (a tag on experiment {experiment_id}): {_short(error)}"
        return [reached, Finding(False, what, remedy(error, target.uri))]
    tried = f"it takes writes (a tag on experiment {experiment_id}, taken away again)"
    return [reached, Finding(True, tried, "nothing to do")]


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]


def _storage() -> Finding:
    place = Path(os.environ.get("TUNE_RESULT_DIR") or Path.home() / "ray_results").expanduser()
    existing = _existing(place)
    kind, free = filesystem_type(existing), shutil.disk_usage(existing).free
    what = f"Tune's default storage {place} ({kind or 'unknown filesystem'}, {_gb(free)} free)"
    shared = "on several nodes, give RunConfig(storage_path=...) a place that all of them share"
    if free < _LEAST_FREE_BYTES:
        return Finding(False, what, f"make room; {shared}")
    if not os.access(existing, os.W_OK):
        return Finding(False, what, f"not writable by this user: give RunConfig(storage_path=...); {shared}")
    return Finding(True, what, shared)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _gb(size: int) -> str:
    return f"{size / 1e9:.0f} GB"
