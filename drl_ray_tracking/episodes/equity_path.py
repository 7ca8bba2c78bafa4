"""Turns marked-to-market equity into returns, and decides what a missing mark and a ruin are.

- NaN is a missing mark. The bar that ends on it has no return (NaN, counted); the next bar that has a mark
  carries the whole move, so that the total return stays exact.
- Equity <= 0 or infinite is ruin: -100 % at that bar, and the rest of the path is discarded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drl_ray_tracking.episodes.arrays import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class EquityPath:
    """One episode's usable path of B bars.

    Attributes:
        equity: (B + 1,) marks with gaps filled from the mark before; 0 at a ruin.
        marked: (B + 1,) which marks were there.
        returns: (B,) simple returns E_t / E_{t-1} - 1, NaN where the bar has no mark of its own.
        ruined: whether the path ended in ruin.
        log_growth: log of last over first positive mark, the sum of log(1 + r) without the ruin bar.
    """

    equity: FloatArray
    marked: NDArray[np.bool_]
    returns: FloatArray
    ruined: bool
    log_growth: float

    @classmethod
    def of(cls, equity: FloatArray) -> EquityPath:
        """Reads equity (T + 1,), initial equity included."""
        with np.errstate(all="ignore"):
            if equity.size and np.all((equity > 0.0) & (equity < math.inf)):
                return cls._between(equity, np.ones(equity.size, np.bool_), ruined=False)
            dead = (equity <= 0.0) | np.isinf(equity)
            ruined = bool(dead.any())
            if ruined:
                equity = equity[: int(dead.argmax()) + 1].copy()
                equity[-1] = 0.0
            missing = np.isnan(equity)
            marks = np.flatnonzero(~missing)
            if marks.size == 0:
                return cls(equity, ~missing, np.full(max(equity.size - 1, 0), math.nan), ruined, 0.0)
            last_mark = np.searchsorted(marks, np.arange(equity.size), side="right") - 1
            path = cls._between(equity[marks[np.maximum(last_mark, 0)]], ~missing, ruined)
            path.returns[missing[1:]] = math.nan
            path.returns[: marks[0]] = math.nan
            if ruined and path.returns.size:
                path.returns[-1] = -1.0
            return path

    @classmethod
    def _between(cls, equity: FloatArray, marked: NDArray[np.bool_], ruined: bool) -> EquityPath:
        returns = np.diff(equity) / equity[:-1]
        # A ratio beyond the largest float has no return to speak of.
        returns[np.isinf(returns)] = math.nan
        last = equity[-2] if ruined and equity.size > 1 else equity[-1]
        growth = math.log(last) - math.log(equity[0]) if last > 0.0 and equity[0] > 0.0 else 0.0
        return cls(equity, marked, returns, ruined, growth)

    @property
    def bars(self) -> int:
        """How many bars the path has, those without a mark included."""
        return self.returns.size

    @property
    def total_return(self) -> float:
        """E_last / E_first - 1; -1 after a ruin, inf where it overflows."""
        if self.ruined:
            return -1.0
        try:
            return math.expm1(self.log_growth)
        except OverflowError:
            return math.inf
