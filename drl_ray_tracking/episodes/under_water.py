"""TimeUnderWater: an example of a KPI of one's own, complete and ready to copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from drl_ray_tracking.episodes.equity_path import EquityPath
from drl_ray_tracking.episodes.record import EpisodeRecord


@dataclass(frozen=True)
class TimeUnderWater:
    """Share of all bars that end below a former peak of the episode's equity.

    The state is (bars under water, bars): numerator and denominator, so that long episodes weigh more.
    """

    name: str = "time_under_water"

    def empty(self) -> tuple[int, int]:
        """Returns the state of no episode."""
        return 0, 0

    def of(self, record: EpisodeRecord) -> tuple[int, int]:
        """Counts the bars of one episode; none where it has no equity."""
        if record.equity is None:
            return self.empty()
        equity = EquityPath.of(record.equity).equity
        under = equity < np.maximum.accumulate(equity)
        return int(np.count_nonzero(under)), equity.size - 1

    def merge(self, a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        """Adds up."""
        return a[0] + b[0], a[1] + b[1]

    def compute(self, state: tuple[int, int]) -> Mapping[str, float]:
        """Returns `trading/time_under_water`, nothing without bars."""
        under, bars = state
        return {"trading/time_under_water": under / bars} if bars else {}
