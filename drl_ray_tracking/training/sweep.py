"""The main job: a configuration in, a tracked and compared sweep out."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.callback import MLflowTrackingCallback
from drl_ray_tracking.training.algorithms import algorithm_config
from drl_ray_tracking.training.config import SweepConfig
from drl_ray_tracking.training.market import load_market
from drl_ray_tracking.training.progress import SweepProgress


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep left behind: one Tune result and one parent run per agent.

    `delivered` is False where events still wait for the store (see `drl-track sync`).
    """

    experiment: str
    tracking_uri: str
    sweep_ids: tuple[str, ...]
    result_paths: tuple[str, ...]
    trials: int
    errors: tuple[str, ...]
    delivered: bool


def run_sweep(config: SweepConfig, *, base_dir: Path, console: Console) -> SweepOutcome:
    """Trains every agent of a configuration with every searched value and seed, tracked in MLflow.

    Args:
        config: the validated configuration.
        base_dir: what relative data paths are relative to.
        console: where progress is shown.

    Raises:
        ConfigurationError, DataError: something of the user's is wrong; nothing has trained.
    """
    market = load_market(config.data, config.split, config.features, base_dir)
    prepared = [(agent, algorithm_config(config, agent, market)) for agent in config.agents]
    tags = {
        **config.tracking.tags,
        **market.tags(),
        names.TAG_OBJECTIVE: names.mlflow_name(config.objective.metric),
        names.TAG_OBJECTIVE_MODE: config.objective.mode,
    }
    callbacks = [_tracking(config, tags) for _ in prepared]
    if not config.tracking.offline:
        callbacks[0].check_store()
    _start_ray()
    stamp = time.strftime("%Y%m%d-%H%M%S")
    results = []
    for (agent, settings), tracking in zip(prepared, callbacks, strict=True):
        name = f"{config.experiment}-{agent.algorithm.lower()}-{stamp}"
        results.append(_fit(config, settings, tracking, name, console))
    return SweepOutcome(
        experiment=config.experiment,
        tracking_uri=callbacks[0].tracking_uri,
        sweep_ids=tuple(tracking.sweep_id for tracking in callbacks if tracking.sweep_id is not None),
        result_paths=tuple(str(result.experiment_path) for result in results),
        trials=sum(len(result) for result in results),
        errors=tuple(str(error) for result in results for error in result.errors),
        delivered=all(tracking.delivered for tracking in callbacks),
    )


def _tracking(config: SweepConfig, tags: dict[str, str]) -> MLflowTrackingCallback:
    return MLflowTrackingCallback(
        config.tracking.uri,
        experiment_name=config.experiment,
        tags=tags,
        names=config.tracking.names,
        include=config.tracking.include,
        exclude=config.tracking.exclude,
        on_unreachable="spool" if config.tracking.offline else "fail",
        drain_timeout_s=config.tracking.drain_timeout_s,
    )


def _fit(
    config: SweepConfig,
    settings: Any,
    tracking: MLflowTrackingCallback,
    name: str,
    console: Console,
) -> Any:
    from ray import tune

    # Tune's newer output prints its own tables whatever `verbose` says; one status line is ours.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    objective = config.objective
    progress = SweepProgress(console, tracking, metric=objective.metric, mode=objective.mode)
    tuner = tune.Tuner(
        settings.algo_class,
        param_space=settings,
        tune_config=tune.TuneConfig(
            metric=names.tune_path(objective.metric),
            mode=objective.mode,
            num_samples=config.samples,
            max_concurrent_trials=config.resources.max_concurrent,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=config.storage,
            stop={names.tune_path(key): value for key, value in config.stop.items()},
            callbacks=[progress, tracking],
            verbose=0,
        ),
    )
    try:
        return tuner.fit()
    except Exception as error:
        refusal = _cause(error, ConfigurationError)
        if refusal is not None:
            raise refusal from None
        raise


def _cause(error: BaseException | None, kind: type[ConfigurationError]) -> ConfigurationError | None:
    """Tune wraps what a callback raised; this finds it again."""
    while error is not None:
        if isinstance(error, kind):
            return error
        error = error.__cause__ or error.__context__
    return None


def _start_ray() -> None:
    """Joins the cluster this process was started for (`ray job submit` names it), else starts one here."""
    import ray

    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    else:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


def sweep_summary(outcome: SweepOutcome) -> Sequence[str]:
    """Returns the lines a person needs at the end: what failed, where things are, what opens them."""
    lines = [f"{outcome.trials} trials in experiment {outcome.experiment!r}, store {outcome.tracking_uri}"]
    lines += [f"FAILED: {error.strip().splitlines()[-1][:300]}" for error in outcome.errors]
    lines += [f"Tune's own results: {path}" for path in outcome.result_paths]
    opener = (
        f"mlflow ui --backend-store-uri {outcome.tracking_uri}"
        if outcome.tracking_uri.startswith("sqlite")
        else outcome.tracking_uri
    )
    if not outcome.delivered:
        lines.append("Not everything is delivered yet: `drl-track sync`, then `drl-track compare`.")
    lines.append(f"Look at it: {opener}")
    return lines
