"""The main job: a configuration in, a tracked and compared sweep out."""

from __future__ import annotations

import logging
import math
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.markets.shared import share
from drl_ray_tracking.tracking.callback import MLflowTrackingCallback
from drl_ray_tracking.training.algorithms import algorithm_config, tune_callbacks
from drl_ray_tracking.training.autoscaling import Cores, cores_of
from drl_ray_tracking.training.cells import Cell, CellSearch, cell_tags, market_tags, shared_tags
from drl_ray_tracking.training.config import AgentConfig, SweepConfig, dump_config
from drl_ray_tracking.training.config_checks import notes_on, problems_of
from drl_ray_tracking.training.leakage import look_for_leaks
from drl_ray_tracking.training.market import Market, load_markets
from drl_ray_tracking.training.named import look_in
from drl_ray_tracking.training.probe import check_shared_storage
from drl_ray_tracking.training.progress import SweepProgress
from drl_ray_tracking.training.resources import fit
from drl_ray_tracking.training.resume import KeptConfig, kept_config, kept_sweep_id, recorded_runs, resumed_tuner
from drl_ray_tracking.training.rules_on_runs import judge_agents
from drl_ray_tracking.training.schedulers import scheduler
from drl_ray_tracking.training.service import TrainedAgent
from drl_ray_tracking.training.start import StartingPoint
from drl_ray_tracking.training.trained import trained_agents


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep left behind.

    `delivered` is False where events still wait for the store (see `drl-track sync`). `interrupted` is True where
    trials had not come to their end, as after Ctrl-C: nothing is to be concluded from it.
    """

    experiment: str
    tracking_uri: str
    sweep_ids: tuple[str, ...]
    result_paths: tuple[str, ...]
    trials: int
    errors: tuple[str, ...]
    delivered: bool
    links: tuple[str, ...] = ()  # the parent run, where a server shows it
    agents: tuple[TrainedAgent, ...] = ()  # one a trial
    parent_run: str | None = None  # MLflow's id, once it is in the store
    interrupted: bool = False


def run_sweep(
    config: SweepConfig,
    *,
    base_dir: Path,
    console: Console,
    start: StartingPoint | None = None,
    markets: Sequence[Market] | None = None,
    resume: str | None = None,
) -> SweepOutcome:
    """Trains every agent on every symbol and fold with every searched value and seed: one sweep, tracked in MLflow.

    Args:
        config: the validated configuration.
        base_dir: what relative data paths are relative to, and where modules of the user's may lie.
        console: where progress is shown.
        start: where trials begin, if not with random weights: what `config.start_from` was found to be.
        markets: the data, where they are not to be loaded as `config.data` says.
        resume: Tune's directory of a sweep of this configuration that did not come to its end: its unfinished and
            failed trials go on from their last checkpoints, into the same runs.

    Raises:
        ConfigurationError, DataError: something of the user's is wrong; nothing has trained.
    """
    if config.start_from is not None and start is None:
        raise ConfigurationError(f"start_from is {config.start_from!r}: look it up with `models.starting_point` first")
    if start is not None:
        config = config.model_copy(update={"start_from": start.model})
    look_in(base_dir)
    markets = markets or load_markets(config, base_dir)
    problems = problems_of(config, cells=len(markets) * len(config.agents))  # what code has set is not checked yet
    if problems:
        raise ConfigurationError("; ".join(problems))
    for note in notes_on(config):
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    # Built once for what is wrong with it, before Ray starts; then with what stands for the data in Ray's store.
    cells = [
        Cell(agent, market, algorithm_config(config, agent, market, start)) for agent, market in _pairs(config, markets)
    ]
    tuning, more_callbacks = scheduler(config), tune_callbacks(config)
    look_for_leaks(config, markets, console.print)
    lineage = start.tags() if start is not None else {}
    tags = {
        **config.tracking.tags,
        **shared_tags([market_tags(cell.agent, cell.market) for cell in cells]),
        **lineage,
        names.TAG_OBJECTIVE: names.mlflow_name(config.objective.metric),
        names.TAG_OBJECTIVE_MODE: config.objective.mode,
    }
    tags.pop(names.TAG_AGENT, None)
    # What stands on the parent run stays as it was begun with.
    text = dump_config(config, base_dir) if resume is None else kept_config(resume, config, base_dir)
    if text is None:
        console.print(f"{resume} keeps no configuration: whether this one is the sweep's is not known", markup=False)
    tracking = _tracking(config, tags, text)
    if not config.tracking.offline:
        tracking.check_store()
    start_ray()
    check_shared_storage(config.storage)
    settings = [algorithm_config(config, cell.agent, _shared(cell), start) for cell in cells]
    planned = _trials(config, cells)
    for line in fit(settings, config.resources, trials=planned, cores=cores()):
        console.print(line, highlight=False)
    algorithms = "+".join(dict.fromkeys(agent.label for agent in config.agents))
    # Tune stages the files of equal names in one folder of the node, also those of two drivers.
    name = f"{config.experiment}-{algorithms}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
    objective = config.objective
    progress = SweepProgress(console, tracking, metric=objective.metric, mode=objective.mode)
    callbacks = [progress, tracking, *more_callbacks]
    if resume is None:
        tuner = sweep_tuner(config, settings, name, [*callbacks, KeptConfig(text or "")], tuning)
    else:
        tuner = resumed_tuner(resume, settings, callbacks)
    results = _fit(tuner)
    sweep_id, run_ids = tracking.sweep_id, tracking.run_ids
    if resume is not None:
        sweep_id = sweep_id or kept_sweep_id(resume)  # where no trial was left to start
        before = recorded_runs(tracking.tracking_uri, config.experiment, sweep_id or "", console.print)
        run_ids = {**before, **run_ids}
    agents = trained_agents(results, config, run_ids)
    trials = results._experiment_analysis.trials
    interrupted = progress.unfinished or len(trials) < planned or not all(trial.is_finished() for trial in trials)
    if config.rules is not None and not interrupted:
        for agent, ruling in judge_agents(agents, config.rules, tracking.tracking_uri).items():
            console.print(f"rules, {agent}: {ruling.tags()[names.TAG_RULES]}", markup=False, highlight=False)
    return SweepOutcome(
        experiment=config.experiment,
        tracking_uri=tracking.tracking_uri,
        sweep_ids=(sweep_id,) if sweep_id is not None else (),
        result_paths=(str(results.experiment_path),),
        trials=len(results),
        errors=tuple(str(error) for error in results.errors),
        delivered=tracking.delivered,
        links=(link,) if (link := _link(tracking)) else (),
        agents=agents,
        parent_run=run_ids.get(""),
        interrupted=interrupted,
    )


def _pairs(config: SweepConfig, markets: Sequence[Market]) -> list[tuple[AgentConfig, Market]]:
    return [(agent, market) for market in markets for agent in config.agents]


def _shared(cell: Cell) -> Market:
    """Puts a cell's bars into the object store and returns its market with what stands for them."""
    tags = market_tags(cell.agent, cell.market)
    training, validation = cell.market.training.open(), cell.market.validation.open()
    return replace(cell.market, training=share(training, tags), validation=share(validation, tags))


