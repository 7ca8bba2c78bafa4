"""RLlib behind the port: any of its algorithms, on any number of data sets and seeds, as one tracked Tune sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from drl_ray_tracking.errors import ConfigurationError, DataError, TrackingError
from drl_ray_tracking.markets.datasets import SplitDataSet
from drl_ray_tracking.training.algorithms import known_algorithms
from drl_ray_tracking.training.config import SweepConfig, parse_config
from drl_ray_tracking.training.continuation import start_of
from drl_ray_tracking.training.ensemble_runs import ensemble_agents, track_ensembles
from drl_ray_tracking.training.market import Market
from drl_ray_tracking.training.out_of_sample import pooled_agents, publish_pooled, publish_tested, test_agents
from drl_ray_tracking.training.service import TrainedAgent, TrainingOutcome
from drl_ray_tracking.training.sweep import SweepOutcome, run_sweep

_GIVEN = "data sets given in code"


class RLlibAgentTrainingService:
    """Trains RLlib algorithms on data sets: agents x data sets x seeds as one Tune sweep.

    Args:
        agents: names ("PPO"), or mappings with the keys that `agents` has in a sweep's YAML: algorithm, name,
            training, model, search.
        experiment: MLflow experiment.
        stop: when a trial ends, such as {"training_iteration": 20}.
        base_dir: where modules of yours may lie, and what relative paths are relative to.
        console: where progress is shown; None shows nothing.
        more: any other key of a sweep's YAML: env, search, evaluation, resources, checkpoints, tracking, storage.

    Raises:
        ConfigurationError: an unknown algorithm, with the list of those there are, or anything else that is wrong;
            all problems at once.
    """

    def __init__(
        self,
        agents: Sequence[str | Mapping[str, Any]],
        *,
        experiment: str,
        stop: Mapping[str, float],
        base_dir: str | Path = ".",
        console: Console | None = None,
        **more: Any,
    ) -> None:
        given = [{"algorithm": agent} if isinstance(agent, str) else dict(agent) for agent in agents]
        known_algorithms(str(agent.get("algorithm")) for agent in given)
        self.config: SweepConfig = parse_config(
            {"experiment": experiment, "data": {"source": _GIVEN}, "agents": given, "stop": dict(stop), **more},
            "RLlibAgentTrainingService",
        )
        self._base_dir = Path(base_dir)
        self._console = console or Console(quiet=True)

    def create_env_and_train_agents(
        self,
        datasets: Sequence[SplitDataSet],
        *,
        seeds: Sequence[int] = (1,),
        start_from: str | None = None,
        test: bool = False,
    ) -> TrainingOutcome:
        """Trains every agent on every data set with every seed; see `AgentTrainingService`.

        With `test`, the best agent of each data set and seed runs once over the test bars; each look is counted on
        the experiment, and the pooled result stands on the parent run.
        """
        if not datasets:
            raise ConfigurationError("datasets is empty: there is nothing to train on")
        which = [(dataset.symbol, dataset.fold) for dataset in datasets]
        if len(set(which)) < len(which):
            raise ConfigurationError(f"datasets repeat a symbol and fold, which is what tells them apart: {which}")
        config = self.config.model_copy(update={"seeds": list(seeds), "start_from": start_from, "test": test})
        start = start_of(config, self._base_dir)
        markets = [Market.of(dataset) for dataset in datasets]
        done = run_sweep(config, base_dir=self._base_dir, console=self._console, start=start, markets=markets)
        done = after_training(done, config, markets, self._console)
        return TrainingOutcome(
            agents=done.agents,
            run_ids=() if done.parent_run is None else (done.parent_run,),
            experiment=done.experiment,
            tracking_uri=done.tracking_uri,
            delivered=done.delivered,
            sweep_ids=done.sweep_ids,
            result_paths=done.result_paths,
            errors=done.errors,
            interrupted=done.interrupted,
        )


def after_training(
    outcome: SweepOutcome, config: SweepConfig, markets: Sequence[Market], console: Console
) -> SweepOutcome:
    """Does what comes after training, where the configuration asks for it: ensembles, and the test.

    Nothing of it after an interrupted sweep: half-trained agents are not worth a look at the test bars.

    The best agents run over their test bars, looks are counted, and what they did there is pooled, published and
    shown.

    Args:
        outcome: of the sweep.
        config: of the sweep.
        markets: of the sweep.
        console: where the verdicts are shown.
    """
    if outcome.interrupted:
        return outcome
    agents: tuple[TrainedAgent, ...] = outcome.agents
    if config.wants_test:
        agents = test_agents(agents, config, markets, tracking_uri=outcome.tracking_uri)
        publish_tested(agents, outcome.tracking_uri)  # before anything else can fail: these looks are spent
    if config.ensembles:
        agents = (*agents, *_ensembles(agents, outcome, config, markets, console))
    if config.wants_test:
        _show_pooled(agents, outcome, config, markets, console)
    return replace(outcome, agents=agents)


def _ensembles(
    agents: Sequence[TrainedAgent],
    outcome: SweepOutcome,
    config: SweepConfig,
    markets: Sequence[Market],
    console: Console,
) -> list[TrainedAgent]:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    together = ensemble_agents(agents, config, markets, tracking_uri=outcome.tracking_uri, say=say)
    if outcome.parent_run is None or not together:
        return together
    try:
        return track_ensembles(together, config, outcome.parent_run, outcome.tracking_uri)
    except TrackingError as error:
        say(f"the ensembles have no runs: {error}")
        return together


def _show_pooled(
    agents: Sequence[TrainedAgent],
    outcome: SweepOutcome,
    config: SweepConfig,
    markets: Sequence[Market],
    console: Console,
) -> None:
    """Pools what was done out of sample, publishes and shows it."""
    try:
        pooled = pooled_agents(agents, config, markets, tracking_uri=outcome.tracking_uri)
    except DataError as error:
        console.print(f"nothing to pool out of sample: {error}", markup=False, highlight=False)
        return
    if outcome.parent_run is not None:
        publish_pooled(pooled, outcome.parent_run, outcome.tracking_uri)
    console.print("Out of sample, pooled over the unique test bars:", highlight=False)
    for one in pooled:
        console.print(f"  {one.agent}: {one.verdict()}", markup=False, highlight=False, soft_wrap=True)
