"""Ensembles: what each vote decides, what is refused, and that one runs through a backtest like an agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drl_ray_tracking.errors import ConfigurationError, TrackingError
from drl_ray_tracking.markets.data import load_prices
from drl_ray_tracking.markets.datasets import market_segment
from drl_ray_tracking.markets.env import TradingEnv
from drl_ray_tracking.markets.splits import chronological_split
from drl_ray_tracking.models.backtest import Backtest, backtest_env
from drl_ray_tracking.training.ensemble import Ensemble, decided


@dataclass(frozen=True)
class Always:
    """Does one thing, in every slot."""

    action: Any

    def play(self, slots: int = 1) -> Always:
        return self

    def act(self, observations: Sequence[Any], rewards: Sequence[float] | None = None) -> list[Any]:
        return [self.action] * len(observations)


def whole(*votes: int) -> list[Any]:
    return [np.int64(vote) for vote in votes]


@pytest.mark.parametrize(
    ("votes", "weights", "majority", "weighted", "mean"),
    [
        ((0, 2, 2), (1.0, 1.0, 1.0), 2, 2, 1),
        ((0, 2, 2), (5.0, 1.0, 1.0), 2, 0, 1),
        ((1, 0), (1.0, 1.0), 1, 1, 0),  # equal: the first member's; half way: the lower
        ((0, 1, 2), (0.0, 0.0, 1.0), 0, 2, 2),
        ((0, 0, 2, 2), (0.1, 0.2, 0.15, 0.15), 0, 0, 1),
    ],
)
def test_each_vote_decides_as_it_says(
    votes: tuple[int, ...], weights: tuple[float, ...], majority: int, weighted: int, mean: int
) -> None:
    equal = (1.0,) * len(votes)
    assert decided("majority", whole(*votes), equal) == majority
    assert decided("weighted", whole(*votes), weights) == weighted
    assert decided("mean", whole(*votes), weights) == mean


def test_continuous_actions_are_averaged_and_know_no_majority() -> None:
    votes = [np.array([0.5, -1.0], np.float32), np.array([-0.5, 0.0], np.float32)]
    mean = decided("mean", votes, (3.0, 1.0))
    np.testing.assert_allclose(mean, [0.25, -0.75])
    assert mean.dtype == np.float32
    with pytest.raises(TrackingError, match="vote='mean'"):
        decided("majority", votes, (1.0, 1.0))


@given(st.lists(st.integers(0, 4), min_size=2, max_size=7), st.integers(0, 4))
def test_members_that_agree_are_followed_by_every_vote(others: list[int], same: int) -> None:
    agreeing = whole(*([same] * len(others)))
    weights = tuple(1.0 + index for index in range(len(others)))
    assert all(decided(vote, agreeing, weights) == same for vote in ("majority", "weighted", "mean"))  # type: ignore[arg-type]
    assert min(others) <= decided("mean", whole(*others), weights) <= max(others)
    assert decided("majority", whole(*others), (1.0,) * len(others)) in others


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Ensemble((Always(0),), vote="loudest", weights=(1.0, -1.0))  # type: ignore[arg-type]
    said = str(caught.value)
    for part in ("at least 2", "majority, weighted, mean", "2 weights were given for 1 members", "not all 0"):
        assert part in said
    with pytest.raises(ConfigurationError, match="'weighted' needs weights"):
        Ensemble((Always(0), Always(1)), vote="weighted")
    with pytest.raises(ConfigurationError, match="takes no weights"):
        Ensemble((Always(0), Always(1)), weights=(1.0, 1.0))


def test_an_ensemble_is_backtested_like_an_agent() -> None:
    segment = market_segment(chronological_split(load_prices("gym_anytrading:GOOGL")), "validation")
    env = {"segments": [segment], "positions": [0, 1], "allow_short": False, "start": "enumerate"}

    def backtest(policy: Any) -> Backtest:
        return backtest_env(policy, lambda: TradingEnv(env), windows=TradingEnv.number_of_windows(env))

    out, held = (backtest(Always(np.int64(action))) for action in (0, 1))
    members = tuple(Always(np.int64(action)) for action in (0, 1, 1))
    majority = backtest(Ensemble(members))
    outweighed = backtest(Ensemble(members, "weighted", (5.0, 1.0, 1.0)))
    assert dict(majority.kpis) == dict(held.kpis)
    assert dict(outweighed.kpis) == dict(out.kpis)
    assert held.kpis["trading/total_return"] != out.kpis["trading/total_return"]
