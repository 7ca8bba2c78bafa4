"""How much of a result is its costs and its market: the same bars at other costs, and in rising, falling, calm and
wild markets.

What is described is what one path did; nothing here is a test. At other costs the agent would have traded otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drl_ray_tracking.analysis.inputs import FloatArray, finite_number, finite_vector, is_flat, whole_number
from drl_ray_tracking.errors import DataError


@dataclass(frozen=True)
class CostPoint:
    """What the bars give at a multiple of the costs paid: `sharpe` a bar, None without variance; `total` return."""

    multiple: float
    sharpe: float | None
    total: float


@dataclass(frozen=True)
class CostSensitivity:
    """The same trades at other costs.

    Attributes:
        points: one for each multiple, in the order given.
        break_even: the multiple of the costs paid at which the mean return is 0; infinite where nothing was paid or
            the mean is above 0 at any cost, 0 where it is below 0 without any.
        paid: costs over equity, summed over the bars.
    """

    points: tuple[CostPoint, ...]
    break_even: float
    paid: float


def cost_sensitivity(
    returns_T: ArrayLike, costs_T: ArrayLike, multiples: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0)
) -> CostSensitivity:
    """Returns what the same trades would have earned at multiples of their costs.

    Args:
        returns_T: (time,), bar returns net of the costs paid, finite.
        costs_T: (time,), the costs paid in each bar over the equity before it, not negative, finite.
        multiples: of these costs; 1 is what was paid.

    Raises:
        DataError: a wrong shape, NaN, negative costs or a multiple out of range.
    """
    net = finite_vector(returns_T, "returns_T", "time", 2)
    costs = finite_vector(costs_T, "costs_T", "time", 2)
    if len(costs) != len(net):
        raise DataError(f"costs_T must have the {len(net)} bars of returns_T but has {len(costs)}")
    if costs.min() < 0.0:
        raise DataError(f"costs_T must not be negative but its least is {costs.min():.6g}: a rebate is a return")
    gross = net + costs
    points = []
    for given in multiples:
        multiple = finite_number(given, "multiples", 0.0)
        returns = np.maximum(gross - multiple * costs, -1.0)
        points.append(CostPoint(multiple, _sharpe(returns), float(np.prod(1.0 + returns) - 1.0)))
    paid, earned = float(costs.mean()), float(gross.mean())
    break_even = max(0.0, earned / paid) if paid > 0.0 else math.inf
    return CostSensitivity(tuple(points), break_even, float(costs.sum()))


@dataclass(frozen=True)
class Regime:
    """What happened in one kind of market.

    Attributes:
        name: `rising, calm` and so on.
        bars: how many.
        total: compounded return over these bars alone.
        hold: of buying and holding over the same bars.
        sharpe: a bar; None with fewer than 20 bars, or without variance.
    """

    name: str
    bars: int
    total: float
    hold: float
    sharpe: float | None


_LEAST_BARS = 20


def regimes(returns_T: ArrayLike, hold_T: ArrayLike, *, lookback: int = 20) -> tuple[Regime, ...]:
    """Returns what was earned in rising and falling, calm and wild markets.

    A bar's regime is that of the `lookback` bars before it, so it was known: the sign of their mean, and whether
    their standard deviation is above the median of all. The first `lookback` bars have none.

    Args:
        returns_T: (time,), bar returns of one path, in order, finite.
        hold_T: (time,), of buying and holding over the same bars, finite.
        lookback: bars, at least 2.

    Returns:
        The regimes that occurred, rising before falling, calm before wild.

    Raises:
        DataError: a wrong shape, NaN, or not more bars than `lookback`.
    """
    window = whole_number(lookback, "lookback", 2)
    returns = finite_vector(returns_T, "returns_T", "time", window + 1)
    hold = finite_vector(hold_T, "hold_T", "time", window + 1)
    if len(hold) != len(returns):
        raise DataError(f"hold_T must have the {len(returns)} bars of returns_T but has {len(hold)}")
    before = np.lib.stride_tricks.sliding_window_view(hold, window)[:-1]
    rising, spread = before.mean(axis=1) > 0.0, before.std(axis=1)
    wild = spread > np.median(spread)
    mine, market = returns[window:], hold[window:]
    found = []
    for trend, is_trend in (("rising", rising), ("falling", ~rising)):
        for mood, is_mood in (("calm", ~wild), ("wild", wild)):
            these = np.asarray(is_trend & is_mood)
            if these.any():
                found.append(_regime(f"{trend}, {mood}", mine, market, these))
    return tuple(found)


def _regime(name: str, mine: FloatArray, market: FloatArray, these: NDArray[np.bool_]) -> Regime:
    own = mine[these]
    return Regime(
        name=name,
        bars=len(own),
        total=float(np.prod(1.0 + own) - 1.0),
        hold=float(np.prod(1.0 + market[these]) - 1.0),
        sharpe=_sharpe(own) if len(own) >= _LEAST_BARS else None,
    )


def _sharpe(returns: FloatArray) -> float | None:
    sd, mean = float(returns.std(ddof=1)), float(returns.mean())
    return None if is_flat(sd, mean) else mean / sd
