"""RewardStats: mean per episode of the reward components the environment reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from drl_ray_tracking.episodes.bounded import merge_tables, warn_overflow
from drl_ray_tracking.episodes.kpis import KpiTable
from drl_ray_tracking.episodes.record import EpisodeRecord

MAX_COMPONENTS = 64


@dataclass(frozen=True, slots=True)
class RewardStats:
    """Sum and count of episodes per component; a commutative monoid of at most 64 components.

    Attributes:
        sums: component -> (sum over episodes, episodes that report it).
        reported: all (episode, component) pairs with a finite value, shown or not.
        non_finite: pairs left out.
    """

    sums: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    reported: int = 0
    non_finite: int = 0

    @classmethod
    def empty(cls) -> RewardStats:
        """Returns the identity of `merge`."""
        return cls()

    @classmethod
    def of(cls, record: EpisodeRecord) -> RewardStats:
        """Measures one episode."""
        if not record.reward_components:
            return cls()
        finite = {name: (value, 1) for name, value in record.reward_components.items() if math.isfinite(value)}
        return cls(
            merge_tables(finite, {}, _add, MAX_COMPONENTS),
            len(finite),
            len(record.reward_components) - len(finite),
        )

    def merge(self, other: RewardStats) -> RewardStats:
        """Returns the sums of both sets of episodes together."""
        return RewardStats(
            merge_tables(self.sums, other.sums, _add, MAX_COMPONENTS),
            self.reported + other.reported,
            self.non_finite + other.non_finite,
        )

    def describe(self, table: KpiTable) -> None:
        """Enters the mean of each component over the episodes that report it."""
        for name, (total, count) in self.sums.items():
            table.put(f"reward/{name}_mean", total / count)
        hidden = self.reported - sum(count for _, count in self.sums.values())
        if hidden:
            warn_overflow("reward", MAX_COMPONENTS)
        table.count_undefined("reward", "overflow", hidden)
        table.count_undefined("reward", "non_finite", self.non_finite)


def _add(a: tuple[float, int], b: tuple[float, int]) -> tuple[float, int]:
    return a[0] + b[0], a[1] + b[1]
