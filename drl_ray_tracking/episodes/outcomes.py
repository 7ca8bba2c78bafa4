"""OutcomeStats: return, length and ending of episodes, for any environment."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from drl_ray_tracking.episodes.kpis import KpiTable, Undefined
from drl_ray_tracking.episodes.moments import Moments
from drl_ray_tracking.episodes.record import EpisodeRecord
from drl_ray_tracking.episodes.sketch import QuantileSketch


@dataclass(frozen=True, slots=True)
class OutcomeStats:
    """Statistics over episodes; a commutative monoid. A return that is not finite is left out and counted."""

    count: int = 0
    terminated: int = 0
    truncated: int = 0
    returns: Moments = field(default_factory=Moments)
    return_sketch: QuantileSketch = field(default_factory=QuantileSketch)
    lengths: Moments = field(default_factory=Moments)
    length_sketch: QuantileSketch = field(default_factory=QuantileSketch)

    @classmethod
    def empty(cls) -> OutcomeStats:
        """Returns the identity of `merge`."""
        return cls()

    @classmethod
    def of(cls, record: EpisodeRecord) -> OutcomeStats:
        """Measures one episode."""
        finite = math.isfinite(record.episode_return)
        length = float(record.length)
        return cls(
            1,
            int(record.terminated),
            int(record.truncated),
            Moments.single(record.episode_return) if finite else Moments(),
            QuantileSketch.single(record.episode_return) if finite else QuantileSketch(),
            Moments.single(length),
            QuantileSketch.single(length),
        )

    def merge(self, other: OutcomeStats) -> OutcomeStats:
        """Returns the statistics of both sets of episodes together."""
        return OutcomeStats(
            self.count + other.count,
            self.terminated + other.terminated,
            self.truncated + other.truncated,
            self.returns.merge(other.returns),
            self.return_sketch.merge(other.return_sketch),
            self.lengths.merge(other.lengths),
            self.length_sketch.merge(other.length_sketch),
        )

    def describe(self, table: KpiTable) -> None:
        """Enters the KPIs of episodes."""
        table.put("episode/count", float(self.count))
        table.put("episode/terminated", float(self.terminated))
        table.put("episode/truncated", float(self.truncated))
        _describe_values("episode/return", self.returns, self.return_sketch, table)
        _describe_values("episode/length", self.lengths, self.length_sketch, table)
        table.count_undefined("episode/return", "non_finite", self.count - self.returns.n)


def _describe_values(key: str, moments: Moments, sketch: QuantileSketch, table: KpiTable) -> None:
    none = Undefined("no_episodes")
    table.put(f"{key}_mean", moments.mean if moments.n else none)
    table.put(f"{key}_sd", Undefined("too_few_episodes") if moments.n < 2 else moments.sd)
    table.put(f"{key}_min", moments.min if moments.n else none)
    table.put(f"{key}_max", moments.max if moments.n else none)
    for percent in (5, 50, 95):
        table.put(f"{key}_p{percent:02d}", sketch.quantile(percent / 100.0) if moments.n else none)
