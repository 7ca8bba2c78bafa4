"""EpisodeMetric: how users add a KPI of their own, and the law test that shows theirs merges as ours do."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from drl_ray_tracking.episodes.record import EpisodeRecord

State = TypeVar("State")


class EpisodeMetric(Protocol[State]):
    """A KPI in four verbs. Keep sums and counts in the state and divide in `compute`, never before.

    States are values: `merge` returns a new one and changes neither argument. Metric and states are
    pickled: define the class in a module, not in a notebook cell or function. `merge` is associative and
    commutative with `empty()` as its identity; `check_metric_laws` tests that.
    """

    @property
    def name(self) -> str:
        """Unique name; failures are counted under `undefined/<name>/error`."""
        ...

    def empty(self) -> State:
        """Returns the state of no episode."""
        ...

    def of(self, record: EpisodeRecord) -> State:
        """Returns the state of one episode."""
        ...

    def merge(self, a: State, b: State) -> State:
        """Returns the state of both sets of episodes together."""
        ...

    def compute(self, state: State) -> Mapping[str, float]:
        """Returns finite numbers under flat, slash separated keys; leaves out what is undefined."""
        ...


def check_metric_laws(
    metric: EpisodeMetric[Any],
    records: Sequence[EpisodeRecord],
    rng: np.random.Generator,
    *,
    tolerance: float = 1e-9,
    repeats: int = 20,
) -> None:
    """Checks that a metric merges exactly: identity, associativity, commutativity, pickling, finite numbers.

    Numbers may differ by `tolerance * max(1, |a|, |b|)`. Give records as varied as yours are: a law only
    holds for what it was tried on.

    Raises:
        AssertionError: a law is broken; the message names the law and both results.
    """
    if len(records) < 3:
        raise AssertionError(f"check_metric_laws needs at least 3 records but got {len(records)}")
    if not isinstance(metric.name, str) or not metric.name:
        raise AssertionError(f"metric.name must be a non-empty string but is {metric.name!r}")

    def compare(law: str, left: Any, right: Any) -> None:
        a, b = _numbers(metric, left), _numbers(metric, right)
        same = a.keys() == b.keys() and all(
            abs(a[key] - b[key]) <= tolerance * max(1.0, abs(a[key]), abs(b[key])) for key in a
        )
        if not same:
            raise AssertionError(f"metric {metric.name!r} breaks {law}: {a} against {b}")

    _numbers(metric, metric.empty())
    for record in records:
        state = metric.of(record)
        compare("identity, merge(empty(), s) = s", metric.merge(metric.empty(), state), state)
        compare("identity, merge(s, empty()) = s", metric.merge(state, metric.empty()), state)
        compare("pickling", _pickled(metric, state), state)
    clone = _pickled(metric, metric)
    if clone.name != metric.name:
        raise AssertionError(f"metric {metric.name!r} breaks pickling: its copy is named {clone.name!r}")
    for _ in range(repeats):
        groups = _deal(metric, records, rng)
        a, b, c = groups
        before = _pickled(metric, a), _pickled(metric, b)
        compare("commutativity, merge(a, b) = merge(b, a)", metric.merge(a, b), metric.merge(b, a))
        compare("values: merge changed its first argument", before[0], a)
        compare("values: merge changed its second argument", before[1], b)
        compare(
            "associativity, merge(merge(a, b), c) = merge(a, merge(b, c))",
            metric.merge(metric.merge(a, b), c),
            metric.merge(a, metric.merge(b, c)),
        )


def _deal(metric: EpisodeMetric[Any], records: Sequence[EpisodeRecord], rng: np.random.Generator) -> list[Any]:
    """Deals the records, shuffled, into three non-empty groups of random size, merged."""
    order = rng.permutation(len(records))
    first, second = sorted(1 + rng.choice(len(records) - 1, size=2, replace=False))
    states = []
    for part in (order[:first], order[first:second], order[second:]):
        state = metric.of(records[part[0]])
        for i in part[1:]:
            state = metric.merge(state, metric.of(records[i]))
        states.append(state)
    return states


def _pickled(metric: EpisodeMetric[Any], value: Any) -> Any:
    try:
        return pickle.loads(pickle.dumps(value))
    except Exception as error:
        raise AssertionError(
            f"metric {metric.name!r} breaks pickling: {error}; define the metric and its states in a module"
        ) from error


def _numbers(metric: EpisodeMetric[Any], state: Any) -> dict[str, float]:
    numbers = dict(metric.compute(state))
    for key, value in numbers.items():
        if not isinstance(key, str):
            raise AssertionError(f"metric {metric.name!r} returns the key {key!r}: keys must be strings")
        if not math.isfinite(value):
            raise AssertionError(f"metric {metric.name!r} returns {key} = {value}: leave out what is undefined instead")
    return numbers
