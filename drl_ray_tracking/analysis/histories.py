"""Histories of metrics as a table: which points count, and what the table looks like.

A trial that was resumed has points its later attempt took back: they stay in the store for ever, so every
reader has to leave them out. Pure of stores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

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
    """The points of one metric of one run as a store has them: (point,) arrays, in any order."""

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


def histories_frame(
    histories: Sequence[History], attempts: Mapping[str, Sequence[Attempt]] | None = None
) -> pd.DataFrame:
    """Returns the points that count as one long table, one a step: the last written.

    Args:
        histories: points as they are in a store, in any order, each run and metric at most once.
        attempts: of each run, what `parse_attempts` returned; a run that is not in it was never resumed.

    Returns:
        The columns `COLUMNS`, run and metric as categories, sorted by run (as given), metric and step. NaN and
        infinite values are NaN: undefined.
    """
    runs = list(dict.fromkeys(history.run_id for history in histories))
    metrics = sorted({history.metric for history in histories})
    run_code, metric_code = ({name: code for code, name in enumerate(found)} for found in (runs, metrics))
    sizes = [len(history.step) for history in histories]
    run = np.repeat(np.array([run_code[history.run_id] for history in histories], dtype=np.int32), sizes)
    metric = np.repeat(np.array([metric_code[history.metric] for history in histories], dtype=np.int32), sizes)
    step, time_ms = (_joined([history[index] for history in histories], np.int64) for index in (2, 4))
    value = _joined([history.value for history in histories], np.float64)
    value[~(np.abs(value) < _STORED_INFINITY)] = np.nan
    kept = np.ones(len(step), dtype=np.bool_)
    for run_id, own in (attempts or {}).items():
        if len(own) > 1 and run_id in run_code:
            mine = np.flatnonzero(run == run_code[run_id])
            kept[mine] = counted_points(step[mine], time_ms[mine], own)
    order = np.lexsort((time_ms[kept], step[kept], metric[kept], run[kept]))
    order = np.flatnonzero(kept)[order]
    place = np.stack([run[order], metric[order], step[order]])
    last = np.append(np.any(np.diff(place, axis=1) != 0, axis=0), True)[: len(order)]
    order = order[last]
    return pd.DataFrame(
        {
            "run_id": pd.Categorical.from_codes(run[order], categories=_texts(runs)),
            "metric": pd.Categorical.from_codes(metric[order], categories=_texts(metrics)),
            "step": step[order],
            "value": value[order],
            "time_ms": time_ms[order],
        }
    )


def typed_frame(points: pd.DataFrame, run_ids: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Returns a table of points with these runs and metrics as its categories; other runs' and metrics' rows go.

    Values that are not finite become NaN: undefined.
    """
    run, metric = _recoded(points["run_id"], run_ids), _recoded(points["metric"], metrics)
    frame = pd.DataFrame(
        {
            "run_id": run,
            "metric": metric,
            "step": points["step"].to_numpy(dtype=np.int64),
            "value": points["value"].where(np.isfinite(points["value"]), np.nan).to_numpy(dtype=np.float64),
            "time_ms": points["time_ms"].to_numpy(dtype=np.int64),
        }
    )
    known = (run.codes >= 0) & (metric.codes >= 0)
    return frame if known.all() else frame[known].reset_index(drop=True)


def _recoded(column: pd.Series[Any], categories: Sequence[str]) -> pd.Categorical[Any]:
    wanted = _texts(categories)
    if isinstance(column.dtype, pd.CategoricalDtype):
        return pd.Categorical(column.cat.set_categories(wanted))
    return pd.Categorical(column.astype("str"), categories=wanted)


def _texts(values: Sequence[str]) -> pd.Index[str]:
    return pd.Index(list(values), dtype="str")


def _joined(arrays: list[Any], kind: type) -> NDArray[Any]:
    return np.concatenate(arrays).astype(kind) if arrays else np.empty(0, dtype=kind)
