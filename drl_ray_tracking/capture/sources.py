"""Where an episode's equity, position, price, fee and time come from: the trading sources.

A source reads finished steps, never the environment: with auto-reset the environment already lives in
the next episode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, runtime_checkable

from drl_ray_tracking.capture.steps import EpisodeSteps
from drl_ray_tracking.errors import ConfigurationError, EpisodeError
from drl_ray_tracking.names import suggestion


@dataclass(frozen=True)
class TradingColumns:
    """What a source found in an episode of T steps.

    `equity`, `price` and `timestamp` have T + 1 entries (the reset's first); `position`, `fee` and
    `traded` have T: what was held during the bar, paid and traded in the step. `source` says where the
    columns came from.
    """

    equity: Any
    position: Any = None
    price: Any = None
    fee: Any = None
    timestamp: Any = None
    traded: Any = None
    periods_per_year: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""


@runtime_checkable
class TradingSource(Protocol):
    """Reads the trading columns off a finished episode, or None where the episode does not trade."""

    def read(self, steps: EpisodeSteps) -> TradingColumns | None:
        """Returns the columns; raises EpisodeError where they should be there and are not."""
        ...


@dataclass(frozen=True)
class KeyMap:
    """Info keys that hold the columns; the defaults are those of `TradingEnv`.

    `equity` must be marked to market and net of costs. A key that no info carries leaves its column out,
    except `equity`, without which there is nothing to measure.
    """

    equity: str = "equity"
    position: str = "position"
    price: str = "price"
    fee: str = "fee"
    timestamp: str = "timestamp"
    traded: str = "traded"
    periods_per_year: str = "periods_per_year"

    def read(self, steps: EpisodeSteps) -> TradingColumns | None:
        """Returns the columns found under the keys.

        Raises:
            EpisodeError: no info carries the equity key; the keys that are there are named.
        """
        equity = steps.column(self.equity, skip_reset=False)
        if equity is None:
            there = sorted(str(key) for key in (steps.infos[-1] if steps.infos else {}))
            raise EpisodeError(
                f"no info has the equity key {self.equity!r}; keys that are there: {', '.join(there) or 'none'}"
            )
        return TradingColumns(
            equity=equity,
            position=steps.column(self.position, skip_reset=True),
            price=steps.column(self.price, skip_reset=False),
            fee=steps.column(self.fee, skip_reset=True),
            timestamp=steps.column(self.timestamp, skip_reset=False),
            traded=steps.column(self.traded, skip_reset=True),
            periods_per_year=_periods(steps, self.periods_per_year),
            source=f"info keys ({self.equity})",
        )


@dataclass(frozen=True)
class WhereTraded:
    """The default: `TradingEnv`'s keys where an episode has them, nothing where it does not."""

    keys: KeyMap = KeyMap()

    def read(self, steps: EpisodeSteps) -> TradingColumns | None:
        """Returns the columns, or None for an episode without an equity key."""
        if steps.column(self.keys.equity, skip_reset=False) is None:
            return None
        return self.keys.read(steps)


@dataclass(frozen=True)
class FromCallable:
    """A user's function of the finished steps."""

    function: Callable[[EpisodeSteps], TradingColumns | None]

    def read(self, steps: EpisodeSteps) -> TradingColumns | None:
        """Returns what the function returns."""
        return self.function(steps)


def trading_source(given: Any) -> TradingSource:
    """Returns the source for what a user passed as `trading=`.

    Args:
        given: None (TradingEnv's keys where present), a mapping of column to info key, a source, or a
            callable of `EpisodeSteps`.

    Raises:
        ConfigurationError: anything else, or a mapping with an unknown column.
    """
    if given is None:
        return WhereTraded()
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
        f"trading={given!r} is not understood: give a mapping of column to info key, a TradingSource, or a callable"
    )


def _periods(steps: EpisodeSteps, key: str) -> float | None:
    value = steps.infos[-1].get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
