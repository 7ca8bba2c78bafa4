"""What the pictures show: the right curves at the right places, and users' text as text."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from drl_ray_tracking.analysis.canvas import apart
from drl_ray_tracking.analysis.compare import compare
from drl_ray_tracking.analysis.curves import over_seeds
from drl_ray_tracking.analysis.equity import equity_curves, evaluation_at
from drl_ray_tracking.analysis.palette import COLOURS
from drl_ray_tracking.analysis.plots import equity_curve, learning_curves
from drl_ray_tracking.errors import DataError

HOSTILE = "<img src=x onerror=alert(1)> $\\frac{$ | ünï 🦄\n漢字"


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _texts(figure: Any) -> str:
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    return "\n".join([*found, *(text.get_text() for text in figure.texts)])


def test_a_group_is_its_mean_a_band_and_its_seeds(make_runs: Any) -> None:
    runs = make_runs([{"history": [(0, 0.0), (100, 2.0)]}, {"history": [(0, 2.0), (50, 2.0), (100, 4.0)]}])
    figure = learning_curves(runs, compare(runs))
    axes = figure.axes[0]
    mean = [line for line in axes.lines if line.get_linewidth() > 2]
    assert [line.get_ydata().tolist() for line in mean] == [[1.0, 1.5, 3.0]]
    assert sum(line.get_linewidth() == 0.8 and len(line.get_xdata()) > 1 for line in axes.lines) >= 2
    assert len(axes.collections) == 1 and "2 seeds" in _texts(figure)
    assert _png(figure) == _png(learning_curves(runs, compare(runs)))


def test_more_groups_than_colours_are_grey_and_counted(make_runs: Any) -> None:
    runs = make_runs([{"config_hash": f"{index}hash", "history": [(1, index), (2, index)]} for index in range(9)])
    figure = learning_curves(runs, compare(runs))
    wide = [to_hex(line.get_color()).upper() for line in figure.axes[0].lines if line.get_linewidth() > 2]
    assert wide == list(COLOURS)
    assert "grey: 3 more groups" in _texts(figure)


@pytest.mark.parametrize("history", [[(100, 1.0)], [(100, 0.0), (200, 0.0)]])
def test_one_point_and_a_flat_curve_can_be_drawn(make_runs: Any, history: list[tuple[int, float]]) -> None:
    runs = make_runs([{"history": history}])
    assert _png(learning_curves(runs, compare(runs)))


def test_seeds_are_averaged_only_where_all_of_them_are() -> None:
    shared = over_seeds([pd.Series([0.0, 10.0], [0, 100]), pd.Series([4.0, 4.0, 4.0], [50, 75, 200])])
    assert shared.steps.tolist() == [50, 75, 100]
    assert shared.mean.tolist() == [4.5, 5.75, 7.0]
    assert (shared.low.tolist(), shared.high.tolist()) == ([4.0, 4.0, 4.0], [5.0, 7.5, 10.0])
    apart = over_seeds([pd.Series([1.0], [5]), pd.Series([2.0, 3.0], [10, 20])])
    assert apart.steps.tolist() == [10, 20] and apart.mean.tolist() == [2.0, 3.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6).map(sorted))
def test_labels_keep_their_distance_and_their_order(shares: list[float]) -> None:
    placed = apart(shares, 0.1)
    assert all(upper - lower >= 0.1 - 1e-9 for lower, upper in pairwise(placed))
    assert placed[-1] <= max(1.0, shares[-1]) + 1e-9


def test_consecutive_windows_are_chained(series: pd.DataFrame) -> None:
    (curve,) = equity_curves(evaluation_at(series))
    assert curve.dated and curve.joints == (51,) and len(curve.x) == 102
    assert curve.growth[-1] == pytest.approx(1.01**100)
    assert curve.hold_growth is not None and curve.hold_growth[-1] == pytest.approx(0.99**100)
    assert curve.drawdown.max() == 0.0
    (first,) = equity_curves(evaluation_at(series, 1000))
    assert set(first.growth) == {1.0}


def test_windows_that_overlap_in_time_are_joined_by_bars(series: pd.DataFrame) -> None:
    series["timestamp"] = 1.5e9 + 86400.0 * series["bar"]
    (curve,) = equity_curves(evaluation_at(series))
    assert not curve.dated and curve.x.tolist() == list(range(102))


@pytest.mark.parametrize(
    ("stamps", "dated"), [("2020-01-0{}", True), ("0{}.01.2020", False), (float("nan"), False), (12.0, False)]
)
def test_times_are_used_only_where_they_are_certain(series: pd.DataFrame, stamps: Any, dated: bool) -> None:
    bars = evaluation_at(series[series["episode"] == 0]).head(9).copy()
    text = isinstance(stamps, str)
    bars["timestamp"] = [stamps.format(bar + 1) for bar in bars["bar"]] if text else stamps
    assert equity_curves(bars)[0].dated is dated


def test_ruin_is_for_good_and_drawdown_is_whole(series: pd.DataFrame) -> None:
    bars = evaluation_at(series).reset_index(drop=True)
    bars.loc[10, "equity"] = -5.0
    (curve,) = equity_curves(bars)
    assert np.all(curve.growth[10:] == 0.0) and np.all(curve.drawdown[10:] == 1.0)
    bars.loc[0, "equity"] = 0.0
    with pytest.raises(DataError, match="must start with an equity above zero but starts with 0"):
        equity_curves(bars)


def test_the_equity_picture_says_what_it_shows(make_runs: Any, series: pd.DataFrame) -> None:
    figure = equity_curve(make_runs([{"name": "PPO one", "value": 1.0}], series=series), "r00")
    words = _texts(figure)
    for expected in ("PPO one", "evaluation at 2,000 env steps", "GOOGL", "validation", "2017-07-14 to 2017-10-23"):
        assert expected in words
    assert "agent\n+170.5 %" in words and "buy and hold\n−63.4 %" in words
    assert _png(figure)


def test_without_prices_there_is_no_benchmark(make_runs: Any, series: pd.DataFrame) -> None:
    series["price"] = float("nan")
    figure = equity_curve(make_runs([{"value": 1.0}], series=series), "r00")
    assert "buy and hold" not in _texts(figure) and _png(figure)


def test_each_symbol_has_a_panel_up_to_a_number(make_runs: Any, series: pd.DataFrame) -> None:
    many = pd.concat([series.assign(symbol=f"S{index}") for index in range(8)])
    figure = equity_curve(make_runs([{"value": 1.0}], series=many), "r00")
    assert len(figure.axes) == 12 and "2 more symbols not drawn" in _texts(figure)
    assert _png(figure)


def test_what_cannot_be_drawn_is_an_error(make_runs: Any, series: pd.DataFrame) -> None:
    runs = make_runs([{"value": 1.0}], series=series)
    with pytest.raises(DataError, match="no evaluation at 7 env steps, only at 1000, 2000"):
        equity_curve(runs, "r00", 7)
    with pytest.raises(DataError, match="has no bars"):
        equity_curve(make_runs([{"value": 1.0}], series=series.head(0)), "r00")


def test_hostile_names_are_drawn_as_text(make_runs: Any, series: pd.DataFrame) -> None:
    series["symbol"] = HOSTILE
    runs = make_runs([{"name": HOSTILE, "value": 1.0, "param.lr": HOSTILE}, {"value": 0.0}], series=series)
    assert _png(learning_curves(runs, compare(runs, by="name")))
    assert _png(equity_curve(runs, "r00"))
