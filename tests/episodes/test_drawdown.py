"""Drawdown depth, duration and the ordered merge of fragments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drl_ray_tracking.episodes.drawdown import DrawdownPath, depth_and_duration
from drl_ray_tracking.episodes.equity_path import EquityPath


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 10.0), min_size=4, max_size=40), st.data())
def test_fragments_of_a_path_give_its_drawdown_in_any_grouping(levels, data):
    equity = np.array(levels)
    i = data.draw(st.integers(1, equity.size - 2))
    j = data.draw(st.integers(i, equity.size - 1))
    a, b, c = (DrawdownPath.of(part) for part in (equity[: i + 1], equity[i : j + 1], equity[j:]))
    whole = DrawdownPath.of(equity)
    for merged in (a.merge(b).merge(c), a.merge(b.merge(c)), DrawdownPath.empty().merge(whole)):
        for name in ("growth", "max", "min", "max_drawdown"):
            assert getattr(merged, name) == pytest.approx(getattr(whole, name), rel=1e-12, abs=1e-12)
    assert whole.max_drawdown == pytest.approx(depth_and_duration(EquityPath.of(equity))[0], abs=1e-15)


@pytest.mark.parametrize(
    ("equity", "depth", "duration"),
    [
        ([1.0, 2.0, 3.0], 0.0, 0),
        ([4.0, 2.0, 3.0, 4.0, 5.0, 4.0], 0.5, 2),
        ([4.0, 3.0, 3.0, 3.0], 0.25, 3),  # never recovers: to the end
        ([1.0, 0.9], 0.1, 1),  # the first bar counts
        ([4.0, 5.0, 0.0, 9.0], 1.0, 1),  # ruined; the rest is discarded
        ([4.0, np.nan, 2.0, 4.0], 0.5, 1),
    ],
)
def test_depth_and_duration(equity, depth, duration):
    assert depth_and_duration(EquityPath.of(np.array(equity))) == (pytest.approx(depth), duration)


def test_what_follows_a_ruin_is_discarded():
    ruined = DrawdownPath.of(np.array([1.0, 0.5, -1.0]))
    assert ruined.max_drawdown == 1.0
    assert ruined.merge(DrawdownPath.of(np.array([1.0, 9.0]))) == ruined
