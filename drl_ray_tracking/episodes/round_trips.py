"""Derives closed round trips from a position path, where the environment does not report its trades.

Timing: `position[t]` is held during bar t, between `equity[t]` and `equity[t + 1]`; `fee[t]` is paid by the
step that establishes `position[t]` and has left `equity[t + 1]`.

A round trip is a maximal run of bars i..j whose position has one constant, non-zero sign. Its pnl is
`equity[j + 1] - equity[i]` (its entry fee and fees for resizing are inside) minus the exit fee, which is
paid one bar later as `fee[j + 1]`. Where the position flips, that one fee closes one trip and opens the
next: it is divided between them in proportion to the two exposures. A trip still open after the last bar
is not closed and is only counted; a ruin closes it. A position of NaN counts as flat.
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
        pnl, fees: (N,) account currency; pnl is net of fees.
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
    position: FloatArray, equity: FloatArray, fee: FloatArray | None = None, *, liquidated: bool = False
) -> RoundTrips:
    """Derives round trips from position (B,), equity (B + 1,) and fee (B,).

    Without `fee` the exit fee is unknown: pnl is the equity change over the run and fees are zero.
    `liquidated` closes a trip that is open at the end.
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
    pnl = equity[ends] - equity[starts]
    fees = np.zeros(starts.size)
    if fee is not None and starts.size:
        paid = np.where(np.isfinite(fee), fee, 0.0)
        # share[t]: the part of fee[t] that closes the position before it.
        before, after = exposure[:-1], exposure[1:]
        share = np.zeros(bars + 1)
        turning = (sign[1:] != sign[:-1]) & (sign[:-1] != 0)
        share[1:bars][turning] = 1.0 / (1.0 + after[turning] / before[turning])
        closing = np.append(paid, 0.0) * share
        running = np.concatenate(([0.0], np.cumsum(paid)))
        pnl = pnl + closing[starts] - closing[ends]
        fees = running[ends] - running[starts] - closing[starts] + closing[ends]
    return RoundTrips(starts, ends, sign[starts], pnl, fees, open_trades)
