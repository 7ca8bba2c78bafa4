"""Where delivered events end up: the sink's contract, its two kinds of failure, and one in memory.

A sink does one thing at a time, knows nothing of journals, retries nothing and keeps nothing. Every call
may be repeated with the same arguments and must then change nothing: delivery is at-least-once.
Sinks are used by one thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from drl_ray_tracking.errors import TrackingError
from drl_ray_tracking.names import legal_metric_name
from drl_ray_tracking.tracking.model_store import MemoryModels, ModelStore


class SinkUnavailableError(TrackingError):
    """Raises when the store cannot be reached or answers with a passing error: try again later."""


class SinkRefusedError(TrackingError):
    """Raises when the store refuses for good (run deleted, value not allowed): trying again is useless."""


@dataclass(frozen=True)
class MetricPoint:
    """One value of one metric: `time_ms` is Unix time in milliseconds, `step` is in env steps."""

    key: str
    value: float
    time_ms: int
    step: int
    model_id: str | None = None  # a model the value is also one of


Point = tuple[int, float, int]  # step, value, Unix ms


@dataclass(frozen=True)
class FoundRun:
    """A run that exists: its id and its tags as they are now."""

    run_id: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class RunSpec:
    """A run to be made. `identity` are the tags it is found by later, all of which must match."""

    name: str
    identity: Mapping[str, str]
    tags: Mapping[str, str]
    start_ms: int
    parent_run_id: str | None = None


class Sink(Protocol):
    """What the courier needs of a store."""

    @property
    def models(self) -> ModelStore:
        """The store's models."""
        ...

    def open_experiment(self, name: str | None, experiment_id: str | None, artifact_location: str | None) -> str:
        """Finds the experiment, or makes it by name; returns its id."""
        ...

    def find_run(self, experiment_id: str, identity: Mapping[str, str]) -> FoundRun | None:
        """Finds the run with all these tags; one that was deleted refuses, so that none is made in its place."""
        ...

    def create_run(self, experiment_id: str, spec: RunSpec) -> str:
        """Makes a run, RUNNING, and returns its id. The only call that is not repeatable: find first."""
        ...

    def reopen_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Sets a run RUNNING, whatever it was, and adds tags."""
        ...

    def read_tags(self, run_id: str) -> Mapping[str, str]:
        """Returns a run's tags as they are now."""
        ...

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[MetricPoint] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Writes values of one run, in as few calls as the store allows."""
        ...

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        """Writes a text as an artifact of a run."""
        ...

    def log_folder(self, run_id: str, folder: Path, artifact_folder: str) -> None:
        """Uploads everything in a local folder into an artifact folder of a run ('' is the top)."""
        ...

    def set_status(self, run_id: str, status: str, end_ms: int) -> None:
        """Ends a run: FINISHED, FAILED or KILLED."""
        ...

    def histories(self, run_id: str, globs: Sequence[str], *, at_most: int) -> dict[str, list[Point]]:
        """Returns the points of a run's metrics that match a glob, the first globs' first, not many more than so many.

        Metrics beyond that are left out whole; at least one is not.
        """
        ...


def matching(keys: Iterable[str], globs: Sequence[str]) -> list[str]:
    """Returns the keys that match a glob: in the order of the globs, then by name."""
    known = sorted(keys)
    return list(dict.fromkeys(key for glob in globs for key in known if fnmatchcase(key, glob)))


@dataclass
class MemoryRun:
    """A run in a `MemorySink`."""

    experiment_id: str
    name: str
    start_ms: int
    parent_run_id: str | None
    status: str = "RUNNING"
    end_ms: int | None = None
    deleted: bool = False
    points: set[MetricPoint] = field(default_factory=set)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)


@dataclass
class MemorySink:
    """A whole store in memory, with MLflow's rules: for tests, dry runs and trying things out."""

    experiments: dict[str, str] = field(default_factory=lambda: {"Default": "0"})
    deleted_experiments: set[str] = field(default_factory=set)
    runs: dict[str, MemoryRun] = field(default_factory=dict)
    models: MemoryModels = field(default_factory=MemoryModels)

    def open_experiment(self, name: str | None, experiment_id: str | None, artifact_location: str | None) -> str:
        if experiment_id is None:
            experiment_id = self.experiments.setdefault(name or "Default", str(len(self.experiments)))
        if experiment_id not in self.experiments.values():
            raise SinkRefusedError(f"no experiment with id {experiment_id!r}")
        if experiment_id in self.deleted_experiments:
            raise SinkRefusedError(f"the experiment {experiment_id!r} is deleted")
        return experiment_id

    def find_run(self, experiment_id: str, identity: Mapping[str, str]) -> FoundRun | None:
        for run_id, run in self.runs.items():
            if run.experiment_id == experiment_id and identity.items() <= run.tags.items():
                return FoundRun(run_id, dict(self._run(run_id).tags))
        return None

    def create_run(self, experiment_id: str, spec: RunSpec) -> str:
        self.open_experiment(None, experiment_id, None)
        run_id = f"run-{len(self.runs)}"
        run = MemoryRun(experiment_id, spec.name, spec.start_ms, spec.parent_run_id)
        run.tags.update({**spec.tags, **spec.identity})
        self.runs[run_id] = run
        return run_id

    def reopen_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        run = self._run(run_id)
        run.status = "RUNNING"
        run.tags.update(tags)

    def read_tags(self, run_id: str) -> Mapping[str, str]:
        return dict(self._run(run_id).tags)

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[MetricPoint] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        run = self._run(run_id)
        for point in metrics:
            if legal_metric_name(point.key) != point.key:
                raise SinkRefusedError(f"{point.key!r} is not a legal metric name")
        for key, value in (params or {}).items():
            if run.params.setdefault(key, value) != value:
                raise SinkRefusedError(f"changing param values is not allowed: {key!r}")
        for point in metrics:
            run.points.add(replace(point, model_id=None))
            if point.model_id is not None:
                self.models.models[point.model_id].points.add(point)
        run.tags.update(tags or {})

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self._run(run_id).artifacts[artifact_file] = text.encode()

    def log_folder(self, run_id: str, folder: Path, artifact_folder: str) -> None:
        artifacts = self._run(run_id).artifacts
        for path in folder.rglob("*"):
            if path.is_file():
                artifacts[str(Path(artifact_folder) / path.relative_to(folder))] = path.read_bytes()

    def set_status(self, run_id: str, status: str, end_ms: int) -> None:
        run = self._run(run_id)
        run.status, run.end_ms = status, end_ms

    def histories(self, run_id: str, globs: Sequence[str], *, at_most: int) -> dict[str, list[Point]]:
        found: dict[str, list[Point]] = {}
        points = self._run(run_id).points
        for key in matching({point.key for point in points}, globs):
            if found and sum(map(len, found.values())) >= at_most:
                break
            found[key] = sorted((point.step, point.value, point.time_ms) for point in points if point.key == key)
        return found

    def _run(self, run_id: str) -> MemoryRun:
        run = self.runs.get(run_id)
        if run is None:
            raise SinkRefusedError(f"there is no run {run_id!r}")
        if run.deleted or run.experiment_id in self.deleted_experiments:
            raise SinkRefusedError(f"the run {run_id!r} is deleted")
        return run
