"""Drawdown of one path: its depth, its duration, and an exact ordered merge over consecutive fragments.

Drawdowns do not merge across different episodes; there they are values to take the maximum, mean and
quantiles of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drl_ray_tracking.episodes.arrays import FloatArray
from drl_ray_tracking.episodes.equity_path import EquityPath


def longest_run(flags: np.typing.NDArray[np.bool_]) -> int:
    """Returns the length of the longest run of True."""
    breaks = np.flatnonzero(~flags)
    edges = np.concatenate(([-1], breaks, [flags.size]))
    return int(np.diff(edges).max()) - 1


def depth_and_duration(path: EquityPath) -> tuple[float, int]:
    """Returns the maximum drawdown max(1 - E / peak) and the longest run of bars under a former peak.

    The depth is a positive number, 1 after a ruin. A run that never recovers counts to the end of the path.
    """
    peaks = np.maximum.accumulate(path.equity)
    under = path.equity < peaks
    if path.ruined:
        return 1.0, longest_run(under)
    return _depth(path.equity, peaks), longest_run(under)


def _depth(equity: FloatArray, peaks: FloatArray) -> float:
    depth = float(1.0 - np.min(equity / peaks))
    return depth if depth > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class DrawdownPath:
    """What consecutive fragments of ONE path must remember for an exact maximum drawdown.

    The merge is associative and ordered (not commutative): `earlier.merge(later)`. All three levels are
    relative to the fragment's initial equity. `DrawdownPath()` is the identity.
    """

    growth: float = 1.0
    max: float = 1.0
    min: float = 1.0
    max_drawdown: float = 0.0

    @classmethod
    def empty(cls) -> DrawdownPath:
        """Returns the identity of `merge`."""
        return cls()

    @classmethod
    def of(cls, equity: FloatArray) -> DrawdownPath:
        """Reads the equity (T + 1,) of one fragment, its first mark included."""
        path = EquityPath.of(equity)
        marks = path.equity[~np.isnan(path.equity)]
        if marks.size == 0:
            return cls()
        if marks[0] <= 0.0:
            return cls(0.0, 1.0, 0.0, 1.0)
        with np.errstate(all="ignore"):
            levels = marks / marks[0]
            return cls(
                float(levels[-1]),
                float(levels.max()),
                float(levels.min()),
                _depth(marks, np.maximum.accumulate(marks)),
            )

    def merge(self, later: DrawdownPath) -> DrawdownPath:
        """Appends the fragment that follows; whatever follows a ruin is discarded."""
        if self.growth == 0.0:
            return self
        trough = self.growth * later.min
        return DrawdownPath(
            self.growth * later.growth,
            max(self.max, self.growth * later.max),
            min(self.min, trough),
            max(self.max_drawdown, later.max_drawdown, 1.0 - trough / self.max),
        )
