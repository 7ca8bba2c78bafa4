"""Strictly causal price features: the row of bar t uses closes up to and including t, never later ones.

All features are dimensionless and of order one, so that one network reads daily stocks and hourly
currencies alike without statistics fitted on a split.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import pandas as pd

from drl_ray_tracking.errors import ConfigurationError, DataError
from drl_ray_tracking.markets.datasets import FEATURE_PREFIX

FEATURE_VERSION: Final = "1"  # raised whenever a formula below changes its numbers
_LIMIT: Final = 10.0
_FLAT: Final = 1e-12  # below this a rolling dispersion is rounding noise of a constant price


@dataclass(frozen=True)
class FeatureConfig:
    """Says which features are computed; every number is a count of bars.

    Attributes:
        return_lookbacks: log return over h bars, divided by the reference volatility times sqrt(h).
        volatility_windows: log of the volatility over w bars relative to the reference volatility.
        zscore_windows: close minus its mean over w bars, in standard deviations (ddof 1).
        rsi_windows: Cutler's relative strength index over w log returns, mapped from 0..100 to -1..1.
        reference_window: bars of the reference volatility (standard deviation, ddof 1).
        version: version of the formulas.

    A quantity whose scale is zero (constant price) is 0; all are cut to -10..10.

    Raises:
        ConfigurationError: naming every setting out of range.
    """

    return_lookbacks: tuple[int, ...] = (1, 5, 20)
    volatility_windows: tuple[int, ...] = (10,)
    zscore_windows: tuple[int, ...] = (20,)
    rsi_windows: tuple[int, ...] = (14,)
    reference_window: int = 60
    version: str = FEATURE_VERSION

    def __post_init__(self) -> None:
        problems: list[str] = []
        minimum = {"return_lookbacks": 1, "volatility_windows": 2, "zscore_windows": 2, "rsi_windows": 1}
        for name, least in minimum.items():
            given = getattr(self, name)
            if not isinstance(given, (tuple, list)) or not all(_whole(v) and v >= least for v in given):
                problems.append(f"{name} is {given!r}; a sequence of whole numbers >= {least} is needed")
                continue
            if len(set(given)) != len(given):
                problems.append(f"{name} is {given!r}; each number may appear once")
            object.__setattr__(self, name, tuple(given))  # YAML gives lists; the hash and equality need tuples
        if not (_whole(self.reference_window) and self.reference_window >= 2):
            problems.append(f"reference_window is {self.reference_window!r}; a whole number >= 2 is needed")
        if self.version != FEATURE_VERSION:
            problems.append(f"version is {self.version!r}; this release computes version {FEATURE_VERSION!r} only")
        if problems:
            raise ConfigurationError("feature config:\n" + "\n".join(f"- {problem}" for problem in problems))

    @property
    def warmup(self) -> int:
        """Bars at the start of a series for which some feature is not yet defined."""
        scaled = bool(self.return_lookbacks or self.volatility_windows)
        needs = [
            0,
            *self.return_lookbacks,
            *self.volatility_windows,
            *(window - 1 for window in self.zscore_windows),
            *self.rsi_windows,
            *([self.reference_window] if scaled else []),
        ]
        return max(needs)

    @property
    def config_hash(self) -> str:
        """sha256 (hex) of the canonical JSON of all settings: equal in every process."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def price_features(frame: pd.DataFrame, config: FeatureConfig) -> pd.DataFrame:
    """Computes the features of a price frame, without its warm-up bars.

    Args:
        frame: (n, ...) with a positive `close` column, in time order.
        config: which features.

    Returns:
        (n - warmup, f) float64 without NaN, columns `feature_...`, indexed like the frame's later bars.

    Raises:
        DataError: where the frame has no bar after the warm-up.
    """
    if len(frame) <= config.warmup:
        raise DataError(
            f"{len(frame)} bars are not enough: the features need {config.warmup} warm-up bars and at least "
            "one more. Give a longer series or shorter feature windows."
        )
    close = frame["close"].astype("float64")
    log_close = pd.Series(np.log(close.to_numpy()), index=frame.index)
    log_return = log_close.diff()
    reference = log_return.rolling(config.reference_window).std()
    columns: dict[str, pd.Series[float]] = {}
    for h in config.return_lookbacks:
        columns[f"return_{h}"] = _ratio(log_close.diff(h), reference * h**0.5)
    for w in config.volatility_windows:
        relative = log_return.rolling(w).std().clip(lower=_FLAT) / reference.clip(lower=_FLAT)
        columns[f"volatility_{w}"] = pd.Series(np.log(relative.to_numpy()), index=frame.index)
    for w in config.zscore_windows:
        window = close.rolling(w)
        mean = window.mean()
        columns[f"zscore_{w}"] = _ratio((close - mean) / mean, window.std() / mean)
    for w in config.rsi_windows:
        columns[f"rsi_{w}"] = _ratio(log_return.rolling(w).sum(), log_return.abs().rolling(w).sum())
    table = pd.DataFrame(columns, index=frame.index, dtype="float64").add_prefix(FEATURE_PREFIX)
    return table.clip(-_LIMIT, _LIMIT).iloc[config.warmup :]


def _ratio(value: pd.Series[float], scale: pd.Series[float]) -> pd.Series[float]:
    """Divides, giving 0 where the scale is flat and NaN where it is not yet known."""
    return (value / scale).mask(scale <= _FLAT, 0.0)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


NO_FEATURES: Final = FeatureConfig((), (), (), ())
