"""What a KPI is: a finite number, or undefined for a reason. Never 0, inf or an epsilon in its place."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Undefined:
    """Stands where a number would be, with the reason (`zero_variance`, `no_losses`, ...) it is missing."""

    reason: str


Kpi = float | Undefined

OVERFLOW = Undefined("overflow")
NOT_REPORTED = Undefined("not_reported")


def times(value: Kpi, factor: Kpi) -> Kpi:
    """Multiplies two KPIs; the first undefined one gives the reason."""
    if isinstance(value, Undefined):
        return value
    if isinstance(factor, Undefined):
        return factor
    return value * factor


def ratio(numerator: float, denominator: float, reason: str) -> Kpi:
    """Divides, and is undefined for `reason` where the denominator is zero."""
    return numerator / denominator if denominator != 0.0 else Undefined(reason)


def number(value: Kpi) -> float:
    """Turns a KPI into a plain float for array functions: NaN where it is undefined or overflowed."""
    return value if not isinstance(value, Undefined) and math.isfinite(value) else math.nan


@dataclass(slots=True)
class KpiTable:
    """Collects KPIs under flat keys; what is undefined becomes a count under `undefined/<key>/<reason>`."""

    values: dict[str, float] = field(default_factory=dict)

    def put(self, key: str, value: Kpi) -> None:
        """Enters a value; a non-finite one counts as undefined for `overflow`."""
        if isinstance(value, Undefined):
            self.count_undefined(key, value.reason)
        elif math.isfinite(value):
            self.values[key] = float(value)
        else:
            self.count_undefined(key, OVERFLOW.reason)

    def has(self, key: str) -> bool:
        """Tells whether a KPI has a value or is undefined for some reason."""
        return key in self.values or any(name.startswith(f"undefined/{key}/") for name in self.values)

    def count_undefined(self, key: str, reason: str, count: int = 1) -> None:
        """Adds to the count of one reason; a count of zero leaves no trace."""
        if count:
            name = f"undefined/{key}/{reason}"
            self.values[name] = self.values.get(name, 0.0) + count
