"""Files of a run's points: the sealed one that the tracker uploads, and copies of what a server answered."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from drl_ray_tracking.analysis.histories import History
from drl_ray_tracking.analysis.run_cache import Latest
from drl_ray_tracking.trials.sealed import COLUMNS, Seal


def sealed_points(run_id: str, content: bytes, seal: Seal, latest: Mapping[str, Latest]) -> dict[str, History] | None:
    """Returns a run's points by metric out of its sealed file; None where that does not hold all of them.

    Args:
        run_id: the run.
        content: the file.
        seal: what the run's tag says of it.
        latest: the latest point of every metric of the run, as the store names it now.
    """
    if hashlib.sha256(content).hexdigest() != seal.sha256:
        return None
    found = points_by_metric(run_id, content)
    if found is None or sum(len(history.step) for history in found.values()) != seal.points:
        return None
    whole = found.keys() == latest.keys() and all(_latest(found[metric]) == latest[metric] for metric in latest)
    return found if whole else None


def points_by_metric(run_id: str, content: bytes) -> dict[str, History] | None:
    """Returns the points of a file by metric; None where it is not such a file."""
    try:
        table = pq.ParquetFile(io.BytesIO(content), read_dictionary=[COLUMNS[0]]).read(use_threads=False)
        metric, step, value, time_ms = (table.column(name).combine_chunks() for name in COLUMNS)
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None
    if not len(table):
        return {}
    if isinstance(metric, pa.ChunkedArray):
        metric = metric.chunk(0)
    codes = metric.indices.to_numpy(zero_copy_only=False)
    edges = np.flatnonzero(np.diff(codes, prepend=-1, append=-1))
    texts = metric.dictionary.to_pylist()
    columns = [column.to_numpy(zero_copy_only=False) for column in (step, value, time_ms)]
    return {
        texts[codes[first]]: History(run_id, texts[codes[first]], *(column[first:last] for column in columns))
        for first, last in pairwise(edges)
    }


def as_file(histories: Sequence[History]) -> bytes:
    """Returns the points of one run as such a file."""
    metrics = pa.array([history.metric for history in histories], pa.string())
    sizes = [len(history.step) for history in histories]
    index = pa.array(np.repeat(np.arange(len(histories), dtype=np.int32), sizes))
    columns = [
        np.concatenate([getattr(history, name) for history in histories] or [np.empty(0)]).astype(kind)
        for name, kind in (("step", np.int64), ("value", np.float64), ("time_ms", np.int64))
    ]
    table = pa.table(dict(zip(COLUMNS, (pa.DictionaryArray.from_arrays(index, metrics), *columns), strict=True)))
    target = io.BytesIO()
    pq.write_table(table, target, compression="zstd")
    return target.getvalue()


def _latest(history: History) -> Latest:
    """Returns the point that a store calls the latest: of the highest step, then time, then value."""
    last = np.lexsort((history.value, history.time_ms, history.step))[-1]
    return int(history.step[last]), int(history.time_ms[last]), float(history.value[last])
