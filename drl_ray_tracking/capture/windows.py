"""Evaluation over enumerated windows: each window once, so that T counts unique bars.

RLlib may run a window twice (a restarted runner, a longer evaluation than there are windows) or miss one;
both are counted, and of a repeated window one episode is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drl_ray_tracking.capture.measured import Measured


@dataclass(frozen=True)
class Windows:
    """The episodes an evaluation counts, in canonical order, and what was not as it should be."""

    episodes: list[Measured]
    repeated: int
    missing: int


def one_per_window(measured: Sequence[Measured], *, expected: int | None) -> Windows:
    """Keeps one episode per named window and every episode without one.

    Args:
        measured: the episodes, in any order; which of a repeated window's is kept does not depend on it.
        expected: how many windows there are, where that is known.
    """
    kept: list[Measured] = []
    for item in sorted(measured, key=lambda item: item.order):
        if not item.window or not kept or kept[-1].window != item.window:
            kept.append(item)
    missing = max(0, expected - len(kept)) if expected is not None else 0
    return Windows(kept, len(measured) - len(kept), missing)
