"""Reads histories and return series of an MLflow store's runs: in parallel, once, and never all or nothing.

A run's points come from a copy on this machine, else from the sealed file the tracker left (bundled with those of its
sweep, or with the run), else from the server, one request a metric. MLflow's bulk routes are not an alternative: they
cut off at 25,000 points, or sample.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, Final, Protocol

import numpy as np
import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.analysis.artifacts import fetch_artifact
from drl_ray_tracking.analysis.histories import Attempt, History, histories_frame, parse_attempts
from drl_ray_tracking.analysis.point_files import as_file, points_by_metric, sealed_points
from drl_ray_tracking.analysis.run_cache import Latest, RunCache, fingerprint, is_finished
from drl_ray_tracking.analysis.runset import Unreadable
from drl_ray_tracking.analysis.runtable import Run
from drl_ray_tracking.analysis.store_errors import store_errors
from drl_ray_tracking.errors import DataError
from drl_ray_tracking.trials.sealed import LEAST_BUNDLED, Seal, bundle_names, member_name

_log = logging.getLogger(__name__)
SERIES_FILE: Final = f"{names.SERIES_ARTIFACT}/{names.SERIES_FILE}"
_NO_SERIES: Final = "no-series"
_ANSWERED: Final = "points.parquet"  # what the server answered so far
_GIVE_UP_AFTER: Final = 20
_GIVE_UP_FILES_AFTER: Final = 5  # an artifact store out of reach must not cost a timeout a run


class Client(Protocol):
    """What is used of an `MlflowClient`."""

    def get_metric_history(self, run_id: str, key: str) -> Sequence[Any]: ...

    def list_artifacts(self, run_id: str, path: str | None = None) -> Sequence[Any]: ...


class _StoredRun:
    """A run as the store's list of runs tells of it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.run_id = str(run.info.run_id)
        self.artifact_uri = str(run.info.artifact_uri)
        self.parent = names.sweep_run(run.data.tags) or ""
        self.metrics: frozenset[str] = frozenset(run.data.metrics)
        self.finished = is_finished(str(run.info.status))
        self.seal = Seal.from_text(run.data.tags.get(names.TAG_HISTORIES)) if self.finished else None
        if self.seal is not None and str(self.seal.epoch) != run.data.tags.get(names.TAG_EPOCH):
            self.seal = None  # a later driver has opened the run

    @cached_property
    def latest(self) -> Mapping[str, Latest]:
        """The latest point of each metric."""
        # The entity's public mapping has the values only.
        stored = self._run.data.to_proto().metrics
        return {point.key: (int(point.step), int(point.timestamp), float(point.value)) for point in stored}

    @cached_property
    def mark(self) -> str:
        """Its fingerprint."""
        info, tags = self._run.info, self._run.data.tags
        return fingerprint(str(info.status), info.end_time, tags, self.latest)


