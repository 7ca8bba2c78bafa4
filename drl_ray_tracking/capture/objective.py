"""The objective: one key that every result has, whether or not an evaluation ended in its iteration.

Tune ends a sweep when its metric is missing from a result, and RLlib repeats an evaluation's values in
the iterations after it. So: no evaluation yet is NaN, a fresh one its value, none in this iteration the
last value (marked as carried), and one whose value is undefined is NaN - never the old good score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from drl_ray_tracking import names


@dataclass(frozen=True)
class Objective:
    """A value and what it is worth: one of `names.OBJECTIVE_*`."""

    value: float
    state: float

    @classmethod
    def next(cls, carried: Objective | None, *, measured: bool, value: Any) -> Objective:
        """Returns the objective of an iteration.

        Args:
            carried: the objective of the iteration before; None at the first.
            measured: whether an evaluation ended in this iteration.
            value: what it measured; anything that is not a finite number is undefined.
        """
        if measured:
            number = names.finite(value)
            if number is None:
                return cls(math.nan, names.OBJECTIVE_UNDEFINED)
            return cls(number, names.OBJECTIVE_FRESH)
        if carried is None or carried.state == names.OBJECTIVE_NONE:
            return cls(math.nan, names.OBJECTIVE_NONE)
        return cls(carried.value, names.OBJECTIVE_CARRIED)

    @classmethod
    def unpack(cls, item: Any) -> Objective | None:
        """Returns what `pack` made, as RLlib hands it back: perhaps in a list, perhaps NaN."""
        if isinstance(item, list) and item:
            item = item[-1]
        if isinstance(item, (tuple, list)) and len(item) == 2:
            return cls(float(item[0]), float(item[1]))
        return None

    def pack(self) -> tuple[float, float]:
        """Returns plain numbers, fit for RLlib's metrics state and so for its checkpoints."""
        return (self.value, self.state)


def lookup(result: Any, path: str) -> Any:
    """Returns the leaf at a slash-joined path of a nested result, or None."""
    for part in path.split("/"):
        if not isinstance(result, dict) or part not in result:
            return None
        result = result[part]
    return result
