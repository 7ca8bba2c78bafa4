"""A quantile sketch: logarithmic buckets of fixed range, 1 % relative error, integer counts.

The bucket layout is that of DDSketch (Masson, Rim, Lee 2019). It is our own, rather than the ddsketch
library, for three reasons: a whole episode is inserted by a few numpy calls instead of one Python call per
bar; the state is integers over a fixed range, so any order of merging gives the same state bit for bit (the
library may collapse buckets); and it pickles to a few bytes per occupied bucket.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drl_ray_tracking.episodes.arrays import FloatArray, IntArray
from drl_ray_tracking.episodes.kpis import Kpi, Undefined

RELATIVE_ERROR = 0.01
SMALLEST = 1e-12
LARGEST = 1e12

_GAMMA = (1.0 + RELATIVE_ERROR) / (1.0 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
# Bucket k of one sign holds magnitudes in (gamma^(k-1), gamma^k]; keys count from 1 at SMALLEST, so that
# key 0 is zero, -key mirrors key, and the order of keys is the order of values.
_FIRST = math.ceil(math.log(SMALLEST) / _LOG_GAMMA)
_KEYS = math.ceil(math.log(LARGEST) / _LOG_GAMMA) - _FIRST + 1
_DENSE = 2 * _KEYS + 1

_NO_KEYS: NDArray[np.int16] = np.zeros(0, np.int16)
_NO_COUNTS: IntArray = np.zeros(0, np.int64)
_ONE: IntArray = np.ones(1, np.int64)


def _sparse(dense: IntArray) -> tuple[NDArray[np.int16], IntArray]:
    occupied = np.flatnonzero(dense)
    return (occupied - _KEYS).astype(np.int16), dense[occupied]


def _representatives(keys: NDArray[np.int16]) -> FloatArray:
    """Returns the value in each bucket whose relative error is the same at both ends."""
    exponents = np.abs(keys.astype(np.float64)) + (_FIRST - 1)
    values: FloatArray = np.sign(keys) * np.exp(exponents * _LOG_GAMMA) * (2.0 / (_GAMMA + 1.0))
    return values


@dataclass(frozen=True, slots=True, eq=False)
class QuantileSketch:
    """Counts values in buckets; a commutative monoid whose state never depends on the order of merging.

    A magnitude below 1e-12 counts as zero and one above 1e12 falls into the last bucket: at most 5,531
    buckets, some 55 kB pickled, however many values. Extremes are kept exactly and every answer is
    clamped to them.

    Attributes:
        keys: (k,) occupied buckets in ascending order of value, int16.
        counts: (k,) how many values each holds.
        low, high: the exact extremes.
    """

    keys: NDArray[np.int16] = field(default_factory=lambda: _NO_KEYS)
    counts: IntArray = field(default_factory=lambda: _NO_COUNTS)
    low: float = math.inf
    high: float = -math.inf

    @classmethod
    def empty(cls) -> QuantileSketch:
        """Returns the identity of `merge`."""
        return cls()

    @classmethod
    def of(cls, values: FloatArray) -> QuantileSketch:
        """Returns the sketch of an array (n,); values that are not finite are left out."""
        values = values[np.isfinite(values)]
        if values.size == 0:
            return cls()
        magnitudes = np.abs(values)
        kept = np.maximum(magnitudes, SMALLEST)
        buckets = np.ceil(np.log(kept) / _LOG_GAMMA).astype(np.int64) - (_FIRST - 1)
        buckets = np.minimum(buckets, _KEYS)
        buckets[magnitudes < SMALLEST] = 0
        signed = np.where(values < 0.0, -buckets, buckets)
        keys, counts = _sparse(np.bincount(signed + _KEYS, minlength=_DENSE))
        return cls(keys, counts, float(values.min()), float(values.max()))

    @classmethod
    def single(cls, value: float) -> QuantileSketch:
        """Returns the sketch of one finite value: the same as `of`, in a tenth of the time."""
        magnitude = abs(value)
        key = 0
        if magnitude >= SMALLEST:
            # numpy's logarithm, as in `of`: another library's may fall on the other side of a bucket's edge.
            key = min(math.ceil(float(np.log(magnitude)) / _LOG_GAMMA) - (_FIRST - 1), _KEYS)
        return cls(np.array([-key if value < 0.0 else key], np.int16), _ONE, value, value)

    @property
    def n(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def merge(self, other: QuantileSketch) -> QuantileSketch:
        """Returns the sketch of both samples together, exactly."""
        if not other.keys.size:
            return self
        if not self.keys.size:
            return other
        dense = np.zeros(_DENSE, np.int64)
        for part in (self, other):
            dense[part.keys.astype(np.int64) + _KEYS] += part.counts
        keys, counts = _sparse(dense)
        return QuantileSketch(keys, counts, min(self.low, other.low), max(self.high, other.high))

    def quantile(self, q: float) -> Kpi:
        """Returns the linear quantile (numpy's default) for q in [0, 1].

        Each of the two order statistics it interpolates is within 1 % of the true one, so the answer is
        within 1 % of the larger of their magnitudes.
        """
        n = self.n
        if n == 0:
            return Undefined("no_values")
        rank = q * (n - 1)
        below = math.floor(rank)
        values = self._order_statistics(np.array([below, min(below + 1, n - 1)]))
        return float(values[0] + (values[1] - values[0]) * (rank - below))

    def lower_tail_mean(self, q: float) -> Kpi:
        """Returns the mean of the floor(q (n - 1)) + 1 smallest values, the tail of an expected shortfall.

        The number of values is exact; each enters as its bucket's representative, so a tail of one sign is
        within 1 % of the true mean.
        """
        n = self.n
        if n == 0:
            return Undefined("no_values")
        size = math.floor(q * (n - 1)) + 1
        before = np.cumsum(self.counts) - self.counts
        taken = np.clip(size - before, 0, self.counts)
        values = np.clip(_representatives(self.keys), self.low, self.high)
        return float((taken * values).sum() / size)

    def _order_statistics(self, ranks: IntArray) -> FloatArray:
        running = np.cumsum(self.counts)
        found = np.searchsorted(running, ranks, side="right")
        values: FloatArray = np.clip(_representatives(self.keys[found]), self.low, self.high)
        values[ranks == 0] = self.low
        values[ranks == running[-1] - 1] = self.high
        return values

    def __reduce__(self) -> tuple[Callable[..., QuantileSketch], tuple[bytes, bytes, str, float, float]]:
        """Pickles as raw bytes, counts in the narrowest type that holds them."""
        narrow = np.min_scalar_type(int(self.counts.max())).newbyteorder("<") if self.counts.size else np.dtype("u1")
        return _unpack, (
            self.keys.astype("<i2").tobytes(),
            self.counts.astype(narrow).tobytes(),
            narrow.str,
            self.low,
            self.high,
        )


def _unpack(keys: bytes, counts: bytes, dtype: str, low: float, high: float) -> QuantileSketch:
    return QuantileSketch(
        np.frombuffer(keys, "<i2").astype(np.int16),
        np.frombuffer(counts, dtype).astype(np.int64),
        low,
        high,
    )
