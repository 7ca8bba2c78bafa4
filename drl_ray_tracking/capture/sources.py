"""Where an episode's equity, position, price, fee and time come from: the trading sources.

A source reads finished steps, never the environment: with auto-reset the environment already lives in
the next episode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from drl_ray_tracking.capture.steps import EpisodeSteps
from drl_ray_tracking.errors import EpisodeError
from drl_ray_tracking.names import finite

_PER_MARK: Final = ("equity", "price", "timestamp")
_PER_STEP: Final = ("position", "fee", "slippage", "traded", "leverage")
_RARE: Final = ("slippage", "leverage")  # environments that have them say so to the end; the others need no search


@dataclass(frozen=True)
class TradingColumns:
    """What a source found in an episode of T steps.

    `equity`, `price` and `timestamp` have T + 1 entries (the reset's first); `position`, `fee`, `slippage`, `traded`
    and `leverage` have T: what was held during the bar, paid, lost to a worse price and traded in the step, and
    exposure as a multiple of equity. `source` says where the columns came from, `problems` what was looked for in
    vain: each counts as an error, the rest is used.
    """

    equity: Any
    position: Any = None
    price: Any = None
    fee: Any = None
    slippage: Any = None
    timestamp: Any = None
    traded: Any = None
    leverage: Any = None
    periods_per_year: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    problems: tuple[str, ...] = ()


@runtime_checkable
class TradingSource(Protocol):
    """Reads the trading columns off a finished episode, or None where the episode does not trade."""

    def read(self, steps: EpisodeSteps) -> TradingColumns | None:
        """Returns the columns; raises EpisodeError where they should be there and are not."""
        ...


@dataclass(frozen=True)
class KeyMap:
    """Info keys that hold the columns; the defaults are those of `TradingEnv`.

    `equity` must be marked to market and net of costs; without it there is nothing to measure. Another key
    that no info carries leaves its column out, and is a problem if it is not the default: someone wrote it.
    """

    equity: str = "equity"
    position: str = "position"
    price: str = "price"
    fee: str = "fee"
    slippage: str = "slippage"
    timestamp: str = "timestamp"
    traded: str = "traded"
    leverage: str = "leverage"
    periods_per_year: str = "periods_per_year"

    def read(self, steps: EpisodeSteps) -> TradingColumns | None:
        """Returns the columns found under the keys.

        Raises:
            EpisodeError: no info carries the equity key; the keys that are there are named.
        """
        columns: dict[str, Any] = {
            name: steps.column(getattr(self, name), skip_reset=name in _PER_STEP)
            for name in (*_PER_MARK, *_PER_STEP)
            if name not in _RARE or getattr(self, name) in steps.last_info
        }
        if columns["equity"] is None:
            raise EpisodeError(self._missing("equity", steps))
        periods = _periods(steps, self.periods_per_year)
        found = {**dict.fromkeys(_RARE), **columns, "periods_per_year": periods}
        return TradingColumns(
            **columns,
            periods_per_year=periods,
            source=f"info keys ({self.equity})",
            problems=tuple(
                self._missing(name, steps)
                for name, value in found.items()
                if value is None and getattr(self, name) != getattr(KeyMap, name)
            ),
        )

    def _missing(self, name: str, steps: EpisodeSteps) -> str:
        there = ", ".join(sorted(str(key) for key in steps.last_info)) or "none"
        return f"no info has the {name} key {getattr(self, name)!r}; keys that are there: {there}"


@dataclass(frozen=True)
class WhereTraded:
    """The default: `TradingEnv`'s keys where an episode has them, nothing where it does not."""

    keys: KeyMap = KeyMap()

    def read(self, steps: EpisodeSteps) -> TradingColumns | None:
        """Returns the columns, or None for an episode without an equity key."""
        if not any(self.keys.equity in info for info in steps.infos):
            return None
        return self.keys.read(steps)


@dataclass(frozen=True)
class FromCallable:
    """A user's function of the finished steps."""

    function: Callable[[EpisodeSteps], TradingColumns | None]

    def read(self, steps: EpisodeSteps) -> TradingColumns | None:
        """Returns what the function returns."""
        return self.function(steps)


def _periods(steps: EpisodeSteps, key: str) -> float | None:
    """Reads a number; a vector environment has turned a Python int into a numpy one."""
    value = steps.last_info.get(key)
    return None if isinstance(value, (bool, np.bool_)) else finite(value)
