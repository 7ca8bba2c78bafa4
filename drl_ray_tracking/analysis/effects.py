"""How large a difference between two groups of seeds is, and how many seeds it takes to see it.

Sources: Welch, "The Generalization of Student's Problem", 1947; Cohen, "Statistical Power Analysis for the Behavioral
Sciences", 1988; Hedges, "Distribution Theory for Glass's Estimator of Effect Size", 1981; Colas, Sigaud, Oudeyer, "How
Many Random Seeds?", 2018.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaincinv, gammaln, ndtr, ndtri, stdtr, stdtrit

from drl_ray_tracking.analysis.inputs import finite_number, finite_vector, is_flat, probability
from drl_ray_tracking.errors import DataError

# Beyond this many seeds Student's t is the normal distribution to all printed digits.
_NORMAL_FROM = 10_000

# Gauss-Legendre nodes over the quantiles of the estimated standard deviation: the power to about 1e-5.
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(200)
_QUANTILES, _WEIGHTS = (_NODES + 1.0) / 2.0, _NODE_WEIGHTS / 2.0


def cohens_d(x_R: ArrayLike, y_R: ArrayLike) -> float:
    """Returns the standardised mean difference (mean x - mean y) / pooled standard deviation (ddof 1).

    Args:
        x_R: (run,), finite, at least 2 runs.
        y_R: (run,), finite, at least 2 runs; the number may differ.

    Raises:
        DataError: a wrong shape, fewer than two runs, NaN, or no spread within the groups (undefined).
    """
    x = finite_vector(x_R, "x_R", "run", 2)
    y = finite_vector(y_R, "y_R", "run", 2)
    pooled = ((len(x) - 1) * x.var(ddof=1) + (len(y) - 1) * y.var(ddof=1)) / (len(x) + len(y) - 2)
    sd = math.sqrt(pooled)
    if is_flat(sd, max(abs(float(x.mean())), abs(float(y.mean())))):
        raise DataError("x_R and y_R have no spread within the groups: the standardised difference is undefined")
    return float((x.mean() - y.mean()) / sd)


def hedges_g(x_R: ArrayLike, y_R: ArrayLike) -> float:
    """Returns Cohen's d without its upward bias in small samples, by Hedges' exact gamma-function factor.

    Args and errors are those of `cohens_d`. Five seeds a group shrink d by 10 %, three by 20 %.
    """
    freedom = len(finite_vector(x_R, "x_R", "run", 2)) + len(finite_vector(y_R, "y_R", "run", 2)) - 2
    correction = math.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    return cohens_d(x_R, y_R) * correction


def welch_p_value(x_R: ArrayLike, y_R: ArrayLike) -> float:
    """Returns the two-sided p-value of Welch's test that two groups have the same mean.

    Args:
        x_R: (run,), finite, at least 2 runs.
        y_R: (run,), finite, at least 2 runs; the number may differ.

    Raises:
        DataError: a wrong shape, fewer than two runs, NaN, or no spread within the groups (undefined).
    """
    x = finite_vector(x_R, "x_R", "run", 2)
    y = finite_vector(y_R, "y_R", "run", 2)
    share_x, share_y = float(x.var(ddof=1)) / len(x), float(y.var(ddof=1)) / len(y)
    error = math.sqrt(share_x + share_y)
    if is_flat(error, max(abs(float(x.mean())), abs(float(y.mean())))):
        raise DataError("x_R and y_R have no spread within the groups: nothing can be tested")
    # Relative shares: in huge units the fourth power of the error would overflow.
    part_x, part_y = share_x / (share_x + share_y), share_y / (share_x + share_y)
    freedom = 1.0 / (part_x**2 / (len(x) - 1) + part_y**2 / (len(y) - 1))
    return float(2.0 * stdtr(freedom, -abs(float(x.mean() - y.mean())) / error))


def _welch_power(seeds: int, distance: float, var_a: float, var_b: float, alpha: float) -> float:
    """Returns the chance that a two-sided Welch test with `seeds` a group finds the difference, right way round.

    `distance` is the difference over the root of the summed variances; `var_a` and `var_b` are their shares.
    """
    freedom = (seeds - 1) * (var_a + var_b) ** 2 / (var_a**2 + var_b**2)
    critical = stdtrit(freedom, 1.0 - alpha / 2.0)
    # Non-central t by its definition, averaged over the estimated sd: scipy's nctdtr answers NaN at scattered
    # points once the difference is clear.
    relative_sd = np.sqrt(gammaincinv(freedom / 2.0, _QUANTILES) / (freedom / 2.0))
    return float(_WEIGHTS @ ndtr(distance * math.sqrt(seeds) - critical * relative_sd))


def seeds_to_separate(
    mean_a: float,
    sd_a: float,
    mean_b: float,
    sd_b: float,
    power: float = 0.9,
    confidence: float = 0.95,
) -> float:
    """Returns how many seeds per group a two-sided Welch test needs to tell A from B.

    The means and standard deviations are taken as true, so from few seeds this is a planning figure.

    Args:
        mean_a, mean_b: means over seeds, finite, in one unit.
        sd_a, sd_b: standard deviations over seeds, not negative, in that unit.
        power: probability of seeing the difference, inside (0, 1).
        confidence: one minus the test's level, inside (0, 1).

    Returns:
        The smallest sufficient whole number, at least 2; `math.inf` where no number suffices (equal means).

    Raises:
        DataError: an argument is not finite or out of range.
    """
    gap = abs(finite_number(mean_a, "mean_a") - finite_number(mean_b, "mean_b"))
    spread_a, spread_b = finite_number(sd_a, "sd_a", 0.0), finite_number(sd_b, "sd_b", 0.0)
    target, alpha = probability(power, "power"), 1.0 - probability(confidence, "confidence")
    if gap == 0.0:
        return math.inf
    spread = math.hypot(spread_a, spread_b)
    if spread == 0.0:
        return 2.0
    z = float(ndtri(1 - alpha / 2) + ndtri(target))
    scaled = max(z, 0.0) * spread / gap
    normal = scaled * scaled
    if normal > _NORMAL_FROM:
        return float(math.ceil(normal)) if math.isfinite(normal) else math.inf
    # Relative variances: tiny or huge units must not underflow when squared.
    var_a, var_b = (spread_a / spread) ** 2, (spread_b / spread) ** 2

    def suffices(seeds: int) -> bool:
        return _welch_power(seeds, gap / spread, var_a, var_b, alpha) >= target

    seeds = max(2, math.ceil(normal))
    while not suffices(seeds):
        seeds += 1
    while seeds > 2 and suffices(seeds - 1):
        seeds -= 1
    return float(seeds)
