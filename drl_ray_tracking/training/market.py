"""From a configuration to market segments: prices, features, split, and the tags that say which they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drl_ray_tracking import names
from drl_ray_tracking.analysis.budget import WindowBars
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.markets.data import PriceSeries, load_prices, price_series
from drl_ray_tracking.markets.datasets import MarketSegment, SplitDataSet, market_segment
from drl_ray_tracking.markets.features import FeatureConfig
from drl_ray_tracking.markets.shared import Segment
from drl_ray_tracking.markets.splits import chronological_split, date_range_split, walk_forward_folds
from drl_ray_tracking.names import suggestion
from drl_ray_tracking.training.config import DataConfig, SplitConfig, SweepConfig, WalkForwardConfig
from drl_ray_tracking.training.named import is_named, named


@dataclass(frozen=True)
class Market:
    """What a sweep trains and is judged on."""

    dataset: SplitDataSet
    training: Segment
    validation: Segment

    @classmethod
    def of(cls, dataset: SplitDataSet) -> Market:
        """Returns what a data set's agents train on and are judged on."""
        return cls(dataset, market_segment(dataset, "train"), market_segment(dataset, "validation"))

    def tags(self) -> dict[str, str]:
        """Returns what identifies the data, for every run trained on it."""
        segment = self.validation.open()
        fold = {} if self.dataset.fold is None else {names.TAG_FOLD: self.dataset.fold_label}
        return {
            **fold,
            names.TAG_SYMBOLS: self.dataset.symbol,
            names.TAG_TIMEFRAME: self.dataset.timeframe,
            names.TAG_DATA_DIGEST: self.dataset.data_digest,
            names.TAG_WINDOW_ID: self.window_id,
            names.TAG_WINDOW_BARS: f"{float(segment.timestamp[0])!r} {float(segment.timestamp[-1])!r}",
            names.TAG_PERIODS_PER_YEAR: f"{self.dataset.periods_per_year:g}",
            names.TAG_FEATURES: self.dataset.feature_config_hash,
        }

    @property
    def window_id(self) -> str:
        """12 hexadecimal digits of the evaluation window: data, split, its first and last bar, fold, symbol."""
        return window_id(self.dataset.data_digest, self.validation.open())


def window_id(data_digest: str, segment: MarketSegment) -> str:
    """Returns 12 hexadecimal digits of the bars something is judged on: data, split, first and last bar, fold, symbol.

    Args:
        data_digest: of the whole price series.
        segment: the bars.
    """
    parts = (
        data_digest,
        segment.split,
        repr(float(segment.timestamp[0])),
        repr(float(segment.timestamp[-1])),
        segment.fold,
        segment.symbol,
    )
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]


def test_window(dataset: SplitDataSet) -> tuple[str, WindowBars]:
    """Returns the id of a data set's test window, and its bars: what looks at it are counted by."""
    segment = market_segment(dataset, "test")
    first, last = float(segment.timestamp[0]), float(segment.timestamp[-1])
    return window_id(dataset.data_digest, segment), WindowBars(dataset.data_digest, first, last)


test_window.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test


def load_market(data: DataConfig, split: SplitConfig, features: dict[str, Any], base_dir: Path) -> Market:
    """Loads, checks and splits the data of a sweep.

    Raises:
        DataError: the file is missing or its contents cannot be used; every violation is named.
        ConfigurationError: the splits overlap or do not fit, or a feature setting is wrong.
    """
    prices = market_prices(data, base_dir)
    feature_config = feature_settings(features)
    if split.by_date:
        ranges: Any = {"train": split.train, "validation": split.validation, "test": split.test}
        dataset = date_range_split(prices, ranges, embargo=split.embargo, features=feature_config)
    else:
        fractions: Any = {"train": split.train, "validation": split.validation, "test": split.test}
        dataset = chronological_split(prices, **fractions, embargo=split.embargo, features=feature_config)
    return Market.of(dataset)


def load_markets(config: SweepConfig, base_dir: Path) -> list[Market]:
    """Loads what every cell of a sweep trains on: each symbol, and in a walk-forward each of its folds.

    Raises:
        DataError, ConfigurationError: as `load_market`.
    """
    found: list[Market] = []
    for data in config.markets:
        if config.walk_forward is None:
            found.append(load_market(data, config.split, config.features, base_dir))
        else:
            folds = load_folds(data, config.walk_forward, config.features, base_dir)
            found += [Market.of(dataset) for dataset in folds]
    symbols = [data.symbol or market.dataset.symbol for data, market in zip(config.markets, found, strict=False)]
    if config.walk_forward is None and len(set(symbols)) < len(symbols):
        raise ConfigurationError(f"the markets are called {', '.join(symbols)}: give each a `symbol` of its own")
    return found


def load_folds(
    data: DataConfig, walk_forward: WalkForwardConfig, features: dict[str, Any], base_dir: Path
) -> tuple[SplitDataSet, ...]:
    """Loads a symbol's history and cuts it into the folds of a walk-forward; raises as `load_market`."""
    return walk_forward_folds(
        market_prices(data, base_dir),
        n_folds=walk_forward.folds,
        train_bars=walk_forward.train_bars,
        validation_bars=walk_forward.validation_bars,
        test_bars=walk_forward.test_bars,
        mode=walk_forward.mode,
        embargo=walk_forward.embargo,
        features=feature_settings(features),
    )


def market_prices(data: DataConfig, base_dir: Path) -> PriceSeries:
    """Loads a symbol's prices from a package, a file, or what a function of the user's returns.

    Raises:
        DataError: there are none, or they cannot be used; every violation is named.
        ConfigurationError: there is no such function.
    """
    labels: dict[str, Any] = {
        "timeframe": data.timeframe,
        "periods_per_year": data.periods_per_year,
        "timestamp_column": data.timestamp_column,
        "timestamp_format": data.timestamp_format,
    }
    if is_named(data.source):
        frame = named(data.source, "data.source")()
        name = data.source.partition(":")[2]
        return price_series(frame, symbol=data.symbol or name, source=data.source, **labels)
    return load_prices(data.source, symbol=data.symbol, base_dir=base_dir, **labels)


def feature_settings(given: dict[str, Any]) -> FeatureConfig:
    """Returns the features a configuration asks for; none of its keys given means the defaults."""
    allowed = list(FeatureConfig.__dataclass_fields__)
    unknown = [f"features.{key}: unknown key{suggestion(key, allowed)}" for key in given if key not in allowed]
    if unknown:
        raise ConfigurationError("; ".join(unknown) + f"; allowed: {', '.join(allowed)}")
    settings: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return FeatureConfig(**settings)