class MlflowSource:
    """Reads histories and series of the runs of one store; what was read is kept. Safe to use from threads."""

    def __init__(
        self,
        client: Client,
        uri: str,
        runs: Sequence[Run],
        max_workers: int,
        cache: RunCache,
        parents: Sequence[Run] = (),
    ) -> None:
        self._client = client
        self._bundles = {
            str(parent.info.run_id): [
                (str(parent.info.artifact_uri), name) for name in bundle_names(parent.data.tags.get(names.TAG_BUNDLES))
            ]
            for parent in parents
        }
        self._uri = uri
        self._max_workers = max_workers
        self._cache = cache
        self._runs = {run.run_id: run for run in map(_StoredRun, runs)}
        self._histories: dict[str, dict[str, History]] = {run_id: {} for run_id in self._runs}
        self._broken = 0  # artifacts that could not be had
        self._files: dict[tuple[str, str], bytes | None] = {}  # of unfinished runs, or without a cache
        self._lock = Lock()
        self._attempts: dict[str, tuple[Attempt, ...]] = {}
        unreadable = []
        for run in runs:
            try:
                self._attempts[run.info.run_id] = parse_attempts(run.data.tags.get(names.TAG_ATTEMPTS))
            except ValueError as error:
                reason = f"the tag {names.TAG_ATTEMPTS} is broken, so superseded points are still in: {error}"
                unreadable.append(Unreadable(run.info.run_id, reason))
        self.unreadable = tuple(unreadable)

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> tuple[pd.DataFrame, tuple[Unreadable, ...]]:
        """Returns the points that count, and the runs of which a history could not be read."""
        runs = [self._runs[run_id] for run_id in run_ids if run_id in self._runs]
        wanted = [(run.run_id, metric) for run in runs for metric in metrics if metric in run.metrics]
        failures = _Failures()
        with store_errors(self._uri), ThreadPoolExecutor(self._max_workers, thread_name_prefix="histories") as pool:
            lacking = dict.fromkeys(run_id for run_id, metric in wanted if metric not in self._histories[run_id])
            self._unbundle([self._runs[run_id] for run_id in lacking])
            found = pool.map(self._in_files, [self._runs[run_id] for run_id in lacking])
            for run_id, there in zip(lacking, found, strict=True):
                self._histories[run_id].update({metric: there[metric] for metric in metrics if metric in there})
            missing = [pair for pair in wanted if pair[1] not in self._histories[pair[0]]]
            answered = [one for one in pool.map(lambda pair: failures.guard(pair, self._asked), missing) if one]
            for history in answered:
                self._histories[history.run_id][history.metric] = history
            list(pool.map(self._keep_answered, {history.run_id for history in answered}))
        self._cache.prune()
        known = [self._histories[run_id].get(metric) for run_id, metric in wanted]
        return histories_frame([one for one in known if one is not None], self._attempts), failures.unreadable()

    def _unbundle(self, runs: Sequence[_StoredRun]) -> None:
        """Fetches the bundles that spare many requests; what comes out of them is verified as if fetched singly."""
        by_parent: dict[str, dict[str, _StoredRun]] = {}
        for run in runs:
            if run.seal is not None and self._kept(run, names.HISTORIES_ARTIFACT, names.HISTORIES_ARTIFACT) is None:
                by_parent.setdefault(run.parent, {})[member_name(run.run_id)] = run
        for parent, wanted in by_parent.items():
            bundles = self._bundles.pop(parent, []) if len(wanted) >= LEAST_BUNDLED else []
            for artifact_uri, name in bundles:
                try:
                    with zipfile.ZipFile(io.BytesIO(fetch_artifact(artifact_uri, name, self._uri))) as bundle:
                        for member in set(bundle.namelist()) & wanted.keys():
                            self._put(wanted[member], names.HISTORIES_ARTIFACT, bundle.read(member))
                except Exception as error:  # noqa: BLE001 - whatever an artifact store raises: there are other ways
                    _log.info("the histories of %s are read one by one: %s", parent, error)

    def _in_files(self, run: _StoredRun) -> dict[str, History]:
        """Returns what is known of a run without asking the server for its metrics."""
        if run.seal is not None and self._broken < _GIVE_UP_FILES_AFTER:
            try:
                content = self._file(run, names.HISTORIES_ARTIFACT, names.HISTORIES_ARTIFACT)
            except Exception as error:  # noqa: BLE001 - whatever an artifact store raises: the server has the points too
                _log.info("the histories of run %s are read from the server: %s", run.run_id, error)
                self._broken += 1
            else:
                found = sealed_points(run.run_id, content, run.seal, run.latest)
                if found is not None:
                    return found
        return self._answered_before(run)

    def _answered_before(self, run: _StoredRun) -> dict[str, History]:
        kept = self._cache.find(run.run_id, run.mark, _ANSWERED) if run.finished else None
        return (points_by_metric(run.run_id, kept.read_bytes()) if kept is not None else None) or {}

    def _asked(self, run_id: str, metric: str) -> History:
        points = self._client.get_metric_history(run_id, metric)
        columns = zip(*((point.step, point.value, point.timestamp) for point in points), strict=True) if points else ()
        step, value, time_ms = columns or ((), (), ())
        return History(
            run_id,
            metric,
            np.array(step, dtype=np.int64),
            np.array(value, dtype=np.float64),
            np.array(time_ms, dtype=np.int64),
        )

    def _keep_answered(self, run_id: str) -> None:
        run = self._runs[run_id]
        if run.finished:
            known = {**self._answered_before(run), **self._histories[run_id]}
            self._cache.keep(run_id, run.mark, _ANSWERED, as_file(list(known.values())))

    def series(self, run_id: str) -> pd.DataFrame:
        """Returns the run's evaluation series; downloaded once."""
        run = self._runs[run_id]
        with store_errors(self._uri):
            content = self._series_file(run)
        if content is None:
            raise DataError(
                f"run {run_id} kept no evaluation series (artifact {SERIES_FILE}): it was not evaluated, does not "
                "trade, is still running, or was logged by another tracker"
            )
        try:
            return pd.read_parquet(io.BytesIO(content))
        except (OSError, ValueError) as error:
            raise DataError(f"the evaluation series of run {run_id} cannot be read: {error}") from error

    def _series_file(self, run: _StoredRun) -> bytes | None:
        with self._lock:
            if (run.run_id, SERIES_FILE) in self._files:
                return self._files[run.run_id, SERIES_FILE]
        kept = self._cache.find(run.run_id, run.mark, names.SERIES_FILE) if run.finished else None
        if kept is not None:
            return kept.read_bytes()
        if run.finished and self._cache.find(run.run_id, run.mark, _NO_SERIES):
            return None
        there = [str(item.path) for item in self._client.list_artifacts(run.run_id, names.SERIES_ARTIFACT)]
        if SERIES_FILE in there:
            return self._file(run, SERIES_FILE, names.SERIES_FILE)
        if run.seal is not None:  # sealed after everything else of the run was uploaded: none will come
            self._cache.keep(run.run_id, run.mark, _NO_SERIES, b"")
        with self._lock:
            self._files[run.run_id, SERIES_FILE] = None
        return None

    def _file(self, run: _StoredRun, artifact: str, name: str) -> bytes:
        """Returns an artifact: from memory, from this machine's copies, or from its store."""
        known = self._kept(run, artifact, name)
        if known is not None:
            return known
        content = fetch_artifact(run.artifact_uri, artifact, self._uri)
        self._put(run, artifact, content, name)
        return content

    def _kept(self, run: _StoredRun, artifact: str, name: str) -> bytes | None:
        with self._lock:
            known = self._files.get((run.run_id, artifact))
        if known is not None:
            return known
        kept = self._cache.find(run.run_id, run.mark, name) if run.finished else None
        return kept.read_bytes() if kept is not None else None

    def _put(self, run: _StoredRun, artifact: str, content: bytes, name: str | None = None) -> None:
        if run.finished:
            self._cache.keep(run.run_id, run.mark, name or artifact, content)
        if not run.finished or self._cache.find(run.run_id, run.mark, name or artifact) is None:
            with self._lock:
                self._files[run.run_id, artifact] = content


@dataclass
class _Failure:
    metrics: list[str]
    reason: str


class _Failures:
    """Collects what could not be read; after `_GIVE_UP_AFTER` failures asks a broken store nothing more."""

    def __init__(self) -> None:
        self._failed: dict[str, _Failure] = {}
        self._count = 0
        self._lock = Lock()

    def guard(self, pair: tuple[str, str], read: Callable[[str, str], History]) -> History | None:
        run_id, metric = pair
        if self._count >= _GIVE_UP_AFTER:
            self._note(run_id, metric, f"not tried after {_GIVE_UP_AFTER} failures")
            return None
        try:
            return read(run_id, metric)
        except Exception as error:  # noqa: BLE001 - whatever a store raises, the other runs are still read
            self._note(run_id, metric, f"{type(error).__name__}: {error}")
            return None

    def _note(self, run_id: str, metric: str, reason: str) -> None:
        with self._lock:
            self._count += 1
            self._failed.setdefault(run_id, _Failure([], reason)).metrics.append(metric)

    def unreadable(self) -> tuple[Unreadable, ...]:
        return tuple(
            Unreadable(run_id, f"history of {', '.join(failure.metrics)}: {failure.reason}")
            for run_id, failure in sorted(self._failed.items())
        )
