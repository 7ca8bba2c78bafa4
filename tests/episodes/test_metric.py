"""The protocol for users' metrics: the law test finds what is broken, a summary survives it."""

import dataclasses

import numpy as np
import pytest

from drl_ray_tracking.episodes import EpisodeRecord, EpisodeSummary
from drl_ray_tracking.episodes.metric import check_metric_laws
from drl_ray_tracking.episodes.summary import merge_all
from drl_ray_tracking.episodes.under_water import TimeUnderWater

from .samples import trading_record


@dataclasses.dataclass(frozen=True)
class MeanOfMeans(TimeUnderWater):
    """Divides before it merges."""

    def of(self, record):
        under, bars = super().of(record)
        return under / bars, 1

    def merge(self, a, b):
        if not a[1] or not b[1]:
            return a if a[1] else b
        return (a[0] + b[0]) / 2, 1

    def compute(self, state):
        return {"mean": state[0]} if state[1] else {}


class Last(TimeUnderWater):
    """Is not commutative."""

    def merge(self, a, b):
        return b if b[1] else a


class Mutating(TimeUnderWater):
    """Merges in place."""

    def empty(self):
        return [0, 0]

    def of(self, record):
        return list(super().of(record))

    def merge(self, a, b):
        a[0] += b[0]
        a[1] += b[1]
        return a


class Shouting(TimeUnderWater):
    """Returns a number that is none."""

    def compute(self, state):
        return {"x": float("nan")}


class Unpicklable(TimeUnderWater):
    def of(self, record):
        return lambda: 0, 1

    def merge(self, a, b):
        return a if callable(a[0]) else b

    def compute(self, state):
        return {}


class Raises(TimeUnderWater):
    """Fails in the verb it is told to."""

    verb = "of"

    def of(self, record):
        return self.fail("of") or super().of(record)

    def merge(self, a, b):
        return self.fail("merge") or super().merge(a, b)

    def compute(self, state):
        return self.fail("compute") or super().compute(state)

    def fail(self, verb):
        if verb == type(self).verb:
            raise RuntimeError("broken on purpose")


class RaisesInMerge(Raises):
    verb = "merge"


class RaisesInCompute(Raises):
    verb = "compute"


@pytest.fixture
def records():
    rng = np.random.default_rng(0)
    return [trading_record(rng, int(length)) for length in rng.integers(5, 60, 12)]


def test_the_example_obeys_the_laws(records):
    check_metric_laws(TimeUnderWater(), records, np.random.default_rng(1))


@pytest.mark.parametrize(
    ("metric", "law"),
    [
        (MeanOfMeans(), "associativity"),
        (Last(), "commutativity"),
        (Mutating(), "merge changed|commutativity"),
        (Shouting(), "leave out what is undefined"),
        (TimeUnderWater(name=""), "name"),
    ],
)
def test_a_broken_metric_is_found_out(metric, law, records):
    with pytest.raises(AssertionError, match=law):
        check_metric_laws(metric, records, np.random.default_rng(1))


def test_a_state_that_cannot_be_pickled_is_found_out(records):
    with pytest.raises(AssertionError, match="pickl"):
        check_metric_laws(Unpicklable(), records, np.random.default_rng(1))


def test_a_metric_reaches_the_kpis_whatever_the_distribution(records):
    metrics = (TimeUnderWater(),)
    parts = [EpisodeSummary.of(record, metrics) for record in records]
    merged = merge_all([EpisodeSummary.empty(metrics), *parts])
    states = [TimeUnderWater().of(record) for record in records]
    expected = sum(s[0] for s in states) / sum(s[1] for s in states)
    assert merged.compute()["trading/time_under_water"] == expected


class Usurper(TimeUnderWater):
    """Gives numbers of its own under names of ours."""

    def compute(self, state):
        return {"trading/sharpe": 99.0, "trading/time_under_water": 1.0}


def test_a_name_of_ours_is_taken_even_where_ours_is_undefined():
    flat = EpisodeRecord(0.0, 3, equity=[100.0] * 4)
    kpis = EpisodeSummary.of(flat, (Usurper(),)).compute()
    assert "trading/sharpe" not in kpis
    assert kpis["undefined/trading/sharpe/zero_variance"] == 1.0
    assert kpis["undefined/time_under_water/name_taken"] == 1.0
    assert kpis["trading/time_under_water"] == 1.0


@pytest.mark.parametrize(("metric", "errors"), [(Raises(), 12), (RaisesInMerge(), 1), (RaisesInCompute(), 1)])
def test_a_failing_metric_costs_only_its_own_kpi(metric, errors, records):
    kpis = merge_all(EpisodeSummary.of(record, (metric,)) for record in records).compute()
    assert kpis.pop("undefined/time_under_water/error") == errors
    assert kpis == merge_all(EpisodeSummary.of(record) for record in records).compute()
