"""Tags that grow over the drivers of a sweep: attempts and lineage, as JSON lists that are merged, never replaced."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from drl_ray_tracking import names

_LINEAGE_LIMIT: Final = 7_500  # characters; a longer tag would be cut into something that is no JSON


def merged_lineage(tag: str, entry: list[Any]) -> str:
    """Returns the lineage tag with one more entry, in order of time, the oldest left out where it gets too long."""
    try:
        known = {int(old[0]): old for old in json.loads(tag)}
    except (ValueError, TypeError, LookupError):  # somebody edited the tag
        known = {}
    merged = [one for _, one in sorted({**known, int(entry[0]): entry}.items())]
    while len(text := json.dumps(merged)) > _LINEAGE_LIMIT and len(merged) > 1:
        del merged[0]
    return text


def merged_attempts(tags: Mapping[str, str], attempt: Mapping[int, int]) -> dict[str, str]:
    """Returns the tag that lists every attempt as [number, started_ms, resumed_step], earlier drivers' included.

    Args:
        tags: of the run, as they are now.
        attempt: when it started (Unix ms) -> the step it resumed from; empty for a run without attempts.
    """
    if not attempt:
        return {}
    try:
        known = {int(started): int(step) for _, started, step in json.loads(tags.get(names.TAG_ATTEMPTS, "[]"))}
    except (ValueError, TypeError):  # somebody edited the tag
        known = {}
    merged = sorted({**known, **attempt}.items())
    return {names.TAG_ATTEMPTS: json.dumps([[number, *pair] for number, pair in enumerate(merged, start=1)])}
