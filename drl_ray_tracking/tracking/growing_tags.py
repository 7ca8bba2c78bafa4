"""Tags that grow over the drivers of a sweep: attempts and lineage, as JSON lists that are merged, never replaced.

Both are bounded: MLflow cuts a longer tag into something that is no JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from drl_ray_tracking import names

_LIMIT: Final = 7_500  # characters
_FEWEST: Final = 4  # attempts: the first two, the last two
_ATTEMPT: Final = re.compile(r"\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]")


def merged_lineage(tag: str, entry: list[Any]) -> str:
    """Returns the lineage tag with one more entry, in order of time, the oldest left out where it gets too long."""
    try:
        known = {int(old[0]): old for old in json.loads(tag)}
    except (ValueError, TypeError, LookupError):  # somebody edited the tag
        known = {}
    merged = [one for _, one in sorted({**known, int(entry[0]): entry}.items())]
    while len(text := json.dumps(merged)) > _LIMIT and len(merged) > 1:
        del merged[0]
    return text


def merged_attempts(tags: Mapping[str, str], attempt: Mapping[int, int]) -> dict[str, str]:
    """Returns the tag that lists every attempt as [number, started_ms, resumed_step], earlier drivers' included.

    Where it gets too long for a tag, it lacks attempts: at first those that a later one supersedes altogether.

    Args:
        tags: of the run, as they are now.
        attempt: when it started (Unix ms) -> the step it resumed from; empty for a run without attempts.

    Returns:
        Nothing where there is no attempt, or the tag is no list of attempts: that is for a person to mend.
    """
    known = _attempts(tags.get(names.TAG_ATTEMPTS) or "[]")
    if not attempt or known is None:
        return {}
    for one in known:
        one[2] = attempt.get(one[1], one[2])  # said again, or started twice within a millisecond: the last word counts
    new = [[0, started, step] for started, step in attempt.items() if started not in {one[1] for one in known}]
    listed = _numbered(sorted([*known, *new], key=lambda one: one[1]))
    if len(_text(listed)) > _LIMIT:
        listed = _that_count(listed)
    while len(_text(listed)) > _LIMIT and len(listed) > _FEWEST:
        # The first two stay: of those left the second resumed furthest back, which decides what counts before it.
        del listed[2]
    return {names.TAG_ATTEMPTS: _text(listed)}


def _attempts(tag: str) -> list[list[int]] | None:
    """Returns the attempts of a tag, of one that was cut those that are whole; None where there are none in it."""
    try:
        return [[int(part) for part in (number, started, step)] for number, started, step in json.loads(tag)]
    except (ValueError, TypeError):
        return [[int(part) for part in one] for one in _ATTEMPT.findall(tag)] or None


def _numbered(listed: list[list[int]]) -> list[list[int]]:
    """Returns attempts with numbers that grow; one that is missing leaves its number free."""
    number = 0
    for one in listed:
        number = one[0] = max(number + 1, one[0])
    return listed


def _that_count(listed: list[list[int]]) -> list[list[int]]:
    """Returns the attempts without those after which another resumed from no more steps: readers see the same points.

    The first stays, which owns every point before the second.
    """
    kept: list[list[int]] = []
    for one in reversed(listed[1:]):
        if not kept or one[2] < kept[-1][2]:
            kept.append(one)
    return [*listed[:1], *reversed(kept)]


def _text(listed: list[list[int]]) -> str:
    return json.dumps(listed)
