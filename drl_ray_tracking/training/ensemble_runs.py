"""A sweep's ensembles: made of its best agents, run over validation and test bars, each a run like a trial's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from drl_ray_tracking import names
from drl_ray_tracking.analysis.runs import open_client
from drl_ray_tracking.analysis.store_errors import store_errors
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.fingerprint import config_hash
from drl_ray_tracking.models.backtest import backtest_env
from drl_ray_tracking.models.loading import load_policy
from drl_ray_tracking.training.algorithms import (
    environment_class,
    evaluation_environment,
    number_of_windows,
    own_conventions,
)
from drl_ray_tracking.training.config import EnsembleConfig, ObjectiveConfig, SweepConfig
from drl_ray_tracking.training.ensemble import Ensemble
from drl_ray_tracking.training.market import Market
from drl_ray_tracking.training.out_of_sample import best_of_each_cell, count_look, fold_runs, log_metrics
from drl_ray_tracking.training.service import TrainedAgent

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_ENSEMBLE = "ensemble"


def ensemble_agents(
    agents: Sequence[TrainedAgent],
    config: SweepConfig,
    markets: Sequence[Market],
    *,
    tracking_uri: str,
    say: Callable[[str], None],
) -> list[TrainedAgent]:
    """Returns every configured ensemble on every market and fold, with what it did on the validation and test bars.

    One that cannot be made, because too few of its agents have trained or do not decide together, is said and left out.

    Args:
        agents: trained, of one sweep.
        config: of the sweep; where it wants the test, an ensemble's look is counted like an agent's.
        markets: of the sweep.
        tracking_uri: of the store that counts the looks.
        say: takes what is told a person.
    """
    best = best_of_each_cell(agents, config)
    made = []
    for wanted in config.ensembles:
        for market in markets:
            dataset = market.dataset
            members = [one for one in best if (one.symbol, one.fold) == (dataset.symbol, dataset.fold)]
            if wanted.agents is not None:
                members = [one for one in members if one.tags.get(names.TAG_AGENT) in wanted.agents]
            try:
                made.append(_evaluated(wanted, members, config, market, tracking_uri))
            except Exception as error:  # noqa: BLE001 - what policies and environments raise; the agents have trained
                say(f"no {wanted.label} on {dataset.symbol}: {type(error).__name__}: {error}")
    return made


def track_ensembles(
    ensembles: Sequence[TrainedAgent], config: SweepConfig, parent: str, tracking_uri: str
) -> list[TrainedAgent]:
    """Makes a run of each ensemble, below the sweep's or its fold's, where `compare` finds it; returns them with it.

    Args:
        ensembles: from `ensemble_agents`.
        config: of the sweep.
        parent: the sweep's run.
        tracking_uri: of the store.
    """
    client = open_client(tracking_uri)
    with store_errors(tracking_uri):
        folds = fold_runs(client, parent)
        return [_tracked(client, one, config, parent, folds) for one in ensembles]


def _evaluated(
    wanted: EnsembleConfig, members: Sequence[TrainedAgent], config: SweepConfig, market: Market, tracking_uri: str
) -> TrainedAgent:
    if len(members) < 2:
        raise ConfigurationError(
            f"{wanted.label} on {market.dataset.symbol}: {len(members)} of its agents have trained, two are needed"
        )
    weights = None if wanted.vote == "majority" else _weights(members, config.objective)
    panel = Ensemble(tuple(load_policy(str(one.checkpoint)) for one in members), wanted.vote, weights)
    fold = market.dataset.fold
    name = "-".join([wanted.label, market.dataset.symbol, *([] if fold is None else [f"f{fold}"])])
    agent = TrainedAgent(
        name=name,
        algorithm=_ENSEMBLE,
        symbols=(market.dataset.symbol,),
        seed=0,
        fold=fold,
        params={
            "vote": wanted.vote,
            "members": ",".join(one.name for one in members),
            "weights": "equal" if weights is None else ",".join(f"{weight:.4g}" for weight in weights),
        },
        policy=panel,
        tags={**market.tags(), names.TAG_AGENT: wanted.label},
    )
    for split in ("validation", "test") if config.wants_test else ("validation",):
        if split == "test":
            count_look(tracking_uri, config.experiment, market, name)
        agent = _ran(agent, split, config, market)
    return agent


def _ran(agent: TrainedAgent, split: str, config: SweepConfig, market: Market) -> TrainedAgent:
    env_config = evaluation_environment(config, market, split)
    if split == "validation":
        env_config = {**env_config, "segments": [market.validation.open()]}
    make = environment_class(config)
    windows = number_of_windows(config, env_config)
    done = backtest_env(
        agent.policy,
        lambda: make(env_config),
        windows=windows,
        trading=config.trading,
        conventions=own_conventions(config, market),
    )
    episodes = {**agent.episodes, split: done.records}
    if split == "validation":
        return replace(agent, episodes=episodes, metrics={f"eval/{key}": value for key, value in done.kpis.items()})
    return replace(agent, episodes=episodes, test_metrics={f"test/{key}": value for key, value in done.kpis.items()})


def _weights(members: Sequence[TrainedAgent], objective: ObjectiveConfig) -> tuple[float, ...]:
    metric, sign = names.mlflow_name(objective.metric), 1.0 if objective.mode == "max" else -1.0
    worth = tuple(max(0.0, sign * one.metrics.get(metric, 0.0)) for one in members)
    return worth if sum(worth) > 0.0 else (1.0,) * len(members)


def _tracked(
    client: MlflowClient, agent: TrainedAgent, config: SweepConfig, parent: str, folds: Mapping[int, str]
) -> TrainedAgent:
    from mlflow.entities import Param

    sweep = client.get_run(parent)
    now = int(time.time() * 1000)
    tags = {
        **config.tracking.tags,
        **agent.tags,
        names.TAG_ROLE: names.ROLE_TRIAL,
        names.TAG_SWEEP_ID: sweep.data.tags.get(names.TAG_SWEEP_ID, ""),
        names.TAG_SWEEP_RUN: parent,
        names.TAG_TRIAL_ID: agent.name,
        names.TAG_ALGORITHM: _ENSEMBLE,
        names.TAG_SEED: str(agent.seed),
        names.TAG_CONFIG_HASH: config_hash({"agent": agent.tags[names.TAG_AGENT], "vote": agent.params["vote"]}),
        names.TAG_END_REASON: names.END_COMPLETED,
        "mlflow.parentRunId": parent if agent.fold is None else folds.get(agent.fold, parent),
    }
    made = client.create_run(sweep.info.experiment_id, start_time=now, tags=tags, run_name=agent.name)
    run_id = str(made.info.run_id)
    client.log_batch(run_id, params=[Param(key, str(value)[:6000]) for key, value in agent.params.items()])
    # At step 0: nothing was trained for it.
    log_metrics(client, run_id, {**agent.metrics, names.EVALUATION_MARKER: 0.0, **agent.test_metrics})
    client.set_terminated(run_id, "FINISHED", end_time=int(time.time() * 1000))
    return replace(agent, run_id=run_id)
