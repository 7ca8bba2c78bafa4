"""The port: what every training service takes and gives back, and the adapter for bare containers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from drl_ray_tracking.episodes import EpisodeRecord
from drl_ray_tracking.errors import ConfigurationError, DataError
from drl_ray_tracking.training import (
    AgentTrainingService,
    SplitDataSet,
    TrainedAgent,
    TrainingOutcome,
    split_data_set,
)


@dataclass
class Container:
    """As existing services of the field pass it."""

    training_data: pd.DataFrame
    validation_data: pd.DataFrame
    test_data: object


def frame(start: str, bars: int) -> pd.DataFrame:
    index = pd.date_range(start, periods=bars, freq="D")
    return pd.DataFrame({"Close": np.linspace(1.0, 2.0, bars), "feature_a": np.zeros(bars)}, index=index)


def container() -> Container:
    return Container(frame("2020-01-01", 20), frame("2020-03-01", 10), frame("2020-05-01", 10))


def adapted(fold: int | None = None) -> SplitDataSet:
    return split_data_set(container(), symbol="X", timeframe="1d", periods_per_year=252, fold=fold)


def test_a_bare_container_becomes_a_data_set_with_all_labels() -> None:
    dataset = adapted(fold=2)
    assert (dataset.symbol, dataset.timeframe, dataset.periods_per_year, dataset.fold) == ("X", "1d", 252, 2)
    assert "close" in dataset.training.columns
    assert len(dataset.data_digest) == 64
    assert dataset.data_digest == adapted().data_digest
    changed = container()
    changed.validation_data.iloc[3, 0] += 1e-9
    other = split_data_set(changed, symbol="X", timeframe="1d", periods_per_year=252)
    assert other.data_digest != dataset.data_digest


def test_a_container_without_a_piece_is_refused_by_the_names_looked_for() -> None:
    lacking = container()
    lacking.test_data = None
    with pytest.raises(ConfigurationError, match="`test_data` or `test`"):
        split_data_set(lacking, symbol="X", timeframe="1d", periods_per_year=252)


def test_pieces_that_overlap_are_refused() -> None:
    overlapping = container()
    overlapping.validation_data = frame("2020-01-10", 10)
    with pytest.raises(DataError, match="not before validation"):
        split_data_set(overlapping, symbol="X", timeframe="1d", periods_per_year=252)


def agent(name: str, **values: object) -> TrainedAgent:
    given: dict[str, object] = {"algorithm": "PPO", "symbols": ("X",), "seed": 1, **values}
    return TrainedAgent(name, **given)  # type: ignore[arg-type]


def test_the_best_is_among_those_that_trained() -> None:
    outcome = TrainingOutcome(
        (
            agent("a", metrics={"eval/trading/sharpe": 1.0}),
            agent("b", metrics={"eval/trading/sharpe": 3.0}, error="died"),
            agent("c", metrics={"eval/trading/sharpe": 2.0}),
        )
    )
    assert outcome.best().name == "c"
    assert outcome.best(mode="min").name == "a"
    assert list(outcome.to_frame()["name"]) == ["a", "b", "c"]
    with pytest.raises(DataError, match="they have eval/trading/sharpe"):
        outcome.best("eval/trading/sortino")


def test_returns_are_those_of_the_equity_and_carry_their_bars_times() -> None:
    record = EpisodeRecord(0.0, 2, equity=np.array([100.0, 110.0, 99.0]), timestamp=np.array([0.0, 60.0, 120.0]))
    returns = agent("a", episodes={"validation": (record,)}).returns()
    np.testing.assert_allclose(returns.to_numpy(), [0.1, -0.1])
    assert list(returns.index) == [pd.Timestamp(60, unit="s"), pd.Timestamp(120, unit="s")]
    with pytest.raises(DataError, match="no test episodes"):
        agent("a", episodes={"validation": (record,)}).returns("test")


def test_returns_over_gaps_and_after_a_ruin_are_those_of_the_kpis() -> None:
    stamps = np.arange(5) * 60.0
    gap = EpisodeRecord(0.0, 4, equity=np.array([100.0, np.nan, 80.0, 80.0, 40.0]), timestamp=stamps)
    ruin = EpisodeRecord(0.0, 4, equity=np.array([100.0, 110.0, -5.0, -10.0, -20.0]), timestamp=stamps)
    returns = agent("a", episodes={"validation": (gap,)}).returns()
    np.testing.assert_allclose(returns.to_numpy(), [-0.2, 0.0, -0.5])
    assert returns.index[0] == pd.Timestamp(120, unit="s")
    fallen = agent("a", episodes={"validation": (ruin,)}).returns()
    np.testing.assert_allclose(fallen.to_numpy(), [0.1, -1.0, 0.0, 0.0])


def test_a_class_with_the_method_is_a_service() -> None:
    class Mine:
        def create_env_and_train_agents(
            self,
            datasets: Sequence[SplitDataSet],
            *,
            seeds: Sequence[int] = (1,),
            start_from: str | None = None,
            test: bool = False,
        ) -> TrainingOutcome:
            return TrainingOutcome(
                tuple(agent(f"{item.symbol}-{seed}", seed=seed) for item in datasets for seed in seeds)
            )

    service: AgentTrainingService = Mine()
    assert isinstance(service, AgentTrainingService)
    assert len(service.create_env_and_train_agents([adapted()], seeds=(1, 2)).agents) == 2
