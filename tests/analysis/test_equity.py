"""Bar returns of an evaluation: windows joined, costs as shares of equity, ruin, and what was not recorded."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from drl_ray_tracking.analysis.equity import bar_returns, evaluation_at


def evaluation(equity: list[list[float]], **columns: list[list[float]]) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {"episode": episode, "bar": np.arange(len(levels)), "equity": levels}
            | {name: values[episode] for name, values in {"price": [[1.0] * len(levels)] * 9, **columns}.items()}
        )
        for episode, levels in enumerate(equity)
    ]
    return pd.concat(parts, ignore_index=True)


def test_windows_are_joined_without_a_return_between_them(series: pd.DataFrame) -> None:
    found = bar_returns(evaluation_at(series))
    assert found.returns == pytest.approx(np.full(100, 0.01))
    assert found.hold == pytest.approx(np.full(100, -0.01))
    assert found.costs is None, "no fee was recorded"


def test_costs_are_shares_of_the_equity_before() -> None:
    nan = float("nan")
    found = bar_returns(evaluation([[100.0, 99.0, 99.0], [50.0, 49.5]], fee=[[nan, 1.0, 0.0], [nan, 0.5]]))
    assert found.returns == pytest.approx([-0.01, 0.0, -0.01])
    assert found.costs == pytest.approx([0.01, 0.0, 0.01])


def test_after_ruin_nothing_is_earned_and_nothing_paid() -> None:
    nan = float("nan")
    found = bar_returns(evaluation([[100.0, -5.0, 20.0, 30.0]], fee=[[nan, 1.0, 1.0, 1.0]]))
    assert found.returns.tolist() == [-1.0, 0.0, 0.0]
    assert found.costs == pytest.approx([0.01, 0.0, 0.0])


def test_holes_in_prices_or_fees_are_not_filled() -> None:
    nan = float("nan")
    found = bar_returns(evaluation([[1.0, 1.0, 1.0]], price=[[1.0, nan, 1.0]], fee=[[nan, nan, 0.0]]))
    assert found.hold is None and found.costs is None
