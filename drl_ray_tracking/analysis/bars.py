"""The bars of one episode as its KPIs count them, for every reader of a return series.

A missing mark has no bar of its own: the bar that ends on the next mark carries the whole move. Equity <= 0 or
infinite is ruin, -100 % at that bar, and what comes after it is discarded; see `episodes.equity_path`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drl_ray_tracking.analysis.inputs import FloatArray
from drl_ray_tracking.episodes.equity_path import EquityPath
from drl_ray_tracking.errors import DataError


@dataclass(frozen=True, eq=False)
class Bars:
    """The bars of an episode, and behind a ruin one for each further mark, so that episodes of one window align.

    Attributes:
        returns: (B,) simple returns; -1 at a ruin, 0 after it.
        begins, ends: (B,) places of the marks that each bar lies between.
        counted: how many bars there are for the KPIs: those up to a ruin.
    """

    returns: FloatArray
    begins: NDArray[np.intp]
    ends: NDArray[np.intp]
    counted: int

    def totals(self, values: FloatArray) -> FloatArray:
        """Returns (B,) sums over each bar of something per step, given as (T,); 0 after a ruin."""
        if not self.counted:
            return np.zeros(len(self.returns))
        found = np.add.reduceat(values[: self.ends[self.counted - 1]], self.begins[: self.counted])
        return np.concatenate([found, np.zeros(len(self.returns) - self.counted)])

    def changes(self, levels: FloatArray) -> FloatArray:
        """Returns (B,) relative changes over each bar of something marked as equity is, such as a price."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(levels[self.ends] / levels[self.begins] - 1.0, dtype=np.float64)


def bars_of(equity: FloatArray) -> Bars:
    """Returns the bars of equity (T + 1,), initial equity included."""
    path = EquityPath.of(equity)
    kept = np.flatnonzero(~np.isnan(path.returns))
    marks = np.flatnonzero(path.marked)
    begins = marks[np.maximum(np.searchsorted(marks, kept, side="right") - 1, 0)] if len(marks) else kept
    after = np.arange(path.bars, max(len(equity) - 1, 0)) if path.ruined else np.empty(0, dtype=np.intp)
    return Bars(
        returns=np.concatenate([path.returns[kept], np.zeros(len(after))]),
        begins=np.concatenate([np.minimum(begins, kept), after]),
        ends=np.concatenate([kept, after]) + 1,
        counted=len(kept),
    )


def levels_of(equity: FloatArray) -> FloatArray:
    """Returns equity with missing marks taken from the mark before, and 0 from a ruin on; (T + 1,) as given.

    Raises:
        DataError: it does not start above zero.
    """
    path = EquityPath.of(equity)
    if not len(path.equity) or not path.equity[0] > 0.0:
        start = f"starts with {equity[0]}" if len(equity) else "has no marks"
        raise DataError(f"an evaluation window must start with an equity above zero but {start}")
    return np.concatenate([path.equity, np.zeros(len(equity) - len(path.equity))])
