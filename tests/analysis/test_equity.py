"""Bar returns of an evaluation: windows joined, costs as shares of equity, ruin, and what was not recorded."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from drl_ray_tracking.analysis import return_pictures
from drl_ray_tracking.analysis.bars import bars_of
from drl_ray_tracking.analysis.equity import bar_returns, equity_curves, evaluation_at
from drl_ray_tracking.analysis.trace import trace_of
from drl_ray_tracking.episodes.trading import simple_returns
from drl_ray_tracking.errors import DataError


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


NAN, INF = float("nan"), float("inf")
PATHS = {
    "a gap carries its move": [100.0, NAN, 80.0, 80.0],
    "a long gap": [100.0, NAN, NAN, 50.0, 51.0],
    "no first mark": [NAN, 100.0, 110.0, 99.0],
    "a gap at the end": [100.0, 90.0, NAN],
    "ruin, and ever deeper": [100.0, 50.0, -5.0, -10.0, -20.0],
    "infinite is ruin": [100.0, 110.0, INF, 100.0],
    "ruin behind a gap": [100.0, NAN, 0.0, 3.0],
}


@pytest.mark.parametrize("equity", PATHS.values(), ids=PATHS)
def test_bars_are_those_of_the_kpis(equity: list[float]) -> None:
    kpi = simple_returns(equity)
    kpi = kpi[~np.isnan(kpi)]
    bars = bars_of(np.array(equity))
    np.testing.assert_array_equal(bars.returns[: bars.counted], kpi)
    assert not bars.returns[bars.counted :].any(), "nothing is earned after a ruin"
    ruined = bars.counted < len(bars.returns) or bars.returns[-1] == -1.0
    known = [level for level in equity if not np.isnan(level)]
    total = -1.0 if ruined else known[-1] / known[0] - 1.0
    np.testing.assert_array_equal(bar_returns(evaluation([equity])).returns, bars.returns)
    (curve,) = equity_curves(evaluation([equity], timestamp=[[0.0] * len(equity)]).assign(symbol="S"))
    assert len(curve.growth) == len(equity) and curve.growth[-1] - 1.0 == pytest.approx(total)
    assert np.prod(1.0 + bars.returns) - 1.0 == pytest.approx(total)
    if equity[0] > 0.0:
        one = evaluation([equity], timestamp=[[0.0] * len(equity)], position=[[1.0] * len(equity)]).assign(step=1)
        assert trace_of(one).total_return == pytest.approx(total)
        np.testing.assert_array_equal(return_pictures._bar_returns(one)[0], kpi)


def test_a_bar_over_a_gap_has_all_its_costs_and_all_of_the_market() -> None:
    prices, fees = [[1.0, 5.0, 2.0, 2.0]], [[NAN, 1.0, 2.0, 0.0]]
    found = bar_returns(evaluation([[100.0, NAN, 80.0, 80.0]], price=prices, fee=fees))
    assert found.returns == pytest.approx([-0.2, 0.0])
    assert found.costs == pytest.approx([0.03, 0.0])
    assert found.hold == pytest.approx([1.0, 0.0])


def test_a_window_that_starts_without_equity_is_refused() -> None:
    with pytest.raises(DataError, match="must start with an equity above zero but starts with -1"):
        equity_curves(evaluation([[-1.0, 1.0]], timestamp=[[0.0, 1.0]]).assign(symbol="S"))
