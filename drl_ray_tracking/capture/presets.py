"""What `trading=` may be: presets for gym-anytrading, gym-trading-env and FinRL, key maps, callables.

None of these packages is imported. Each preset resolves by info key, then environment attribute, then
reconstruction, and says which it used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drl_ray_tracking.capture.sources import FromCallable, KeyMap, TradingColumns, TradingSource, WhereTraded
from drl_ray_tracking.capture.steps import EpisodeSteps
from drl_ray_tracking.errors import ConfigurationError, EpisodeError
from drl_ray_tracking.names import suggestion

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GymAnytrading:
    """gym-anytrading's `stocks-v0` and `forex-v0`.

    Its `total_profit` stands still until a trade closes, so equity is rebuilt, marked to market, from the
    prices, the fee attributes and the positions in the infos; it starts at 1 and ends at the environment's
    own `total_profit`. The environment's rules are kept as they are: a flip is executed at the close of
    the bar that follows the decision; stocks earn only while long; forex earns only on the side that its
    `unit_side` leaves exposed, and its first short is entered one bar before the first observation.
    """

    def read(self, steps: EpisodeSteps) -> TradingColumns | None:
        """Returns the rebuilt columns.

        Raises:
            EpisodeError: the environment or its infos are not gym-anytrading's.
        """
        said = steps.column("position", skip_reset=False)
        if said is None or any(position is None for position in said):
            raise EpisodeError("no info has the key 'position': this is not a gym-anytrading environment")
        first = int(steps.environment.attribute("window_size"))
        prices = np.asarray(steps.environment.attribute("prices"), dtype=np.float64)
        marks = first + steps.length + 1
        if marks > len(prices):
            raise EpisodeError(f"{steps.length} steps from tick {first} do not fit into {len(prices)} prices")
        long = np.array([getattr(position, "name", str(position)).endswith("Long") for position in said])
        price = prices[first:marks]
        market = self._market(steps)
        account = _Account(market, closes_at_end=marks == len(prices))
        equity, fee = account.run(long, price, before=prices[first - 1] if first else price[0])
        return TradingColumns(
            equity=equity,
            position=np.where(long[:-1], market.when_long, market.when_short),
            price=price,
            fee=fee,
            timestamp=_index(steps, first, marks),
            source="gym-anytrading: position from infos, prices and fees from the environment, equity rebuilt",
        )

    def _market(self, steps: EpisodeSteps) -> _Market:
        environment = steps.environment
        try:
            ask = float(environment.attribute("trade_fee_ask_percent"))
            bid = float(environment.attribute("trade_fee_bid_percent"))
        except EpisodeError:
            spread = float(environment.attribute("trade_fee"))
            if str(environment.attribute("unit_side")) == "left":
                return _Market(when_long=0.0, when_short=-1.0, entry_spread=spread)
            return _Market(when_long=1.0, when_short=0.0, exit_spread=spread)
        return _Market(when_long=1.0, when_short=0.0, entry_share=ask, exit_share=bid)


@dataclass(frozen=True)
class _Market:
    """What a position earns and what it costs to enter and to leave: shares of equity, or price units."""

    when_long: float
    when_short: float
    entry_share: float = 0.0
    exit_share: float = 0.0
    entry_spread: float = 0.0
    exit_spread: float = 0.0


@dataclass(frozen=True)
class _Account:
    """Replays gym-anytrading's accounting, marked to market at each close."""

    market: _Market
    closes_at_end: bool

    def run(self, long: NDArray[np.bool_], price: Floats, *, before: float) -> tuple[Floats, Floats]:
        """Returns equity before the trade at each mark (T + 1,), and the fee of each step (T,).

        Args:
            long: (T + 1,) the position held from each mark on.
            price: (T + 1,) closes.
            before: the close one bar before the first mark.
        """
        exposed = [self.market.when_long if flag else self.market.when_short for flag in long]
        equity, fee = np.empty(len(price)), np.zeros(len(price) - 1)
        value, entry = 1.0, float(before)
        if exposed[0]:
            value -= self._entry_cost(value, entry)
            value = self._moved(value, exposed[0], entry, price[0])
        equity[0] = 1.0
        for mark in range(len(price) - 1):
            if mark and exposed[mark] != exposed[mark - 1]:
                costs = self._exit_cost(value, price[mark]) if exposed[mark - 1] else 0.0
                value -= costs
                if exposed[mark]:
                    entered = self._entry_cost(value, price[mark])
                    value -= entered
                    costs += entered
                fee[mark] = costs
            value = self._moved(value, exposed[mark], price[mark], price[mark + 1])
            equity[mark + 1] = value
        if self.closes_at_end and exposed[-2]:
            cost = self._exit_cost(value, price[-1])
            equity[-1] -= cost
            fee[-1] += cost
        return equity, fee

    def _entry_cost(self, value: float, price: float) -> float:
        return value * (self.market.entry_share + self.market.entry_spread / price)

    def _exit_cost(self, value: float, price: float) -> float:
        return value * (self.market.exit_share + self.market.exit_spread / price)

    def _moved(self, value: float, exposure: float, price: float, following: float) -> float:
        """A short side here holds the counter currency: its worth in units goes with the inverse price."""
        if not exposure:
            return value
        return value * (following / price if exposure > 0 else price / following)


