"""May the best of many backtests be believed: Sharpe ratios judged by length, shape and number of tries.

Every Sharpe ratio here is **per period** (not annualised) and every kurtosis **non-excess** (3 for a normal
distribution), both as the biased sample moments. The bars are assumed independent; `analysis.bootstrap` has
the interval and the effective number of bars that drop that assumption.

Sources: Bailey & Lopez de Prado, "The Sharpe Ratio Efficient Frontier", 2012 (PSR, MinTRL) and "The Deflated
Sharpe Ratio", 2014 (SR0, DSR); Mertens 2002 (the variance). The 2025 convention that evaluates the variance
at the benchmark and divides by T gives other numbers and is not used.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from drl_ray_tracking.analysis.inputs import finite_number, finite_vector, is_flat, probability
from drl_ray_tracking.analysis.multiplicity import effective_number_of_trials
from drl_ray_tracking.analysis.overfitting import BacktestOverfitting, probability_of_backtest_overfitting
from drl_ray_tracking.errors import DataError

__all__ = [
    "BacktestOverfitting",
    "deflated_sharpe_ratio",
    "effective_number_of_trials",
    "expected_maximum_sharpe",
    "minimum_track_record_length",
    "probabilistic_sharpe_ratio",
    "probability_of_backtest_overfitting",
    "skewness_and_kurtosis",
]


def skewness_and_kurtosis(returns_T: ArrayLike) -> tuple[float, float]:
    """Returns the biased skewness and the biased, non-excess kurtosis of bar returns.

    Args:
        returns_T: (time,), finite, at least 2 bars.

    Raises:
        DataError: a wrong shape, too few bars, NaN, or returns that do not vary.
    """
    returns = finite_vector(returns_T, "returns_T", "time", 2)
    mean, sd = float(returns.mean()), float(returns.std())
    if is_flat(sd, mean):
        raise DataError(f"returns_T has the same return {mean:.6g} in every bar: its shape is undefined")
    standard = (returns - mean) / sd
    return float(np.mean(standard**3)), float(np.mean(standard**4))


def _sharpe_variance(sharpe: float, skew: float, kurtosis: float) -> float:
    """Returns V, the variance of a Sharpe ratio's estimate times the number of bars."""
    skewness = finite_number(skew, "skew")
    fourth = finite_number(kurtosis, "kurtosis")
    # Pearson's bound holds for every distribution and sample; a hundredth is left for published, rounded
    # moments.
    if fourth < 0.99 * (1.0 + skewness**2):
        raise DataError(
            f"kurtosis must be at least 1 + skew**2 = {1.0 + skewness**2:.6g} but got {kurtosis!r}: pass the "
            "non-excess kurtosis (3 for a normal distribution)"
        )
    variance = 1.0 - skewness * sharpe + (fourth - 1.0) / 4.0 * sharpe**2
    if variance <= 0.0:
        raise DataError(
            f"sharpe {sharpe!r}, skew {skew!r} and kurtosis {kurtosis!r} give the Sharpe ratio a variance of "
            f"{variance:.3g}: the moments contradict each other"
        )
    return variance


def probabilistic_sharpe_ratio(
    sharpe: float, n_obs: float, skew: float, kurtosis: float, benchmark: float = 0.0
) -> float:
    """Returns the probability that the true Sharpe ratio exceeds a benchmark.

    Phi((SR - SR*) sqrt(T - 1) / sqrt(V)), V = 1 - skew SR + (kurtosis - 1) / 4 SR^2.

    Args:
        sharpe: estimated Sharpe ratio, per period.
        n_obs: T, the unique bars it was estimated from (or the effective number), at least 2.
        skew: skewness of the bar returns.
        kurtosis: non-excess kurtosis of the bar returns, at least 1 + skew^2.
        benchmark: SR*, per period.

    Returns:
        A probability in [0, 1].

    Raises:
        DataError: an argument is not finite or out of range.
    """
    ratio = finite_number(sharpe, "sharpe")
    bars = finite_number(n_obs, "n_obs", 2.0)
    excess = ratio - finite_number(benchmark, "benchmark")
    return float(ndtr(excess * math.sqrt(bars - 1.0) / math.sqrt(_sharpe_variance(ratio, skew, kurtosis))))


def expected_maximum_sharpe(n_trials: float, trial_sharpe_variance: float) -> float:
    """Returns SR0, the Sharpe ratio that the best of N tries without any edge is expected to show.

    sqrt(var) [(1 - g) Phi^-1(1 - 1/N) + g Phi^-1(1 - 1/(N e))], g = Euler's constant. One try selects
    nothing: 0.

    Args:
        n_trials: N, every candidate the selection rule looked at (or an effective number), at least 1. A
            fraction is allowed; between 1 and about 1.3 the approximation turns negative and is held at 0.
        trial_sharpe_variance: variance of the per-period Sharpe ratios over the trials, not negative.

    Raises:
        DataError: an argument is not finite or out of range.
    """
    trials = finite_number(n_trials, "n_trials", 1.0)
    sd = math.sqrt(finite_number(trial_sharpe_variance, "trial_sharpe_variance", 0.0))
    if trials == 1.0:
        return 0.0
    first = float(ndtri(1.0 - 1.0 / trials))
    second = float(ndtri(1.0 - 1.0 / (trials * math.e)))
    return sd * max(0.0, (1.0 - np.euler_gamma) * first + np.euler_gamma * second)


def deflated_sharpe_ratio(
    sharpe: float, n_obs: float, skew: float, kurtosis: float, n_trials: float, trial_sharpe_variance: float
) -> float:
    """Returns the probability that the true Sharpe ratio exceeds what luck alone gives the best of N tries.

    The probabilistic Sharpe ratio at the benchmark `expected_maximum_sharpe(n_trials,
    trial_sharpe_variance)`.

    Args:
        sharpe, n_obs, skew, kurtosis: as in `probabilistic_sharpe_ratio`, of the selected trial.
        n_trials, trial_sharpe_variance: as in `expected_maximum_sharpe`.

    Returns:
        A probability in [0, 1], falling with `n_trials`. It has no nominal rate under noise: it is far rarer
        above 0.95 than one time in twenty.

    Raises:
        DataError: an argument is not finite or out of range.
    """
    hurdle = expected_maximum_sharpe(n_trials, trial_sharpe_variance)
    return probabilistic_sharpe_ratio(sharpe, n_obs, skew, kurtosis, hurdle)


def minimum_track_record_length(
    sharpe: float, skew: float, kurtosis: float, benchmark: float = 0.0, confidence: float = 0.95
) -> float:
    """Returns how many periods it takes to show that a Sharpe ratio exceeds the benchmark.

    1 + V (Phi^-1(confidence) / (SR - SR*))^2: at that length the probabilistic Sharpe ratio equals
    `confidence`.

    Args:
        sharpe, skew, kurtosis, benchmark: as in `probabilistic_sharpe_ratio`.
        confidence: the probability asked for, inside (0, 1).

    Returns:
        Periods, not rounded; `math.inf` where no length suffices (`sharpe` not above `benchmark`).

    Raises:
        DataError: an argument is not finite or out of range.
    """
    ratio = finite_number(sharpe, "sharpe")
    excess = ratio - finite_number(benchmark, "benchmark")
    variance = _sharpe_variance(ratio, skew, kurtosis)
    z = max(0.0, float(ndtri(probability(confidence, "confidence"))))
    if excess <= 0.0:
        return math.inf
    lengths = z / excess
    return 1.0 + variance * lengths * lengths
