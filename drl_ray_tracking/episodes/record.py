"""EpisodeRecord: everything that is known of one finished episode. Data only; nothing is measured here."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drl_ray_tracking.episodes.arrays import owned_floats
from drl_ray_tracking.episodes.conventions import Conventions
from drl_ray_tracking.episodes.equity_path import EquityPath
from drl_ray_tracking.episodes.round_trips import RoundTrips, round_trips
from drl_ray_tracking.errors import EpisodeError

__all__ = ["Conventions", "EpisodeRecord", "Trade", "closed_trades"]

Time = float | str | None


@dataclass(frozen=True, slots=True)
class Trade:
    """One closed trade.

    Attributes:
        entry_time, exit_time: timestamps of the marks it began and ended at, where known.
        direction: +1 long, -1 short.
        pnl: net of fees and slippage, account currency.
        fees: account currency.
        bars: holding time in bars.
    """

    entry_time: Time
    exit_time: Time
    direction: int
    pnl: float
    fees: float
    bars: float


# Name of each trading array -> how many entries it has beyond `length`.
_TRADING_ARRAYS = {"equity": 1, "position": 0, "price": 1, "fee": 0, "slippage": 0, "traded": 0, "leverage": 0}


@dataclass(frozen=True, eq=False)
class EpisodeRecord:
    """One finished episode of T = `length` steps.

    Arrays are copied, turned into contiguous float64 and made read-only, so the environment may reuse its
    buffers. None and NaN mark missing numbers. Everything about trading is optional.

    Attributes:
        episode_return: sum of rewards.
        length: number of steps T.
        terminated, truncated: how it ended; both False for an episode that was cut.
        actions: (T,) integers for discrete actions, else (T, d) floats; further dimensions are flattened.
        reward_components: sum per component over the episode.
        labels: symbol, split, fold, window, agent, module.
        equity: (T + 1,) marked to market, net of costs, initial equity included.
        position: (T,) signed exposure held during each bar, as fraction or units.
        price: (T + 1,) of the traded instrument; buying and holding it is the benchmark.
        fee: (T,) currency paid by each step.
        slippage: (T,) currency each step lost to a worse price, where the environment tells it apart.
        timestamp: (T + 1,) numbers, dates or strings.
        traded: (T,) notional traded by each step, currency.
        leverage: (T,) exposure during each bar as a multiple of equity, where the environment tells it apart.
        trades: the closed trades; None where unknown, then derived from `position` and `equity`.
        conventions: how returns are judged.

    Raises:
        EpisodeError: parts contradict each other; all contradictions are named.
    """

    episode_return: float
    length: int
    terminated: bool = False
    truncated: bool = False
    actions: NDArray[Any] | None = None
    reward_components: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    equity: NDArray[np.float64] | None = None
    position: NDArray[np.float64] | None = None
    price: NDArray[np.float64] | None = None
    fee: NDArray[np.float64] | None = None
    slippage: NDArray[np.float64] | None = None
    timestamp: NDArray[Any] | None = None
    traded: NDArray[np.float64] | None = None
    leverage: NDArray[np.float64] | None = None
    trades: tuple[Trade, ...] | None = None
    conventions: Conventions = field(default_factory=Conventions)

    def __post_init__(self) -> None:
        problems: list[str] = []
        self._set("episode_return", _number("episode_return", self.episode_return, problems))
        length = _length(self.length, problems)
        self._set("length", length)
        self._set("terminated", bool(self.terminated))
        self._set("truncated", bool(self.truncated))
        if self.actions is not None:
            self._set("actions", _actions(self.actions, length, problems))
        for name, extra in _TRADING_ARRAYS.items():
            values = getattr(self, name)
            if values is not None:
                self._set(name, _trading_array(name, values, length, extra, problems))
        if self.timestamp is not None:
            self._set("timestamp", _timestamps(self.timestamp, length, problems))
        self._set("labels", _labels(self.labels, problems))
        self._set("reward_components", _components(self.reward_components, problems))
        if self.trades is not None:
            self._set("trades", _trades(self.trades, problems))
        rules: object = self.conventions
        if not isinstance(rules, Conventions):
            problems.append(f"conventions must be a Conventions but is a {type(rules).__name__}")
        if problems:
            raise EpisodeError(f"episode of length {self.length!r}: " + "; ".join(problems))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def closed_trades(self) -> tuple[Trade, ...] | None:
        """Returns the trades reported, else the round trips derived, else None where neither is known."""
        if self.trades is not None:
            return self.trades
        trips = self._round_trips()
        return None if trips is None else _as_trades(trips, self.timestamp)

    @property
    def open_trades(self) -> int | None:
        """Derived trades still open after the last bar; None where trades are reported or unknown."""
        trips = None if self.trades is not None else self._round_trips()
        return None if trips is None else trips.open_trades

    def _round_trips(self) -> RoundTrips | None:
        if self.position is None or self.equity is None:
            return None
        return trips_on_path(EquityPath.of(self.equity), self.position, self.fee, self.slippage)


def trips_on_path(
    path: EquityPath,
    position: NDArray[np.float64],
    fee: NDArray[np.float64] | None,
    slippage: NDArray[np.float64] | None,
) -> RoundTrips:
    """Derives round trips over the usable part of a path; a ruin closes what is open."""
    bars = path.bars
    paid, lost = (None if column is None else column[:bars] for column in (fee, slippage))
    # Absurd exposures or fees may overflow; a pnl that is not finite is counted where trades are measured.
    with np.errstate(all="ignore"):
        return round_trips(position[:bars], path.equity, paid, lost, liquidated=path.ruined and bars > 0)


def closed_trades(
    position: ArrayLike,
    equity: ArrayLike,
    fee: ArrayLike | None = None,
    timestamp: Sequence[object] | NDArray[Any] | None = None,
) -> tuple[Trade, ...]:
    """Derives closed trades from position (T,), equity (T + 1,), fee (T,) and timestamp (T + 1,).

    The definition is in `round_trips`. Trades open after the last bar are left out.

    Raises:
        EpisodeError: the shapes contradict each other.
    """
    arrays: dict[str, Any] = {"position": position, "equity": equity, "fee": fee, "timestamp": timestamp}
    record = EpisodeRecord(episode_return=0.0, length=np.size(np.asarray(position)), **arrays)
    return record.closed_trades() or ()


def _as_trades(trips: RoundTrips, timestamp: NDArray[Any] | None) -> tuple[Trade, ...]:
    def times(marks: NDArray[np.int64]) -> list[Any]:
        if timestamp is None:
            return [None] * marks.size
        chosen = timestamp[marks]
        column: list[Any] = (chosen.astype(str) if chosen.dtype.kind == "M" else chosen).tolist()
        return column

    columns = (
        times(trips.entry),
        times(trips.exit),
        trips.direction.tolist(),
        trips.pnl.tolist(),
        trips.fees.tolist(),
        trips.bars.tolist(),
    )
    return tuple(Trade(*row) for row in zip(*columns, strict=True))


def _number(name: str, value: object, problems: list[str]) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # whatever is not a number raises
    except (TypeError, ValueError, OverflowError):
        problems.append(f"{name} must be a number but is {value!r}")
        return math.nan


def _length(value: object, problems: list[str]) -> int:
    try:
        length = operator.index(value)  # type: ignore[arg-type]  # whatever is not an integer raises
    except TypeError:
        problems.append(f"length must be an integer but is {value!r}")
        return 0
    if length < 0:
        problems.append(f"length must not be negative but is {length}")
    return length


def _trading_array(
    name: str, values: ArrayLike, length: int, extra: int, problems: list[str]
) -> NDArray[np.float64] | None:
    try:
        array = owned_floats(values)
    except EpisodeError as error:
        problems.append(f"{name}: {error}")
        return None
    if array.shape != (length + extra,):
        wanted = "one per step" if not extra else "one per step and the initial one"
        problems.append(f"{name} must have shape ({length + extra},), {wanted}, but has {array.shape}")
    return array


def _actions(values: ArrayLike, length: int, problems: list[str]) -> NDArray[Any] | None:
    try:
        given = np.asarray(values)
        discrete = given.dtype.kind in "biu" and given.ndim == 1
        array = np.array(given, dtype=np.int64) if discrete else owned_floats(given)
    except (EpisodeError, TypeError, ValueError, OverflowError) as error:
        problems.append(f"actions: {error}")
        return None
    if array.ndim == 0 or array.shape[0] != length:
        problems.append(f"actions must have {length} rows, one per step, but have shape {array.shape}")
        return None
    if not discrete:
        array = array.reshape(length, math.prod(array.shape[1:]))
    array.flags.writeable = False
    return array


def _timestamps(values: ArrayLike, length: int, problems: list[str]) -> NDArray[Any] | None:
    try:
        array = np.array(values, order="C")
        if array.dtype.kind not in "iufUM":
            array = array.astype(str)
    except (TypeError, ValueError, OverflowError) as error:
        problems.append(f"timestamp: {error}")
        return None
    if array.shape != (length + 1,):
        problems.append(f"timestamp must have shape ({length + 1},), one per mark, but has {array.shape}")
    array.flags.writeable = False
    return array


def _labels(labels: object, problems: list[str]) -> dict[str, str]:
    if not isinstance(labels, Mapping):
        problems.append(f"labels must be a mapping but is a {type(labels).__name__}")
        return {}
    return {str(key): str(value) for key, value in labels.items()}


def _components(components: object, problems: list[str]) -> dict[str, float]:
    if not isinstance(components, Mapping):
        problems.append(f"reward_components must be a mapping but is a {type(components).__name__}")
        return {}
    return {str(key): _number(f"reward component {key!r}", value, problems) for key, value in components.items()}


def _trades(trades: Sequence[Trade], problems: list[str]) -> tuple[Trade, ...]:
    try:
        given: tuple[object, ...] = tuple(trades)
    except TypeError:
        problems.append(f"trades must be a sequence of Trade but is a {type(trades).__name__}")
        return ()
    checked = []
    for number, trade in enumerate(given):
        if not isinstance(trade, Trade):
            problems.append(f"trades[{number}] must be a Trade but is a {type(trade).__name__}")
            continue
        pnl, fees, bars = (
            _number(f"trades[{number}].{name}", getattr(trade, name), problems) for name in ("pnl", "fees", "bars")
        )
        checked.append(Trade(trade.entry_time, trade.exit_time, trade.direction, pnl, fees, bars))
    return tuple(checked)
