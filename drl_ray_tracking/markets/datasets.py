"""What carries market data: `SplitDataSet` (frames, for people) and `MarketSegment` (arrays, for workers).

A worker unpickles segments only, so this module needs numpy at run time and never imports pandas.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from drl_ray_tracking.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    import pandas as pd

SPLITS: Final = ("train", "validation", "test")
FEATURE_PREFIX: Final = "feature_"
SINGLE_FOLD: Final = "single"  # not "0": it must not share a window id with the first walk-forward fold
FEATURE_LIMIT: Final = 1e6


@dataclass(frozen=True, eq=False)
class SplitDataSet:
    """Holds three chronological, disjoint pieces of one symbol's history and everything that identifies them.

    Each frame is indexed by time (strictly increasing, UTC) and has a `close` column; every column
    whose name starts with `feature_` is an input of the agent. Existing training code may build one from
    its own frames.

    Attributes:
        training, validation, test: the frames, at least two bars each.
        symbol, timeframe: what was traded and how long a bar is ("GOOGL", "1d"; "1m" is not "1M").
        feature_config_version, feature_config_hash: which features the frames carry.
        periods_per_year: bars per year, for annualising; always stated, never inferred.
        data_digest: sha256 of the whole price series the pieces were cut from.
        fold: index of the walk-forward fold, None for a single split.

    Raises:
        DataError: naming every empty, unordered, overlapping or incomplete piece.
    """

    training: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    symbol: str
    timeframe: str
    feature_config_version: str
    feature_config_hash: str
    periods_per_year: float
    data_digest: str
    fold: int | None = None

    def __post_init__(self) -> None:
        problems: list[str] = []
        for split in SPLITS:
            frame = self.frame(split)
            if "close" not in frame.columns:
                problems.append(f"{split}: no `close` column among {list(map(str, frame.columns))}")
            if len(frame) < 2:
                problems.append(f"{split}: {len(frame)} bars, at least 2 are needed to earn one")
            elif not (frame.index.is_monotonic_increasing and frame.index.is_unique):
                problems.append(f"{split}: the index is not strictly increasing")
        for earlier, later in pairwise(SPLITS):
            before, after = self.frame(earlier).index, self.frame(later).index
            if len(before) and len(after) and not before.max() < after.min():
                problems.append(f"{earlier} ends at {before.max()}, not before {later} begins at {after.min()}")
        if not (np.isfinite(self.periods_per_year) and self.periods_per_year > 0):
            problems.append(f"periods_per_year is {self.periods_per_year}, it must be positive and finite")
        if problems:
            raise DataError(_listed(f"data set of {self.symbol} {self.timeframe}", problems))

    def frame(self, split: str) -> pd.DataFrame:
        """Returns the frame of "train", "validation" or "test".

        Raises:
            ConfigurationError: for any other name.
        """
        if split not in SPLITS:
            raise ConfigurationError(f"split is {split!r}; allowed are {', '.join(SPLITS)}.")
        return {"train": self.training, "validation": self.validation, "test": self.test}[split]

    @property
    def fold_label(self) -> str:
        """The fold as a label: its index, or "single" where there is one split only."""
        return SINGLE_FOLD if self.fold is None else str(self.fold)


@dataclass(frozen=True, eq=False, repr=False)
class MarketSegment:
    """Holds one symbol's consecutive bars as read-only arrays, ready for `TradingEnv`.

    Attributes:
        symbol: label of the instrument.
        timestamp: (n,) float64, seconds since the epoch (UTC), strictly increasing.
        price: (n,) float64, closes, positive; an agent trades at these.
        features: (n, f) float32, known at the close of their bar; f may be 0.
        periods_per_year: bars per year.
        split, fold: labels that travel in the step infos.

    Raises:
        DataError: naming every shape, order or value that is wrong.
    """

    symbol: str
    timestamp: NDArray[np.float64]
    price: NDArray[np.float64]
    features: NDArray[np.float32]
    periods_per_year: float
    split: str = "train"
    fold: str = SINGLE_FOLD

    def __post_init__(self) -> None:
        timestamp = np.array(self.timestamp, dtype=np.float64)
        price = np.array(self.price, dtype=np.float64)
        wide = np.array(self.features, dtype=np.float64)
        problems: list[str] = []
        if price.ndim != 1 or len(price) < 2:
            problems.append(f"price has shape {price.shape}, (n,) with n >= 2 is needed")
        elif not (np.isfinite(price).all() and (price > 0).all()):
            bad = np.flatnonzero(~(np.isfinite(price) & (price > 0)))
            problems.append(f"price: {len(bad)} values are not positive and finite, first {price[bad[0]]} at {bad[0]}")
        if timestamp.shape != price.shape:
            problems.append(f"timestamp has shape {timestamp.shape}, price has {price.shape}")
        elif not (np.isfinite(timestamp).all() and (np.diff(timestamp) > 0).all()):
            problems.append("timestamp is not finite and strictly increasing")
        if wide.ndim != 2 or wide.shape[:1] != price.shape[:1]:
            problems.append(f"features has shape {wide.shape}, (n, f) with the n of price {price.shape} is needed")
        elif not (np.abs(wide) <= FEATURE_LIMIT).all():  # NaN compares false
            row, column = np.argwhere(~(np.abs(wide) <= FEATURE_LIMIT))[0]
            problems.append(
                f"features: {wide[row, column]} at row {row}, column {column}; "
                f"finite values within +-{FEATURE_LIMIT:g} are allowed: drop or scale them"
            )
        if not (np.isfinite(self.periods_per_year) and self.periods_per_year > 0):
            problems.append(f"periods_per_year is {self.periods_per_year}, it must be positive and finite")
        if problems:
            raise DataError(_listed(f"market segment {self.symbol} {self.split}", problems))
        arrays: dict[str, NDArray[np.generic]] = {
            "timestamp": timestamp,
            "price": price,
            "features": np.ascontiguousarray(wide, dtype=np.float32),
        }
        for name, array in arrays.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.price)

    def open(self) -> MarketSegment:
        """Returns itself; a segment in the object store is opened in the same way, see `training.shared`."""
        return self

    def __repr__(self) -> str:
        # Tune writes the repr of an env config into result files: it must stay one short line.
        return (
            f"MarketSegment({self.symbol}, {self.split}, fold={self.fold}, "
            f"bars={len(self)}, features={self.features.shape[1]})"
        )


def market_segment(dataset: SplitDataSet, split: str) -> MarketSegment:
    """Turns one piece of a data set into the arrays an environment steps through.

    The whole way from a file to an environment:

        prices = load_prices("gym_anytrading:GOOGL")
        dataset = chronological_split(prices, features=FeatureConfig())
        env = TradingEnv({"segments": [market_segment(dataset, "train")], "window": 250})

    Args:
        dataset: the data set; its `feature_*` columns become the features, in column order.
        split: "train", "validation" or "test".

    Raises:
        ConfigurationError: for an unknown split.
        DataError: for values no environment could use.
    """
    frame = dataset.frame(split)
    columns = [name for name in frame.columns if str(name).startswith(FEATURE_PREFIX)]
    nanoseconds = frame.index.to_numpy(dtype="datetime64[ns]").astype(np.int64)
    return MarketSegment(
        symbol=dataset.symbol,
        timestamp=nanoseconds / 1e9,
        price=frame["close"].to_numpy(dtype=np.float64),
        features=frame[columns].to_numpy(dtype=np.float64).astype(np.float32),
        periods_per_year=float(dataset.periods_per_year),
        split=split,
        fold=dataset.fold_label,
    )


def _listed(subject: str, problems: list[str]) -> str:
    return f"{subject}: {len(problems)} problem(s)\n" + "\n".join(f"- {problem}" for problem in problems)
