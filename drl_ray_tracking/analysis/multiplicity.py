"""Many comparisons at once: adjusted p-values, and how many truly different tries there were.

Sources: Benjamini & Hochberg, "Controlling the False Discovery Rate", 1995; Roy & Vetterli, "The Effective
Rank", EUSIPCO 2007; Bailey & Lopez de Prado, "The Deflated Sharpe Ratio", 2014 (average correlation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drl_ray_tracking.analysis.inputs import FloatArray, finite_matrix, finite_vector, probability
from drl_ray_tracking.errors import DataError


@dataclass(frozen=True, eq=False)
class AdjustedPValues:
    """The outcome of a multiple-comparison procedure, in the order of the p-values given.

    Attributes:
        adjusted: (test,) the smallest false discovery rate at which each test is rejected, in [0, 1].
        rejected: (test,) whether that is at most `q`.
        q: the false discovery rate allowed.
    """

    adjusted: FloatArray
    rejected: NDArray[np.bool_]
    q: float


def benjamini_hochberg(p_values: ArrayLike, q: float = 0.05) -> AdjustedPValues:
    """Returns p-values adjusted to control the false discovery rate, and which tests are rejected at `q`.

    Valid for independent tests and for positively dependent ones, such as groups compared with one reference.

    Args:
        p_values: (test,), each in [0, 1].
        q: false discovery rate allowed, inside (0, 1).

    Raises:
        DataError: no p-value, a p-value outside [0, 1] or NaN, or `q` out of range.
    """
    p = finite_vector(p_values, "p_values", "test")
    rate = probability(q, "q")
    outside = p[(p < 0.0) | (p > 1.0)]
    if outside.size:
        raise DataError(f"p_values must lie in [0, 1] but {outside.size} do not, the first is {outside[0]!r}")
    order = np.argsort(p)
    scaled = p[order] * p.size / np.arange(1, p.size + 1)
    adjusted = np.empty_like(p)
    # Step-up: a test is rejected whenever a larger p-value is.
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return AdjustedPValues(adjusted=adjusted, rejected=adjusted <= rate, q=rate)


def _unit_series(returns_TN: FloatArray) -> FloatArray:
    """Returns (time + 1, trial) unit vectors whose inner products are the trials' correlations.

    The row added at the end is 1 for flat trials, which makes them copies of one trial unrelated to the others.
    """
    mean = returns_TN.mean(axis=0)
    centred = returns_TN - mean
    norm = np.linalg.norm(centred, axis=0)
    flat = norm / np.sqrt(len(returns_TN) - 1) <= 1e-12 * np.maximum(1.0, np.abs(mean))
    unit = np.where(flat, 0.0, centred / np.where(flat, 1.0, norm))
    return np.asarray(np.vstack([unit, flat]), dtype=np.float64)


def effective_number_of_trials(
    returns_TN: ArrayLike, *, method: Literal["effective_rank", "average_correlation"] = "effective_rank"
) -> float:
    """Returns how many independent trials the N correlated ones are worth, between 1 and N.

    Both methods give 1 for identical series and about N for independent ones.

    - `effective_rank`: the exponential of the entropy of the correlation matrix's eigenvalues over N. K
      clusters of identical series, equally large, give K. Series mirrored in sign count as one. It is biased
      downward where T is not well above N (independent series: by a factor of about exp(-N / 2T)) and never
      exceeds T - 1.
    - `average_correlation`: r + (1 - r) N with r the mean correlation over pairs, as in the deflated Sharpe
      ratio's paper; larger, so the more careful choice, where trials form clusters or T is short.

    Too small an effective number makes a deflated Sharpe ratio lenient: report it beside N, not instead.

    Args:
        returns_TN: (time, trial), aligned bar returns, finite, at least 3 bars. Trials without any variation
            (an agent that never trades) count together as one trial.
        method: one of the two above.

    Raises:
        DataError: a wrong shape, too few bars, NaN, or an unknown method.
    """
    returns = finite_matrix(returns_TN, "returns_TN", ("time", "trial"), (3, 1))
    trials = returns.shape[1]
    unit = _unit_series(returns)
    if method == "effective_rank":
        # Both products have the same eigenvalues but for zeros: thousands of candidates need no N x N matrix.
        product = unit.T @ unit if trials <= len(unit) else unit @ unit.T
        share = np.clip(np.linalg.eigvalsh(product), 0.0, None) / trials
        share = share[share > 0.0]
        effective = float(np.exp(-np.sum(share * np.log(share))))
    elif method == "average_correlation":
        total = float(np.sum(unit.sum(axis=1) ** 2))
        mean = (total - trials) / (trials * (trials - 1)) if trials > 1 else 1.0
        effective = mean + (1.0 - mean) * trials
    else:
        raise DataError(f"method must be 'effective_rank' or 'average_correlation' but got {method!r}")
    return min(max(effective, 1.0), float(trials))
