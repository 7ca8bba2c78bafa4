"""Derives closed round trips from a position path, where the environment does not report its trades.

Timing: `position[t]` is held during bar t, between `equity[t]` and `equity[t + 1]`; `fee[t]` and `slippage[t]` are
paid by the step that establishes `position[t]` and have left `equity[t + 1]`.

A round trip is a maximal run of bars i..j whose position has one constant, non-zero sign. Its pnl is
`equity[j + 1] - equity[i]` (what it cost to enter and to resize is inside) minus the cost of leaving, which is paid
one bar later. Where nothing is held then, that bar's change of equity is that cost, whatever it consists of. Where
the position flips, its fee and slippage close one trip and open the next: they are divided between them in
proportion to the two exposures. A trip still open after the last bar is not closed and is only counted; a ruin
closes it. A position of NaN counts as flat; the cost of leaving for it is the fee and slippage of its bar.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drl_ray_tracking.episodes.arrays import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class RoundTrips:
    """N closed round trips as columns; `entry` and `exit` index the T + 1 marks of equity.

    Attributes:
        direction: (N,) +1 long, -1 short.
        pnl, fees: (N,) account currency; pnl is net of fees and slippage, `fees` are fees alone.
        open_trades: 1 where the last position was never closed, else 0.
    """

    entry: IntArray
    exit: IntArray
    direction: IntArray
    pnl: FloatArray
    fees: FloatArray
    open_trades: int

    @property
    def bars(self) -> IntArray:
        """(N,) holding times in bars."""
        return self.exit - self.entry


def round_trips(
    position: FloatArray,
    equity: FloatArray,
    fee: FloatArray | None = None,
    slippage: FloatArray | None = None,
    *,
    liquidated: bool = False,
) -> RoundTrips:
    """Derives round trips from position (B,), equity (B + 1,), fee (B,) and slippage (B,).

    Costs that are not given count as none where the position flips. `liquidated` closes a trip that is open at the
    end.
    """
    bars = position.size
    exposure = np.nan_to_num(np.abs(position), nan=0.0)
    sign = np.where(np.isnan(position), 0.0, np.sign(position)).astype(np.int64)
    turns = np.flatnonzero(sign[1:] != sign[:-1]) + 1
    starts = np.concatenate(([0], turns)) if bars else turns
    ends = np.concatenate((turns, [bars])) if bars else turns
    held = sign[starts] != 0
    closed = held & ((ends < bars) | liquidated)
    open_trades = int(held.sum() - closed.sum())
    starts, ends = starts[closed], ends[closed]
    if not starts.size:
        return RoundTrips(starts, ends, sign[starts], np.zeros(0), np.zeros(0), open_trades)
    # share[t]: the part of what step t costs that closes the position before it.
    before, after = exposure[:-1], exposure[1:]
    share = np.zeros(bars + 1)
    turning = (sign[1:] != sign[:-1]) & (sign[:-1] != 0)
    share[1:bars][turning] = 1.0 / (1.0 + after[turning] / before[turning])
    fees, cost = _paid(fee, bars), _paid(fee, bars) + _paid(slippage, bars)
    closing = cost * share
    left_flat = (ends < bars) & (position[np.minimum(ends, bars - 1)] == 0.0)
    final = np.where(left_flat, equity[np.minimum(ends + 1, bars)], equity[ends] - closing[ends])
    pnl = final - equity[starts] + closing[starts]
    running, closing_fees = np.concatenate(([0.0], np.cumsum(fees))), fees * share
    return RoundTrips(
        starts,
        ends,
        sign[starts],
        pnl,
        running[ends] - running[starts] - closing_fees[starts] + closing_fees[ends],
        open_trades,
    )


def _paid(column: FloatArray | None, bars: int) -> FloatArray:
    """Returns (B + 1,) what each step paid, and nothing after the last."""
    if column is None:
        return np.zeros(bars + 1)
    return np.append(np.where(np.isfinite(column), column, 0.0), 0.0)
