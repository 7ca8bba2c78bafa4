"""Scores of several training runs: robust means, their bootstrap intervals, and who beats whom.

One shape everywhere: `scores_RT`, rows are training runs (seeds), columns are tasks or market windows, higher
is better. Seeds are the replicates; episodes or iterations of one seed are not. A NaN or an infinite score is
refused: a crashed run silently left out would flatter its group, so the caller decides and counts.

Source: Agarwal, Schwarzer, Castro, Courville, Bellemare, "Deep Reinforcement Learning at the Edge of the
Statistical Precipice", NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from drl_ray_tracking.analysis.inputs import (
    FloatArray,
    finite_matrix,
    finite_vector,
    generator,
    probability,
    whole_number,
)
from drl_ray_tracking.errors import DataError

Statistic = Callable[[FloatArray], float]

_AXES = ("run", "task")

# Resampled values held at once: 8 MB a temporary, whatever the number of resamples.
_CHUNK_VALUES = 1_000_000


def _trimmed_mean(values_BK: FloatArray) -> FloatArray:
    size = values_BK.shape[-1]
    cut = size // 4
    if cut:
        # Two pivots isolate the middle half in linear time; its inner order does not matter to a mean.
        values_BK = np.partition(values_BK, (cut, size - cut - 1), axis=-1)[..., cut : size - cut]
    return np.asarray(values_BK.mean(axis=-1), dtype=np.float64)


def interquartile_mean(scores_RT: ArrayLike) -> float:
    """Returns the mean of the middle half of all scores, runs and tasks pooled.

    Args:
        scores_RT: (run, task), finite. `floor(R * T / 4)` scores are cut at either end (scipy's
            `trim_mean(scores, 0.25, axis=None)`); fewer than four scores give the plain mean.

    Raises:
        DataError: the array is not two-dimensional, is empty, or holds NaN or infinite values.
    """
    return float(_trimmed_mean(finite_matrix(scores_RT, "scores_RT", _AXES).ravel()))


# The statistics that exist in a form over a stack (resample, run * task): one call a chunk, not one a
# resample.
_STACKED: tuple[tuple[object, Callable[[FloatArray], FloatArray]], ...] = (
    (interquartile_mean, _trimmed_mean),
    (np.mean, lambda values_BK: np.asarray(values_BK.mean(axis=-1))),
    (np.median, lambda values_BK: np.asarray(np.median(values_BK, axis=-1))),
)


def _over_stack(statistic: Statistic) -> Callable[[FloatArray], FloatArray]:
    """Returns `statistic` as a function of a stack (resample, run, task) -> (resample,)."""
    for known, stacked in _STACKED:
        if statistic is known:
            return lambda samples_BRT: stacked(samples_BRT.reshape(len(samples_BRT), -1))
    return lambda samples_BRT: np.array([float(statistic(sample_RT)) for sample_RT in samples_BRT])


def stratified_bootstrap_interval(
    scores_RT: ArrayLike,
    statistic: Statistic,
    *,
    rng: np.random.Generator,
    n_resamples: int,
    confidence: float,
) -> tuple[float, float]:
    """Returns the percentile interval of a statistic, runs resampled independently within each column.

    `interquartile_mean`, `numpy.mean` and `numpy.median` are computed a stack at a time; any other callable
    is called once a resample. With fewer than about five runs the interval is too short: that is the
    bootstrap's limit, not a matter of `n_resamples`.

    Args:
        scores_RT: (run, task), finite.
        statistic: maps one (run, task) array to a number.
        rng: the only source of randomness; the same state gives the same interval.
        n_resamples: bootstrap resamples, at least 1 (the paper uses 50,000).
        confidence: coverage aimed at, inside (0, 1).

    Returns:
        (low, high), in the unit of the scores.

    Raises:
        DataError: a wrong shape, NaN, a value out of range, or a statistic that is NaN on a resample.
    """
    scores = finite_matrix(scores_RT, "scores_RT", _AXES)
    total = whole_number(n_resamples, "n_resamples", 1)
    level = probability(confidence, "confidence")
    generator(rng)
    n_runs, n_tasks = scores.shape
    over_stack = _over_stack(statistic)
    columns = np.arange(n_tasks)
    chunk = max(1, _CHUNK_VALUES // scores.size)
    values = np.empty(total)
    for start in range(0, total, chunk):
        stop = min(start + chunk, total)
        rows = rng.integers(n_runs, size=(stop - start, n_runs, n_tasks))
        values[start:stop] = over_stack(scores[rows, columns])
    undefined = int(np.count_nonzero(np.isnan(values)))
    if undefined:
        raise DataError(
            f"statistic must be a number on every resample but is NaN on {undefined} of {total}: "
            "use one that is defined when runs repeat"
        )
    low, high = np.quantile(values, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def probability_of_improvement(x_RT: ArrayLike, y_RT: ArrayLike) -> float:
    """Returns the probability that a run of X scores above a run of Y on a task drawn at random.

    The Mann-Whitney statistic of each task over its number of pairs, averaged over the tasks; ties count one
    half, so that `probability_of_improvement(x, y) + probability_of_improvement(y, x) == 1`.

    Args:
        x_RT: (run, task), finite.
        y_RT: (run, task), the same tasks in the same order; the number of runs may differ.

    Raises:
        DataError: a wrong shape, NaN, or a different number of tasks.
    """
    x = finite_matrix(x_RT, "x_RT", _AXES)
    y = finite_matrix(y_RT, "y_RT", _AXES)
    if x.shape[1] != y.shape[1]:
        raise DataError(
            f"x_RT and y_RT must have the same tasks in their columns but got {x.shape[1]} and {y.shape[1]}"
        )
    ranks = rankdata(np.concatenate([x, y]), axis=0)[: len(x)]
    wins = ranks.sum(axis=0) - len(x) * (len(x) + 1) / 2
    return float(np.mean(wins / (len(x) * len(y))))


def performance_profile(scores_RT: ArrayLike, thresholds: ArrayLike) -> FloatArray:
    """Returns, for each threshold, the share of all (run, task) scores strictly above it.

    Args:
        scores_RT: (run, task), finite.
        thresholds: (threshold,), finite, in the unit of the scores, in any order.

    Returns:
        (threshold,) shares in [0, 1], in the order of `thresholds`.

    Raises:
        DataError: a wrong shape, an empty array, or NaN.
    """
    scores = np.sort(finite_matrix(scores_RT, "scores_RT", _AXES), axis=None)
    taus = finite_vector(thresholds, "thresholds", "threshold")
    return np.asarray(1.0 - np.searchsorted(scores, taus, side="right") / scores.size, dtype=np.float64)
