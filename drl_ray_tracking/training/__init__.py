"""The main job: configuration, market data, the reference environment, and the services that train and track.

The services are loaded on first use (PEP 562): whoever steps an environment needs neither Ray nor MLflow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from drl_ray_tracking.markets.datasets import MarketSegment, SplitDataSet
from drl_ray_tracking.markets.env import TradingEnv
from drl_ray_tracking.training.service import AgentTrainingService, TrainedAgent, TrainingOutcome, split_data_set

if TYPE_CHECKING:
    from drl_ray_tracking.training.evaluation_series import log_series as log_series
    from drl_ray_tracking.training.experiment_service import ExperimentTrainingService as ExperimentTrainingService
    from drl_ray_tracking.training.live_runs import LiveRuns as LiveRuns
    from drl_ray_tracking.training.rllib_service import RLlibAgentTrainingService as RLlibAgentTrainingService
    from drl_ray_tracking.training.rules import Rules as Rules
    from drl_ray_tracking.training.rules import judge_episodes as judge_episodes
    from drl_ray_tracking.training.rules import load_rules as load_rules

_LAZY = {
    "ExperimentTrainingService": "drl_ray_tracking.training.experiment_service",
    "LiveRuns": "drl_ray_tracking.training.live_runs",
    "RLlibAgentTrainingService": "drl_ray_tracking.training.rllib_service",
    "Rules": "drl_ray_tracking.training.rules",
    "judge_episodes": "drl_ray_tracking.training.rules",
    "load_rules": "drl_ray_tracking.training.rules",
    "log_series": "drl_ray_tracking.training.evaluation_series",
}

__all__ = [
    "AgentTrainingService",
    "ExperimentTrainingService",
    "LiveRuns",
    "MarketSegment",
    "RLlibAgentTrainingService",
    "Rules",
    "SplitDataSet",
    "TradingEnv",
    "TrainedAgent",
    "TrainingOutcome",
    "judge_episodes",
    "load_rules",
    "log_series",
    "split_data_set",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public are {', '.join(__all__)}")
    return getattr(import_module(_LAZY[name]), name)
