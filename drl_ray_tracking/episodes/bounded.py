"""Keeps a table over names small: the first names in alphabetical order stay, the others are only counted.

"The n smallest names of a union" is associative, and a name that stays in the end was never dropped on the
way: what is shown is exact, whatever the order of merging.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

Value = TypeVar("Value")

_logger = logging.getLogger(__name__)


def merge_tables(
    a: Mapping[str, Value], b: Mapping[str, Value], merge: Callable[[Value, Value], Value], limit: int
) -> dict[str, Value]:
    """Merges values by name and keeps the first `limit` names."""
    merged = {}
    for name in sorted({*a, *b})[:limit]:
        if name not in b:
            merged[name] = a[name]
        else:
            merged[name] = merge(a[name], b[name]) if name in a else b[name]
    return merged


@functools.cache
def warn_overflow(table: str, limit: int) -> None:
    """Warns once per process that a table is full."""
    _logger.warning(
        "More than %d names under %s: the first %d in alphabetical order are shown, the others are counted "
        "in undefined/%s/overflow. Compare such a universe by labels instead of by KPI.",
        limit,
        table,
        limit,
        table,
    )
