"""The market of a sweep: what identifies it, and that the pieces are the ones asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError, DataError
from drl_ray_tracking.training.config import DataConfig, SplitConfig
from drl_ray_tracking.training.market import load_market

GOOGL = DataConfig(source="gym_anytrading:GOOGL")


def test_the_tags_identify_data_and_window() -> None:
    market = load_market(GOOGL, SplitConfig(), {}, Path())
    tags = market.tags()
    assert tags[names.TAG_SYMBOLS] == "GOOGL"
    assert tags[names.TAG_TIMEFRAME] == "1d"
    assert tags[names.TAG_PERIODS_PER_YEAR] == "252"
    assert len(tags[names.TAG_DATA_DIGEST]) == 64
    assert market.training.timestamp[-1] < market.validation.timestamp[0]


def test_another_window_of_the_same_data_has_another_id() -> None:
    first = load_market(GOOGL, SplitConfig(), {}, Path())
    again = load_market(GOOGL, SplitConfig(), {}, Path())
    other = load_market(GOOGL, SplitConfig(train=0.5, validation=0.3), {}, Path())
    assert first.window_id == again.window_id != other.window_id
    assert first.dataset.data_digest == other.dataset.data_digest


def test_overlapping_date_ranges_are_refused() -> None:
    overlapping = SplitConfig(
        train=("2010-01-01", "2014-06-01"), validation=("2014-01-01", "2016-01-01"), test=("2016-01-02", "2018-01-01")
    )
    with pytest.raises(ConfigurationError, match=r"overlap|begins|before"):
        load_market(GOOGL, overlapping, {}, Path())


def test_a_missing_file_and_a_misspelt_feature_are_named(tmp_path: Path) -> None:
    missing = DataConfig(source="prices.csv", symbol="X", timeframe="1d", periods_per_year=252)
    with pytest.raises(DataError, match=r"prices\.csv"):
        load_market(missing, SplitConfig(), {}, tmp_path)
    with pytest.raises(ConfigurationError, match=r"features\.return_lookback: .*did you mean 'return_lookbacks'"):
        load_market(GOOGL, SplitConfig(), {"return_lookback": [1]}, tmp_path)
