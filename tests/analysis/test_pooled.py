"""Pooled out-of-sample bars: each once, in time; what is concluded from them, and that noise is not accepted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from drl_ray_tracking.analysis.pooled import OutOfSample, fold_table, pool, pooled_table
from drl_ray_tracking.analysis.pooled_picture import pooled_equity
from drl_ray_tracking.analysis.selection import deflated_sharpe_ratio, skewness_and_kurtosis
from drl_ray_tracking.episodes.trading import sharpe_ratio
from drl_ray_tracking.errors import DataError

YEAR = {"a": 252.0, "b": 252.0}


def part(agent: str, seed: int, fold: int, *, mean: float = 0.0, begins: str | None = None) -> OutOfSample:
    rng = np.random.default_rng(1000 * seed + 10 * fold + len(agent))
    index = pd.date_range(begins or f"202{fold}-01-01", periods=100, freq="D")
    return OutOfSample(agent, seed, fold, pd.Series(rng.normal(mean, 0.01, 100), index=index))


def test_bars_are_unique_and_in_time_whatever_order_the_folds_come_in() -> None:
    parts = [part("a", seed, fold) for seed in (2, 1) for fold in (2, 0, 1)]
    (pooled,) = pool(parts, periods_per_year=YEAR)
    assert pooled.returns.shape == (300, 2)
    assert pooled.returns.index.is_unique and pooled.returns.index.is_monotonic_increasing
    assert list(pooled.returns.attrs["fold"]) == [0] * 100 + [1] * 100 + [2] * 100
    assert list(pooled.folds.index) == [0, 1, 2] and list(pooled.folds) == [1, 2]


def test_the_pooled_sharpe_ratio_is_that_of_all_bars_and_no_mean_of_folds() -> None:
    parts = [part("a", 1, fold, mean=0.002 * fold) for fold in (0, 1, 2)]
    (pooled,) = pool(parts, periods_per_year=YEAR)
    bars = np.concatenate([one.returns.to_numpy() for one in parts])
    assert pooled.kpis()["sharpe"] == pytest.approx(sharpe_ratio(bars, periods_per_year=252.0), rel=1e-12)
    assert pooled.kpis()["sharpe"] != pytest.approx(float(pooled.folds.to_numpy().mean()), rel=1e-3)
    assert pooled.kpis()["total_return"] == pytest.approx(float(np.prod(1 + bars) - 1), rel=1e-12)
    assert pooled.kpis()["bars"] == 300


def test_a_bar_in_two_test_windows_is_refused() -> None:
    with pytest.raises(DataError, match="is in two test windows"):
        pool([part("a", 1, 0), part("a", 1, 1, begins="2020-02-01")], periods_per_year=YEAR)


def test_folds_that_are_not_one_after_the_other_are_refused() -> None:
    with pytest.raises(DataError, match="not one after the other"):
        pool([part("a", 1, 0, begins="2023-01-01"), part("a", 1, 1)], periods_per_year=YEAR)


def test_seeds_with_other_bars_are_refused() -> None:
    with pytest.raises(DataError, match="seed 2 has 100 out-of-sample bars, others have 200"):
        pool([part("a", 1, 0), part("a", 1, 1), part("a", 2, 0)], periods_per_year=YEAR)
    with pytest.raises(DataError, match="no out-of-sample bars"):
        pool([], periods_per_year=YEAR)


def test_an_edge_is_accepted_and_noise_is_not() -> None:
    skilled = [part("a", 1, fold, mean=0.004) for fold in range(3)]
    noise = [part("b", 1, fold) for fold in range(3)]
    best, other = pool([*noise, *skilled], periods_per_year=YEAR)
    assert (best.agent, other.agent) == ("a", "b")
    assert best.accepted and best.verdict().startswith("accepted: 300 unique out-of-sample bars")
    assert not other.accepted and other.verdict().startswith("not accepted")
    assert "luck of 2 tries" in best.verdict()
    (alone,) = pool(skilled, periods_per_year=YEAR)
    assert alone.deflated is not None and best.deflated is not None and best.deflated < alone.deflated


def test_returns_that_do_not_vary_decide_nothing() -> None:
    index = pd.date_range("2020-01-01", periods=10, freq="D")
    (pooled,) = pool([OutOfSample("a", 1, 0, pd.Series(0.0, index=index))], periods_per_year=YEAR)
    assert pooled.verdict().startswith("undecided") and not pooled.accepted
    assert "sharpe" not in pooled.kpis()


def test_tables_and_picture_have_every_agent() -> None:
    pooled = pool([part(agent, seed, fold) for agent in "ab" for seed in (1, 2) for fold in (0, 1)],
                  periods_per_year=YEAR)  # fmt: skip
    assert set(pooled_table(pooled)["agent"]) == {"a", "b"}
    assert len(fold_table(pooled)) == 2 * 2 * 2
    texts = {text.get_text().split()[0] for axes in pooled_equity(pooled).axes for text in axes.texts}
    assert {"a", "b"} <= texts


def test_an_agent_that_never_traded_is_a_candidate_with_a_ratio_of_zero() -> None:
    index = pd.date_range("2020-01-01", periods=200, freq="D")
    moving = pd.Series(np.random.default_rng(1).normal(0.0018, 0.01, 200), index=index)
    idle = OutOfSample("b", 1, 0, pd.Series(0.0, index=index))
    best, other = pool([OutOfSample("a", 1, 0, moving), idle], periods_per_year=YEAR)
    values = moving.to_numpy()
    sharpe = sharpe_ratio(values, periods_per_year=1.0)
    shape = skewness_and_kurtosis(values)
    assert best.deflated == deflated_sharpe_ratio(sharpe, 200, *shape, 2, float(np.var([sharpe, 0.0], ddof=1)))
    assert other.deflated is None


def test_the_worst_seed_is_one_with_a_ratio_whatever_the_order() -> None:
    moving = part("a", 1, 0).returns
    idle = pd.Series(0.0, index=moving.index)
    for first, second in ((idle, moving), (moving, idle)):
        (pooled,) = pool([OutOfSample("a", 1, 0, first), OutOfSample("a", 2, 0, second)], periods_per_year=YEAR)
        known = sharpe_ratio(moving.to_numpy(), periods_per_year=252.0)
        assert pooled.kpis()["sharpe_worst_seed"] == pooled.kpis()["sharpe_best_seed"] == known
