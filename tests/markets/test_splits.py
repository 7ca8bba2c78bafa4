"""Splits share no bar and keep their distance; features never look ahead; segments carry it all to the env."""

from __future__ import annotations

import datetime as dt
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drl_ray_tracking.errors import ConfigurationError, DataError
from drl_ray_tracking.markets.data import PriceSeries, price_series
from drl_ray_tracking.markets.datasets import MarketSegment, SplitDataSet, market_segment
from drl_ray_tracking.markets.features import NO_FEATURES, FeatureConfig, price_features
from drl_ray_tracking.markets.splits import chronological_split, date_range_split, walk_forward_folds

SHORT = FeatureConfig((1, 3), (4,), (5,), (3,), reference_window=6)


def series(bars: int, seed: int = 0) -> PriceSeries:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, bars)))
    raw = pd.DataFrame({"close": close}, index=pd.date_range("2020-01-01", periods=bars, freq="D"))
    return price_series(raw, symbol="X", timeframe="1d", periods_per_year=365, source="made up")


def bars_of(dataset: SplitDataSet, whole: PriceSeries) -> list[range]:
    """Positions of each piece in the whole series; a piece is consecutive or this fails."""
    found = []
    for frame in (dataset.training, dataset.validation, dataset.test):
        places = whole.frame.index.get_indexer(frame.index)
        assert (np.diff(places) == 1).all()
        found.append(range(int(places[0]), int(places[-1]) + 1))
    return found


# Fractions


def test_fractions_of_the_bars_after_warm_up_and_embargo() -> None:
    prices = series(106)
    dataset = chronological_split(prices, embargo=0, features=SHORT)
    assert bars_of(dataset, prices) == [range(6, 66), range(66, 86), range(86, 106)]
    assert (dataset.symbol, dataset.timeframe, dataset.periods_per_year) == ("X", "1d", 365.0)
    assert dataset.feature_config_version == "1"
    assert dataset.feature_config_hash == SHORT.config_hash
    assert dataset.data_digest == prices.digest
    assert (dataset.fold, dataset.fold_label) == (None, "single")
    assert not dataset.training.isna().any().any()


def test_embargo_bars_are_dropped_between_pieces() -> None:
    prices = series(110)
    dataset = chronological_split(prices, train=0.5, validation=0.3, test=0.2, embargo=5, features=NO_FEATURES)
    assert bars_of(dataset, prices) == [range(50), range(55, 85), range(90, 110)]


@given(
    bars=st.integers(30, 200),
    train=st.floats(0.2, 0.6),
    validation=st.floats(0.15, 0.3),
    embargo=st.integers(0, 4),
)
@settings(max_examples=60, deadline=None)
def test_no_bar_in_two_splits_in_order_and_apart(bars: int, train: float, validation: float, embargo: int) -> None:
    prices = series(bars)
    shares = {"train": train, "validation": validation, "test": 1 - train - validation}
    dataset = chronological_split(prices, **shares, embargo=embargo, features=NO_FEATURES)
    pieces = bars_of(dataset, prices)
    for earlier, later in pairwise(pieces):
        assert later.start - earlier.stop == embargo
    assert pieces[0].start == 0
    assert pieces[-1].stop == bars


def test_bad_fractions_are_named_together() -> None:
    with pytest.raises(ConfigurationError) as caught:
        chronological_split(series(50), train=1.2, validation=0.0, test=0.2, embargo=-1)
    message = str(caught.value)
    for expected in ("train is 1.2", "validation is 0.0", "is 1.4; it must be 1", "embargo is -1"):
        assert expected in message


@pytest.mark.parametrize("bars", [2, 6, 9])
def test_too_few_bars_say_how_many_the_warm_up_took(bars: int) -> None:
    with pytest.raises(ConfigurationError, match=r"6 bars of feature warm-up|6 of them feature warm-up"):
        chronological_split(series(bars), features=SHORT)


# Date ranges


def ranges(**changed: Any) -> dict[str, Any]:
    return {
        "train": ["2020-01-01", "2020-01-31"],
        "validation": ["2020-02-01", "2020-02-10"],
        "test": ["2020-02-16", "2020-02-20"],
        **changed,
    }


def test_both_ends_of_a_date_range_belong_to_it() -> None:
    prices = series(60)
    dataset = date_range_split(prices, ranges(), features=NO_FEATURES)
    assert bars_of(dataset, prices) == [range(31), range(31, 41), range(46, 51)]


