"""RLlib behind the port: data sets in, trained agents out, as one sweep, from bars in the object store."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from mlflow.tracking import MlflowClient

from drl_ray_tracking import names
from drl_ray_tracking.analysis.budget import test_budget as spent
from drl_ray_tracking.errors import ConfigurationError, DataError
from drl_ray_tracking.markets.data import load_prices
from drl_ray_tracking.markets.datasets import MarketSegment, market_segment
from drl_ray_tracking.markets.shared import SharedSegment, share
from drl_ray_tracking.markets.splits import chronological_split, walk_forward_folds
from drl_ray_tracking.training import AgentTrainingService, RLlibAgentTrainingService, SplitDataSet, TrainingOutcome
from drl_ray_tracking.training.market import test_window as window_of_test

pytestmark = [pytest.mark.ray, pytest.mark.mlflow]
trains = pytest.mark.scenarios
PPO = {
    "algorithm": "PPO",
    "training": {"train_batch_size": 200, "minibatch_size": 100, "num_epochs": 1},
    "model": {"fcnet_hiddens": [8]},
}


def service(folder: Path, uri: str, **more: Any) -> RLlibAgentTrainingService:
    given: dict[str, Any] = {
        "env": {"window": 100},
        "tracking": {"uri": uri, "system_metrics": False},
        "storage": str(folder / "results"),
    }
    return RLlibAgentTrainingService(
        [PPO], experiment="service", stop={"training_iteration": 1}, base_dir=folder, **{**given, **more}
    )


@dataclass(frozen=True)
class Done:
    """What one training through the port left."""

    datasets: tuple[SplitDataSet, ...]
    outcome: TrainingOutcome
    client: MlflowClient
    uri: str


@pytest.fixture(scope="module")
def done(ray_session: None, tmp_path_factory: pytest.TempPathFactory, _empty_database: Path) -> Iterator[Done]:
    folder = tmp_path_factory.mktemp("service")
    before = os.environ.get("DRL_TRACK_HOME")
    os.environ["DRL_TRACK_HOME"] = str(folder / "home")
    uri = f"sqlite:///{folder}/mlflow.db"
    prices = load_prices("gym_anytrading:GOOGL")
    datasets = walk_forward_folds(
        prices, n_folds=2, train_bars=600, validation_bars=200, test_bars=200, embargo=5, mode="anchored"
    )
    port: AgentTrainingService = service(folder, uri)
    outcome = port.create_env_and_train_agents(datasets, seeds=(1, 2), test=True)
    yield Done(datasets, outcome, MlflowClient(uri), uri)
    if before is None:
        del os.environ["DRL_TRACK_HOME"]
    else:
        os.environ["DRL_TRACK_HOME"] = before


@trains
def test_an_agent_for_each_data_set_and_seed_in_one_sweep(done: Done) -> None:
    outcome = done.outcome
    assert not outcome.errors and outcome.delivered
    assert sorted((agent.fold, agent.seed) for agent in outcome.agents) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert len(outcome.sweep_ids) == len(outcome.run_ids) == len(outcome.result_paths) == 1
    names_of = [agent.name for agent in outcome.agents]
    assert sorted(names_of) == ["ppo-GOOGL-f0-s1", "ppo-GOOGL-f0-s2", "ppo-GOOGL-f1-s1", "ppo-GOOGL-f1-s2"]
    assert all(Path(str(agent.checkpoint)).is_dir() for agent in outcome.agents)


@trains
def test_agents_carry_their_validation_metrics_and_the_very_bars_they_come_from(done: Done) -> None:
    for agent in done.outcome.agents:
        assert agent.fold is not None
        validation = done.datasets[agent.fold].validation
        returns = agent.returns("validation")
        assert list(returns.index) == list(validation.index[1:])
        total = float(np.prod(1.0 + returns.to_numpy()) - 1.0)
        assert agent.metrics["eval/trading/total_return"] == pytest.approx(total, rel=1e-9, abs=1e-12)
        run = done.client.get_run(str(agent.run_id))
        assert run.data.metrics["eval/trading/total_return"] == agent.metrics["eval/trading/total_return"]
        assert run.data.tags[names.TAG_SEED] == str(agent.seed)


@trains
def test_the_test_bars_were_run_once_for_each_agent_and_every_look_counts(done: Done) -> None:
    looks = spent(done.client, done.client.get_experiment_by_name("service").experiment_id)
    windows = {window_of_test(dataset)[0] for dataset in done.datasets}
    assert {window: found.count for window, found in looks.items()} == dict.fromkeys(windows, 2)
    for agent in done.outcome.agents:
        assert agent.fold is not None
        assert list(agent.returns("test").index) == list(done.datasets[agent.fold].test.index[1:])
        assert math.isfinite(agent.test_metrics["test/trading/total_return"])
    parent = done.client.get_run(done.outcome.run_ids[0])
    assert f"{2 * 199} unique out-of-sample bars" in parent.data.tags[f"{names.TAG_VERDICT}.ppo"]
    assert "out_of_sample" in {item.path for item in done.client.list_artifacts(parent.info.run_id)}


@trains
def test_without_being_asked_nobody_looks_at_the_test_bars(done: Done, tmp_path: Path) -> None:
    before = done.client.get_experiment_by_name("service").tags
    outcome = service(tmp_path, done.uri).create_env_and_train_agents(done.datasets[:1])
    assert [agent.test_metrics for agent in outcome.agents] == [{}]
    assert done.client.get_experiment_by_name("service").tags == before


@trains
def test_training_goes_on_from_an_agent(done: Done, tmp_path: Path) -> None:
    parent = next(agent for agent in done.outcome.agents if (agent.fold, agent.seed) == (1, 1))
    # With a learning rate of zero the first evaluation is that of the weights it began with.
    frozen = {**PPO, "training": {**PPO["training"], "lr": 0.0}}  # type: ignore[dict-item]
    port = RLlibAgentTrainingService(
        [frozen], experiment="service", stop={"training_iteration": 1}, base_dir=tmp_path, env={"window": 100},
        tracking={"uri": done.uri, "system_metrics": False}, storage=str(tmp_path / "results"),
    )  # fmt: skip
    (agent,) = port.create_env_and_train_agents(done.datasets[1:], start_from=parent.checkpoint).agents
    assert agent.metrics["eval/trading/total_return"] == parent.metrics["eval/trading/total_return"]
    assert done.client.get_run(str(agent.run_id)).data.tags[names.TAG_CONTINUED_FROM] == parent.checkpoint


def test_bars_lie_in_the_object_store_once_and_are_read_in_place(ray_session: None) -> None:
    segment = market_segment(chronological_split(load_prices("gym_anytrading:GOOGL")), "train")
    first, second = share(segment, {"a": "1"}), share(segment, {"a": "2"})
    assert first.key == second.key and first.tags != second.tags
    assert len(repr(first)) < 120

    @ray.remote
    def look(shared: SharedSegment) -> tuple[int, float, bool]:
        found: MarketSegment = shared.open()
        return len(found), float(found.price.sum()), found.price.flags.owndata

    bars, total, copied = ray.get(look.remote(first))
    assert (bars, total) == (len(segment), float(segment.price.sum()))
    assert not copied, "a view of the object store"
    with pytest.raises(DataError, match="not in the object store"):
        SharedSegment("0" * 64, "X", "train", "single", 3).open()


def test_unknown_algorithms_are_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'PPPO' \(did you mean 'PPO'\?\).*RLlib has APPO.*DQN.*IMPALA.*SAC"):
        RLlibAgentTrainingService(["PPPO", "DQN"], experiment="e", stop={"training_iteration": 1})


def test_data_sets_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    dataset = chronological_split(load_prices("gym_anytrading:GOOGL"))
    port = service(tmp_path, "sqlite:////nowhere/mlflow.db")
    with pytest.raises(ConfigurationError, match="repeat a symbol and fold"):
        port.create_env_and_train_agents([dataset, dataset])
    with pytest.raises(ConfigurationError, match="datasets is empty"):
        port.create_env_and_train_agents([])
