"""What a trading account went through: the quantities that risk rules are about and no KPI measures.

Every episode is an account of its own, beginning with its initial equity. Days begin at midnight of a time zone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from drl_ray_tracking.episodes import EpisodeRecord
from drl_ray_tracking.episodes.equity_path import EquityPath

_QUANTITIES: Final = ("total_loss", "daily_loss", "consecutive_losses", "trading_days")


@dataclass(frozen=True)
class Account:
    """The worst of several accounts; None where it cannot be told, and why in `missing` under the same name.

    Attributes:
        total_loss: how far the equity fell below the initial one, as a fraction of it.
        daily_loss: how far it fell within a day below what the day began with; a fraction of the initial equity, or
            of what the day began with.
        consecutive_losses: the longest row of closed trades that lost, net of fees.
        trading_days: days on which a position was opened, over all accounts.
    """

    total_loss: float | None
    daily_loss: float | None
    consecutive_losses: float | None
    trading_days: float | None
    missing: dict[str, str] = field(default_factory=dict)


def account_of(episodes: Sequence[EpisodeRecord], *, zone: str = "UTC", of_the_day: bool = False) -> Account:
    """Measures accounts.

    Args:
        episodes: of one evaluation.
        zone: an IANA time zone, "Europe/Prague"; timestamps without one are UTC.
        of_the_day: daily losses are fractions of what the day began with, not of the initial equity.
    """
    totals, dailies, rows, opened = [], [], [], set()
    missing: dict[str, str] = {}
    for record in episodes:
        marks = EquityPath.of(record.equity).equity if record.equity is not None else np.empty(0)
        if not marks.size or not marks[0] > 0.0:
            missing.update(dict.fromkeys(_QUANTITIES, "an episode has no equity"))
            continue
        totals.append(float(np.nanmax(1.0 - marks / marks[0])))
        days = days_of(record, zone)
        if days is None:
            missing.update(dict.fromkeys(("daily_loss", "trading_days"), "an episode has no timestamps"))
        else:
            dailies.append(_worst_day(marks, days[: len(marks)], of_the_day))
        trades = record.closed_trades()
        if trades is None:
            missing["consecutive_losses"] = "an episode has neither trades nor positions"
        else:
            rows.append(_longest_row([trade.pnl < 0.0 for trade in trades]))
        if record.position is None:
            missing["trading_days"] = "an episode has no positions"
        elif days is not None:
            side = np.sign(np.nan_to_num(record.position))
            begun = (side != 0.0) & (side != np.concatenate([[0.0], side[:-1]]))
            opened.update(days[:-1][begun].tolist())
    if not episodes:
        missing = dict.fromkeys(_QUANTITIES, "there are no episodes")
    return Account(
        total_loss=None if "total_loss" in missing else max(totals),
        daily_loss=None if "daily_loss" in missing else max(dailies),
        consecutive_losses=None if "consecutive_losses" in missing else float(max(rows)),
        trading_days=None if "trading_days" in missing else float(len(opened)),
        missing=missing,
    )


def days_of(record: EpisodeRecord, zone: str) -> NDArray[np.generic] | None:
    """Returns the day of every mark of an episode; None where it has no times."""
    stamps = record.timestamp
    if stamps is None or (stamps.dtype.kind in "fiu" and not np.isfinite(stamps.astype(np.float64)).all()):
        return None
    try:
        numbers = stamps.dtype.kind in "fiu"
        times = pd.DatetimeIndex(pd.to_datetime(stamps, utc=True, unit="s" if numbers else None))
    except (ValueError, TypeError):  # texts that are no times
        return None
    return np.asarray(times.tz_convert(ZoneInfo(zone)).tz_localize(None).normalize().to_numpy())


def _worst_day(marks: NDArray[np.float64], days: NDArray[np.generic], of_the_day: bool) -> float:
    """Returns the largest fall below what a day began with: the last mark of the day before."""
    firsts = np.flatnonzero(np.concatenate([[True], days[1:] != days[:-1]])).tolist()
    worst = 0.0
    for first, last in zip(firsts, [*firsts[1:], len(marks)], strict=True):
        begun = float(marks[max(first - 1, 0)])
        base = begun if of_the_day else float(marks[0])
        if base > 0.0:
            worst = max(worst, (begun - float(np.nanmin(marks[first:last]))) / base)
    return worst


def _longest_row(lost: Sequence[bool]) -> int:
    longest = row = 0
    for loss in lost:
        row = row + 1 if loss else 0
        longest = max(longest, row)
    return longest
