"""From a configuration to market segments: prices, features, split, and the tags that say which they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.names import suggestion
from drl_ray_tracking.training.config import DataConfig, SplitConfig
from drl_ray_tracking.training.data import PriceSeries, load_prices
from drl_ray_tracking.training.datasets import MarketSegment, SplitDataSet, market_segment
from drl_ray_tracking.training.features import FeatureConfig
from drl_ray_tracking.training.splits import chronological_split, date_range_split


@dataclass(frozen=True)
class Market:
    """What a sweep trains and is judged on."""

    dataset: SplitDataSet
    training: MarketSegment
    validation: MarketSegment

    def tags(self) -> dict[str, str]:
        """Returns what identifies the data, for every run trained on it."""
        return {
            names.TAG_SYMBOLS: self.dataset.symbol,
            names.TAG_TIMEFRAME: self.dataset.timeframe,
            names.TAG_DATA_DIGEST: self.dataset.data_digest,
            names.TAG_WINDOW_ID: self.window_id,
            names.TAG_PERIODS_PER_YEAR: f"{self.dataset.periods_per_year:g}",
            names.TAG_FEATURES: self.dataset.feature_config_hash,
        }

    @property
    def window_id(self) -> str:
        """12 hexadecimal digits of the evaluation window: data, split, its first and last bar, fold, symbol."""
        segment = self.validation
        parts = (
            self.dataset.data_digest,
            segment.split,
            repr(float(segment.timestamp[0])),
            repr(float(segment.timestamp[-1])),
            segment.fold,
            segment.symbol,
        )
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]


def load_market(data: DataConfig, split: SplitConfig, features: dict[str, Any], base_dir: Path) -> Market:
    """Loads, checks and splits the data of a sweep.

    Raises:
        DataError: the file is missing or its contents cannot be used; every violation is named.
        ConfigurationError: the splits overlap or do not fit, or a feature setting is wrong.
    """
    prices: PriceSeries = load_prices(
        data.source,
        symbol=data.symbol,
        timeframe=data.timeframe,
        periods_per_year=data.periods_per_year,
        timestamp_column=data.timestamp_column,
        timestamp_format=data.timestamp_format,
        base_dir=base_dir,
    )
    feature_config = feature_settings(features)
    if split.by_date:
        ranges: Any = {"train": split.train, "validation": split.validation, "test": split.test}
        dataset = date_range_split(prices, ranges, embargo=split.embargo, features=feature_config)
    else:
        fractions: Any = {"train": split.train, "validation": split.validation, "test": split.test}
        dataset = chronological_split(prices, **fractions, embargo=split.embargo, features=feature_config)
    return Market(dataset, market_segment(dataset, "train"), market_segment(dataset, "validation"))


def feature_settings(given: dict[str, Any]) -> FeatureConfig:
    """Returns the features a configuration asks for; none of its keys given means the defaults."""
    allowed = list(FeatureConfig.__dataclass_fields__)
    unknown = [f"features.{key}: unknown key{suggestion(key, allowed)}" for key in given if key not in allowed]
    if unknown:
        raise ConfigurationError("; ".join(unknown) + f"; allowed: {', '.join(allowed)}")
    settings: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return FeatureConfig(**settings)
