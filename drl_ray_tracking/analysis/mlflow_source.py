"""Reads histories and return series of an MLflow store's runs: in parallel, once, and never all or nothing."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol

import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.analysis.histories import Attempt, History, clean_history, histories_frame, parse_attempts
from drl_ray_tracking.analysis.runset import Unreadable
from drl_ray_tracking.analysis.runtable import Run
from drl_ray_tracking.analysis.store_errors import store_errors
from drl_ray_tracking.errors import DataError

SERIES_FILE: Final = f"{names.SERIES_ARTIFACT}/evaluations.parquet"
_GIVE_UP_AFTER: Final = 20


class Client(Protocol):
    """What is used of an `MlflowClient`."""

    def get_metric_history(self, run_id: str, key: str) -> Sequence[Any]: ...

    def list_artifacts(self, run_id: str, path: str | None = None) -> Sequence[Any]: ...

    def download_artifacts(self, run_id: str, path: str, dst_path: str | None = None) -> str: ...


class MlflowSource:
    """Reads histories and series of the runs of one store; what was read is kept. Safe to use from threads."""

    def __init__(self, client: Client, uri: str, runs: Sequence[Run], max_workers: int) -> None:
        self._client = client
        self._uri = uri
        self._max_workers = max_workers
        self._metrics: Mapping[str, frozenset[str]] = {run.info.run_id: frozenset(run.data.metrics) for run in runs}
        self._attempts: dict[str, tuple[Attempt, ...]] = {}
        self._histories: dict[tuple[str, str], History] = {}
        self._folder: Path | None = None
        self._series: dict[str, Path] = {}
        self._lock = Lock()
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
        pairs = [pair for pair in product(run_ids, metrics) if pair[1] in self._metrics.get(pair[0], frozenset())]
        failures = _Failures()
        with store_errors(self._uri), ThreadPoolExecutor(self._max_workers, thread_name_prefix="histories") as pool:
            missing = [pair for pair in pairs if pair not in self._histories]
            for history in pool.map(lambda pair: failures.guard(pair, self._history), missing):
                if history is not None:
                    self._histories[history.run_id, history.metric] = history
        known = [self._histories[pair] for pair in pairs if pair in self._histories]
        return histories_frame(known), failures.unreadable()

    def _history(self, run_id: str, metric: str) -> History:
        points = self._client.get_metric_history(run_id, metric)
        rows = [(point.step, point.value, point.timestamp) for point in points]
        return clean_history(run_id, metric, rows, self._attempts.get(run_id, ()))

    def series(self, run_id: str) -> pd.DataFrame:
        """Returns the run's evaluation series; downloaded once, read from disk each time."""
        with self._lock:
            if run_id not in self._series:
                self._series[run_id] = self._download(run_id)
        try:
            return pd.read_parquet(self._series[run_id])
        except (OSError, ValueError) as error:
            raise DataError(f"the evaluation series of run {run_id} cannot be read: {error}") from error

    def _download(self, run_id: str) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="drl-series-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        target = self._folder / run_id
        target.mkdir(exist_ok=True)
        with store_errors(self._uri):
            kept = [str(item.path) for item in self._client.list_artifacts(run_id, names.SERIES_ARTIFACT)]
            if SERIES_FILE not in kept:
                raise DataError(
                    f"run {run_id} kept no evaluation series (artifact {SERIES_FILE}): it was not evaluated, does not "
                    "trade, is still running, or was logged by another tracker"
                )
            return Path(self._client.download_artifacts(run_id, SERIES_FILE, str(target)))


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
