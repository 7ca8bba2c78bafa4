"""Runs users' metrics inside a summary so that a failing one costs its own KPI and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from drl_ray_tracking.episodes.kpis import KpiTable
from drl_ray_tracking.episodes.metric import EpisodeMetric
from drl_ray_tracking.episodes.record import EpisodeRecord


@dataclass(frozen=True, slots=True)
class CustomState:
    """One metric and its state.

    Attributes:
        known: whether `state` is one; False before the first episode that could be measured.
        errors: how often `empty`, `of` or `merge` raised.
        broken: a merge failed, so episodes are lost and no value would be right any more.
    """

    metric: EpisodeMetric[Any]
    state: Any = None
    known: bool = False
    errors: int = 0
    broken: bool = False

    @classmethod
    def empty(cls, metric: EpisodeMetric[Any]) -> CustomState:
        """Returns the identity of `merge` for this metric."""
        return cls(metric)

    @classmethod
    def of(cls, metric: EpisodeMetric[Any], record: EpisodeRecord) -> CustomState:
        """Measures one episode."""
        return cls._guarded(metric, 0, lambda: metric.of(record))

    def merge(self, other: CustomState) -> CustomState:
        """Merges two states of metrics of the same name."""
        errors = self.errors + other.errors
        if self.broken or other.broken:
            return CustomState(self.metric, None, False, errors, True)
        if not (self.known and other.known):
            held = self if self.known else other
            return CustomState(self.metric, held.state, held.known, errors)
        merged = self._guarded(self.metric, errors, lambda: self.metric.merge(self.state, other.state))
        return merged if merged.known else CustomState(self.metric, None, False, merged.errors, True)

    @classmethod
    def _guarded(cls, metric: EpisodeMetric[Any], errors: int, measure: Callable[[], Any]) -> CustomState:
        try:
            return cls(metric, measure(), True, errors)
        except Exception:  # noqa: BLE001 - a user's code may raise anything, and must not end the training
            return cls(metric, None, False, errors + 1)

    def describe(self, name: str, table: KpiTable) -> None:
        """Enters the metric's numbers; ours win where a key is taken, undefined or not, and what fails is counted."""
        errors = self.errors
        numbers: dict[str, float] = {}
        if self.known:
            try:
                numbers = {str(key): float(value) for key, value in self.metric.compute(self.state).items()}
            except Exception:  # noqa: BLE001 - as above
                errors += 1
        for key, value in numbers.items():
            if table.has(key):
                table.count_undefined(name, "name_taken")
            else:
                table.put(key, value)
        table.count_undefined(name, "error", errors)
