"""Mergeable moments: mean to kurtosis of one variable, and the covariance of two.

Central sums are merged by Chan et al. 1983 and Pebay 2008 (SAND2008-6212). Raw power sums would lose every
digit at an offset of 1e8. Sums are numpy's pairwise ones, never BLAS: a dot product's last bits depend on
alignment and threads, and the same episode must give the same bits on every worker.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from drl_ray_tracking.episodes.arrays import FloatArray
from drl_ray_tracking.episodes.kpis import Kpi, Undefined

ZERO_VARIANCE = Undefined("zero_variance")
TOO_FEW = Undefined("too_few_values")


def is_negligible(deviation: float, mean: float) -> bool:
    """Tells whether a deviation counts as zero: `sd <= 1e-12 * max(1, |mean|)`."""
    return deviation == 0.0 or (math.isfinite(mean) and deviation <= 1e-12 * max(1.0, abs(mean)))


def _centred(values: FloatArray) -> tuple[float, FloatArray]:
    """Returns mean and deviations; the second pass removes the rounding error of the first mean."""
    mean = float(values.mean())
    deviations = values - mean
    correction = float(deviations.mean())
    return mean + correction, deviations - correction


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean, central sums of order 2 to 4 and extremes of one variable; a commutative monoid.

    `Moments()` is the identity. Values beyond about 1e77 overflow the fourth power to inf or NaN here;
    whoever publishes a KPI reports that as `overflow`.
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    m3: float = 0.0
    m4: float = 0.0
    min: float = math.inf
    max: float = -math.inf

    @classmethod
    def empty(cls) -> Moments:
        """Returns the identity of `merge`."""
        return cls()

    @classmethod
    def single(cls, value: float) -> Moments:
        """Returns the moments of one finite value."""
        return cls(1, value, 0.0, 0.0, 0.0, value, value)

    @classmethod
    def of(cls, values: FloatArray) -> Moments:
        """Returns the moments of a one-dimensional array of finite values."""
        n = values.size
        if n == 0:
            return cls()
        if n == 1:
            return cls.single(float(values[0]))
        mean, deviations = _centred(values)
        squares = deviations * deviations
        return cls(
            n,
            mean,
            float(squares.sum()),
            float((squares * deviations).sum()),
            float((squares * squares).sum()),
            float(values.min()),
            float(values.max()),
        )

    def merge(self, other: Moments) -> Moments:
        """Returns the moments of both samples together."""
        if other.n == 0:
            return self
        if self.n == 0:
            return other
        a, b = self, other
        n = a.n + b.n
        delta = b.mean - a.mean
        step = delta / n
        product = delta * step * a.n * b.n
        return Moments(
            n,
            a.mean + step * b.n,
            a.m2 + b.m2 + product,
            a.m3 + b.m3 + product * step * (a.n - b.n) + 3.0 * step * (a.n * b.m2 - b.n * a.m2),
            a.m4
            + b.m4
            + product * step * step * (a.n * a.n - a.n * b.n + b.n * b.n)
            + 6.0 * step * step * (a.n * a.n * b.m2 + b.n * b.n * a.m2)
            + 4.0 * step * (a.n * b.m3 - b.n * a.m3),
            min(a.min, b.min),
            max(a.max, b.max),
        )

    @property
    def sd(self) -> Kpi:
        """Sample standard deviation (ddof 1); undefined below two values, zero where negligible."""
        if self.n < 2:
            return TOO_FEW
        sd = math.sqrt(self.m2 / (self.n - 1))
        return 0.0 if is_negligible(sd, self.mean) else sd

    @property
    def skewness(self) -> Kpi:
        """Biased skewness m3 / m2^1.5; undefined at zero variance."""
        spread = self.sd
        if isinstance(spread, Undefined):
            return spread
        if spread == 0.0:
            return ZERO_VARIANCE
        variance = self.m2 / self.n
        return self.m3 / self.n / (variance * math.sqrt(variance))

    @property
    def kurtosis(self) -> Kpi:
        """Biased, non-excess kurtosis m4 / m2^2 (3 for a normal); undefined at zero variance."""
        spread = self.sd
        if isinstance(spread, Undefined):
            return spread
        if spread == 0.0:
            return ZERO_VARIANCE
        variance = self.m2 / self.n
        return self.m4 / self.n / (variance * variance)


@dataclass(frozen=True, slots=True)
class CoMoments:
    """Second-order moments of aligned pairs (x, y), and of x - y; a commutative monoid.

    `m2_difference` is kept apart because m2_x + m2_y - 2 c_xy cancels where x follows y closely, which is
    where a tracking error matters.
    """

    n: int = 0
    mean_x: float = 0.0
    mean_y: float = 0.0
    m2_x: float = 0.0
    m2_y: float = 0.0
    c_xy: float = 0.0
    m2_difference: float = 0.0

    @classmethod
    def empty(cls) -> CoMoments:
        """Returns the identity of `merge`."""
        return cls()

    @classmethod
    def of(cls, x: FloatArray, y: FloatArray) -> CoMoments:
        """Returns the moments of two arrays of the same shape (n,) of finite values."""
        if x.size == 0:
            return cls()
        mean_x, dx = _centred(x)
        mean_y, dy = _centred(y)
        difference = dx - dy
        return cls(
            x.size,
            mean_x,
            mean_y,
            float((dx * dx).sum()),
            float((dy * dy).sum()),
            float((dx * dy).sum()),
            float((difference * difference).sum()),
        )

    def merge(self, other: CoMoments) -> CoMoments:
        """Returns the moments of both samples of pairs together."""
        if other.n == 0:
            return self
        if self.n == 0:
            return other
        a, b = self, other
        n = a.n + b.n
        dx = b.mean_x - a.mean_x
        dy = b.mean_y - a.mean_y
        weight = a.n * b.n / n
        return CoMoments(
            n,
            a.mean_x + dx * b.n / n,
            a.mean_y + dy * b.n / n,
            a.m2_x + b.m2_x + dx * dx * weight,
            a.m2_y + b.m2_y + dy * dy * weight,
            a.c_xy + b.c_xy + dx * dy * weight,
            a.m2_difference + b.m2_difference + (dx - dy) * (dx - dy) * weight,
        )

    @property
    def difference_sd(self) -> Kpi:
        """Sample standard deviation (ddof 1) of x - y."""
        return Moments(self.n, self.mean_x - self.mean_y, self.m2_difference).sd

    @property
    def beta(self) -> Kpi:
        """Slope of x on y; undefined where y does not vary."""
        spread = Moments(self.n, self.mean_y, self.m2_y).sd
        if isinstance(spread, Undefined):
            return spread
        return self.c_xy / self.m2_y if spread > 0.0 else Undefined("zero_benchmark_variance")
