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
        expected: how many windows there are. Where nobody said that an evaluation enumerates windows, what an
            environment calls `window` may be anything: then only what is the same episode twice counts once.
    """
    kept: list[Measured] = []
    for item in sorted(measured, key=lambda item: item.order):
        if not item.window or not kept or not _is_repetition(item, kept[-1], named=expected is not None):
            kept.append(item)
    missing = max(0, expected - len(kept)) if expected is not None else 0
    return Windows(kept, len(measured) - len(kept), missing)


def _is_repetition(item: Measured, kept: Measured, *, named: bool) -> bool:
    return item.window == kept.window if named else item.order == kept.order
