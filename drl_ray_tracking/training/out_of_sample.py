"""Test bars: what trained agents do there, once, with every look counted; pooled over folds, on the parent run.

Looks are counted in the store, before they are taken: without a store that answers there is no test.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.analysis.budget import WindowBudget, count_test_evaluation, looks_at, test_budget
from drl_ray_tracking.analysis.pooled import OutOfSample, PooledAgent, fold_table, pool, pooled_table
from drl_ray_tracking.analysis.runs import load_runs, open_client
from drl_ray_tracking.analysis.store_errors import store_errors
from drl_ray_tracking.analysis.tries import tries_of
from drl_ray_tracking.errors import ConfigurationError, DataError, TrackingError
from drl_ray_tracking.training.algorithms import ENV_PREFIX
from drl_ray_tracking.training.backtests import backtest_agent
from drl_ray_tracking.training.config import SweepConfig
from drl_ray_tracking.training.market import Market, test_window
from drl_ray_tracking.training.service import TrainedAgent

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def test_agents(
    agents: Sequence[TrainedAgent], config: SweepConfig, markets: Sequence[Market], *, tracking_uri: str
) -> tuple[TrainedAgent, ...]:
    """Runs the best agent of every cell and seed once over its test bars, and returns all agents.

    Where values are searched, the one that was best on the validation bars is the cell's; the others are not tested.

    Args:
        agents: trained, of one sweep.
        config: of the sweep.
        markets: of the sweep, with the test bars.
        tracking_uri: of the store that counts the looks.

    Raises:
        ConfigurationError: the store does not answer, or does not know the experiment.
    """
    chosen = {id(agent) for agent in best_of_each_cell(agents, config)}
    tested = []
    for agent in agents:
        if id(agent) not in chosen:
            tested.append(agent)
            continue
        market = _market_of(agent, markets)
        count_look(tracking_uri, config.experiment, market, agent.name)
        tested.append(_tested(agent, config, market))
    return tuple(tested)


test_agents.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test


def count_look(tracking_uri: str, experiment: str, market: Market, agent: str) -> int:
    """Counts one look at a market's test bars on the experiment, before it is taken; returns how many there are.

    Raises:
        ConfigurationError: the store does not answer, or does not know the experiment.
    """
    client = open_client(tracking_uri)
    with store_errors(tracking_uri):
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise ConfigurationError(
                f"{tracking_uri} has no experiment {experiment!r} yet, and looks at test bars are counted there"
            )
        now, what = int(time.time() * 1000), f"out of sample, {agent}"
        window, bars = test_window(market.dataset)
        return count_test_evaluation(client, str(found.experiment_id), window, what=what, time_ms=now, bars=bars)


def best_of_each_cell(agents: Sequence[TrainedAgent], config: SweepConfig) -> list[TrainedAgent]:
    """Returns, of each agent, symbol, fold and seed, the trial that was best on the validation bars."""
    metric = names.mlflow_name(config.objective.metric)
    sign = 1.0 if config.objective.mode == "max" else -1.0
    best: dict[tuple[Any, ...], TrainedAgent] = {}
    for agent in agents:
        if agent.error is not None or agent.checkpoint is None:
            continue
        key = (agent.tags.get(names.TAG_AGENT), agent.symbols, agent.fold, agent.seed)
        value = sign * agent.metrics.get(metric, -sign * float("inf"))
        held = best.get(key)
        if held is None or value > sign * held.metrics.get(metric, -sign * float("inf")):
            best[key] = agent
    return list(best.values())


def pooled_agents(
    agents: Sequence[TrainedAgent], config: SweepConfig, markets: Sequence[Market], *, tracking_uri: str
) -> tuple[PooledAgent, ...]:
    """Pools what the agents did on their test bars, see `analysis.pooled`.

    The verdicts correct for every look that was counted at these bars, those of earlier sweeps included.

    Args:
        agents: from `test_agents`.
        config: of the sweep.
        markets: of the sweep.
        tracking_uri: of the store that has counted the looks.

    Raises:
        DataError: none was tested, or their bars are not unique and in time.
        ConfigurationError: the store does not answer.
    """
    tested = [agent for agent in agents if agent.episodes.get("test") and agent.error is None]
    several = len({agent.symbols for agent in tested}) > 1
    parts, periods, looks = [], {}, dict[str, int]()
    spent = _budget(tracking_uri, config.experiment) if tested else {}
    for agent in tested:
        records, label = agent.episodes["test"], pooled_label(agent, several=several)
        counted = looks_at(spent, *test_window(_market_of(agent, markets).dataset))
        looks[label] = max(looks.get(label, 0), counted)
        parts.append(
            OutOfSample(label, agent.seed, agent.fold or 0, agent.returns("test"), _hold(agent.episodes["test"]))
        )
        periods[label] = records[0].conventions.periods_per_year or 1.0
    alone = len(looks) == 1 and max(looks.values()) > 1
    variance = _validation_variance(config, markets, tracking_uri) if alone else None
    return pool(parts, periods_per_year=periods, looks=looks, variance=variance)


def _budget(tracking_uri: str, experiment: str) -> dict[str, WindowBudget]:
    client = open_client(tracking_uri)
    with store_errors(tracking_uri):
        found = client.get_experiment_by_name(experiment)
        return {} if found is None else test_budget(client, str(found.experiment_id))


def _validation_variance(config: SweepConfig, markets: Sequence[Market], tracking_uri: str) -> float | None:
    """Returns how per-bar Sharpe ratios vary over all that was tried on the validation bars, the mean over windows.

    One agent's test does not say how luck varies. None where the store does not tell it either.
    """
    metric = names.mlflow_name(config.objective.metric)
    try:
        runs = load_runs(tracking_uri, config.experiment, metrics=[metric])
        tries = [tries_of(runs, metric, market.window_id) for market in markets]
        known = [one.sharpe_variance for one in tries if one.returns_TN.ndim == 2 and one.returns_TN.shape[1] > 1]
    except TrackingError:  # nothing is delivered yet, or no run has the metric
        return None
    return sum(known) / len(known) if known else None


def pooled_label(agent: TrainedAgent, *, several: bool) -> str:
    """Returns what an agent is called over all folds and seeds: its symbol, too, where there are several."""
    label = agent.tags.get(names.TAG_AGENT, agent.algorithm.lower())
    return f"{label}-{agent.symbol}" if several else label


def publish_tested(agents: Sequence[TrainedAgent], tracking_uri: str) -> None:
    """Writes each agent's own test KPIs onto its run.

    Raises:
        ConfigurationError: the store does not answer.
    """
    client = open_client(tracking_uri)
    with store_errors(tracking_uri):
        for agent in agents:
            if agent.run_id is not None and agent.test_metrics:
                log_metrics(client, agent.run_id, agent.test_metrics)


def publish_pooled(pooled: Sequence[PooledAgent], parent: str, tracking_uri: str) -> None:
    """Writes what was found onto the runs of the folds, and the pooled KPIs onto the parent.

    The parent also gets the picture, the tables and the bars, and a verdict of each agent as a tag.

    Args:
        pooled: from `pooled_agents`.
        parent: the sweep's run.
        tracking_uri: of the store.
    """
    from drl_ray_tracking.analysis.pooled_picture import pooled_equity

    client = open_client(tracking_uri)
    with store_errors(tracking_uri), tempfile.TemporaryDirectory(prefix="drl-pooled-") as scratch:
        for fold, run_id in fold_runs(client, parent).items():
            log_metrics(client, run_id, fold_metrics(pooled, fold))
        for one in pooled:
            log_metrics(client, parent, {f"test/{one.agent}/{key}": value for key, value in one.kpis().items()})
            client.set_tag(parent, f"{names.TAG_VERDICT}.{names.legal_metric_name(one.agent)}", one.verdict())
        folder = Path(scratch)
        pooled_equity(pooled).savefig(folder / "equity.png")
        pooled_table(pooled).to_csv(folder / "agents.csv", index=False)
        fold_table(pooled).to_csv(folder / "folds.csv", index=False)
        pooled_bars(pooled).to_csv(folder / "bars.csv", index=False)
        client.log_artifacts(parent, scratch, names.OUT_OF_SAMPLE_ARTIFACT)


def fold_metrics(pooled: Sequence[PooledAgent], fold: int) -> dict[str, float]:
    """Returns each agent's test KPIs on one fold, over its seeds."""
    found = {}
    for one in pooled:
        sharpes, returns = one.folds.mean(axis=1).to_dict(), one.fold_returns().to_dict()
        if fold in returns:
            found[f"test/{one.agent}/sharpe"] = sharpes[fold]
            found[f"test/{one.agent}/total_return"] = returns[fold]
    return found


