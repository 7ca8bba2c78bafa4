"""EpisodeSummary: everything measured of a set of episodes, as one mergeable value of bounded size.

Merging sums floats, so its last bits depend on the order. `merge_all` therefore merges in the order of the
episodes' content: for any distribution of the same episodes over workers, vector slots and messages the
KPIs are the same bit for bit. Content is stronger than an episode id, which differs from run to run:
two equal episodes have equal summaries, so it does not matter which of them comes first.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from drl_ray_tracking.episodes.actions import ActionStats
from drl_ray_tracking.episodes.custom import CustomState
from drl_ray_tracking.episodes.equity_path import EquityPath
from drl_ray_tracking.episodes.kpis import NOT_REPORTED, KpiTable
from drl_ray_tracking.episodes.metric import EpisodeMetric
from drl_ray_tracking.episodes.outcomes import OutcomeStats
from drl_ray_tracking.episodes.paths import PathStats
from drl_ray_tracking.episodes.record import EpisodeRecord, trips_on_path
from drl_ray_tracking.episodes.returns import ReturnStats
from drl_ray_tracking.episodes.rewards import RewardStats
from drl_ray_tracking.episodes.symbols import SymbolStats, SymbolTable
from drl_ray_tracking.episodes.trades import TRADE_KPIS, TradeStats

_KEY_BYTES = 16
_ARRAYS = ("actions", "equity", "position", "price", "fee", "slippage", "timestamp", "traded", "leverage")


class _Mergeable(Protocol):
    def merge(self, other: Self, /) -> Self: ...


_M = TypeVar("_M", bound=_Mergeable)


@dataclass(frozen=True, slots=True, eq=False)
class EpisodeSummary:
    """Statistics of a set of episodes; a commutative monoid with `empty`, `of`, `merge`, `compute`.

    The trading parts are None until an episode had equity; the trades are None until some were known.

    Attributes:
        order_key: 16 bytes; of one episode the BLAKE2b digest of its raw content, of several the sum of
            theirs modulo 2^128, of none zero.
    """

    order_key: bytes = bytes(_KEY_BYTES)
    outcomes: OutcomeStats = field(default_factory=OutcomeStats)
    actions: ActionStats = field(default_factory=ActionStats)
    rewards: RewardStats = field(default_factory=RewardStats)
    returns: ReturnStats | None = None
    paths: PathStats | None = None
    trades: TradeStats | None = None
    symbols: SymbolTable = field(default_factory=SymbolTable)
    custom: Mapping[str, CustomState] = field(default_factory=dict)

    @classmethod
    def empty(cls, metrics: Sequence[EpisodeMetric[Any]] = ()) -> EpisodeSummary:
        """Returns the summary of no episode, the identity of `merge`."""
        return cls(custom={metric.name: CustomState.empty(metric) for metric in metrics})

    @classmethod
    def of(cls, record: EpisodeRecord, metrics: Sequence[EpisodeMetric[Any]] = ()) -> EpisodeSummary:
        """Measures one episode. O(T), vectorised; never raises for a valid record."""
        with np.errstate(all="ignore"):
            summary = cls(
                order_key=_digest(record),
                outcomes=OutcomeStats.of(record),
                actions=ActionStats.of(record),
                rewards=RewardStats.of(record),
            )
            if record.equity is not None:
                summary = _with_trading(summary, record, record.equity)
        if not metrics:
            return summary
        return replace(summary, custom={metric.name: CustomState.of(metric, record) for metric in metrics})

    @property
    def count(self) -> int:
        """How many episodes were merged."""
        return self.outcomes.count

    def merge(self, other: EpisodeSummary) -> EpisodeSummary:
        """Returns the summary of both sets of episodes together.

        In any order the result is the same to about 1e-9 on return-scale data; `merge_all` gives the same
        bits.
        """
        with np.errstate(all="ignore"):
            return EpisodeSummary(
                _add_keys(self.order_key, other.order_key),
                self.outcomes.merge(other.outcomes),
                self.actions.merge(other.actions),
                self.rewards.merge(other.rewards),
                _merge_known(self.returns, other.returns),
                _merge_known(self.paths, other.paths),
                _merge_known(self.trades, other.trades),
                self.symbols.merge(other.symbols),
                _merge_custom(self.custom, other.custom),
            )

    def compute(self) -> dict[str, float]:
        """Returns all KPIs under flat, slash separated keys.

        Every value is finite. What is undefined is absent and counted as `undefined/<kpi>/<reason>`.
        Trading KPIs only exist if some episode had equity.
        """
        table = KpiTable()
        with np.errstate(all="ignore"):
            self.outcomes.describe(table)
            if self.returns is not None and self.paths is not None:
                self.returns.describe(table)
                self.paths.describe(table)
                if self.trades is not None:
                    self.trades.describe(table)
                else:
                    for name in TRADE_KPIS:
                        table.put(f"trading/{name}", NOT_REPORTED)
            self.symbols.describe(table)
            self.actions.describe(table)
            self.rewards.describe(table)
        for name in sorted(self.custom):
            self.custom[name].describe(name, table)
        return table.values


def merge_all(summaries: Iterable[EpisodeSummary]) -> EpisodeSummary:
    """Merges summaries of one episode each in canonical order, of their content.

    The same episodes give the same bits, however they were distributed and in whatever order they arrive.
    This holds for summaries straight from `of`: one that was merged before has fixed its order.
    """
    ordered = sorted(summaries, key=lambda summary: summary.order_key)
    return functools.reduce(EpisodeSummary.merge, ordered) if ordered else EpisodeSummary.empty()


def _with_trading(summary: EpisodeSummary, record: EpisodeRecord, equity: np.ndarray) -> EpisodeSummary:
    path = EquityPath.of(equity)
    bars = ReturnStats.of(record, path)
    paths = PathStats.of(record, path)
    trades = None
    if record.trades is not None:
        trades = TradeStats.of(record.trades)
    elif record.position is not None:
        trades = TradeStats.of_round_trips(trips_on_path(path, record.position, record.fee, record.slippage))
    symbols = SymbolTable.of(record, SymbolStats.of(bars, paths, trades))
    return replace(summary, returns=bars, paths=paths, trades=trades, symbols=symbols)


def _digest(record: EpisodeRecord) -> bytes:
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    digest.update(
        repr(
            (
                record.episode_return,
                record.length,
                record.terminated,
                record.truncated,
                sorted(record.labels.items()),
                sorted(record.reward_components.items()),
                record.trades,
                record.conventions,
            )
        ).encode()
    )
    for name in _ARRAYS:
        array = getattr(record, name)
        if array is not None:
            digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
            digest.update(array.tobytes())
    return digest.digest()


def _add_keys(a: bytes, b: bytes) -> bytes:
    total = int.from_bytes(a) + int.from_bytes(b)
    return (total % (1 << 8 * _KEY_BYTES)).to_bytes(_KEY_BYTES)


def _merge_known(a: _M | None, b: _M | None) -> _M | None:
    if a is None or b is None:
        return b if a is None else a
    return a.merge(b)


def _merge_custom(a: Mapping[str, CustomState], b: Mapping[str, CustomState]) -> dict[str, CustomState]:
    if not a and not b:
        return {}
    names = sorted({*a, *b})
    return {name: a[name].merge(b[name]) if name in a and name in b else (a.get(name) or b[name]) for name in names}
