"""The array types of this package, and the one door through which numbers become arrays.

Everything below works on owned, contiguous, read-only float64: a reused environment buffer cannot change
a record afterwards, and equal numbers have equal bytes whatever type they came in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drl_ray_tracking.errors import EpisodeError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def owned_floats(values: ArrayLike) -> FloatArray:
    """Copies numbers of any real type into a read-only float64 array; None becomes NaN.

    Raises:
        EpisodeError: the values are ragged, complex, dates or text.
    """
    try:
        given = np.asarray(values)
        if given.dtype.kind not in "biufO":
            raise TypeError(f"dtype {given.dtype}")
        with np.errstate(all="ignore"):
            array = np.array(given, dtype=np.float64, order="C")
    except (TypeError, ValueError, OverflowError) as error:
        raise EpisodeError(f"expected an array of real numbers but got {error}") from error
    array.flags.writeable = False
    return array


def float_vector(values: ArrayLike, name: str) -> FloatArray:
    """Reads a one-dimensional argument of a public array function.

    Raises:
        EpisodeError: the values are no numbers or not one-dimensional.
    """
    try:
        array = owned_floats(values)
    except EpisodeError as error:
        raise EpisodeError(f"{name}: {error}") from error
    if array.ndim != 1:
        raise EpisodeError(f"{name} must be one-dimensional but has shape {array.shape}: pass one path at a time")
    return array
