"""ActionStats: the action mix, as counts per discrete action or moments per continuous dimension."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np

from drl_ray_tracking.episodes.kpis import KpiTable, Undefined
from drl_ray_tracking.episodes.moments import Moments
from drl_ray_tracking.episodes.record import EpisodeRecord

MAX_ACTIONS = 64


@dataclass(frozen=True, slots=True)
class ActionStats:
    """What was done; a commutative monoid of at most 64 actions or dimensions.

    Attributes:
        counts: how often each discrete action 0..63 was taken.
        other: steps with an action outside 0..63; they count in the shares' denominator.
        dimensions: moments of each continuous dimension, actions that are not finite left out.
        non_finite: continuous numbers left out.
        hidden_dimensions: the most dimensions beyond 64 that any episode had.
    """

    counts: tuple[int, ...] = ()
    other: int = 0
    dimensions: tuple[Moments, ...] = ()
    non_finite: int = 0
    hidden_dimensions: int = field(default=0)

    @classmethod
    def empty(cls) -> ActionStats:
        """Returns the identity of `merge`."""
        return cls()

    @classmethod
    def of(cls, record: EpisodeRecord) -> ActionStats:
        """Measures one episode's actions."""
        actions = record.actions
        if actions is None or actions.size == 0:
            return cls()
        if actions.ndim == 1:
            shown = actions[(actions >= 0) & (actions < MAX_ACTIONS)]
            return cls(tuple(np.bincount(shown).tolist()), actions.size - shown.size)
        columns = np.ascontiguousarray(actions[:, :MAX_ACTIONS].T)
        finite = np.isfinite(columns)
        if finite.all():
            moments = tuple(Moments.of(column) for column in columns)
        else:
            moments = tuple(Moments.of(column[kept]) for column, kept in zip(columns, finite, strict=True))
        return cls(
            dimensions=moments,
            non_finite=int(finite.size - np.count_nonzero(finite)),
            hidden_dimensions=max(actions.shape[1] - MAX_ACTIONS, 0),
        )

    def merge(self, other: ActionStats) -> ActionStats:
        """Returns the mix of both sets of steps together."""
        return ActionStats(
            tuple(a + b for a, b in zip_longest(self.counts, other.counts, fillvalue=0)),
            self.other + other.other,
            tuple(a.merge(b) for a, b in zip_longest(self.dimensions, other.dimensions, fillvalue=Moments())),
            self.non_finite + other.non_finite,
            max(self.hidden_dimensions, other.hidden_dimensions),
        )

    def describe(self, table: KpiTable) -> None:
        """Enters shares, or means and standard deviations."""
        total = sum(self.counts) + self.other
        for action, count in enumerate(self.counts):
            table.put(f"action/{action}_share", count / total)
        table.count_undefined("action", "beyond_64", self.other)
        for i, moments in enumerate(self.dimensions):
            table.put(f"action/{i}_mean", moments.mean if moments.n else Undefined("no_finite_action"))
            table.put(f"action/{i}_sd", moments.sd)
        table.count_undefined("action", "non_finite", self.non_finite)
        table.count_undefined("action", "dimensions_beyond_64", self.hidden_dimensions)
