"""Turns what a caller hands to a statistic into checked arrays and numbers, or says what is wrong.

A statistic of a wrong-shaped or holed array is a plausible, wrong number; so nothing here repairs, drops or
broadcasts. Every refusal is a `DataError` naming what was given and what is allowed.
"""

from __future__ import annotations

import math
import operator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drl_ray_tracking.errors import DataError

FloatArray = NDArray[np.float64]


def _finite_array(values: ArrayLike, name: str, axes: tuple[str, ...], least: tuple[int, ...]) -> FloatArray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must be a rectangular array of numbers: {error}") from error
    if array.ndim != len(axes):
        raise DataError(f"{name} must have the axes ({', '.join(axes)}) but got the shape {array.shape}")
    for axis, size, minimum in zip(axes, array.shape, least, strict=True):
        if size < minimum:
            raise DataError(f"{name} needs at least {minimum} along the axis '{axis}' but got {size}")
    holes = array.size - int(np.count_nonzero(np.isfinite(array)))
    if holes:
        raise DataError(
            f"{name} must be finite but {holes} of its {array.size} values are NaN or infinite: "
            "drop or repair them first, and count them"
        )
    return array


def finite_vector(values: ArrayLike, name: str, axis: str, at_least: int = 1) -> FloatArray:
    """Returns `values` as a finite float vector of `at_least` entries; raises DataError otherwise."""
    return _finite_array(values, name, (axis,), (at_least,))


def finite_matrix(
    values: ArrayLike, name: str, axes: tuple[str, str], at_least: tuple[int, int] = (1, 1)
) -> FloatArray:
    """Returns `values` as a finite float matrix of `at_least` that size; raises DataError otherwise."""
    return _finite_array(values, name, axes, at_least)


def finite_number(value: float, name: str, at_least: float = -math.inf) -> float:
    """Returns `value` as a finite float not below `at_least`; raises DataError otherwise."""
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must be a number but got {value!r}") from error
    if not math.isfinite(number) or number < at_least:
        bound = "" if at_least == -math.inf else f" and at least {at_least:g}"
        raise DataError(f"{name} must be finite{bound} but got {value!r}")
    return number


def probability(value: float, name: str) -> float:
    """Returns `value` if it lies strictly between 0 and 1; raises DataError otherwise."""
    number = finite_number(value, name)
    if not 0.0 < number < 1.0:
        raise DataError(f"{name} must lie strictly between 0 and 1 but got {value!r}")
    return number


def whole_number(value: int, name: str, at_least: int) -> int:
    """Returns `value` as an int not below `at_least`; raises DataError otherwise."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise DataError(f"{name} must be a whole number but got {value!r}") from error
    if number < at_least:
        raise DataError(f"{name} must be at least {at_least} but got {number}")
    return number


def generator(rng: np.random.Generator) -> np.random.Generator:
    """Returns `rng`; raises DataError for a seed or anything else that is not a numpy Generator."""
    if not isinstance(rng, np.random.Generator):
        raise DataError(f"rng must be a numpy.random.Generator but got {rng!r}: pass numpy.random.default_rng(seed)")
    return rng


def is_flat(sd: float, mean: float) -> bool:
    """Tells whether a standard deviation is zero but for rounding: no Sharpe ratio or correlation exists."""
    return sd <= 1e-12 * max(1.0, abs(mean))
