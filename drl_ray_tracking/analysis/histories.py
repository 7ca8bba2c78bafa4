"""Histories of metrics as a table: which points count, and what the table looks like.

A trial that was resumed has points its later attempt took back: they stay in the store for ever, so every
reader has to leave them out. Pure of stores.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

COLUMNS: Final = ("run_id", "metric", "step", "value", "time_ms")

# MLflow stores an infinite value as the largest double.
_STORED_INFINITY: Final = np.finfo(np.float64).max


class Attempt(NamedTuple):
    """One start of a trial: its number, when it began and the env steps it resumed from (0: afresh)."""

    number: int
    started_ms: int
    resumed_step: int


class History(NamedTuple):
    """The points of one metric of one run: (point,) arrays, steps strictly increasing."""

    run_id: str
    metric: str
    step: NDArray[np.int64]
    value: NDArray[np.float64]
    time_ms: NDArray[np.int64]


def parse_attempts(tag: str | None) -> tuple[Attempt, ...]:
    """Returns the attempts a run's tag names, by number; none for a run without the tag.

    Raises:
        ValueError: the tag is not a JSON list of [number, started_ms, resumed_step].
    """
    if not tag:
        return ()
    try:
        return tuple(sorted(Attempt(*(int(part) for part in entry)) for entry in json.loads(tag)))
    except TypeError as error:
        raise ValueError(f"not a list of [number, started_ms, resumed_step]: {tag[:80]!r}") from error


def counted_points(
    steps: NDArray[np.int64], times_ms: NDArray[np.int64], attempts: Sequence[Attempt]
) -> NDArray[np.bool_]:
    """Returns which points still count: those no later attempt resumed before.

    A point belongs to the last attempt that had started when it was written; it is superseded once a later
    attempt resumes from fewer env steps.

    Args:
        steps: (point,) env steps.
        times_ms: (point,) epoch milliseconds.
        attempts: in the order they were made.
    """
    if len(attempts) < 2:
        return np.ones(len(steps), dtype=np.bool_)
    # A clock set back between attempts must not send points to the attempt after next.
    started = np.maximum.accumulate([attempt.started_ms for attempt in attempts])
    resumed = np.array([attempt.resumed_step for attempt in attempts], dtype=np.float64)
    limits = np.append(np.minimum.accumulate(resumed[:0:-1])[::-1], np.inf)
    owner = np.maximum(np.searchsorted(started, times_ms, side="right") - 1, 0)
    return np.asarray(steps <= limits[owner], dtype=np.bool_)


def clean_history(
    run_id: str,
    metric: str,
    points: Iterable[tuple[int, float, int]],
    attempts: Sequence[Attempt] = (),
) -> History:
    """Returns the points that count, one a step (the last written), in the order of steps.

    Args:
        points: (step, value, time_ms) in any order.
        attempts: what `parse_attempts` returned. NaN and infinite values become NaN: undefined.
    """
    rows = list(points)
    step = np.array([row[0] for row in rows], dtype=np.int64)
    value = np.array([row[1] for row in rows], dtype=np.float64)
    time_ms = np.array([row[2] for row in rows], dtype=np.int64)
    value[~(np.abs(value) < _STORED_INFINITY)] = np.nan
    order = np.lexsort((time_ms, step))
    order = order[counted_points(step[order], time_ms[order], attempts)]
    last = np.append(np.diff(step[order]) != 0, True)[: len(order)]
    order = order[last]
    return History(run_id, metric, step[order], value[order], time_ms[order])


def histories_frame(histories: Sequence[History]) -> pd.DataFrame:
    """Returns one long table with the columns `COLUMNS`, sorted by run, metric and step."""
    ordered = sorted(histories, key=lambda history: (history.run_id, history.metric))
    sizes = [len(history.step) for history in ordered]

    def joined(arrays: list[NDArray[np.int64]] | list[NDArray[np.float64]], kind: type) -> NDArray[np.generic]:
        return np.concatenate(arrays) if arrays else np.empty(0, dtype=kind)

    return pd.DataFrame(
        {
            "run_id": pd.Series(np.repeat([history.run_id for history in ordered], sizes), dtype="str"),
            "metric": pd.Series(np.repeat([history.metric for history in ordered], sizes), dtype="str"),
            "step": joined([history.step for history in ordered], np.int64),
            "value": joined([history.value for history in ordered], np.float64),
            "time_ms": joined([history.time_ms for history in ordered], np.int64),
        }
    )
