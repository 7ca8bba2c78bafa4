"""The conventions a trading KPI needs, and whether merged summaries agree on them. Nothing is inferred."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from drl_ray_tracking.episodes.kpis import Undefined
from drl_ray_tracking.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Conventions:
    """States how returns are judged. All rates are per period (bar), as simple returns.

    Attributes:
        periods_per_year: bars in a year; None leaves every annualised KPI out.
        risk_free_rate: subtracted from the mean return in Sharpe ratio and alpha.
        minimum_acceptable_return: the Sortino ratio's MAR.
        omega_threshold: separates gains from losses in the Omega ratio.

    Raises:
        ConfigurationError: a rate is not finite, or `periods_per_year` is not positive.
    """

    periods_per_year: float | None = None
    risk_free_rate: float = 0.0
    minimum_acceptable_return: float = 0.0
    omega_threshold: float = 0.0

    def __post_init__(self) -> None:
        problems = []
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None and item.name == "periods_per_year":
                continue
            try:
                number = float(value)
            except (TypeError, ValueError, OverflowError):
                number = math.nan
            if not math.isfinite(number):
                problems.append(f"{item.name} must be a finite number but got {value!r}")
            elif item.name == "periods_per_year" and number <= 0.0:
                problems.append(f"periods_per_year must be positive but got {value!r}: 252 for daily bars")
            else:
                object.__setattr__(self, item.name, number)
        if problems:
            raise ConfigurationError("conventions: " + "; ".join(problems))


def checked_periods(periods_per_year: float) -> float:
    """Reads an explicit `periods_per_year` argument.

    Raises:
        ConfigurationError: it is not a positive, finite number.
    """
    periods = Conventions(periods_per_year=periods_per_year).periods_per_year
    if periods is None:
        raise ConfigurationError("periods_per_year must be given: 252 for daily bars, 1 for a per-period value")
    return periods


def _key(conventions: Conventions) -> tuple[float, float, float, float]:
    periods = conventions.periods_per_year
    return (
        0.0 if periods is None else periods,
        conventions.risk_free_rate,
        conventions.minimum_acceptable_return,
        conventions.omega_threshold,
    )


@dataclass(frozen=True, slots=True)
class Agreement:
    """Remembers whether everything merged so far used the same conventions.

    `distinct` holds at most the two smallest different ones: two are enough to know they are mixed, and
    "the two smallest of a union" is associative.
    """

    distinct: tuple[Conventions, ...] = ()

    def merge(self, other: Agreement) -> Agreement:
        """Joins what both sides have seen."""
        if self.distinct == other.distinct:
            return self
        return Agreement(tuple(sorted({*self.distinct, *other.distinct}, key=_key)[:2]))

    @property
    def agreed(self) -> Conventions | Undefined:
        """The one convention in use, or why there is none."""
        if not self.distinct:
            return Undefined("no_bars")
        return self.distinct[0] if len(self.distinct) == 1 else Undefined("mixed_conventions")