def pooled_bars(pooled: Sequence[PooledAgent]) -> pd.DataFrame:
    """Returns a row a bar and agent: time, fold, the mean return over seeds."""
    parts = []
    for one in pooled:
        folds = one.returns.attrs["fold"].to_numpy()
        parts.append(pd.DataFrame({"agent": one.agent, "time": one.mean.index, "fold": folds, "return": one.mean}))
    return pd.concat(parts, ignore_index=True)


def _tested(agent: TrainedAgent, config: SweepConfig, market: Market) -> TrainedAgent:
    from drl_ray_tracking.models.loading import load_policy

    searched = {
        key.removeprefix(ENV_PREFIX): value for key, value in agent.params.items() if key.startswith(ENV_PREFIX)
    }
    done = backtest_agent(load_policy(str(agent.checkpoint)), config, market, "test", searched)
    metrics = {f"test/{key}": float(value) for key, value in done.kpis.items()}
    return replace(agent, test_metrics=metrics, episodes={**agent.episodes, "test": done.records})


def _market_of(agent: TrainedAgent, markets: Sequence[Market]) -> Market:
    for market in markets:
        if market.dataset.symbol == agent.symbol and market.dataset.fold == agent.fold:
            return market
    raise DataError(f"{agent.name} was trained on data that are not among the sweep's")


def _hold(records: Sequence[Any]) -> pd.Series[float] | None:
    parts = []
    for record in records:
        if record.price is None or record.timestamp is None:
            return None
        index = pd.to_datetime(record.timestamp[1:], unit="s")
        parts.append(pd.Series(record.price[1:] / record.price[:-1] - 1.0, index=index))
    return pd.concat(parts) if parts else None


def fold_runs(client: MlflowClient, parent: str) -> dict[int, str]:
    """Returns the runs of a sweep's folds, by fold."""
    run = client.get_run(parent)
    sweep = run.data.tags.get(names.TAG_SWEEP_ID, "")
    wanted = f"tags.`{names.TAG_ROLE}` = '{names.ROLE_FOLD}' and tags.`{names.TAG_SWEEP_ID}` = '{sweep}'"
    found = client.search_runs([run.info.experiment_id], wanted)
    return {int(one.data.tags[names.TAG_FOLD]): str(one.info.run_id) for one in found}


def log_metrics(client: MlflowClient, run_id: str, metrics: Mapping[str, float]) -> None:
    """Logs values at step 0; what is not finite is left out."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    finite = {names.legal_metric_name(key): names.finite(value) for key, value in metrics.items()}
    client.log_batch(run_id, metrics=[Metric(key, value, now, 0) for key, value in finite.items() if value is not None])
