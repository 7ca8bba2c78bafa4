"""Is any of many candidates better than a benchmark, the best of them having been looked for?

Through `arch` (`pip install 'drl-ray-tracking[arch]'`): the stationary bootstrap keeps the bars' dependence and, since
all candidates are resampled together, theirs on each other.

Sources: Hansen, "A Test for Superior Predictive Ability", 2005 (SPA); Romano & Wolf, "Stepwise Multiple Testing as
Formalized Data Snooping", 2005 (StepM).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drl_ray_tracking.analysis.extras import extra
from drl_ray_tracking.analysis.inputs import (
    FloatArray,
    finite_matrix,
    finite_number,
    finite_vector,
    generator,
    probability,
    whole_number,
)
from drl_ray_tracking.errors import DataError

_LEAST_BARS = 10


@dataclass(frozen=True)
class SuperiorAbility:
    """p-values of Hansen's test that no candidate earns more than the benchmark.

    `consistent` is the one to read; `lower` and `upper` bound it: liberal and conservative.
    """

    lower: float
    consistent: float
    upper: float


def superior_predictive_ability(
    returns_TN: ArrayLike,
    benchmark_T: ArrayLike,
    *,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    block_length: float | None = None,
) -> SuperiorAbility:
    """Tests whether the best of all candidates has a higher mean return than the benchmark.

    Args:
        returns_TN: (time, candidate), bar returns of **all** candidates on the same bars, finite; at least 10 bars.
            Candidates that are the benchmark bar by bar can be no better and are left out; one that earns a constant
            more than it in every bar is better without a test.
        benchmark_T: (time,), the benchmark's bar returns: buy-and-hold, or zeros for cash.
        rng: the only source of randomness; the same state gives the same p-values.
        n_resamples: bootstrap resamples, at least 1.
        block_length: mean block length in bars; None takes the square root of T, as `arch` does.

    Raises:
        DataError: a wrong shape, NaN, or a value out of range.
        ConfigurationError: `arch` is not installed.
    """
    losses, benchmark, _, always = _losses(returns_TN, benchmark_T)
    if always.any():
        return SuperiorAbility(0.0, 0.0, 0.0)
    if not losses.shape[1]:
        return SuperiorAbility(1.0, 1.0, 1.0)
    test = _test("SPA", benchmark, losses, rng, n_resamples, block_length)
    test.compute()
    return SuperiorAbility(*(float(test.pvalues[name]) for name in ("lower", "consistent", "upper")))


def superior_candidates(
    returns_TN: ArrayLike,
    benchmark_T: ArrayLike,
    *,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    block_length: float | None = None,
    level: float = 0.05,
) -> NDArray[np.bool_]:
    """Returns which candidates have a higher mean return than the benchmark, at a family-wise error rate.

    Args:
        level: chance that even one of those named is no better, inside (0, 1).

    The other arguments and the errors are those of `superior_predictive_ability`.

    Returns:
        (candidate,) in the order of the columns.
    """
    losses, benchmark, differs, better = _losses(returns_TN, benchmark_T)
    if losses.shape[1]:
        size = probability(level, "level")
        test = _test("StepM", benchmark, losses, rng, n_resamples, block_length, size=size)
        test.compute()
        better[np.flatnonzero(differs)[[int(column) for column in test.superior_models]]] = True
    return better


def _losses(
    returns_TN: ArrayLike, benchmark_T: ArrayLike
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns losses of the candidates that can be tested, the benchmark's, which these are, and which surely win.

    What is a constant above or below the benchmark cannot be tested, and need not be.
    """
    returns = finite_matrix(returns_TN, "returns_TN", ("time", "candidate"), (_LEAST_BARS, 1))
    benchmark = finite_vector(benchmark_T, "benchmark_T", "time", _LEAST_BARS)
    if len(benchmark) != len(returns):
        raise DataError(
            f"benchmark_T must have the {len(returns)} bars of returns_TN but has {len(benchmark)}: align them first"
        )
    excess = returns - benchmark[:, np.newaxis]
    mean = excess.mean(axis=0)
    differs = np.asarray(excess.std(axis=0) > 1e-12 * np.maximum(1.0, np.abs(mean)), dtype=np.bool_)
    # arch takes losses: less is better.
    return -returns[:, differs], -benchmark, differs, ~differs & (mean > 1e-12)


def _test(
    kind: str,
    benchmark: FloatArray,
    losses: FloatArray,
    rng: np.random.Generator,
    n_resamples: int,
    block_length: float | None,
    **more: Any,
) -> Any:
    bootstrap = extra("arch.bootstrap", "arch", f"the {kind} test")
    blocks = None if block_length is None else round(finite_number(block_length, "block_length", 1.0))
    reps = whole_number(n_resamples, "n_resamples", 1)
    return getattr(bootstrap, kind)(benchmark, losses, block_size=blocks, reps=reps, seed=generator(rng), **more)
