"""Bars are not independent: how long they remember, how many they are worth, how sure a Sharpe ratio is.

One estimate serves all three: the autocovariances under a flat-top window whose width the data choose.

Sources: Politis & White, "Automatic Block-Length Selection for the Dependent Bootstrap", 2004, corrected by
Patton, Politis & White 2009; Politis & Romano, "The Stationary Bootstrap", 1994; Bayley & Hammersley 1946
(effective T).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drl_ray_tracking.analysis.inputs import (
    FloatArray,
    finite_number,
    finite_vector,
    generator,
    is_flat,
    probability,
    whole_number,
)
from drl_ray_tracking.errors import DataError

_LEAST_BARS = 10

# Resampled values held at once: 8 MB a temporary, whatever the number of resamples.
_CHUNK_VALUES = 1_000_000

# A share of resamples without variance above this says the series holds too few moves to resample.
_MOST_UNDEFINED = 0.05


@dataclass(frozen=True)
class _Memory:
    """What the flat-top window sees of a series: its variance, long-run variance and sum of k R(k)."""

    variance: float
    long_run_variance: float
    weighted_sum: float


def _moving_series(returns_T: ArrayLike, at_least: int) -> FloatArray:
    returns = finite_vector(returns_T, "returns_T", "time", at_least)
    if is_flat(float(returns.std(ddof=1)), float(returns.mean())):
        raise DataError("returns_T is constant: a Sharpe ratio and an autocorrelation are undefined")
    return returns


def _memory(returns_T: FloatArray) -> _Memory:
    bars = len(returns_T)
    run = max(5, math.ceil(math.sqrt(math.log10(bars))))
    last_lag = min(bars - 1, math.ceil(math.sqrt(bars)) + run)
    centred = returns_T - returns_T.mean()
    covariance = np.array([centred[lag:] @ centred[: bars - lag] for lag in range(last_lag + 1)]) / bars
    small = np.abs(covariance[1:]) < 2.0 * math.sqrt(math.log10(bars) / bars) * covariance[0]
    # m is the first of `run` insignificant lags in a row, which is how arch reads the rule; the lag before it is
    # the other reading and gives slightly shorter blocks. The window ends at 2 m.
    quiet = np.convolve(small, np.ones(run), mode="valid") == run
    first_quiet = int(np.argmax(quiet)) + 1 if quiet.any() else last_lag
    width = min(2 * first_quiet, last_lag)
    lag = np.arange(1, width + 1)
    window = np.minimum(1.0, 2.0 * (1.0 - lag / width))
    tail = 2.0 * window * covariance[1 : width + 1]
    return _Memory(
        variance=float(covariance[0]),
        long_run_variance=float(covariance[0] + tail.sum()),
        weighted_sum=float(lag @ tail),
    )


def automatic_block_length(returns_T: ArrayLike) -> float:
    """Returns the mean block length that suits the stationary bootstrap of a series' mean.

    Args:
        returns_T: (time,), finite, in time order, at least 10 bars, not constant.

    Returns:
        Bars, from 1 to min(3 sqrt(T), T / 3) rounded up.

    Raises:
        DataError: a wrong shape, too few bars, NaN, or a constant series.
    """
    returns = _moving_series(returns_T, _LEAST_BARS)
    bars = len(returns)
    longest = float(math.ceil(min(3.0 * math.sqrt(bars), bars / 3.0)))
    memory = _memory(returns)
    if memory.long_run_variance == 0.0:
        return longest
    ratio = memory.weighted_sum / memory.long_run_variance
    return min(max(math.cbrt(ratio * ratio * bars), 1.0), longest)


def effective_sample_size(returns_T: ArrayLike) -> float:
    """Returns how many independent bars would tell the mean as well as these autocorrelated ones.

    T times variance over long-run variance. Negative autocorrelation would give more than T; that is not
    credited.

    Args:
        returns_T: (time,), finite, in time order, at least 10 bars, not constant.

    Returns:
        Bars, from 1 to T.

    Raises:
        DataError: a wrong shape, too few bars, NaN, or a constant series.
    """
    returns = _moving_series(returns_T, _LEAST_BARS)
    memory = _memory(returns)
    if memory.long_run_variance <= memory.variance:
        return float(len(returns))
    return max(1.0, len(returns) * memory.variance / memory.long_run_variance)


def _stationary_rows(rng: np.random.Generator, bars: int, block_length: float, n_resamples: int) -> NDArray[np.intp]:
    """Returns (resample, time) rows: blocks of geometric length, random starts, wrapping round the end."""
    time = np.arange(bars)
    starts = rng.integers(bars, size=(n_resamples, bars))
    opens = rng.random((n_resamples, bars)) < 1.0 / block_length
    opens[:, 0] = True
    opened = np.maximum.accumulate(np.where(opens, time, 0), axis=1)
    return np.asarray((np.take_along_axis(starts, opened, axis=1) + time - opened) % bars, dtype=np.intp)


def block_bootstrap_sharpe_interval(
    returns_T: ArrayLike,
    *,
    rng: np.random.Generator,
    n_resamples: int,
    confidence: float,
    block_length: float | None = None,
) -> tuple[float, float]:
    """Returns the percentile interval of the per-period Sharpe ratio under the stationary block bootstrap.

    Resamples without variance have no Sharpe ratio and are left out; more than 5 % of them is an error.

    Args:
        returns_T: (time,), bar returns of one path in time order, finite, not constant; at least 10 bars.
        rng: the only source of randomness; the same state gives the same interval.
        n_resamples: bootstrap resamples, at least 1.
        confidence: coverage aimed at, inside (0, 1).
        block_length: mean block length in bars, from 1 to T; None chooses `automatic_block_length`.

    Returns:
        (low, high), per period: multiply by sqrt(periods_per_year) to annualise.

    Raises:
        DataError: a wrong shape, too few bars, NaN, a constant series, or a value out of range.
    """
    returns = _moving_series(returns_T, _LEAST_BARS)
    total = whole_number(n_resamples, "n_resamples", 1)
    level = probability(confidence, "confidence")
    generator(rng)
    bars = len(returns)
    length = automatic_block_length(returns) if block_length is None else block_length
    if finite_number(length, "block_length", 1.0) > bars:
        raise DataError(f"block_length must be at most the {bars} bars of returns_T but got {block_length!r}")
    sharpes = np.empty(total)
    chunk = max(1, _CHUNK_VALUES // bars)
    for start in range(0, total, chunk):
        stop = min(start + chunk, total)
        sample = returns[_stationary_rows(rng, bars, length, stop - start)]
        mean, sd = sample.mean(axis=1), sample.std(axis=1, ddof=1)
        flat = sd <= 1e-12 * np.maximum(1.0, np.abs(mean))
        sharpes[start:stop] = np.where(flat, np.nan, mean / np.where(flat, 1.0, sd))
    defined = sharpes[~np.isnan(sharpes)]
    if defined.size < (1.0 - _MOST_UNDEFINED) * total:
        raise DataError(
            f"returns_T moves on too few of its {bars} bars: {total - defined.size} of {total} resamples are "
            "constant and have no Sharpe ratio"
        )
    low, high = np.quantile(defined, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)
