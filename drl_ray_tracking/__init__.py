"""Exact episode metrics, unbreakable MLflow tracking and honest comparison for RLlib on Ray Tune.

The public names are loaded on first use (PEP 562), so that importing this package on a Ray worker
loads neither mlflow nor pandas nor anything the worker does not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drl_ray_tracking.analysis.compare import compare as compare
    from drl_ray_tracking.analysis.runs import RunSet as RunSet
    from drl_ray_tracking.analysis.runs import load_runs as load_runs
    from drl_ray_tracking.capture.files import log_artifact as log_artifact
    from drl_ray_tracking.capture.instrument import instrument as instrument
    from drl_ray_tracking.capture.recorder import RecordEpisodes as RecordEpisodes
    from drl_ray_tracking.episodes import EpisodeMetric as EpisodeMetric
    from drl_ray_tracking.episodes import EpisodeRecord as EpisodeRecord
    from drl_ray_tracking.episodes import EpisodeSummary as EpisodeSummary
    from drl_ray_tracking.tracking.callback import MLflowTrackingCallback as MLflowTrackingCallback
    from drl_ray_tracking.tracking.experiment import ExperimentService as ExperimentService
    from drl_ray_tracking.tracking.tracked_run import TrackedRun as TrackedRun

__version__ = "0.1.0"

_PUBLIC = {
    "EpisodeMetric": "drl_ray_tracking.episodes",
    "EpisodeRecord": "drl_ray_tracking.episodes",
    "EpisodeSummary": "drl_ray_tracking.episodes",
    "ExperimentService": "drl_ray_tracking.tracking.experiment",
    "MLflowTrackingCallback": "drl_ray_tracking.tracking.callback",
    "RecordEpisodes": "drl_ray_tracking.capture.recorder",
    "RunSet": "drl_ray_tracking.analysis.runs",
    "TrackedRun": "drl_ray_tracking.tracking.tracked_run",
    "compare": "drl_ray_tracking.analysis.compare",
    "instrument": "drl_ray_tracking.capture.instrument",
    "load_runs": "drl_ray_tracking.analysis.runs",
    "log_artifact": "drl_ray_tracking.capture.files",
}

__all__ = [
    "EpisodeMetric",
    "EpisodeRecord",
    "EpisodeSummary",
    "ExperimentService",
    "MLflowTrackingCallback",
    "RecordEpisodes",
    "RunSet",
    "TrackedRun",
    "compare",
    "instrument",
    "load_runs",
    "log_artifact",
]


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public are {', '.join(__all__)}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
