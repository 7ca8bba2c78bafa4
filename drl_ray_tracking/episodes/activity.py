"""Exposure, turnover and fees of the bars of a path: numerators and denominators, never their quotients."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from drl_ray_tracking.episodes.arrays import FloatArray
from drl_ray_tracking.episodes.equity_path import EquityPath
from drl_ray_tracking.episodes.kpis import NOT_REPORTED, KpiTable, ratio
from drl_ray_tracking.episodes.record import EpisodeRecord


@dataclass(frozen=True, slots=True)
class Activity:
    """Sums over bars; a commutative monoid. Bars without a number are left out and counted.

    Attributes:
        bars, exposed_bars, absolute_exposure: bars with a position, of them non-zero, sum of |position|.
        traded, mean_equity: notional traded, and the sum of the mean equity of the episodes that report it.
        fees: currency.
        turnover_episodes, fee_episodes: how many episodes report them.
        nan_position, nan_traded, nan_fee: bars left out.
    """

    bars: int = 0
    exposed_bars: int = 0
    absolute_exposure: float = 0.0
    traded: float = 0.0
    mean_equity: float = 0.0
    fees: float = 0.0
    turnover_episodes: int = 0
    fee_episodes: int = 0
    nan_position: int = 0
    nan_traded: int = 0
    nan_fee: int = 0

    @classmethod
    def of(cls, record: EpisodeRecord, path: EquityPath) -> Activity:
        """Measures one episode up to its end or ruin."""
        exposure, nan_position = _finite(record.position, path.bars)
        traded, nan_traded = _finite(record.traded, path.bars)
        fee, nan_fee = _finite(record.fee, path.bars)
        magnitudes = np.abs(exposure)
        level = float(path.equity.mean()) if traded.size else 0.0
        has_level = 0.0 < level < math.inf  # NaN without a single mark
        return cls(
            bars=exposure.size,
            exposed_bars=int(np.count_nonzero(exposure)),
            absolute_exposure=float(magnitudes.sum()),
            traded=float(np.abs(traded).sum()) if has_level else 0.0,
            mean_equity=level if has_level else 0.0,
            fees=float(fee.sum()),
            turnover_episodes=int(record.traded is not None),
            fee_episodes=int(record.fee is not None),
            nan_position=nan_position,
            nan_traded=nan_traded,
            nan_fee=nan_fee,
        )

    def merge(self, other: Activity) -> Activity:
        """Adds up."""
        return Activity(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    def describe(self, table: KpiTable) -> None:
        """Enters exposure, turnover and fees."""
        reason = "no_bars" if self.nan_position else NOT_REPORTED.reason
        table.put("trading/exposure", ratio(float(self.exposed_bars), self.bars, reason))
        table.put("trading/exposure_mean_abs", ratio(self.absolute_exposure, self.bars, reason))
        reason = "no_equity" if self.turnover_episodes else NOT_REPORTED.reason
        table.put("trading/turnover", ratio(self.traded, self.mean_equity, reason))
        table.put("trading/fees", self.fees if self.fee_episodes else NOT_REPORTED)
        table.count_undefined("trading/exposure", "nan_bars", self.nan_position)
        table.count_undefined("trading/turnover", "nan_bars", self.nan_traded)
        table.count_undefined("trading/fees", "nan_bars", self.nan_fee)


def _finite(values: FloatArray | None, bars: int) -> tuple[FloatArray, int]:
    if values is None:
        return np.zeros(0), 0
    values = values[:bars]
    finite = np.isfinite(values)
    if finite.all():
        return values, 0
    return values[finite], int(values.size - np.count_nonzero(finite))