def _index(steps: EpisodeSteps, first: int, marks: int) -> Any:
    """Returns the bars' labels where the environment's data frame can be found, else None."""
    try:
        start, _ = steps.environment.attribute("frame_bound")
        index = steps.environment.attribute("df").index
    except EpisodeError:
        return None
    offset = int(start) - first
    return np.asarray(index[offset + first : offset + marks])


@dataclass(frozen=True)
class FinRL:
    """FinRL's `StockTradingEnv`: its infos are empty, so its memories are read from the environment.

    The last call of an episode trades nothing and repeats the last reward: its bar is left out (as a
    missing mark). Costs are known only as a total and are entered in the last step that traded.
    """

    def read(self, steps: EpisodeSteps) -> TradingColumns | None:
        """Returns the columns.

        Raises:
            EpisodeError: the memories are missing, or already those of another episode.
        """
        assets = np.asarray(steps.environment.attribute("asset_memory"), dtype=np.float64)
        dates = list(steps.environment.attribute("date_memory"))
        if len(assets) != steps.length:
            raise EpisodeError(
                f"asset_memory holds {len(assets)} values for an episode of {steps.length} steps: the environment "
                "was reset before it could be read (use next-step auto-reset)"
            )
        fee = np.zeros(steps.length)
        fee[max(0, steps.length - 2)] = float(steps.environment.attribute("cost"))
        return TradingColumns(
            equity=np.append(assets, np.nan),
            fee=fee,
            timestamp=[str(date) for date in (*dates, dates[-1])],
            source="finrl: asset_memory, date_memory and cost from the environment",
        )


@dataclass(frozen=True)
class GymTradingEnv:
    """gym-trading-env: its infos are marked to market; fees are inside the valuation and not told apart."""

    def read(self, steps: EpisodeSteps) -> TradingColumns | None:
        """Returns the columns found under the package's info keys.

        Raises:
            EpisodeError: no info has `portfolio_valuation`.
        """
        keys = KeyMap(equity="portfolio_valuation", price="data_close", timestamp="date", leverage="real_position")
        columns = keys.read(steps)
        if columns is None:
            return None
        return replace(columns, source="gym-trading-env: info keys (portfolio_valuation)")


PRESETS: Final[Mapping[str, type[TradingSource]]] = {
    "gym-anytrading": GymAnytrading,
    "gym-trading-env": GymTradingEnv,
    "finrl": FinRL,
}


def trading_source(given: Any) -> TradingSource:
    """Returns the source for what a user passed as `trading=`.

    Args:
        given: None (TradingEnv's keys where present), a preset's name, a mapping of column to info key, a
            source, or a callable of `EpisodeSteps`.

    Raises:
        ConfigurationError: anything else, an unknown preset, or a mapping with an unknown column.
    """
    if given is None:
        return WhereTraded()
    if isinstance(given, str):
        if given not in PRESETS:
            known = ", ".join(PRESETS)
            raise ConfigurationError(
                f"trading={given!r} is no preset{suggestion(given, list(PRESETS))}; there are {known}"
            )
        return PRESETS[given]()
    if isinstance(given, TradingSource):
        return given
    if isinstance(given, Mapping):
        allowed = [item.name for item in fields(KeyMap)]
        unknown = [f"{key!r}{suggestion(str(key), allowed)}" for key in given if key not in allowed]
        if unknown:
            raise ConfigurationError(
                f"trading= has unknown columns {', '.join(unknown)}; allowed are {', '.join(allowed)}"
            )
        return KeyMap(**given)
    if callable(given):
        return FromCallable(given)
    raise ConfigurationError(
        f"trading={given!r} is not understood: give a preset's name ({', '.join(PRESETS)}), a mapping of column to "
        "info key, a TradingSource, or a callable"
    )