def cores() -> Cores:
    """Returns how many CPUs the cluster has, and may have."""
    import ray

    return cores_of(float(ray.cluster_resources().get("CPU", 1.0)))  # type: ignore[no-untyped-call]


def _trials(config: SweepConfig, cells: Sequence[Cell]) -> int:
    """Returns how many trials there will be."""
    total = 0
    for cell in cells:
        grids = [one.grid for one in {**config.search, **cell.agent.search}.values() if one.grid is not None]
        total += config.samples * len(config.seeds) * math.prod(len(grid) for grid in grids)
    return total


def _link(tracking: MLflowTrackingCallback) -> str:
    """Returns the address that opens a sweep's parent run in a browser; empty where no server shows it."""
    progress = tracking.courier_status.progress if tracking.courier_status else None
    run_id = progress.runs.get("") if progress else None
    if progress is None or run_id is None or not tracking.tracking_uri.startswith("http"):
        return ""
    return f"{tracking.tracking_uri}/#/experiments/{progress.experiment_id}/runs/{run_id}"


def _tracking(config: SweepConfig, tags: dict[str, str], text: str | None) -> MLflowTrackingCallback:
    return MLflowTrackingCallback(
        config.tracking.uri,
        experiment_name=config.experiment,
        tags=tags,
        names=config.tracking.names,
        include=config.tracking.include,
        exclude=config.tracking.exclude,
        on_unreachable="spool" if config.tracking.offline else "fail",
        system_metrics=config.tracking.system_metrics,
        drain_timeout_s=config.tracking.drain_timeout_s,
        checkpoints=config.checkpoints.upload,
        keep_checkpoints=config.checkpoints.keep if config.checkpoints.upload == "all" else None,
        sweep_config=text,
        trial_tags=cell_tags,
    )


def _fit(tuner: Any) -> Any:
    try:
        return tuner.fit()
    except Exception as error:
        refusal = _cause(error, ConfigurationError)
        if refusal is not None:
            raise refusal from None
        raise


def sweep_tuner(
    config: SweepConfig, settings: Sequence[Any], name: str, callbacks: Sequence[Any], scheduler: Any = None
) -> Any:
    """Returns the Tuner of a sweep.

    Args:
        config: the sweep.
        settings: an `AlgorithmConfig` for each of its cells, as `algorithm_config` made it.
        name: of Tune's experiment directory.
        callbacks: Tune callbacks.
        scheduler: Tune's; None lets every trial train to its end.
    """
    from ray import tune

    # Tune's newer output prints its own tables whatever `verbose` says; one status line is ours.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    objective = config.objective
    return tune.Tuner(
        settings[0].algo_class,
        param_space={},  # each cell has a space of its own
        tune_config=tune.TuneConfig(
            metric=names.tune_path(objective.metric),
            mode=objective.mode,
            num_samples=config.samples,
            search_alg=CellSearch(settings, config.resources.max_concurrent or 0, config.search_seed),
            scheduler=scheduler,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=config.storage,
            stop={names.tune_path(key): value for key, value in config.stop.items()},
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=config.checkpoints.keep,
                checkpoint_score_attribute=names.tune_path(objective.metric),
                checkpoint_score_order=objective.mode,
                checkpoint_frequency=config.checkpoints.every or config.evaluation.interval,
                checkpoint_at_end=True,
            ),
            failure_config=tune.FailureConfig(max_failures=config.resources.max_failures),
            callbacks=list(callbacks),
            verbose=0,
        ),
    )


def _cause(error: BaseException | None, kind: type[ConfigurationError]) -> ConfigurationError | None:
    """Tune wraps what a callback raised; this finds it again."""
    while error is not None:
        if isinstance(error, kind):
            return error
        error = error.__cause__ or error.__context__
    return None


def start_ray() -> None:
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
    lines += [f"Look at it: {place}" for place in outcome.links or (opener,)]
    return lines