def test_a_day_at_the_end_includes_its_hours_a_time_does_not() -> None:
    raw = pd.DataFrame({"close": np.arange(1.0, 97.0)}, index=pd.date_range("2020-01-01", periods=96, freq="h"))
    prices = price_series(raw, symbol="X", timeframe="1h", periods_per_year=8760)
    given = {
        "train": [dt.date(2020, 1, 1), dt.date(2020, 1, 2)],  # what YAML makes of 2020-01-02
        "validation": ["2020-01-03", "2020-01-03T12:00"],
        "test": ["2020-01-04T01:00+01:00", dt.datetime(2020, 1, 4, 5)],
    }
    dataset = date_range_split(prices, given, features=NO_FEATURES)
    assert bars_of(dataset, prices) == [range(48), range(48, 61), range(72, 78)]


@pytest.mark.parametrize("years", [["2020", "2021", "2022"], [2020, 2021, 2022]], ids=["texts", "as YAML reads them"])
def test_a_month_or_a_year_at_the_end_includes_all_of_it(years: list[Any]) -> None:
    raw = pd.DataFrame({"close": np.arange(1.0, 1_097.0)}, index=pd.date_range("2020-01-01", periods=1_096, freq="D"))
    prices = price_series(raw, symbol="X", timeframe="1d", periods_per_year=365)
    whole = {split: [year, year] for split, year in zip(("train", "validation", "test"), years, strict=True)}
    dataset = date_range_split(prices, whole, features=NO_FEATURES)
    assert bars_of(dataset, prices) == [range(366), range(366, 731), range(731, 1_096)]
    months = {"train": ["2020-01", "2020-02"], "validation": ["2020-03", "2020-03"], "test": ["2020-04", "2020-12"]}
    assert bars_of(date_range_split(prices, months, features=NO_FEATURES), prices) == [
        range(60),
        range(60, 91),
        range(91, 366),
    ]


@pytest.mark.parametrize(
    ("given", "embargo", "expected"),
    [
        (ranges(validation=["2020-01-31", "2020-02-10"]), 0, ["overlap: validation starts 2020-01-31"]),
        (ranges(test=["2020-02-11", "2020-02-20"]), 0, []),
        (ranges(), 1, ["0 bars lie between train and validation, the embargo asks for 1"]),
        (ranges(), 6, ["0 bars lie between train and validation", "5 bars lie between validation and test"]),
        (
            ranges(train=["2020-02-16", "2020-02-20"], test=["2020-01-01", "2020-01-31"]),
            0,
            ["wrong order: validation ends", "wrong order: test ends"],
        ),
        (ranges(train=["2020-01-31", "2020-01-01"]), 0, ["train ends 2020-01-01 23:59:59.999999, before its start"]),
        (ranges(test=["2021-01-01", "2021-02-01"]), 0, ["test [2021-01-01", "holds 0 bars", "to 2020-02-29"]),
        (ranges(train=["01.02.2020", "2020-01-31"], extra=[1, 2]), 0, ["unknown range 'extra'", "two ISO 8601 dates"]),
        ({"train": "2020", "test": ["2020-01-01"]}, 0, ["train is '2020'", "no range for validation", "test is ["]),
    ],
)
def test_date_ranges_that_cannot_be_are_all_named(given: dict[str, Any], embargo: int, expected: list[str]) -> None:
    if not expected:
        date_range_split(series(60), given, embargo=embargo, features=NO_FEATURES)
        return
    with pytest.raises(ConfigurationError) as caught:
        date_range_split(series(60), given, embargo=embargo, features=NO_FEATURES)
    for part in expected:
        assert part in str(caught.value)


# Walk forward


def test_rolling_folds_by_hand() -> None:
    prices = series(33)
    folds = walk_forward_folds(
        prices, n_folds=2, train_bars=10, validation_bars=5, test_bars=6, embargo=2, features=NO_FEATURES
    )
    assert [bars_of(fold, prices) for fold in folds] == [
        [range(2, 12), range(14, 19), range(21, 27)],
        [range(8, 18), range(20, 25), range(27, 33)],
    ]
    assert [fold.fold_label for fold in folds] == ["0", "1"]


def test_anchored_folds_train_from_the_first_bar() -> None:
    prices = series(33)
    folds = walk_forward_folds(
        prices, n_folds=2, train_bars=10, validation_bars=5, test_bars=6, mode="anchored", features=NO_FEATURES
    )
    assert [bars_of(fold, prices)[0] for fold in folds] == [range(16), range(22)]


