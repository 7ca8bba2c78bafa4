"""Cuts one price series into training, validation and test pieces that never share or touch a bar.

Features are computed on the whole series before the cut. They are causal, so nothing of a later
piece reaches an earlier one, and only the series' own first bars are lost to their warm-up.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
import pandas as pd

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.markets.data import PriceSeries
from drl_ray_tracking.markets.datasets import SPLITS, SplitDataSet
from drl_ray_tracking.markets.features import FeatureConfig, price_features

Moment = str | int | dt.date | pd.Timestamp
_MINIMUM_BARS: Final = 2  # one bar is earned between two closes
_DEFAULT_FEATURES: Final = FeatureConfig()
_DAY: Final = pd.Timedelta(days=1)
_TICK: Final = pd.Timedelta(1, "ns")

_Span = tuple[int, int]  # first bar, one past the last


def chronological_split(
    prices: PriceSeries,
    *,
    train: float = 0.6,
    validation: float = 0.2,
    test: float = 0.2,
    embargo: int = 0,
    features: FeatureConfig = _DEFAULT_FEATURES,
) -> SplitDataSet:
    """Cuts a series by fractions of its bars, oldest first.

    The bars left after the features' warm-up and two embargoes are shared out; `embargo` bars are
    dropped between neighbouring pieces.

    Args:
        prices: the series.
        train, validation, test: positive fractions that sum to 1.
        embargo: bars dropped between pieces; at least the horizon over which labels or positions reach.
        features: which feature columns the frames carry; `NO_FEATURES` for none.

    Raises:
        ConfigurationError: naming every fraction, embargo or resulting piece that cannot be.
    """
    problems: list[str] = []
    fractions = {"train": train, "validation": validation, "test": test}
    for split, fraction in fractions.items():
        if not 0 < fraction < 1:
            problems.append(f"{split} is {fraction}; a fraction between 0 and 1 is needed")
    if not abs(sum(fractions.values()) - 1) <= 1e-9:
        problems.append(f"train + validation + test is {sum(fractions.values())}; it must be 1")
    _check_whole("embargo", embargo, 0, problems)
    _raise_if(problems, prices)
    table = _table(prices, features)
    shared = len(table) - 2 * embargo
    first, second = round(shared * train), round(shared * (train + validation))
    spans = (
        (0, first),
        (first + embargo, second + embargo),
        (second + 2 * embargo, len(table)),
    )
    for split, (start, stop) in zip(SPLITS, spans, strict=True):
        if stop - start < _MINIMUM_BARS:
            problems.append(
                f"{split} gets {max(stop - start, 0)} of {len(table)} bars left after {features.warmup} "
                f"bars of feature warm-up and two embargoes of {embargo}; at least {_MINIMUM_BARS} are needed"
            )
    _raise_if(problems, prices)
    return _data_set(prices, table, spans, features, fold=None)


def date_range_split(
    prices: PriceSeries,
    ranges: Mapping[str, Sequence[Moment]],
    *,
    embargo: int = 0,
    features: FeatureConfig = _DEFAULT_FEATURES,
) -> SplitDataSet:
    """Cuts a series by explicit date ranges.

    Args:
        prices: the series.
        ranges: {"train": [start, end], "validation": [start, end], "test": [start, end]}; both ends belong
            to the range, an end that is a day, a month (2016-01) or a year includes the whole of it; UTC where no
            zone is given.
        embargo: bars of the series that must lie between neighbouring pieces.
        features: which feature columns the frames carry.

    Raises:
        ConfigurationError: naming every unknown, missing, reversed, overlapping, unordered or empty range
            and every gap shorter than the embargo.
    """
    problems: list[str] = []
    _check_whole("embargo", embargo, 0, problems)
    problems += [f"unknown range {n!r}; allowed are {', '.join(SPLITS)}" for n in ranges if n not in SPLITS]
    moments: dict[str, tuple[pd.Timestamp, pd.Timestamp]] = {}
    for split in SPLITS:
        if split not in ranges:
            problems.append(f"no range for {split}; give [start, end]")
        elif (parsed := _parsed_range(split, ranges[split], problems)) is not None:
            moments[split] = parsed
    table = _table(prices, features)
    index = pd.DatetimeIndex(table.index)
    spans: dict[str, _Span] = {}
    for split, (start, end) in moments.items():
        span = int(index.searchsorted(start, side="left")), int(index.searchsorted(end, side="right"))
        spans[split] = span
        if span[1] - span[0] < _MINIMUM_BARS:
            problems.append(
                f"{split} [{start}, {end}] holds {span[1] - span[0]} bars, at least {_MINIMUM_BARS} are "
                f"needed; after {features.warmup} bars of feature warm-up the series runs from {index[0]} to "
                f"{index[-1]}"
            )
    for earlier, later in (("train", "validation"), ("validation", "test"), ("train", "test")):
        if earlier not in moments or later not in moments:
            continue
        (start, end), (next_start, next_end) = moments[earlier], moments[later]
        if next_end < start:
            problems.append(f"wrong order: {later} ends {next_end}, before {earlier} starts {start}")
        elif next_start <= end:
            problems.append(f"overlap: {later} starts {next_start}, {earlier} ends {end}")
        elif (gap := spans[later][0] - spans[earlier][1]) < embargo:
            problems.append(f"{gap} bars lie between {earlier} and {later}, the embargo asks for {embargo}")
    _raise_if(problems, prices)
    return _data_set(prices, table, tuple(spans[split] for split in SPLITS), features, fold=None)


def walk_forward_folds(
    prices: PriceSeries,
    *,
    n_folds: int,
    train_bars: int,
    validation_bars: int,
    test_bars: int,
    mode: Literal["rolling", "anchored"] = "rolling",
    embargo: int = 0,
    features: FeatureConfig = _DEFAULT_FEATURES,
) -> tuple[SplitDataSet, ...]:
    """Cuts a series into folds whose test windows follow each other without gap or overlap.

    Fold k is train | embargo | validation | embargo | test; the next fold lies `test_bars` later. The last
    test window ends at the series' last bar, so that bars that fit into no fold are the oldest. The move from the
    last bar of a test window to the first of the next is earned in neither: an account starts flat at the first.

    Args:
        prices: the series.
        n_folds: how many folds.
        train_bars: bars trained on; with "anchored" the least of them.
        validation_bars, test_bars: bars of each validation and test window.
        mode: "rolling" keeps the training length; "anchored" always trains from the first bar on.
        embargo: bars dropped between the pieces of a fold.
        features: which feature columns the frames carry.

    Returns:
        The folds, oldest first, `fold` being 0, 1, ...

    Raises:
        ConfigurationError: naming every number out of range, or how many bars are missing.
    """
    problems: list[str] = []
    _check_whole("n_folds", n_folds, 1, problems)
    for name, bars in (
        ("train_bars", train_bars),
        ("validation_bars", validation_bars),
        ("test_bars", test_bars),
    ):
        _check_whole(name, bars, _MINIMUM_BARS, problems)
    _check_whole("embargo", embargo, 0, problems)
    if mode not in ("rolling", "anchored"):
        problems.append(f"mode is {mode!r}; allowed are rolling, anchored")
    _raise_if(problems, prices)
    table = _table(prices, features)
    needed = train_bars + validation_bars + 2 * embargo + n_folds * test_bars
    if needed > len(table):
        problems.append(
            f"{n_folds} folds need {needed} bars (train {train_bars} + validation {validation_bars} + 2 x "
            f"embargo {embargo} + {n_folds} x test {test_bars}), {len(table)} are left after "
            f"{features.warmup} bars of feature warm-up; shorten the windows or use fewer folds"
        )
    _raise_if(problems, prices)
    folds: list[SplitDataSet] = []
    for fold in range(n_folds):
        train_start = len(table) - needed + fold * test_bars
        train_stop = train_start + train_bars
        validation_start = train_stop + embargo
        test_start = validation_start + validation_bars + embargo
        spans = (
            (0 if mode == "anchored" else train_start, train_stop),
            (validation_start, validation_start + validation_bars),
            (test_start, test_start + test_bars),
        )
        folds.append(_data_set(prices, table, spans, features, fold=fold))
    return tuple(folds)


def _table(prices: PriceSeries, features: FeatureConfig) -> pd.DataFrame:
    """Joins prices and features over the bars after the warm-up."""
    if len(prices.frame) < features.warmup + 1:
        _raise_if(
            [f"{len(prices.frame)} bars, {features.warmup} of them feature warm-up: nothing is left"],
            prices,
        )
    computed = price_features(prices.frame, features)
    return pd.concat([prices.frame.iloc[features.warmup :], computed], axis=1)


def _data_set(
    prices: PriceSeries,
    table: pd.DataFrame,
    spans: tuple[_Span, ...],
    features: FeatureConfig,
    fold: int | None,
) -> SplitDataSet:
    train, validation, test = (table.iloc[start:stop].copy() for start, stop in spans)
    return SplitDataSet(
        training=train,
        validation=validation,
        test=test,
        symbol=prices.symbol,
        timeframe=prices.timeframe,
        feature_config_version=features.version,
        feature_config_hash=features.config_hash,
        periods_per_year=prices.periods_per_year,
        data_digest=prices.digest,
        fold=fold,
    )


def _parsed_range(split: str, given: Sequence[Moment], problems: list[str]) -> tuple[pd.Timestamp, pd.Timestamp] | None:
    if isinstance(given, str) or len(given) != 2:
        problems.append(f"{split} is {given!r}; [start, end] is needed")
        return None
    try:
        start, end = _utc(given[0]), _utc(given[1], last=True)
    except (ValueError, TypeError) as error:
        problems.append(f"{split} is {list(given)!r}; two ISO 8601 dates are needed ({error})")
        return None
    if end < start:
        problems.append(f"{split} ends {end}, before its start {start}")
        return None
    return start, end


def _utc(moment: Moment, *, last: bool = False) -> pd.Timestamp:
    """Returns a moment in UTC; of a day, a month or a year its first, or its last."""
    if isinstance(moment, int):  # YAML's reading of a year
        moment = str(moment)
    # An explicit ISO format: "01.02.2016" has two meanings and is refused.
    stamp = pd.to_datetime(moment, format="ISO8601") if isinstance(moment, str) else pd.Timestamp(moment)
    if pd.isna(stamp):
        raise ValueError(f"{moment!r} is no date")
    if last and isinstance(moment, str) and len(moment.strip()) <= len("2016-01-31"):
        stamp = pd.Period(moment.strip()).end_time
    elif last and not isinstance(moment, (str, dt.datetime)):
        stamp = stamp + _DAY - _TICK
    return stamp.tz_convert("UTC").tz_localize(None) if stamp.tz is not None else stamp


def _check_whole(name: str, value: object, least: int, problems: list[str]) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        problems.append(f"{name} is {value!r}; a whole number >= {least} is needed")


def _raise_if(problems: list[str], prices: PriceSeries) -> None:
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems)
        raise ConfigurationError(f"split of {prices.symbol} {prices.timeframe}: {len(problems)} problem(s)\n{listed}")
