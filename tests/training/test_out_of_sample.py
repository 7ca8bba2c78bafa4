"""Looks at test bars: counted whatever the window is called, and what their verdict corrects for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from pyarrow.fs import LocalFileSystem
from rich.console import Console

from drl_ray_tracking import names
from drl_ray_tracking.analysis.budget import WindowBars, count_test_evaluation
from drl_ray_tracking.analysis.budget import test_budget as spent
from drl_ray_tracking.episodes import Conventions, EpisodeRecord
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.markets.data import load_prices, price_series
from drl_ray_tracking.markets.datasets import SplitDataSet
from drl_ray_tracking.markets.splits import chronological_split
from drl_ray_tracking.training import rllib_service
from drl_ray_tracking.training.config import SweepConfig, parse_config
from drl_ray_tracking.training.ensemble_runs import _weights, ensemble_agents
from drl_ray_tracking.training.market import Market
from drl_ray_tracking.training.out_of_sample import best_of_each_cell, count_look, pooled_agents
from drl_ray_tracking.training.service import TrainedAgent
from drl_ray_tracking.training.sweep import SweepOutcome
from drl_ray_tracking.training.trained import trained_agents

pytestmark = pytest.mark.mlflow


def configured(**changes: Any) -> SweepConfig:
    given = {
        "experiment": "looks",
        "data": {"source": "gym_anytrading:GOOGL"},
        "agents": [{"algorithm": "PPO"}],
        "stop": {"training_iteration": 1},
        "test": True,
    }
    return parse_config({**given, **changes}, "here")


def googl(symbol: str = "GOOGL", embargo: int = 0) -> SplitDataSet:
    prices = load_prices("gym_anytrading:GOOGL")
    named = replace(prices, symbol=symbol)
    return chronological_split(named, embargo=embargo)


def agent_of(dataset: SplitDataSet, seed: int = 1, mean: float = 0.0, **changes: Any) -> TrainedAgent:
    stamps = dataset.test.index.astype("int64").to_numpy() / 1e9
    steps = np.random.default_rng(seed).normal(mean, 0.01, len(stamps) - 1)
    record = EpisodeRecord(
        episode_return=0.0,
        length=len(steps),
        truncated=True,
        equity=np.concatenate([[1.0], np.cumprod(1.0 + steps)]),
        timestamp=stamps,
        conventions=Conventions(periods_per_year=252.0),
    )
    agent = TrainedAgent(
        f"ppo-{dataset.symbol}-s{seed}", "PPO", (dataset.symbol,), seed, checkpoint="c",
        episodes={"test": (record,)}, test_metrics={"test/trading/sharpe": 1.0}, tags={names.TAG_AGENT: "ppo"},
    )  # fmt: skip
    return replace(agent, **changes)


@pytest.fixture
def store(sqlite_store: Callable[[], str]) -> str:
    uri = sqlite_store()
    MlflowClient(uri).create_experiment("looks")
    return uri


def test_another_embargo_or_name_makes_no_fresh_test_window(store: str) -> None:
    assert count_look(store, "looks", Market.of(googl()), "a") == 1
    assert count_look(store, "looks", Market.of(googl(embargo=1)), "b") == 2
    assert count_look(store, "looks", Market.of(googl("ALPHABET")), "c") == 3
    other = load_prices("gym_anytrading:EURUSD")
    assert count_look(store, "looks", Market.of(chronological_split(other)), "d") == 1


def test_windows_that_only_touch_are_two(store: str) -> None:
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("looks").experiment_id
    for window, bars in (("a", WindowBars("d", 0, 10)), ("b", WindowBars("d", 10, 20)), ("c", WindowBars("e", 0, 10))):
        assert count_test_evaluation(client, experiment, window, what="x", time_ms=0, bars=bars) == 1
    assert count_test_evaluation(client, experiment, "d", what="x", time_ms=0, bars=WindowBars("d", 9, 11)) == 3
    assert spent(client, experiment)["a"].bars == WindowBars("d", 0, 10)


def test_the_verdict_corrects_for_earlier_looks(store: str) -> None:
    dataset, config = googl(), configured()
    market = Market.of(dataset)
    for seed in (1, 2):
        count_look(store, "looks", market, "ppo")
        other = agent_of(dataset, seed, mean=0.002, tags={names.TAG_AGENT: "dqn"})
    agents = [agent_of(dataset, 1, mean=0.003), other]
    before = pooled_agents(agents, config, [market], tracking_uri=store)
    for _ in range(40):
        count_look(store, "looks", market, "earlier")
    after = pooled_agents(agents, config, [market], tracking_uri=store)
    assert before[0].compared == 2 and after[0].compared == 42
    assert before[0].deflated is not None and after[0].deflated is not None
    assert after[0].deflated < before[0].deflated


def test_one_agent_on_bars_that_were_often_looked_at_cannot_be_judged_without_tries(store: str) -> None:
    dataset = googl()
    market = Market.of(dataset)
    count_look(store, "looks", market, "ppo")
    (first,) = pooled_agents([agent_of(dataset)], configured(), [market], tracking_uri=store)
    assert first.deflated is not None, "one look chooses nothing"
    count_look(store, "looks", market, "ppo")
    (second,) = pooled_agents([agent_of(dataset)], configured(), [market], tracking_uri=store)
    assert second.deflated is None and not second.accepted
    assert "looked at 2 times, and how tries vary is not known" in second.verdict()


def test_symbols_given_in_code_are_pooled_each_for_itself(store: str) -> None:
    frame = (
        load_prices("gym_anytrading:GOOGL").frame.iloc[::-1].set_axis(load_prices("gym_anytrading:GOOGL").frame.index)
    )
    other = price_series(frame, symbol="MIRROR", source="x", timeframe="1d", periods_per_year=252)
    datasets = [googl(), chronological_split(other)]
    markets = [Market.of(dataset) for dataset in datasets]
    pooled = pooled_agents([agent_of(one) for one in datasets], configured(), markets, tracking_uri=store)
    assert {one.agent for one in pooled} == {"ppo-GOOGL", "ppo-MIRROR"}


def test_agents_own_test_metrics_are_published_though_nothing_can_be_pooled(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, dataset = MlflowClient(store), googl()
    run_id = client.create_run(client.get_experiment_by_name("looks").experiment_id).info.run_id
    agent = agent_of(dataset, run_id=run_id, episodes={})
    monkeypatch.setattr(rllib_service, "test_agents", lambda agents, *given, **more: tuple(agents))
    outcome = SweepOutcome("looks", store, ("s",), ("r",), 1, (), True, agents=(agent,))
    rllib_service.after_training(outcome, configured(), [Market.of(dataset)], Console(quiet=True))
    assert client.get_run(run_id).data.metrics == {"test/trading/sharpe": 1.0}


def test_an_ensemble_that_cannot_be_made_is_a_note() -> None:
    said: list[str] = []
    config = configured(ensembles=[{"vote": "majority"}], test=False)
    made = ensemble_agents([], config, [Market.of(googl())], tracking_uri="sqlite:////nowhere/x.db", say=said.append)
    assert made == [] and "0 of its agents have trained, two are needed" in said[0]


def test_what_is_to_be_small_weighs_by_how_small_it_is() -> None:
    config = configured(objective={"metric": "eval/trading/sharpe", "mode": "min"})
    members = [agent_of(googl(), seed, metrics={"eval/trading/sharpe": value}) for seed, value in ((1, -3.0), (2, 2.0))]
    assert _weights(members, config.objective) == (3.0, 0.0)


def test_the_best_of_a_cell_is_chosen_by_a_training_metric_where_that_is_the_objective() -> None:
    config = configured(objective={"metric": "train/episode/return_mean"})

    def result(value: float) -> Any:
        metrics = {"trial_id": f"t{value}", "env_runners": {"episode": {"return_mean": value}}}
        given = {"seed": 1, "env_config": {}}
        return SimpleNamespace(
            config=given, metrics=metrics, error=None, path="/nowhere", filesystem=LocalFileSystem(),
            best_checkpoints=[(SimpleNamespace(filesystem=None, path="/c"), metrics)], checkpoint=None,
        )  # fmt: skip

    agents = trained_agents([result(1.0), result(2.0)], config, {})
    (best,) = best_of_each_cell(agents, config)
    assert best.tags[names.TAG_TRIAL_ID] == "t2.0"


def test_code_that_gives_one_seed_to_an_ensemble_is_refused_before_training() -> None:
    service = rllib_service.RLlibAgentTrainingService(
        ["PPO"], experiment="looks", stop={"training_iteration": 1}, ensembles=[{"vote": "mean"}]
    )
    with pytest.raises(ConfigurationError, match="has 1 member"):
        service.create_env_and_train_agents([googl()], seeds=(1,))