@given(
    bars=st.integers(40, 150),
    n_folds=st.integers(1, 5),
    train=st.integers(2, 12),
    validation=st.integers(2, 6),
    test=st.integers(2, 5),
    embargo=st.integers(0, 3),
    anchored=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_folds_are_disjoint_apart_and_their_tests_tile(
    bars: int, n_folds: int, train: int, validation: int, test: int, embargo: int, anchored: bool
) -> None:
    prices = series(bars)
    arguments: dict[str, Any] = {
        "n_folds": n_folds,
        "train_bars": train,
        "validation_bars": validation,
        "test_bars": test,
        "embargo": embargo,
        "mode": "anchored" if anchored else "rolling",
        "features": NO_FEATURES,
    }
    if train + validation + 2 * embargo + n_folds * test > bars:
        with pytest.raises(ConfigurationError, match="folds need"):
            walk_forward_folds(prices, **arguments)
        return
    pieces = [bars_of(fold, prices) for fold in walk_forward_folds(prices, **arguments)]
    for fold in pieces:
        assert all(later.start - earlier.stop == embargo for earlier, later in pairwise(fold))
        assert len(fold[0]) == train if not anchored else (fold[0].start == 0 and len(fold[0]) >= train)
        assert (len(fold[1]), len(fold[2])) == (validation, test)
    tests = [bar for fold in pieces for bar in fold[2]]
    assert tests == list(range(bars - n_folds * test, bars))


def test_bad_fold_numbers_are_named_together() -> None:
    with pytest.raises(ConfigurationError) as caught:
        walk_forward_folds(
            series(50),
            n_folds=0,
            train_bars=1,
            validation_bars=2.5,
            test_bars=5,
            embargo=-1,
            mode="sideways",  # type: ignore[arg-type]
        )
    for expected in (
        "n_folds is 0",
        "train_bars is 1",
        "validation_bars is 2.5",
        "embargo is -1",
        "mode is 'sideways'",
    ):
        assert expected in str(caught.value)


# Features


def test_features_follow_their_definitions() -> None:
    frame = series(40).frame
    close = frame["close"].to_numpy()
    r = np.diff(np.log(close))  # r[i] belongs to bar i + 1
    table = price_features(frame, SHORT)
    assert list(table.columns) == [
        "feature_return_1",
        "feature_return_3",
        "feature_volatility_4",
        "feature_zscore_5",
        "feature_rsi_3",
    ]
    assert (SHORT.warmup, len(table)) == (6, 34)
    for t in (6, 20, 39):
        reference = r[t - 6 : t].std(ddof=1)
        gains, losses = r[t - 3 : t].clip(min=0).sum(), (-r[t - 3 : t]).clip(min=0).sum()
        last = close[t - 4 : t + 1]
        expected = [
            r[t - 1] / reference,
            np.log(close[t] / close[t - 3]) / (reference * np.sqrt(3)),
            np.log(r[t - 4 : t].std(ddof=1) / reference),
            (close[t] - last.mean()) / last.std(ddof=1),
            2 * gains / (gains + losses) - 1,
        ]
        np.testing.assert_allclose(table.iloc[t - 6], expected, rtol=1e-9, atol=1e-9)


@given(cut=st.integers(7, 58), factor=st.floats(0.2, 5.0), seed=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_the_future_cannot_change_a_feature(cut: int, factor: float, seed: int) -> None:
    frame = series(60, seed).frame
    changed = frame.copy()
    changed.iloc[cut:] *= factor
    known = slice(None, frame.index[cut - 1])
    pd.testing.assert_frame_equal(
        price_features(frame, SHORT).loc[known], price_features(changed, SHORT).loc[known], check_exact=True
    )


@pytest.mark.parametrize(
    ("config", "warmup"),
    [
        (SHORT, 6),
        (FeatureConfig(), 60),
        (NO_FEATURES, 0),
        (FeatureConfig((7,), (), (), (), 2), 7),
        (FeatureConfig((), (9,), (), (), 2), 9),
        (FeatureConfig((), (), (9,), ()), 8),
        (FeatureConfig((), (), (), (9,)), 9),
    ],
)
def test_the_warm_up_is_exactly_what_the_features_need(config: FeatureConfig, warmup: int) -> None:
    assert config.warmup == warmup
    frame = series(config.warmup + 2).frame.iloc[1:]
    table = price_features(frame, config)
    assert len(table) == 1
    assert not table.isna().any().any()
    if config.warmup:
        with pytest.raises(DataError, match=f"need {config.warmup} warm-up bars"):
            price_features(frame.iloc[1:], config)


def test_a_constant_price_gives_zeros_not_noise() -> None:
    close = np.r_[np.linspace(50, 173.3, 20), np.full(40, 173.3)]
    frame = pd.DataFrame({"close": close}, index=pd.date_range("2020", periods=60))
    assert (price_features(frame, SHORT).iloc[-20:] == 0.0).all().all()


def test_a_jump_out_of_a_flat_stretch_is_cut_not_infinite() -> None:
    frame = pd.DataFrame({"close": [5.0] * 30 + [5.0001] * 3}, index=pd.date_range("2020", periods=33))
    values = price_features(frame, FeatureConfig((1,), (2,), (2,), (2,), 20)).to_numpy()
    assert np.isfinite(values).all()
    assert np.abs(values).max() <= 10.0


def test_the_config_hash_is_equal_across_processes_and_sees_every_setting() -> None:
    code = "from drl_ray_tracking.markets.features import FeatureConfig; print(FeatureConfig().config_hash)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == FeatureConfig().config_hash
    assert FeatureConfig(return_lookbacks=[1, 5, 20]).config_hash == FeatureConfig().config_hash  # type: ignore[arg-type]
    others = [
        replace(FeatureConfig(), **{name: (3,)})  # type: ignore[arg-type]
        for name in ("return_lookbacks", "volatility_windows", "zscore_windows", "rsi_windows")
    ]
    hashes = {config.config_hash for config in [FeatureConfig(), replace(FeatureConfig(), reference_window=5), *others]}
    assert len(hashes) == 6


def test_bad_feature_settings_are_named_together() -> None:
    with pytest.raises(ConfigurationError) as caught:
        FeatureConfig((0,), (1,), "20", (3, 3), 1, "9")  # type: ignore[arg-type]
    for expected in ("return_lookbacks", "volatility_windows", "zscore_windows", "once", "reference_window", "'9'"):
        assert expected in str(caught.value)


# The values


def test_a_segment_carries_prices_features_and_labels() -> None:
    prices = series(106)
    dataset = walk_forward_folds(prices, n_folds=2, train_bars=20, validation_bars=10, test_bars=10, features=SHORT)[1]
    segment = market_segment(dataset, "validation")
    assert (segment.symbol, segment.split, segment.fold, segment.periods_per_year) == ("X", "validation", "1", 365.0)
    np.testing.assert_array_equal(segment.price, dataset.validation["close"].to_numpy())
    assert segment.timestamp[0] == dataset.validation.index[0].timestamp()
    assert segment.features.shape == (10, 5)
    assert segment.features.dtype == np.float32
    np.testing.assert_array_equal(
        segment.features[:, 4], dataset.validation["feature_rsi_3"].to_numpy().astype(np.float32)
    )
    assert repr(segment) == "MarketSegment(X, validation, fold=1, bars=10, features=5)"
    with pytest.raises(ValueError, match="read-only"):
        segment.price[0] = 1.0
    copy = pickle.loads(pickle.dumps(segment))
    np.testing.assert_array_equal(copy.price, segment.price)


def test_an_unknown_split_is_refused() -> None:
    dataset = chronological_split(series(30), features=NO_FEATURES)
    with pytest.raises(ConfigurationError, match="split is 'training'; allowed are train, validation, test"):
        market_segment(dataset, "training")


def test_a_hand_made_data_set_is_checked_too() -> None:
    dataset = chronological_split(series(30), features=NO_FEATURES)
    with pytest.raises(DataError) as caught:
        replace(
            dataset,
            training=dataset.test,
            validation=dataset.validation.iloc[::-1],
            test=dataset.test.iloc[:1].rename(columns={"close": "bid"}),
            periods_per_year=0,
        )
    for expected in (
        "train ends",
        "validation: the index is not strictly increasing",
        "test: no `close` column among ['bid']",
        "test: 1 bars",
        "periods_per_year is 0",
    ):
        assert expected in str(caught.value)


def test_a_bad_segment_names_all_its_faults() -> None:
    with pytest.raises(DataError) as caught:
        MarketSegment(
            symbol="X",
            timestamp=np.array([0.0, 0.0, 1.0]),
            price=np.array([1.0, -2.0, 3.0]),
            features=np.array([[0.0], [np.nan], [1.0]], dtype=np.float32),
            periods_per_year=-1.0,
        )
    for expected in ("first -2.0 at 1", "strictly increasing", "nan at row 1, column 0", "periods_per_year is -1.0"):
        assert expected in str(caught.value)


def test_segment_shapes_must_agree() -> None:
    with pytest.raises(DataError) as caught:
        MarketSegment("X", np.arange(3.0), np.arange(1.0, 3.0), np.zeros((3, 1), dtype=np.float32), 252.0)
    assert "timestamp has shape (3,), price has (2,)" in str(caught.value)
    assert "features has shape (3, 1)" in str(caught.value)
