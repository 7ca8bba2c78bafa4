"""Learning curves of several seeds on one grid of env steps: what they share, interpolated where their grids differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from drl_ray_tracking.analysis.inputs import FloatArray


@dataclass(frozen=True, eq=False)
class SeedCurves:
    """Curves of seeds: `steps` (step,) in env steps, `values_RT` (seed, step)."""

    steps: FloatArray
    values_RT: FloatArray

    @property
    def mean(self) -> FloatArray:
        """The mean over seeds, (step,)."""
        return np.asarray(self.values_RT.mean(axis=0), dtype=np.float64)

    @property
    def low(self) -> FloatArray:
        """The lowest seed, (step,)."""
        return np.asarray(self.values_RT.min(axis=0), dtype=np.float64)

    @property
    def high(self) -> FloatArray:
        """The highest seed, (step,)."""
        return np.asarray(self.values_RT.max(axis=0), dtype=np.float64)


def over_seeds(curves: Sequence[pd.Series[float]], *, least_steps: int = 0) -> SeedCurves:
    """Returns curves on the union of their grids, from the latest first step to the earliest last step.

    Beyond that a seed would join or leave, and bend the mean. Where no step is common, the longest curve stands alone.

    Args:
        curves: index env steps, strictly increasing; no missing value; at least one curve with at least one point.
        least_steps: steps to add to the grid, evenly spaced.
    """
    curves, first, last = _common(curves)
    steps = np.unique(np.concatenate([curve.index.to_numpy(dtype=np.float64) for curve in curves]))
    steps = np.union1d(steps[(steps >= first) & (steps <= last)], np.linspace(first, last, least_steps))
    return SeedCurves(steps, _interpolated(curves, steps))


def evenly(curves: Sequence[pd.Series[float]], points: int) -> SeedCurves:
    """Returns curves at equally distant steps of what they have in common; arguments as of `over_seeds`."""
    curves, first, last = _common(curves)
    steps = np.linspace(first, last, points)
    return SeedCurves(steps, _interpolated(curves, steps))


def _common(curves: Sequence[pd.Series[float]]) -> tuple[Sequence[pd.Series[float]], float, float]:
    first = max(float(curve.index[0]) for curve in curves)
    last = min(float(curve.index[-1]) for curve in curves)
    if first > last:
        curves = [max(curves, key=len)]
        first, last = float(curves[0].index[0]), float(curves[0].index[-1])
    return curves, first, last


def _interpolated(curves: Sequence[pd.Series[float]], steps: FloatArray) -> FloatArray:
    return np.stack([np.interp(steps, curve.index.to_numpy(dtype=np.float64), curve.to_numpy()) for curve in curves])
