"""How reliable training is: its jitter, its worst steps, its collapses, and how far seeds drift apart.

One shape everywhere: `curves_RT`, rows are training runs, columns evaluation points in time order and equally
far apart (interpolate to a common grid first), values a score where higher is better. Results keep the
curve's unit, and as in the rest of the package a risk is a positive number: larger is worse. (The paper
prints the negative side.)

Source: Chan, Fishman, Canny, Korattikara, Guadarrama, "Measuring the Reliability of Reinforcement Learning
Algorithms", ICLR 2020; Rockafellar & Uryasev, "Conditional Value-at-Risk for General Loss Distributions", 2002.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.signal import butter, sosfiltfilt

from drl_ray_tracking.analysis.inputs import FloatArray, finite_matrix, probability, whole_number
from drl_ray_tracking.errors import DataError

_AXES = ("run", "time")
_FILTER_ORDER = 4


def _interquartile_range(values: FloatArray, axis: int) -> FloatArray:
    low, high = np.quantile(values, [0.25, 0.75], axis=axis)
    return np.asarray(high - low, dtype=np.float64)


def _worst_share(losses_RT: FloatArray, alpha: float) -> FloatArray:
    """Returns each run's mean over the largest share `alpha` of its losses: the conditional value at risk.

    The loss on the edge counts with the fraction of it that belongs to the share (Rockafellar & Uryasev 2002). A mean
    of all losses at or above the quantile jumps with ties: of a curve that collapses over its last 3 %, it would
    average 97 % of zero drawdowns into the worst 5 %.
    """
    size = losses_RT.shape[1]
    weight = np.clip(alpha * size - np.arange(size), 0.0, 1.0)
    descending = -np.sort(-losses_RT, axis=1)
    return np.asarray(descending @ (weight / weight.sum()), dtype=np.float64)


def dispersion_across_time(curves_RT: ArrayLike, *, window: int | None = None) -> FloatArray:
    """Returns each run's jitter: the interquartile range of its steps, averaged over sliding windows.

    First differences take the trend out, so steady progress of any speed has no dispersion.

    Args:
        curves_RT: (run, time), finite, at least 3 points.
        window: differences per sliding window, from 2 to T - 1; None takes all of them at once.

    Returns:
        (run,), not negative, in the unit of the curve.

    Raises:
        DataError: a wrong shape, too few points, NaN, or a window out of range.
    """
    steps = np.diff(finite_matrix(curves_RT, "curves_RT", _AXES, (1, 3)), axis=1)
    width = steps.shape[1] if window is None else whole_number(window, "window", 2)
    if width > steps.shape[1]:
        raise DataError(f"window must be at most the {steps.shape[1]} differences of a curve but got {width}")
    windows_RVW = np.lib.stride_tricks.sliding_window_view(steps, width, axis=1)
    return np.asarray(_interquartile_range(windows_RVW, axis=2).mean(axis=1), dtype=np.float64)


def risk_across_time(curves_RT: ArrayLike, *, alpha: float = 0.05) -> FloatArray:
    """Returns each run's short-term risk: the mean drop over its worst steps.

    The conditional value at risk of the first differences' lower tail, with the sign turned.

    Args:
        curves_RT: (run, time), finite, at least 2 points.
        alpha: the share of steps called worst, inside (0, 1).

    Returns:
        (run,), in the unit of the curve; negative where even the worst steps rise.

    Raises:
        DataError: a wrong shape, too few points, NaN, or alpha out of range.
    """
    curves = finite_matrix(curves_RT, "curves_RT", _AXES, (1, 2))
    return _worst_share(-np.diff(curves, axis=1), probability(alpha, "alpha"))


def drawdown_risk(curves_RT: ArrayLike, *, alpha: float = 0.05) -> FloatArray:
    """Returns each run's long-term risk: the mean distance below the best so far over its worst points.

    The conditional value at risk of the drawdown from the running maximum. The drawdown is absolute, not a
    fraction: a score may be negative.

    Args:
        curves_RT: (run, time), finite, at least 1 point.
        alpha: the share of points called worst, inside (0, 1).

    Returns:
        (run,), not negative, in the unit of the curve; 0 for a curve that never falls.

    Raises:
        DataError: a wrong shape, an empty array, NaN, or alpha out of range.
    """
    curves = finite_matrix(curves_RT, "curves_RT", _AXES)
    return _worst_share(np.maximum.accumulate(curves, axis=1) - curves, probability(alpha, "alpha"))


def dispersion_across_runs(curves_RT: ArrayLike, *, low_pass: float | None = None) -> FloatArray:
    """Returns, at each evaluation point, the interquartile range over runs.

    Args:
        curves_RT: (run, time), finite, at least 2 runs.
        low_pass: None, or the cut-off of a zero-phase Butterworth filter run over each curve first, as a
            fraction of the Nyquist frequency inside (0, 1), so that jitter within a run does not count as
            distance between runs (the paper uses 0.01 on curves of thousands of points).

    Returns:
        (time,), not negative, in the unit of the curve.

    Raises:
        DataError: a wrong shape, too few runs, NaN, or a cut-off out of range.
    """
    curves = finite_matrix(curves_RT, "curves_RT", _AXES, (2, 1))
    if low_pass is not None:
        sections = butter(_FILTER_ORDER, probability(low_pass, "low_pass"), output="sos")
        # scipy's own padding of both ends, shortened where the curve itself is shorter.
        padding = min(3 * (_FILTER_ORDER + 1), curves.shape[1] - 1)
        curves = np.asarray(sosfiltfilt(sections, curves, axis=1, padlen=padding), dtype=np.float64)
    return _interquartile_range(curves, axis=0)
