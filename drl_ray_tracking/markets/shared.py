"""Market segments in Ray's object store: each is there once, and every trial and env runner reads it in place.

A trial's configuration holds a `SharedSegment`: a name and labels. Without it Tune would copy every bar into each
trial's configuration, into its state on the storage, and into the arguments of every actor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from drl_ray_tracking.errors import DataError
from drl_ray_tracking.markets.datasets import MarketSegment

_NAMESPACE: Final = b"drl_ray_tracking"
_PREFIX: Final = "segment:"
_opened: dict[str, MarketSegment] = {}  # this process's views
_kept: dict[bytes, Any] = {}  # the driver's references: what nobody refers to is evicted


@dataclass(frozen=True, eq=False, repr=False)
class SharedSegment:
    """Stands for a `MarketSegment` that lies in the object store.

    Attributes:
        key: of its contents: equal contents are one segment.
        symbol, split, fold: of the segment.
        bars: its closes.
        tags: what identifies the data and the agent, for the run of the trial that trains on it.
    """

    key: str
    symbol: str
    split: str
    fold: str
    bars: int
    tags: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.bars

    def __repr__(self) -> str:
        # Tune writes the repr of an env config into result files: it must stay one short line.
        return f"SharedSegment({self.symbol}, {self.split}, fold={self.fold}, bars={self.bars}, key={self.key[:12]})"

    def open(self) -> MarketSegment:
        """Returns the segment; its arrays are views of the object store, not copies.

        Raises:
            DataError: it is not in the object store of this Ray.
        """
        if self.key not in _opened:
            import ray
            from ray import cloudpickle
            from ray.experimental.internal_kv import _internal_kv_get

            held = _internal_kv_get(_name(self.key), namespace=_NAMESPACE) if ray.is_initialized() else None
            if held is None:
                raise DataError(
                    f"the bars of {self!r} are not in the object store: this Ray was not given them. A sweep that is "
                    "taken up again needs its driver to share its data first"
                )
            _opened[self.key] = ray.get(cloudpickle.loads(held))
        return _opened[self.key]


Segment = MarketSegment | SharedSegment


def share(segment: MarketSegment, tags: Mapping[str, str]) -> SharedSegment:
    """Puts a segment into the object store, once for each content, and returns what stands for it.

    Args:
        segment: the bars; Ray must be running.
        tags: travel along, see `SharedSegment`.
    """
    import ray
    from ray import cloudpickle
    from ray.experimental.internal_kv import _internal_kv_put

    key = _digest(segment)
    name = _name(key)
    if name not in _kept or not _is_held(name):
        _kept[name] = ray.put(segment)
        pickled: bytes = cloudpickle.dumps(_kept[name])  # type: ignore[no-untyped-call]
        _internal_kv_put(name, pickled, overwrite=True, namespace=_NAMESPACE)
    _opened[key] = segment
    return SharedSegment(key, segment.symbol, segment.split, segment.fold, len(segment), dict(tags))


def opened(segments: Sequence[Any]) -> tuple[Any, ...]:
    """Returns segments with those in the object store opened, the others as they are."""
    return tuple(one.open() if isinstance(one, SharedSegment) else one for one in segments)


def _name(key: str) -> bytes:
    """Returns what a segment of this job is found by: an object ends with the driver that put it there."""
    import ray

    return f"{_PREFIX}{ray.get_runtime_context().get_job_id()}:{key}".encode()


def _is_held(name: bytes) -> bool:
    from ray.experimental.internal_kv import _internal_kv_get

    return _internal_kv_get(name, namespace=_NAMESPACE) is not None


def _digest(segment: MarketSegment) -> str:
    labels = f"{segment.symbol}|{segment.split}|{segment.fold}|{segment.periods_per_year!r}"
    hashed = hashlib.sha256(labels.encode())
    for array in (segment.timestamp, segment.price, segment.features):
        hashed.update(str(array.shape).encode())
        hashed.update(array.tobytes())
    return hashed.hexdigest()
